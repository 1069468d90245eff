"""Reward functions: one per task family, exactly as the benchmark's paper or reference code defines it.

Each is `(before, after, action, spec, dt) -> reward []` with the physics state before and after the control
step, the mapped action [nu], the task's spec [p] and the control step dt in seconds. Root coordinates of the
half cheetah: qpos[0] = x (m), qpos[2] = pitch (rad); of the ant: qpos[0:2] = xy (m), qpos[2] = z (m).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from envs.physics.base import PhysicsState

RewardFn = Callable[[PhysicsState, PhysicsState, jax.Array, jax.Array, float], jax.Array]


def _control_cost(weight: float, action: jax.Array) -> jax.Array:
    return weight * jnp.sum(jnp.square(action))


def _velocity(before: PhysicsState, after: PhysicsState, dt: float, index=0) -> jax.Array:
    """Mean velocity of coordinates `index` over the control step, m/s or rad/s."""
    return (after.qpos[index] - before.qpos[index]) / dt


# Half cheetah, parametric (PEARL's): spec = [target speed m/s] or [direction +-1].


def cheetah_vel(before, after, action, spec, dt):
    """-|dx/dt - v*| - 0.05 sum a^2."""
    return -jnp.abs(_velocity(before, after, dt) - spec[0]) - _control_cost(0.05, action)


def cheetah_dir(before, after, action, spec, dt):
    """d dx/dt - 0.05 sum a^2."""
    return spec[0] * _velocity(before, after, dt) - _control_cost(0.05, action)


# Half cheetah, non-parametric (MoSS): relative errors, so that idling costs 1 per step on every sub-task.


def _relative(error: jax.Array, scale: jax.Array) -> jax.Array:
    return -jnp.abs(error) / jnp.abs(scale)


def multi_velocity(before, after, action, spec, dt):
    """-|qvel_x - s| / |s| - 0.05 sum a^2, s in m/s."""
    return _relative(after.qvel[0] - spec[0], spec[0]) - _control_cost(0.05, action)


def multi_goal(before, after, action, spec, dt):
    """-|x - s| / |s| - 0.05 sum a^2, s in m."""
    return _relative(after.qpos[0] - spec[0], spec[0]) - _control_cost(0.05, action)


def multi_stand(before, after, action, spec, dt):
    """-|pitch - s| / |s| - 0.05 sum a^2, s in rad."""
    return _relative(after.qpos[2] - spec[0], spec[0]) - _control_cost(0.05, action)


def multi_jump(before, after, action, spec, dt):
    """-||qvel_z| - s| / |s| - 0.05 sum a^2, s in m/s."""
    return _relative(jnp.abs(after.qvel[1]) - spec[0], spec[0]) - _control_cost(0.05, action)


def multi_flip(before, after, action, spec, dt):
    """-|qvel_pitch - s| / |s| - 0.05 sum a^2, s in rad/s."""
    return _relative(after.qvel[2] - spec[0], spec[0]) - _control_cost(0.05, action)


# Half cheetah, CEMRL's multi-task rewards (used by TIMRL).


def cemrl_velocity(before, after, action, spec, dt):
    """-|dx/dt - s| - 0.05 sum a^2, s in m/s."""
    return -jnp.abs(_velocity(before, after, dt) - spec[0]) - _control_cost(0.05, action)


def cemrl_goal(before, after, action, spec, dt):
    """-|x - s| - 0.05 sum a^2, s in m (the reference code forgot the absolute value)."""
    return -jnp.abs(after.qpos[0] - spec[0]) - _control_cost(0.05, action)


def cemrl_flip(before, after, action, spec, dt):
    """s dpitch/dt - 0.05 sum a^2, s in {-1, +1}."""
    return spec[0] * _velocity(before, after, dt, 2) - _control_cost(0.05, action)


def cemrl_jump(before, after, action, spec, dt):
    """qpos_z - 0.05 sum a^2."""
    return after.qpos[1] - _control_cost(0.05, action)


# Ant, parametric: spec = [cos, sin] of the direction, or the goal [x, y] in m.


def ant_dir(before, after, action, spec, dt):
    """(dxy/dt) . (cos, sin) - 0.5 sum a^2 + 1."""
    return jnp.dot(_velocity(before, after, dt, slice(0, 2)), spec) - _control_cost(0.5, action) + 1.0


def ant_goal(before, after, action, spec, dt):
    """-L1(xy - goal) - 0.1 sum a^2."""
    return -jnp.sum(jnp.abs(after.qpos[:2] - spec)) - _control_cost(0.1, action)


# Ant, non-parametric (MoSS): spec = [x, y], or [speed, 0] for the jump.


def _relative_squared(error: jax.Array, scale: jax.Array) -> jax.Array:
    return -jnp.sum(jnp.square(error)) / jnp.sum(jnp.square(scale))


def ant_multi_velocity(before, after, action, spec, dt):
    """-||qvel_xy - s||^2 / ||s||^2 - 0.05 sum a^2, s in m/s."""
    return _relative_squared(after.qvel[:2] - spec, spec) - _control_cost(0.05, action)


def ant_multi_goal(before, after, action, spec, dt):
    """-||xy - s||^2 / ||s||^2 - 0.05 sum a^2, s in m."""
    return _relative_squared(after.qpos[:2] - spec, spec) - _control_cost(0.05, action)


def ant_multi_jump(before, after, action, spec, dt):
    """-||qvel_z| - s| / |s| - 0.05 sum a^2, s in m/s."""
    return _relative(jnp.abs(after.qvel[2]) - spec[0], spec[0]) - _control_cost(0.05, action)


# Walker and hopper with dynamics of their own: the spec says which, and the reward does not depend on it.


def run_forward(before, after, action, spec, dt):
    """dx/dt + 1 - 0.001 sum a^2."""
    del spec
    return _velocity(before, after, dt) + 1.0 - _control_cost(1e-3, action)


# Humanoid: spec = [cos, sin] of the direction.

HUMANOID_TIMESTEP = 0.003
"""The reference divides the displacement of a control step by one of its five substeps."""


def humanoid_dir(before, after, action, spec, dt):
    """0.25 (d com_xy . (cos, sin)) / 0.003 - 0.1 sum a^2 + 5."""
    moved = after.derived["subtree_com"][0, :2] - before.derived["subtree_com"][0, :2]
    return 0.25 * jnp.dot(moved, spec) / HUMANOID_TIMESTEP - _control_cost(0.1, action) + 5.0


# Point: spec = goal [x, y].


def point_goal(before, after, action, spec, dt):
    """-||xy - goal||."""
    return -jnp.linalg.norm(after.qpos - spec)


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
