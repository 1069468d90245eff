"""Half cheetah: a planar runner. qpos: x, z, pitch (m, m, rad) and six joint angles; six motors."""

import jax
import jax.numpy as jnp

from envs.bodies.base import Body
from envs.physics.base import Physics, PhysicsState

TORSO_HEIGHT = 0.7
"""Height of the torso at qpos z = 0, m (the model's body position)."""


def _obs(state: PhysicsState) -> jax.Array:
    """[20] qpos without x, qvel, and the torso's position, in which x is visible."""
    x, z = state.qpos[0], state.qpos[1]
    torso = jnp.stack([x, jnp.zeros_like(x), z + TORSO_HEIGHT])
    return jnp.concatenate([state.qpos[1:], state.qvel, torso])


def initial(physics: Physics, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """qpos0 + U(-0.1, 0.1), 0.1 N(0, 1)."""
    key_qpos, key_qvel = jax.random.split(key)
    qpos = physics.qpos0 + jax.random.uniform(key_qpos, physics.qpos0.shape, minval=-0.1, maxval=0.1)
    return qpos, 0.1 * jax.random.normal(key_qvel, (physics.nv,))


def body() -> Body:
    return Body("half_cheetah", "half_cheetah.xml", 5, _obs, 20, initial)
