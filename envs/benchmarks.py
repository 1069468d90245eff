"""The benchmarks, as one table that reads like the papers'."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs import rewards as r
from envs.bodies import ant, half_cheetah, hopper, humanoid, point, walker2d
from envs.bodies.base import Body
from envs.core import Task
from envs.errors import choose
from envs.physics import dynamics
from envs.tasks import (
    Range,
    Ranges,
    SubTask,
    box,
    check_disjoint,
    circle,
    constant,
    disc,
    listed,
    ranges_of,
    spread,
    uniform,
)


class Dynamics(NamedTuple):
    """How the model follows from a task's spec."""

    names: tuple[str, ...]
    """The model's fields that vary."""
    fields: Callable[[mujoco.MjModel, jax.Array], dynamics.Fields]
    """(model, spec [p]) -> these fields, and all that follows from them."""


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
    mode: str | None = None
    """When the task changes in mid-episode (see `registry.make`); None for stationary benchmarks."""
    change: Callable[[jax.Array, Task], Task] | None = None
    """How it then changes; None: it is redrawn from the training distribution."""
    smooth: bool = False
    """Whether a spec may drift: the reward is finite for every value."""
    dynamics: Dynamics | None = None
    """How the model follows from the task's spec; None where all tasks share one."""


def flip(key: jax.Array, task: Task) -> Task:
    """The opposite direction; sub-tasks come in pairs."""
    return task._replace(spec=-task.spec, label=task.label ^ 1)


def _scaled_entries(**bases: float) -> Dynamics:
    """Each entry of each field times base^u, with the u of all entries in a row as the task's spec."""

    def fields(model: mujoco.MjModel, spec: jax.Array) -> dynamics.Fields:
        shapes = [getattr(model, name).shape for name in bases]
        parts = jnp.split(spec, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
        rows = zip(bases.items(), parts, shapes, strict=True)
        return dynamics.scaled(model, {name: base ** u.reshape(shape) for (name, base), u, shape in rows})

    return Dynamics(tuple(bases), fields)


def _scaled(*names: str, base: float = 1.5) -> Dynamics:
    """All entries of these fields times base^s, with the task's spec [s]."""
    return Dynamics(names, lambda model, spec: dynamics.scaled(model, {name: base ** spec[0] for name in names}))


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


_MASS, _FRICTION = _scaled("body_mass", "body_inertia"), _scaled("geom_friction")
_WALKER_PARAMS = _scaled_entries(body_mass=1.5, body_inertia=1.5, geom_friction=1.5, dof_damping=1.3)
_NUM_WALKER_PARAMS = 8 + 8 * 3 + 8 * 3 + 9
"""Bodies, geoms and degrees of freedom of the walker, each with its entries."""


def _grid(
    body: Body, family: str, reward: r.RewardFn, train, moderate, extreme, dynamics: Dynamics | None = None
) -> Benchmark:
    """ER-TRL's: 20 training tasks, 10 moderately and 10 extremely far from them."""
    kinds = {"train": train, "moderate": moderate, "extreme": extreme}
    subtasks = [SubTask(name, family, reward, listed(specs)) for name, specs in kinds.items()]
    return Benchmark(body, (subtasks[0],), (20, 10), test=(subtasks[1], subtasks[2]), dynamics=dynamics)


def _line(body: Body, family: str, reward: r.RewardFn, points, dynamics: Dynamics | None = None) -> Benchmark:
    """A grid of 40 points in a row: its middle for training, the outermost ones extreme."""
    specs = np.reshape(points, (40, -1))
    moderate, extreme = specs[np.r_[5:10, 30:35]], specs[np.r_[0:5, 35:40]]
    return _grid(body, family, reward, specs[10:30], moderate, extreme, dynamics)


def _unit(angles) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], -1)


_GRID_ANGLES = np.linspace(0.0, 2 * np.pi, 41)[:-1]
_GRID_SCALES = np.linspace(-2.0, 2.0, 40)
_FRONT, _BACK = np.linspace(-np.pi / 2, np.pi / 2, 10), np.linspace(np.pi / 2, 3 * np.pi / 2, 10)


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


def _ranges(
    presets: dict[str, tuple[Ranges, Ranges]], preset: str, train: Ranges | str | None, test: Ranges | str | None
) -> tuple[Ranges, Ranges]:
    """Training and test ranges, the given ones or the preset's; they must be disjoint."""
    default = presets[choose("preset", preset, presets)]
    train, test = (
        ranges_of(name, usual if given is None else given)
        for name, given, usual in (("train", train, default[0]), ("test", test, default[1]))
    )
    check_disjoint(train, test)
    return train, test


def _ant_dir(angles: str = "two") -> Benchmark:
    """`angles`: `two` (forward and backward) or `circle` (uniform over all directions, 40/10 tasks)."""
    body = ant.body(root_visible=False, terminates=True)
    if choose("angles", angles, ("two", "circle")) == "two":
        return Benchmark(body, _ANT_DIR, (1, 1), shared=True, change=flip)
    return Benchmark(body, (SubTask("direction", "direction", r.ant_dir, circle()),), (40, 10))


