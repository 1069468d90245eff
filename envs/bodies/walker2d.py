"""Walker2d: a planar biped. qpos: x, z, pitch (m, m, rad) and six joint angles; six motors."""

import jax
import jax.numpy as jnp

from envs.bodies.base import Body
from envs.physics.base import Physics, PhysicsState


def planar_obs(state: PhysicsState) -> jax.Array:
    """qpos without x, and qvel clipped to +-10."""
    return jnp.concatenate([state.qpos[1:], jnp.clip(state.qvel, -10.0, 10.0)])


def small_noise(amplitude: float):
    """Episodes that start within `amplitude` of the reference configuration at rest: qpos and qvel, uniform."""

    def initial(physics: Physics, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_qpos, key_qvel = jax.random.split(key)
        qpos = jax.random.uniform(key_qpos, physics.qpos0.shape, minval=-amplitude, maxval=amplitude)
        return physics.qpos0 + qpos, jax.random.uniform(key_qvel, (physics.nv,), minval=-amplitude, maxval=amplitude)

    return initial


def _healthy(state: PhysicsState) -> jax.Array:
    """Height in (0.8, 2) m and pitch in (-1, 1) rad."""
    z, pitch = state.qpos[1], state.qpos[2]
    return (z > 0.8) & (z < 2.0) & (jnp.abs(pitch) < 1.0)


def body(timestep: float | None = None, frame_skip: int = 4) -> Body:
    """`timestep` 0.004 s and 4 substeps in Walker-Rand-Params; ER-TRL's has the file's 0.002 s and 5."""
    return Body("walker2d", "walker2d_v5.xml", frame_skip, planar_obs, 17, small_noise(0.005), _healthy, timestep)
