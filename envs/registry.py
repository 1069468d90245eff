"""Every benchmark by name, as one table that reads like the papers'."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs import rewards as r
from envs import wrappers
from envs.bodies import ant, half_cheetah, point
from envs.bodies.base import Body, environment
from envs.core import Environment, Task
from envs.errors import ConfigurationError, choose
from envs.physics import load
from envs.tasks import Range, SubTask, box, check_disjoint, circle, constant, disc, spread, uniform

Ranges = tuple[Range, ...]


class Benchmark(NamedTuple):
    """One row of the table."""

    body: Body
    train: tuple[SubTask, ...]
    counts: tuple[int, int]
    """Training and test tasks per sub-task."""
    test: tuple[SubTask, ...] | None = None
    """Sub-tasks of the test set, where they differ from the training ones."""
    shared: bool = False
    """Whether the training and the test set may have tasks in common."""
    horizon: int = 200
    change: Callable[[jax.Array, Task], Task] | None = None
    """How the task changes in mid-episode; None for stationary benchmarks."""


def flip(key: jax.Array, task: Task) -> Task:
    """The opposite direction; sub-tasks come in pairs."""
    return task._replace(spec=-task.spec, label=task.label ^ 1)


def redraw(subtask: SubTask) -> Callable[[jax.Array, Task], Task]:
    """A new task of the same distribution."""
    return lambda key, task: task._replace(spec=subtask.draw(key, 1)[0].astype(task.spec.dtype))


def _velocity(*ranges: Range) -> tuple[SubTask, ...]:
    return (SubTask("velocity", "velocity", r.cheetah_vel, uniform(*ranges)),)


def _goal(*radii: Range) -> tuple[SubTask, ...]:
    return (SubTask("goal", "goal", r.ant_goal, disc(*radii)),)


def _point(reward: r.RewardFn, draw) -> tuple[SubTask, ...]:
    return (SubTask("goal", "goal", reward, draw),)


def _directions(reward: r.RewardFn, *spec: float) -> tuple[SubTask, ...]:
    return (
        SubTask("forward", "direction", reward, constant(*spec)),
        SubTask("backward", "direction", reward, constant(*(-x for x in spec))),
    )


_CHEETAH_DIR = _directions(r.cheetah_dir, 1.0)
_ANT_DIR = _directions(r.ant_dir, 1.0, 0.0)

_CHEETAH_SEVEN = (
    SubTask("velocity_forward", "velocity", r.multi_velocity, spread(1.0, 5.0)),
    SubTask("velocity_backward", "velocity", r.multi_velocity, spread(-5.0, -1.0)),
    SubTask("goal_forward", "goal", r.multi_goal, spread(5.0, 25.0)),
    SubTask("goal_backward", "goal", r.multi_goal, spread(-25.0, -5.0)),
    SubTask("stand_front", "stand", r.multi_stand, spread(jnp.pi / 6, jnp.pi / 2)),
    SubTask("stand_back", "stand", r.multi_stand, spread(-jnp.pi / 2, -jnp.pi / 6)),
    SubTask("jump", "jump", r.multi_jump, spread(1.5, 3.0)),
)
_CHEETAH_FLIP = SubTask("flip_forward", "flip", r.multi_flip, spread(2 * jnp.pi, 4 * jnp.pi))

_WAYS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, 1.0), "down": (0.0, -1.0)}
_ANT_NINE = (
    *(SubTask(f"velocity_{n}", "velocity", r.ant_multi_velocity, spread(1.0, 3.0, w)) for n, w in _WAYS.items()),
    *(SubTask(f"goal_{n}", "goal", r.ant_multi_goal, spread(5.0, 15.0, w)) for n, w in _WAYS.items()),
    SubTask("jump", "jump", r.ant_multi_jump, spread(0.5, 2.0, (1.0, 0.0))),
)

_TIMRL_VELOCITY = SubTask("velocity", "velocity", r.cemrl_velocity, uniform((1.0, 3.0)))
_TIMRL_JUMP = SubTask("jump", "jump", r.cemrl_jump, constant(0.0))
_TIMRL_FLIP = SubTask("flip", "flip", r.cemrl_flip, lambda key, n: jax.random.rademacher(key, (n, 1), float))
_TIMRL_GOAL = SubTask("goal", "goal", r.cemrl_goal, uniform((-5.0, 5.0)))


# (train, test) by preset. The `moss` ranges could not be recovered from any readable source with certainty.
_OOD_SPEEDS: dict[str, tuple[Ranges, Ranges]] = {
    "moss": (((2.0, 4.0),), ((1.0, 2.0), (4.0, 5.0))),
    "ldm": (((0.0, 0.5), (3.0, 3.5)), ((0.5, 3.0),)),
}
_OOD_RADII: dict[str, tuple[Ranges, Ranges]] = {
    "moss": (((0.0, 2.0),), ((2.0, 3.0),)),
    "ldm": (((0.0, 1.0), (2.5, 3.0)), ((1.0, 2.5),)),
}


def _ranges(presets: dict[str, tuple[Ranges, Ranges]], preset: str, train: Ranges | None, test: Ranges | None):
    """Training and test ranges, the given ones or the preset's; they must be disjoint."""
    default = presets[choose("preset", preset, presets)]
    train, test = train or default[0], test or default[1]
    check_disjoint(train, test)
    return train, test


