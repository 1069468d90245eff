"""How many environment steps per second each engine takes, through the whole environment stack.

    python -m benchmarks.physics
    python -m benchmarks.physics --batches 256 1024 4096 16384 --engines mjx warp warp_staged --max_bare 1024  # GPU

Everything is measured side by side: in each of `repeats` rounds every engine runs once, next to the bare C engine
(`mujoco.batch.Batch.step` with random controls and nothing else), and a ratio is the median of the rounds'. `diverged`
counts simulations that were put back, among them those that did not fit Warp's buffers: 0 means that none overflowed.
"""

import importlib.util
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco.batch import Batch

import envs
from benchmarks.programs import seconds
from benchmarks.provenance import provenance
from envs.benchmarks import BENCHMARKS as TABLE
from envs.errors import choose
from envs.physics import models
from envs.physics.dynamics import with_derived
from experiments import cli

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
    """Of native, mjx, warp and warp_staged; Warp is skipped where it is not installed, its graphs without a GPU."""
    variants: tuple[str, ...] = ("fast", "reference")
    """Model variants: fast, and the file as shipped."""
    batches: tuple[int, ...] = (256, 512)
    """Environments stepped together."""
    slow_batch: int = 256
    """The one batch of mjx and Warp on a CPU, where they are slow."""
    max_bare: int | None = None
    """Largest batch of the bare C engine, above which there are no ratios; None: all."""
    steps: int = 100
    """Control steps per measurement; a twentieth for mjx and Warp on a CPU."""
    repeats: int = 5
    """Rounds; the median counts."""
    out: Path = Path("benchmarks/results")
    """Folder of the JSON file."""


Run = Callable[[], int | None]
"""What is timed; gives how often a simulation diverged, where that is seen."""


def stack(engine: str, body: str, variant: str, batch: int, steps: int) -> Run:
    """`steps` control steps of `batch` environments, observation to auto-reset, as one jitted scan; compiled."""
    env = envs.make(BENCHMARKS[body], engine, variant)
    tasks = env.sample_tasks(jax.random.key(0), "train", batch)
    state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), batch), tasks)
    shape = (steps, batch, env.spec.action_size)
    actions = jax.random.uniform(jax.random.key(2), shape, minval=-1.0, maxval=1.0)

    def body_fn(state, action):
        after = jax.vmap(env.step)(state, action)
        return after, (after.reward, jnp.sum(after.metrics["diverged"]))

    compiled = jax.jit(lambda s, a: jax.lax.scan(body_fn, s, a)).lower(state, actions).compile()
    return lambda: int(jax.block_until_ready(compiled(state, actions))[1][1].sum())


def bare(body: str, variant: str, batch: int, steps: int) -> Run:
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


def measure(config: Config, body: str, variant: str, batch: int) -> list[dict[str, Any]]:
    """One row per engine, and one for the bare C engine."""
    on_cpu = jax.default_backend() == "cpu"
    runs: dict[str, Run] = {}
    num_steps, setup_s = {"bare": config.steps}, {"bare": 0.0}
    if config.max_bare is None or batch <= config.max_bare:
        runs["bare"] = bare(body, variant, batch, config.steps)
    for engine in config.engines:
        slow = engine in SLOW_ON_CPU and on_cpu
        missing = engine.startswith("warp") and importlib.util.find_spec("warp") is None
        missing |= engine == "warp_staged" and on_cpu
        if missing or batch not in ((config.slow_batch,) if slow else config.batches):
            continue
        num_steps[engine] = max(1, config.steps // 20) if slow else config.steps
        start = time.perf_counter()
        runs[engine] = stack(engine, body, variant, batch, num_steps[engine])
        setup_s[engine] = time.perf_counter() - start
    diverged = {name: run() for name, run in runs.items()}
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
            "ratio_to_bare": statistics.median(r[name] / r["bare"] for r in rounds) if "bare" in runs else None,
            "setup_s": setup_s[name],
            "diverged": diverged[name],
        }
        for name in runs
    ]


LINE = "{:14}{:11}{:12}{:>7}{:>13}{:>9}{:>11}{:>10}"
"""A row as printed."""


def main(config: Config) -> None:
    """Measure, print a table, write JSON."""
    counts = {"batches": config.batches, "slow_batch": config.slow_batch}
    cli.check_counts(steps=config.steps, repeats=config.repeats, **counts)
    for body in config.bodies:
        choose("body", body, BENCHMARKS)
    if "mjx" in config.engines:  # before XLA starts: on a CPU its thread pool can hang (see envs/physics/mjx.py)
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    info = provenance("benchmarks.physics") | {"xla_flags": os.environ.get("XLA_FLAGS", "")}
    print(
        f"mujoco {mujoco.__version__}, {info['cpu']} x {info['cores']}, {info['device']}, load {info['load_average']}"
    )
    print(LINE.format("body", "variant", "engine", "batch", "env steps/s", "of bare", "set-up s", "diverged"))
    slow_engines = set(config.engines) & set(SLOW_ON_CPU) and jax.default_backend() == "cpu"
    batches = sorted({*config.batches, *([config.slow_batch] if slow_engines else [])})
    config.out.mkdir(parents=True, exist_ok=True)
    for body in config.bodies:
        rows = []
        for variant, batch in itertools.product(config.variants, batches):
            for row in measure(config, body, variant, batch):
                rows.append(row)
                ratio = "-" if row["ratio_to_bare"] is None else f"{row['ratio_to_bare']:.3f}"
                found = f"{row['env_steps_per_s']:.0f}", ratio, f"{row['setup_s']:.1f}", str(row["diverged"])
                print(LINE.format(body, variant, row["engine"], batch, *found), flush=True)
        path = config.out / f"physics_{jax.default_backend()}_{body}.json"
        path.write_text(json.dumps({"machine": info, "results": rows}, indent=2) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(cli.command(Config, main))
