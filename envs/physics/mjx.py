"""MJX: the same models as XLA programs, for TPUs and other accelerators.

On a CPU, XLA's batched Cholesky factorisation waits for the thread pool that it runs in, and two of them at once can
wait for ever: 256 humanoids do so on two cores. `XLA_FLAGS=--xla_cpu_multi_thread_eigen=false` avoids it.
"""

from collections.abc import Sequence

import jax
import mujoco
from mujoco import mjx

from envs.physics import capsules
from envs.physics.base import Physics, PhysicsState, derive, from_model


def make(model: mujoco.MjModel, varied: Sequence[str] = (), derived: Sequence[str] = ()) -> Physics:
    """Load `model` into MJX; simulations differ in the fields `varied` of it, and come with the fields `derived`."""
    capsules.repair()
    device_model = mjx.put_model(model, impl="jax")
    complete = derive(model, derived)

    def step(state: PhysicsState, ctrl: jax.Array, n: int) -> PhysicsState:
        own = device_model.replace(**state.model)
        data = mjx.make_data(device_model, impl="jax").replace(
            qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.qacc_warmstart, time=state.time, ctrl=ctrl
        )

        def substep(_, data: mjx.Data) -> mjx.Data:
            # In double precision MJX widens the integers of tendons, which a loop must not.
            return jax.tree.map(lambda new, old: new.astype(old.dtype), mjx.step(own, data), data)

        data = jax.lax.fori_loop(0, n, substep, data)
        after = state._replace(qpos=data.qpos, qvel=data.qvel, qacc_warmstart=data.qacc_warmstart, time=data.time)
        return complete(after)

    return from_model("mjx", model, step, complete, varied)
