"""Humanoid: a biped in space. qpos: xyz (m), quaternion, seventeen joint angles (rad); seventeen motors."""

import jax
import jax.numpy as jnp

from envs.bodies.base import Body
from envs.bodies.walker2d import small_noise
from envs.physics.base import DERIVED, PhysicsState


def _obs(state: PhysicsState) -> jax.Array:
    """[292] qpos without xy, qvel, cinert, cvel, qfrc_actuator; contact forces, always zero in the papers, left out."""
    derived = [state.derived[name].ravel() for name in ("cinert", "cvel")]
    return jnp.concatenate([state.qpos[2:], state.qvel, *derived, state.qfrc_actuator])


def _healthy(state: PhysicsState) -> jax.Array:
    """Torso height in [1, 2] m."""
    return (state.qpos[2] >= 1.0) & (state.qpos[2] <= 2.0)


def body() -> Body:
    return Body("humanoid", "humanoid.xml", 5, _obs, 292, small_noise(0.01), _healthy, derived=DERIVED, place=2)
