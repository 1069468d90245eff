"""MJX: the same models as XLA programs, for TPUs and other accelerators."""

import jax
import mujoco
from mujoco import mjx

from envs.physics import capsules
from envs.physics.base import Physics, PhysicsState, from_model


def make(model: mujoco.MjModel) -> Physics:
    """Load `model` into MJX."""
    capsules.repair()
    device_model = mjx.put_model(model, impl="jax")

    def step(state: PhysicsState, ctrl: jax.Array, n: int) -> PhysicsState:
        data = mjx.make_data(device_model, impl="jax").replace(
            qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.qacc_warmstart, time=state.time, ctrl=ctrl
        )
        data = jax.lax.fori_loop(0, n, lambda _, d: mjx.step(device_model, d), data)
        return PhysicsState(data.qpos, data.qvel, data.qacc_warmstart, data.time)

    return from_model("mjx", model, step)