def _cheetah_vel_ood(
    preset: str = "moss", train: Ranges | str | None = None, test: Ranges | str | None = None
) -> Benchmark:
    """Target speeds, m/s, from a `preset` (`moss` or `ldm`) or from the `train` and `test` ranges given."""
    train, test = _ranges(_OOD_SPEEDS, preset, train, test)
    return Benchmark(half_cheetah.body(), _velocity(*train), (100, 30), test=_velocity(*test), smooth=True)


def _ant_goal_ood(
    preset: str = "moss", train: Ranges | str | None = None, test: Ranges | str | None = None
) -> Benchmark:
    """Radii of the goals, m, from a `preset` (`moss` or `ldm`) or from the `train` and `test` ranges given."""
    train, test = _ranges(_OOD_RADII, preset, train, test)
    return Benchmark(ant.body(), _goal(*train), (150, 30), test=_goal(*test), smooth=True)


BENCHMARKS: dict[str, Callable[..., Benchmark]] = {
    # Parametric: one family, one number or point per task.
    "cheetah_vel": lambda: Benchmark(half_cheetah.body(), _velocity((0.0, 3.0)), (100, 30), smooth=True),
    "cheetah_dir": lambda: Benchmark(half_cheetah.body(), _CHEETAH_DIR, (1, 1), shared=True, change=flip),
    "ant_dir": _ant_dir,
    "ant_goal": lambda: Benchmark(ant.body(), _goal((0.0, 3.0)), (150, 30), smooth=True),
    "walker_rand_params": lambda: Benchmark(
        walker2d.body(timestep=0.004),
        (SubTask("dynamics", "run", r.run_forward, box(-3.0, 3.0, _NUM_WALKER_PARAMS)),),
        (40, 10),
        dynamics=_WALKER_PARAMS,
    ),
    "humanoid_dir": lambda: Benchmark(
        humanoid.body(), (SubTask("direction", "direction", r.humanoid_dir, circle()),), (100, 30)
    ),
    "point_robot": lambda: Benchmark(
        point.body(), _point(r.point_goal, box(-1.0, 1.0, 2)), (80, 20), horizon=20, smooth=True
    ),
    "sparse_point_robot": lambda: Benchmark(
        point.body("origin"), _point(r.sparse_point_goal, circle(1.0, (0.0, jnp.pi))), (80, 20), horizon=20, smooth=True
    ),
    # Out of distribution: the test set lies outside the training range.
    "cheetah_vel_ood": _cheetah_vel_ood,
    "ant_goal_ood": _ant_goal_ood,
    # Non-stationary: the task changes in mid-episode.
    "cheetah_dir_nonstat": lambda: Benchmark(
        half_cheetah.body(), _CHEETAH_DIR, (1, 1), shared=True, horizon=500, mode="time", change=flip
    ),
    "cheetah_vel_nonstat": lambda: Benchmark(
        half_cheetah.body(), _velocity((0.0, 3.0)), (100, 30), horizon=500, mode="time", smooth=True
    ),
    "ant_dir_nonstat": lambda: Benchmark(
        ant.body(False, True), _ANT_DIR, (1, 1), shared=True, horizon=600, mode="time", change=flip
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
    # ER-TRL's: 40 tasks on a fixed grid; the held-out ones are moderately or extremely far from the training ones.
    "cheetah_vel_grid": lambda: _line(
        half_cheetah.body(), "velocity", r.cheetah_vel, np.linspace(0.1, 4.0, 40)
    )._replace(smooth=True),
    "ant_dir_grid": lambda: _line(ant.body(False, True), "direction", r.ant_dir, _unit(_GRID_ANGLES)),
    "ant_goal_grid": lambda: _grid(
        ant.body(),
        "goal",
        r.ant_goal,
        np.concatenate([0.8 * _unit(_FRONT), 1.2 * _unit(_FRONT)]),
        1.6 * _unit(_FRONT),
        1.6 * _unit(_BACK),
    )._replace(smooth=True),
    "humanoid_dir_grid": lambda: _line(humanoid.body(), "direction", r.humanoid_dir, _unit(_GRID_ANGLES)),
    "hopper_mass": lambda: _line(hopper.body(), "run", r.run_forward, _GRID_SCALES, _MASS),
    "hopper_friction": lambda: _line(hopper.body(), "run", r.run_forward, _GRID_SCALES, _FRICTION),
    "walker_mass": lambda: _line(walker2d.body(frame_skip=5), "run", r.run_forward, _GRID_SCALES, _MASS),
    "walker_friction": lambda: _line(walker2d.body(frame_skip=5), "run", r.run_forward, _GRID_SCALES, _FRICTION),
}