def _ant_dir(angles: str = "two") -> Benchmark:
    """`angles`: `two` (forward and backward) or `circle` (uniform over all directions, 40/10 tasks)."""
    body = ant.body(root_visible=False, terminates=True)
    if choose("angles", angles, ("two", "circle")) == "two":
        return Benchmark(body, _ANT_DIR, (1, 1), shared=True)
    return Benchmark(body, (SubTask("direction", "direction", r.ant_dir, circle()),), (40, 10))


def _cheetah_vel_ood(preset: str = "moss", train: Ranges | None = None, test: Ranges | None = None) -> Benchmark:
    """Target speeds, m/s, from a `preset` (`moss` or `ldm`) or from the `train` and `test` ranges given."""
    train, test = _ranges(_OOD_SPEEDS, preset, train, test)
    return Benchmark(half_cheetah.body(), _velocity(*train), (100, 30), test=_velocity(*test))


def _ant_goal_ood(preset: str = "moss", train: Ranges | None = None, test: Ranges | None = None) -> Benchmark:
    """Radii of the goals, m, from a `preset` (`moss` or `ldm`) or from the `train` and `test` ranges given."""
    train, test = _ranges(_OOD_RADII, preset, train, test)
    return Benchmark(ant.body(), _goal(*train), (150, 30), test=_goal(*test))


BENCHMARKS: dict[str, Callable[..., Benchmark]] = {
    # Parametric: one family, one number or point per task.
    "cheetah_vel": lambda: Benchmark(half_cheetah.body(), _velocity((0.0, 3.0)), (100, 30)),
    "cheetah_dir": lambda: Benchmark(half_cheetah.body(), _CHEETAH_DIR, (1, 1), shared=True),
    "ant_dir": _ant_dir,
    "ant_goal": lambda: Benchmark(ant.body(), _goal((0.0, 3.0)), (150, 30)),
    "point_robot": lambda: Benchmark(point.body(), _point(r.point_goal, box(-1.0, 1.0, 2)), (80, 20), horizon=20),
    "sparse_point_robot": lambda: Benchmark(
        point.body("origin"), _point(r.sparse_point_goal, circle(1.0, (0.0, jnp.pi))), (80, 20), horizon=20
    ),
    # Out of distribution: the test set lies outside the training range.
    "cheetah_vel_ood": _cheetah_vel_ood,
    "ant_goal_ood": _ant_goal_ood,
    # Non-stationary: the task changes in mid-episode.
    "cheetah_dir_nonstat": lambda: Benchmark(
        half_cheetah.body(), _CHEETAH_DIR, (1, 1), shared=True, horizon=500, change=flip
    ),
    "cheetah_vel_nonstat": lambda: Benchmark(
        half_cheetah.body(), _velocity((0.0, 3.0)), (100, 30), horizon=500, change=redraw(*_velocity((0.0, 3.0)))
    ),
    "ant_dir_nonstat": lambda: Benchmark(
        ant.body(False, True), _ANT_DIR, (1, 1), shared=True, horizon=600, change=flip
    ),
    # Non-parametric: several families on one scale.
    "cheetah_multitask": lambda: Benchmark(half_cheetah.body(), _CHEETAH_SEVEN, (10, 5)),
    "cheetah_eight": lambda: Benchmark(half_cheetah.body(), (*_CHEETAH_SEVEN, _CHEETAH_FLIP), (10, 5)),
    "ant_multitask": lambda: Benchmark(ant.body(), _ANT_NINE, (10, 5)),
    # TIMRL's.
    "cheetah_2task": lambda: Benchmark(half_cheetah.body(), (_TIMRL_VELOCITY, _TIMRL_JUMP), (50, 15), shared=True),
    "cheetah_3task": lambda: Benchmark(
        half_cheetah.body(), (_TIMRL_VELOCITY, _TIMRL_FLIP, _TIMRL_JUMP), (40, 10), shared=True
    ),
    "cheetah_dir_vel_to_goal": lambda: Benchmark(
        half_cheetah.body(),
        (*_directions(r.cheetah_dir, 1.0), _TIMRL_VELOCITY),
        (20, 30),
        test=(_TIMRL_GOAL,),
    ),
}


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
    period: int = 100,
    change_probability: float = 0.5,
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
      period, change_probability: of task changes, in non-stationary benchmarks.
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
    env = environment(benchmark.body, load(benchmark.body, physics, variant), variant)
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
    if benchmark.change is not None:
        env = wrappers.non_stationary(env, benchmark.change, period, change_probability)
    return wrappers.auto_reset(env)
