"""Ant: a four-legged walker. qpos: xyz (m), quaternion, eight joint angles (rad); eight motors."""

import jax
import jax.numpy as jnp

from envs.bodies.base import Body
from envs.bodies.half_cheetah import initial
from envs.physics.base import PhysicsState


def _obs_with_root(state: PhysicsState) -> jax.Array:
    """[29] qpos, qvel: the position is visible, as goal tasks need."""
    return jnp.concatenate([state.qpos, state.qvel])


def _obs_without_root(state: PhysicsState) -> jax.Array:
    """[27] qpos without xy, qvel."""
    return jnp.concatenate([state.qpos[2:], state.qvel])


def _healthy(state: PhysicsState) -> jax.Array:
    """Torso height in [0.2, 1.0] m."""
    return (state.qpos[2] >= 0.2) & (state.qpos[2] <= 1.0)


def body(root_visible: bool = True, terminates: bool = False) -> Body:
    """The ant with (29) or without (27 observations) its position, ending an episode when it falls or never."""
    obs, size = (_obs_with_root, 29) if root_visible else (_obs_without_root, 27)
    return Body("ant", "ant.xml", 5, obs, size, initial, _healthy if terminates else None, place=2)
