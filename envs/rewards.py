"""Reward functions: one per task family, exactly as the benchmark's paper or reference code defines it.

Each is `(before, after, action, spec, dt) -> reward []` with the physics state before and after the control
step, the mapped action [nu], the task's spec [p] and the control step dt in seconds. Root coordinates of the
half cheetah: qpos[0] = x (m), qpos[2] = pitch (rad); of the ant: qpos[0:2] = xy (m), qpos[2] = z (m).
"""

import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp

from envs.physics.base import PhysicsState

RewardFn = Callable[[PhysicsState, PhysicsState, jax.Array, jax.Array, float], jax.Array]


def _costs(weight: float) -> Callable[[Callable[..., jax.Array]], RewardFn]:
    """Take `weight` per squared control from what a function `(before, after, spec, dt)` pays; see `control_cost`."""

    def decorate(pay: Callable[..., jax.Array]) -> RewardFn:
        def reward(before, after, action, spec, dt):
            return pay(before, after, spec, dt) - weight * jnp.sum(jnp.square(action))

        vars(reward)["control_cost"] = weight
        return functools.update_wrapper(reward, pay, updated=())

    return decorate


def control_cost(families: Iterable[RewardFn]) -> float:
    """What all of these rewards take per squared control; 0 if they differ, or take no such cost."""
    costs = {getattr(family, "control_cost", 0.0) for family in families}
    return costs.pop() if len(costs) == 1 else 0.0


Motion = tuple[jax.Array, jax.Array]
"""qpos [nq], qvel [nv]."""
HeadStart = Callable[[jax.Array, jax.Array, jax.Array], Motion]
"""(qpos, qvel, part of the spec [p]) -> the motion of a body that has come to that part of what its task asks for."""


def _ahead(start: HeadStart) -> Callable[[RewardFn], RewardFn]:
    """Give a reward that asks for a place, a posture or a speed its head start; see `head_start`."""

    def decorate(reward: RewardFn) -> RewardFn:
        vars(reward)["head_start"] = start
        return reward

    return decorate


def head_start(family: RewardFn) -> HeadStart | None:
    """Of episodes that begin part of the way; None where the reward asks for as much as can be had."""
    return getattr(family, "head_start", None)


def _at(*index: int) -> HeadStart:
    """At a place: coordinates `index`."""
    return lambda qpos, qvel, part: (qpos.at[jnp.array(index)].set(part[: len(index)]), qvel)


def _at_speed(*index: int) -> HeadStart:
    """At a speed of coordinates `index`."""
    return lambda qpos, qvel, part: (qpos, qvel.at[jnp.array(index)].set(part[: len(index)]))


def _pitched(qpos: jax.Array, qvel: jax.Array, part: jax.Array) -> Motion:
    """A half cheetah at a pitch, higher by 0.3 m x its sine: no deeper in the ground than episodes usually begin."""
    return qpos.at[1].add(0.3 * jnp.abs(jnp.sin(part[0]))).at[2].set(part[0]), qvel


def _turning(qpos: jax.Array, qvel: jax.Array, part: jax.Array) -> Motion:
    """A half cheetah that turns in the air, 0.5 m higher than episodes usually begin."""
    return qpos.at[1].add(0.5), qvel.at[2].set(part[0])


def _velocity(before: PhysicsState, after: PhysicsState, dt: float, index=0) -> jax.Array:
    """Mean velocity of coordinates `index` over the control step, m/s or rad/s."""
    return (after.qpos[index] - before.qpos[index]) / dt


# Half cheetah, parametric (PEARL's): spec = [target speed m/s] or [direction +-1].


@_ahead(_at_speed(0))
@_costs(0.05)
def cheetah_vel(before, after, spec, dt):
    """-|dx/dt - v*| - 0.05 sum a^2."""
    return -jnp.abs(_velocity(before, after, dt) - spec[0])


@_costs(0.05)
def cheetah_dir(before, after, spec, dt):
    """d dx/dt - 0.05 sum a^2."""
    return spec[0] * _velocity(before, after, dt)


# Half cheetah, non-parametric (MoSS): relative errors, so that idling costs 1 per step on every sub-task.


def _relative(error: jax.Array, scale: jax.Array) -> jax.Array:
    return -jnp.abs(error) / jnp.abs(scale)


@_ahead(_at_speed(0))
@_costs(0.05)
def multi_velocity(before, after, spec, dt):
    """-|qvel_x - s| / |s| - 0.05 sum a^2, s in m/s."""
    return _relative(after.qvel[0] - spec[0], spec[0])


@_ahead(_at(0))
@_costs(0.05)
def multi_goal(before, after, spec, dt):
    """-|x - s| / |s| - 0.05 sum a^2, s in m."""
    return _relative(after.qpos[0] - spec[0], spec[0])


@_ahead(_pitched)
@_costs(0.05)
def multi_stand(before, after, spec, dt):
    """-|pitch - s| / |s| - 0.05 sum a^2, s in rad."""
    return _relative(after.qpos[2] - spec[0], spec[0])


