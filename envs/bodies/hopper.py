"""Hopper: a planar one-legged jumper. qpos: x, z, pitch (m, m, rad) and three joint angles; three motors."""

import jax
import jax.numpy as jnp

from envs.bodies.base import Body
from envs.bodies.walker2d import planar_obs, small_noise
from envs.physics.base import PhysicsState


def _healthy(state: PhysicsState) -> jax.Array:
    """Height above 0.7 m, pitch in (-0.2, 0.2) rad, every other coordinate and speed below 100."""
    rest = jnp.concatenate([state.qpos[2:], state.qvel])
    return (state.qpos[1] > 0.7) & (jnp.abs(state.qpos[2]) < 0.2) & jnp.all(jnp.abs(rest) < 100.0)


def body() -> Body:
    return Body("hopper", "hopper.xml", 4, planar_obs, 11, small_noise(0.005), _healthy)
