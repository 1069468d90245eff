"""MJX: the same models as XLA programs, for TPUs and other accelerators."""

import jax
import jax.numpy as jnp
import mujoco

from envs.physics.base import Physics, PhysicsState, cold_start


def make(model: mujoco.MjModel) -> Physics:
    """Load `model` into MJX."""
    from mujoco import mjx

    device_model = mjx.put_model(model, impl="jax")

    def step(state: PhysicsState, ctrl: jax.Array, n: int) -> PhysicsState:
        data = mjx.make_data(device_model, impl="jax").replace(
            qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.qacc_warmstart, time=state.time, ctrl=ctrl
        )
        data = jax.lax.fori_loop(0, n, lambda _, d: mjx.step(device_model, d), data)
        return PhysicsState(data.qpos, data.qvel, data.qacc_warmstart, data.time)

    return Physics(
        engine="mjx",
        init=cold_start,
        step=step,
        qpos0=jnp.asarray(model.qpos0),
        timestep=float(model.opt.timestep),
        ctrl_range=tuple((float(low), float(high)) for low, high in model.actuator_ctrlrange),
        nv=model.nv,
    )