@_ahead(_at_speed(1))
@_costs(0.05)
def multi_jump(before, after, spec, dt):
    """-||qvel_z| - s| / |s| - 0.05 sum a^2, s in m/s."""
    return _relative(jnp.abs(after.qvel[1]) - spec[0], spec[0])


@_ahead(_turning)
@_costs(0.05)
def multi_flip(before, after, spec, dt):
    """-|qvel_pitch - s| / |s| - 0.05 sum a^2, s in rad/s."""
    return _relative(after.qvel[2] - spec[0], spec[0])


# Half cheetah, CEMRL's multi-task rewards (used by TIMRL).


@_ahead(_at_speed(0))
@_costs(0.05)
def cemrl_velocity(before, after, spec, dt):
    """-|dx/dt - s| - 0.05 sum a^2, s in m/s."""
    return -jnp.abs(_velocity(before, after, dt) - spec[0])


@_ahead(_at(0))
@_costs(0.05)
def cemrl_goal(before, after, spec, dt):
    """-|x - s| - 0.05 sum a^2, s in m (the reference code forgot the absolute value)."""
    return -jnp.abs(after.qpos[0] - spec[0])


@_costs(0.05)
def cemrl_flip(before, after, spec, dt):
    """s dpitch/dt - 0.05 sum a^2, s in {-1, +1}."""
    return spec[0] * _velocity(before, after, dt, 2)


@_costs(0.05)
def cemrl_jump(before, after, spec, dt):
    """qpos_z - 0.05 sum a^2."""
    return after.qpos[1]


# Ant, parametric: spec = [cos, sin] of the direction, or the goal [x, y] in m.


@_costs(0.5)
def ant_dir(before, after, spec, dt):
    """(dxy/dt) . (cos, sin) - 0.5 sum a^2 + 1."""
    return jnp.dot(_velocity(before, after, dt, slice(0, 2)), spec) + 1.0


@_ahead(_at(0, 1))
@_costs(0.1)
def ant_goal(before, after, spec, dt):
    """-L1(xy - goal) - 0.1 sum a^2."""
    return -jnp.sum(jnp.abs(after.qpos[:2] - spec))


# Ant, non-parametric (MoSS): spec = [x, y], or [speed, 0] for the jump.


def _relative_squared(error: jax.Array, scale: jax.Array) -> jax.Array:
    return -jnp.sum(jnp.square(error)) / jnp.sum(jnp.square(scale))


@_ahead(_at_speed(0, 1))
@_costs(0.05)
def ant_multi_velocity(before, after, spec, dt):
    """-||qvel_xy - s||^2 / ||s||^2 - 0.05 sum a^2, s in m/s."""
    return _relative_squared(after.qvel[:2] - spec, spec)


@_ahead(_at(0, 1))
@_costs(0.05)
def ant_multi_goal(before, after, spec, dt):
    """-||xy - s||^2 / ||s||^2 - 0.05 sum a^2, s in m."""
    return _relative_squared(after.qpos[:2] - spec, spec)


@_ahead(_at_speed(2))
@_costs(0.05)
def ant_multi_jump(before, after, spec, dt):
    """-||qvel_z| - s| / |s| - 0.05 sum a^2, s in m/s."""
    return _relative(jnp.abs(after.qvel[2]) - spec[0], spec[0])


# Walker and hopper with dynamics of their own: the spec says which, and the reward does not depend on it.


@_costs(1e-3)
def run_forward(before, after, spec, dt):
    """dx/dt + 1 - 0.001 sum a^2."""
    del spec
    return _velocity(before, after, dt) + 1.0


# Humanoid: spec = [cos, sin] of the direction.

HUMANOID_TIMESTEP = 0.003
"""The reference divides the displacement of a control step by one of its five substeps."""


@_costs(0.1)
def humanoid_dir(before, after, spec, dt):
    """0.25 (d com_xy . (cos, sin)) / 0.003 - 0.1 sum a^2 + 5."""
    moved = after.derived["subtree_com"][0, :2] - before.derived["subtree_com"][0, :2]
    return 0.25 * jnp.dot(moved, spec) / HUMANOID_TIMESTEP + 5.0


# Point: spec = goal [x, y].


@_ahead(_at(0, 1))
def point_goal(before, after, action, spec, dt):
    """-||xy - goal||."""
    return -jnp.linalg.norm(after.qpos - spec)


@_ahead(_at(0, 1))
def sparse_point_goal(before, after, action, spec, dt):
    """1 - ||xy - goal|| within 0.2 of the goal, else 0."""
    distance = jnp.linalg.norm(after.qpos - spec)
    return jnp.where(distance <= 0.2, 1.0 - distance, 0.0)


def select(families: tuple[RewardFn, ...]) -> Callable[..., jax.Array]:
    """One reward function `(before, after, action, task, dt)` that picks by the task's family."""

    def reward(before, after, action, task, dt):
        branches = [lambda b, a, u, s, f=family: f(b, a, u, s, dt) for family in families]
        return jax.lax.switch(task.family, branches, before, after, action, task.spec)

    return reward
