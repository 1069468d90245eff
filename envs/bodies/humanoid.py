"""Humanoid: a biped in space. qpos: xyz (m), quaternion, seventeen joint angles (rad); seventeen motors."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from mujoco import mjx

from envs.bodies.base import Body
from envs.bodies.walker2d import small_noise
from envs.physics.base import Physics, PhysicsState


def derive(physics: Physics) -> Callable[[PhysicsState], dict[str, jax.Array]]:
    """Quantities of the pose and the motion, fresh at the state itself (`mj_step` leaves those one substep before).

    Returns:
      state -> `com` [3] centre of mass, m; `cinert` [14, 10] and `cvel` [14, 6] inertia and velocity of each body
      about it; `qfrc_actuator` [nv] joint torques of the last control, N m.
    """
    model = physics.model
    assert model is not None
    device_model = mjx.put_model(model, impl="jax")
    gear = np.zeros((model.nv, model.nu))
    gear[model.jnt_dofadr[model.actuator_trnid[:, 0]], np.arange(model.nu)] = model.actuator_gear[:, 0]
    share = model.body_mass / model.body_mass.sum()

    def of(state: PhysicsState) -> dict[str, jax.Array]:
        data = mjx.make_data(device_model, impl="jax").replace(qpos=state.qpos, qvel=state.qvel)
        for stage in (mjx.kinematics, mjx.com_pos, mjx.com_vel):
            data = stage(device_model, data)
        derived = {
            "com": jnp.asarray(share) @ data.xipos,
            "cinert": data._impl.cinert,
            "cvel": data.cvel,
            "qfrc_actuator": jnp.asarray(gear) @ state.ctrl,
        }
        return {name: x.astype(state.qpos.dtype) for name, x in derived.items()}

    return of


def _obs(state: PhysicsState) -> jax.Array:
    """[292] qpos without xy, qvel, cinert, cvel, qfrc_actuator; contact forces, always zero in the papers, left out."""
    derived = [state.derived[name].ravel() for name in ("cinert", "cvel", "qfrc_actuator")]
    return jnp.concatenate([state.qpos[2:], state.qvel, *derived])


def _healthy(state: PhysicsState) -> jax.Array:
    """Torso height in [1, 2] m."""
    return (state.qpos[2] >= 1.0) & (state.qpos[2] <= 2.0)


def body() -> Body:
    return Body("humanoid", "humanoid.xml", 5, _obs, 292, small_noise(0.01), _healthy, derive=derive)
