"""Where the time of a control step goes on the native engine, in milliseconds.

    python -m benchmarks.callback
    taskset -c 0 python -m benchmarks.callback --threads 1   # XLA on one CPU as well

Every stage plays the same control steps from the same states; in each of `repeats` rounds every stage runs once, and
the medians over rounds count. `engine`: the C engine alone, within a callback; `rows`: what the callback does beside it
in NumPy, if rows are float64 as the engine's: into its arrays, and results out of them; `float32`: what that takes
longer with rows of float32, as JAX has them; `callback`: entering and leaving a callback that does nothing, from a
scan, with arrays of these sizes; `physics`: all of it and XLA's packing, in a scan; `stack`: the whole environment.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.physics import BENCHMARKS, TABLE, stack
from benchmarks.programs import seconds
from benchmarks.provenance import provenance
from envs.errors import choose
from envs.physics import models, native
from envs.physics.dynamics import with_derived
from experiments import cli

STAGES = ("engine", "rows", "float32", "callback", "physics", "stack")


@dataclass(frozen=True)
class Config:
    """What to measure."""

    bodies: tuple[str, ...] = tuple(BENCHMARKS)
    """Of half_cheetah, ant, walker2d, hopper and humanoid."""
    batch: int = 512
    """Environments stepped together."""
    threads: tuple[int, ...] = (1, 2)
    """Threads of the engine; XLA has those of the process."""
    steps: int = 20
    """Control steps per measurement, few enough for bodies not to fall."""
    repeats: int = 9
    """Rounds; the median counts."""
    out: Path = Path("benchmarks/results")
    """Folder of the JSON file."""


class Call(NamedTuple):
    """What a callback was given."""

    pool: native._Pool
    rows: np.ndarray
    advance: Callable[[Any], None]


def in_a_scan(body: str, batch: int, threads: int, steps: int) -> tuple[Callable[[], Any], list[Call]]:
    """`steps` control steps of the engine as JAX sees it, compiled, and the callbacks of one run."""
    row = TABLE[BENCHMARKS[body]]()
    robot, varied = row.body, with_derived(row.dynamics.names) if row.dynamics else ()
    physics = native.make(models.load(robot.file, "fast", robot.timestep), varied, robot.derived, threads)
    keys = jax.random.split(jax.random.key(0), batch)
    state = jax.vmap(lambda key: physics.init(*robot.initial(physics, key)))(keys)
    low, high = jnp.asarray(physics.ctrl_range).T
    ctrls = jax.random.uniform(jax.random.key(1), (steps, batch, len(low)), minval=low, maxval=high)
    step = jax.vmap(lambda s, c: physics.step(s, c, robot.frame_skip))
    run = jax.jit(lambda s, c: jax.lax.scan(lambda s, c: (step(s, c), None), s, c)[0]).lower(state, ctrls).compile()
    calls: list[Call] = []
    advance = native._Pool._advance

    def noting(pool: native._Pool, rows: np.ndarray, then: Callable[[Any], None]) -> np.ndarray:
        calls.append(Call(pool, rows.copy(), then))
        return advance(pool, rows, then)

    with mock.patch.object(native._Pool, "_advance", noting):
        jax.block_until_ready(run(state, ctrls))
    return lambda: run(state, ctrls), calls


def replayed(calls: Sequence[Call]) -> tuple[float, float]:
    """Seconds that the callbacks take when called from Python, in all and in the engine."""
    inside = 0.0

    def timed(call: Call, batch: Any) -> None:
        nonlocal inside
        start = time.perf_counter()
        call.advance(batch)
        inside += time.perf_counter() - start

    start = time.perf_counter()
    for call in calls:
        call.pool._advance(call.rows, lambda batch, call=call: timed(call, batch))
    return time.perf_counter() - start, inside


def doing_nothing(calls: Sequence[Call], steps: int) -> Callable[[], Any]:
    """A scan of callbacks that take and give arrays of the sizes of `calls` and do nothing; compiled."""
    of_a_step = calls[: len(calls) // steps]
    results = [call.pool._advance(call.rows, call.advance) for call in of_a_step]
    shapes = [jax.ShapeDtypeStruct(result.shape, result.dtype) for result in results]
    given = [np.stack([call.rows for call in calls[i :: len(of_a_step)]]) for i in range(len(of_a_step))]

    def step(carry: jax.Array, rows: list[jax.Array]) -> tuple[jax.Array, None]:
        for row, result, shape in zip(rows, results, shapes, strict=True):
            # The carry keeps one callback from overtaking another.
            carry = jax.pure_callback(lambda *_, result=result: result, shape, row, carry)[0, 0]
        return carry, None

    run = jax.jit(lambda given: jax.lax.scan(step, jnp.zeros(()), given)[0])
    arrays = [jnp.asarray(x) for x in given]
    compiled = run.lower(arrays).compile()
    return lambda: compiled(arrays)


def measure(config: Config, body: str, threads: int) -> dict[str, Any]:
    """One row: milliseconds per control step of each stage."""
    physics, calls = in_a_scan(body, config.batch, threads, config.steps)
    double = [call._replace(rows=call.rows.astype(np.float64)) for call in calls]
    nothing = doing_nothing(calls, config.steps)
    with mock.patch.object(native, "num_cpus", lambda: threads):
        whole = stack("native", body, "fast", config.batch, config.steps)

    def one_round() -> dict[str, float]:
        in_double, engine = replayed(double)
        in_single, engine_again = replayed(calls)
        return {
            "engine": engine,
            "rows": in_double - engine,
            "float32": (in_single - engine_again) - (in_double - engine),
            "callback": seconds(nothing),
            "physics": seconds(physics),
            "stack": seconds(whole),
        }

    one_round()
    rounds = [one_round() for _ in range(config.repeats)]
    found = {name: 1e3 / config.steps * statistics.median(r[name] for r in rounds) for name in STAGES}
    return {"body": body, "batch": config.batch, "threads": threads, "milliseconds": found}


def main(config: Config) -> None:
    """Measure, print a table, write JSON."""
    cli.check_counts(batch=config.batch, threads=config.threads, steps=config.steps, repeats=config.repeats)
    for body in config.bodies:
        choose("body", body, BENCHMARKS)
    info = provenance("benchmarks.callback")
    print(f"{info['cpu']} x {info['cores']}, load {info['load_average']}; ms per control step of {config.batch}")
    print(f"{'body':14}{'threads':>8}" + "".join(f"{name:>10}" for name in STAGES))
    rows = []
    for body in config.bodies:
        for threads in config.threads:
            rows.append(row := measure(config, body, threads))
            print(f"{body:14}{threads:8d}" + "".join(f"{x:10.2f}" for x in row["milliseconds"].values()), flush=True)
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / f"callback_{jax.default_backend()}.json"
    path.write_text(json.dumps({"machine": info, "results": rows}, indent=2) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(cli.command(Config, main))
