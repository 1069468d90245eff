"""Benchmarks by name."""

import inspect
import numbers
from typing import Any

import jax

from envs import wrappers
from envs.benchmarks import BENCHMARKS, Benchmark
from envs.bodies.base import environment
from envs.core import Environment
from envs.errors import ConfigurationError, check_integers, choose, is_finite
from envs.physics import dynamics, load
from envs.tasks import redraw

MODES: dict[str, dict[str, float]] = {
    "time": {"period": 100, "change_probability": 0.5},
    "period": {"period": 100},
    "location": {"distance": 10.0},
    "multi": {"period": 80},
    "drift": {"period": 100, "amplitude": 1.0},
}
"""When a task changes in mid-episode: each mode's options with their defaults."""
LOCATION_HORIZON = 800
MAX_SEED = 2**32 - 1


def _non_stationary(env: Environment, benchmark: Benchmark, mode: str, options: dict[str, float]) -> Environment:
    """Let tasks change as `mode` says; see `make`."""
    anything = redraw(benchmark.train, benchmark.test or ())
    redraw_task = anything if mode == "multi" else benchmark.change or anything
    if "period" in options and mode != "drift" and options["period"] >= env.spec.horizon:
        raise ConfigurationError(
            f"period {options['period']} is not below the horizon of {env.spec.horizon}: no task would ever change"
        )
    if mode == "drift" and not benchmark.smooth:
        raise ConfigurationError(f"the tasks of {env.spec.name} cannot drift: only speeds and goals can")
    if mode == "drift":
        changes = wrappers.drift(options["amplitude"], int(options["period"]))
    elif mode == "location":
        changes = wrappers.moved(redraw_task, options["distance"], benchmark.body.place)
    else:
        changes = wrappers.every(redraw_task, int(options["period"]), options.get("change_probability", 1.0))
    return wrappers.non_stationary(env, changes)


def _mode_options(mode: str | None, given: dict[str, float | None]) -> dict[str, float]:
    """A mode's options, defaults filled in.

    Raises:
      ConfigurationError: an unknown mode, an option that it does not take, or a value that is no number.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    known = MODES[choose("mode", mode, MODES)] if mode else {}
    for name, value in chosen.items():
        if name not in known:
            takers = ", ".join(m for m, options in MODES.items() if name in options)
            raise ConfigurationError(f"{name} is an option of mode {takers}, not of {mode or 'a stationary benchmark'}")
        if not isinstance(value, numbers.Real) or not is_finite(value):
            raise ConfigurationError(f"{name} must be a number, got {value!r}")
        if name == "period" and value != int(value):
            raise ConfigurationError(f"period must be a whole number of steps, got {value}")
        if name == "period":
            check_integers(period=int(value))
    return known | chosen


def _restricted(benchmark: Benchmark, only: str, mode: str | None) -> Benchmark:
    """The benchmark with those of its sub-tasks that `only` names, separated by commas."""
    chosen = str(only).split(",")
    everything = benchmark.train + (benchmark.test or ())
    for name in chosen:
        choose("sub-task", name, dict.fromkeys(s.name for s in everything))
    if mode is not None:
        raise ConfigurationError("only=... is for stationary benchmarks: here a task changes into other sub-tasks")
    train = tuple(s for s in benchmark.train if s.name in chosen)
    if not train:
        raise ConfigurationError(
            f"only={only!r} leaves no training task: keep one of {', '.join(s.name for s in benchmark.train)}"
        )
    test = benchmark.test and tuple(s for s in benchmark.test if s.name in chosen)
    if benchmark.test and not test:
        raise ConfigurationError(
            f"only={only!r} leaves no test task: keep one of {', '.join(s.name for s in benchmark.test)}"
        )
    return benchmark._replace(train=train, test=test)


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
    only: str | None = None,
    mode: str | None = None,
    period: int | None = None,
    change_probability: float | None = None,
    distance: float | None = None,
    amplitude: float | None = None,
    **options: Any,
) -> Environment:
    """Build a benchmark.

    Args:
      name: one of `names()`.
      physics: `auto`, `native`, `mjx`, `warp` or `warp_staged`; `auto` picks by device.
      variant: model variant, `fast` or `reference`.
      seed: of the task sets; the same seed gives the same tasks everywhere.
      horizon: control steps per episode; None for the benchmark's.
      num_train_tasks, num_test_tasks: tasks per sub-task; None for the benchmark's.
      only: names of the sub-tasks to keep, separated by commas; None for all.
      mode: when tasks change in mid-episode; None for the benchmark's. `time`: every `period` (100) steps with
        `change_probability` (0.5); `period`: every `period` (100) steps; `location`: each time the torso has moved
        `distance` (10) + U(0, 1) m along the ground, horizon 800; `multi`: every `period` (80) steps to any sub-task;
        `drift`: smoothly, by `amplitude` (1, in units of the spec) times a sine of `period` (100) steps. A redrawn
        task comes from the training distribution, in held-out episodes too.
      period, change_probability, distance, amplitude: options of a mode; None for its default.
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
    check_integers(horizon=horizon, num_train_tasks=num_train_tasks, num_test_tasks=num_test_tasks)
    if not isinstance(seed, numbers.Integral) or not 0 <= seed <= MAX_SEED:
        raise ConfigurationError(f"seed must be an integer in [0, {MAX_SEED}], got {seed!r}")
    benchmark = row(**options)
    mode = mode or benchmark.mode
    if only is not None:
        benchmark = _restricted(benchmark, only, mode)
    given = {"period": period, "change_probability": change_probability, "distance": distance, "amplitude": amplitude}
    mode_options = _mode_options(mode, given)
    usual = LOCATION_HORIZON if mode == "location" else benchmark.horizon
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
    env = wrappers.time_limit(env, usual if horizon is None else horizon)
    if mode is not None:
        env = _non_stationary(env, benchmark, mode, mode_options)
    env = wrappers.auto_reset(env)
    if vary is None:
        return env
    return wrappers.random_dynamics(env, lambda spec: vary.fields(engine.model, spec))
