"""Benchmarks by name."""

import inspect
from typing import Any

import jax

from envs import wrappers
from envs.benchmarks import BENCHMARKS, Benchmark
from envs.bodies.base import environment
from envs.core import Environment
from envs.errors import ConfigurationError, choose
from envs.physics import dynamics, load
from envs.tasks import redraw

MODES = ("time", "period", "location", "multi", "drift")


def _non_stationary(
    env: Environment,
    benchmark: Benchmark,
    mode: str,
    period: int | None,
    probability: float,
    distance: float,
    amplitude: float,
) -> Environment:
    """Let tasks change as `mode` says; see `make`."""
    choose("mode", mode, MODES)
    anything = redraw(benchmark.train, benchmark.test or ())
    change = benchmark.change or anything
    if mode == "drift":
        return wrappers.drifting(env, amplitude, 100 if period is None else period)
    if mode == "location":
        return wrappers.non_stationary(env, change, wrappers.moved(distance))
    if mode == "multi":
        return wrappers.non_stationary(env, anything, wrappers.every(80 if period is None else period))
    every = wrappers.every(100 if period is None else period, probability if mode == "time" else 1.0)
    return wrappers.non_stationary(env, change, every)


def names() -> tuple[str, ...]:
    """The names that `make` knows."""
    return tuple(BENCHMARKS)


def make(
    name: str,
    physics: str = "auto",
    variant: str = "fast",
    *,
    seed: int = 0,
    horizon: int | None = None,
    num_train_tasks: int | None = None,
    num_test_tasks: int | None = None,
    mode: str | None = None,
    period: int | None = None,
    change_probability: float = 0.5,
    distance: float = 10.0,
    amplitude: float = 1.0,
    **options: Any,
) -> Environment:
    """Build a benchmark.

    Args:
      name: one of `names()`.
      physics: `auto`, `native`, `mjx` or `warp`; `auto` picks by device.
      variant: model variant, `fast` or `reference`.
      seed: of the task sets; the same seed gives the same tasks everywhere.
      horizon: control steps per episode; None for the benchmark's.
      num_train_tasks, num_test_tasks: tasks per sub-task; None for the benchmark's.
      mode: when tasks change in mid-episode; None for the benchmark's. `time`: every `period` steps with
        `change_probability`; `period`: every `period` steps; `location`: each time x has moved `distance` + U(0, 1) m;
        `multi`: every `period` (80) steps to any sub-task; `drift`: smoothly, by `amplitude` (in units of the spec)
        times a sine of `period` steps.
      period: steps; None: 100, except as said above.
      change_probability, distance, amplitude: see `mode`.
      **options: options of this benchmark alone, such as `preset="ldm"` of `cheetah_vel_ood`.

    Returns:
      A single environment: vmap its functions over keys, tasks, states and actions.

    Raises:
      ConfigurationError: an unknown name, option or engine, or a value out of range.
    """
    row = BENCHMARKS[choose("environment", name, BENCHMARKS)]
    known = inspect.signature(row).parameters
    for option in options:
        if option not in known:
            accepted = f"it takes {', '.join(known)}" if known else "it takes none"
            raise ConfigurationError(f"{name} has no option {option!r}: {accepted}")
    benchmark = row(**options)
    key = jax.random.key(seed, impl="threefry2x32")  # the same task sets whatever generator training uses
    num_train, num_test = benchmark.counts
    vary = benchmark.dynamics
    varied = dynamics.with_derived(vary.names) if vary else ()
    engine = load(benchmark.body, physics, variant, varied)
    env = environment(benchmark.body, engine, variant)
    env = wrappers.multi_task(
        env,
        name,
        key,
        benchmark.train,
        num_train if num_train_tasks is None else num_train_tasks,
        num_test if num_test_tasks is None else num_test_tasks,
        benchmark.test,
        benchmark.shared,
    )
    env = wrappers.time_limit(env, benchmark.horizon if horizon is None else horizon)
    mode = mode or benchmark.mode
    if mode is not None:
        env = _non_stationary(env, benchmark, mode, period, change_probability, distance, amplitude)
    env = wrappers.auto_reset(env)
    if vary is None:
        return env
    return wrappers.random_dynamics(env, lambda spec: vary.fields(engine.model, spec))
