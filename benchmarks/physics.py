"""How many environment steps per second each engine takes, through the whole environment stack.

    python -m benchmarks.physics
    python -m benchmarks.physics --batches 256 1024 4096 16384 --engines mjx warp --steps 100   # on a GPU

Everything is measured side by side: in each of `repeats` rounds every engine runs once, next to the bare C engine
(`mujoco.batch.Batch.step` with random controls and nothing else), and a ratio is the median of the rounds'.
"""

import importlib.util
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import mujoco
import numpy as np
import tyro
from mujoco.batch import Batch

import envs
from benchmarks.provenance import provenance
from envs.benchmarks import BENCHMARKS as TABLE
from envs.physics import models
from envs.physics.dynamics import with_derived

BENCHMARKS = {
    "half_cheetah": "cheetah_vel",
    "ant": "ant_goal",
    "walker2d": "walker_rand_params",  # every lane with a model of its own
    "hopper": "hopper_mass",
    "humanoid": "humanoid_dir",
}
FALLEN_AFTER = 25
"""Control steps after which a body that would have fallen is put back up in the bare engine, as the stack does."""
SLOW_ON_CPU = ("mjx", "warp")


@dataclass(frozen=True)
class Config:
    """What to measure."""

    bodies: tuple[str, ...] = tuple(BENCHMARKS)
    """Of half_cheetah, ant, walker2d, hopper and humanoid."""
    engines: tuple[str, ...] = ("native", "mjx", "warp")
    """Engines; warp is skipped where it is not installed."""
    variants: tuple[str, ...] = ("fast", "reference")
    """Model variants: fast, and the file as shipped."""
    batches: tuple[int, ...] = (256, 512)
    """Environments stepped together; mjx and warp take the first alone on a CPU, where they are slow."""
    steps: int = 100
    """Control steps per measurement; a twentieth for mjx and warp on a CPU, where they are slow."""
    repeats: int = 5
    """Rounds; the median counts."""
    out: Path = Path("benchmarks/results")
    """Folder of the JSON file."""


def stack(engine: str, body: str, variant: str, batch: int, steps: int) -> Callable[[], None]:
    """`steps` control steps of `batch` environments, observation to auto-reset, as one jitted scan; compiled."""
    env = envs.make(BENCHMARKS[body], engine, variant)
    tasks = env.sample_tasks(jax.random.key(0), "train", batch)
    state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), batch), tasks)
    shape = (steps, batch, env.spec.action_size)
    actions = jax.random.uniform(jax.random.key(2), shape, minval=-1.0, maxval=1.0)

    def body_fn(state, action):
        after = jax.vmap(env.step)(state, action)
        return after, after.reward

    compiled = jax.jit(lambda s, a: jax.lax.scan(body_fn, s, a)).lower(state, actions).compile()
    return lambda: jax.block_until_ready(compiled(state, actions))


def bare(body: str, variant: str, batch: int, steps: int) -> Callable[[], None]:
    """The C engine alone: `steps` control steps of `batch` simulations, and models, on all CPUs."""
    row = TABLE[BENCHMARKS[body]]()
    robot = row.body
    model = models.load(robot.file, variant, robot.timestep)
    engine = Batch(model, batch)
    for name in with_derived(row.dynamics.names) if row.dynamics else ():
        engine.expand(name)
    rng = np.random.default_rng(0)
    qpos = model.qpos0 + rng.uniform(-0.1, 0.1, (batch, model.nq))
    low, high = model.actuator_ctrlrange.T
    controls = rng.uniform(low, high, (steps, batch, model.nu))

    def run() -> None:
        ctrl = engine.bind("ctrl")
        for step, control in enumerate(controls):
            if step == 0 or (robot.healthy and step % FALLEN_AFTER == 0):
                engine.qpos, engine.qvel, engine.qacc_warmstart = qpos, 0.0, 0.0
            ctrl[:] = control
            engine.step(nstep=robot.frame_skip)

    return run


def seconds(run: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(config: Config, body: str, variant: str, batch: int) -> list[dict]:
    """One row per engine, and one for the bare C engine."""
    runs, num_steps, compile_s = (
        {"bare": bare(body, variant, batch, config.steps)},
        {"bare": config.steps},
        {"bare": 0.0},
    )
    for engine in config.engines:
        slow = engine in SLOW_ON_CPU and jax.default_backend() == "cpu"
        missing = engine == "warp" and importlib.util.find_spec("warp") is None
        if missing or (slow and batch != config.batches[0]):
            continue
        num_steps[engine] = max(1, config.steps // 20) if slow else config.steps
        start = time.perf_counter()
        runs[engine] = stack(engine, body, variant, batch, num_steps[engine])
        compile_s[engine] = time.perf_counter() - start
    for run in runs.values():
        run()
    rounds = [
        {name: batch * num_steps[name] / seconds(run) for name, run in runs.items()} for _ in range(config.repeats)
    ]
    return [
        {
            "body": body,
            "variant": variant,
            "engine": name,
            "batch": batch,
            "env_steps_per_s": statistics.median(r[name] for r in rounds),
            "ratio_to_bare": statistics.median(r[name] / r["bare"] for r in rounds),
            "compile_s": compile_s[name],
        }
        for name in runs
    ]


def main(config: Config) -> None:
    """Measure, print a table, write JSON."""
    info = provenance("benchmarks.physics")
    print(
        f"mujoco {mujoco.__version__}, {info['cpu']} x {info['cores']}, {info['device']}, load {info['load_average']}"
    )
    print(f"{'body':14}{'variant':11}{'engine':8}{'batch':>7}{'env steps/s':>13}{'of bare':>9}{'compile s':>11}")
    config.out.mkdir(parents=True, exist_ok=True)
    for body in config.bodies:
        rows = []
        for variant, batch in itertools.product(config.variants, config.batches):
            for row in measure(config, body, variant, batch):
                rows.append(row)
                print(
                    f"{body:14}{variant:11}{row['engine']:8}{batch:7d}{row['env_steps_per_s']:13.0f}"
                    f"{row['ratio_to_bare']:9.3f}{row['compile_s']:11.1f}",
                    flush=True,
                )
        path = config.out / f"physics_{jax.default_backend()}_{body}.json"
        path.write_text(json.dumps({"machine": info, "results": rows}, indent=2) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
