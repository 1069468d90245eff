"""MJX-Warp: MuJoCo as CUDA kernels, for NVIDIA GPUs. float32 only; also runs, slowly, on a CPU.

Warp keeps the contacts of all worlds in one buffer (`naconmax`) and the constraints of each in another
(`njmax`); what does not fit is dropped, which silently changes the physics. Both are sized here for the
most that the model can produce, and a world that overflows all the same comes back as NaN, so that it is
counted and masked like any simulation that diverged. A solver that stops at its limit of iterations, which Warp
notes in the same place, has lost nothing.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jax.custom_batching import custom_vmap
from mujoco import mjx

from envs.physics import capsules
from envs.physics.base import Physics, PhysicsState, derive, from_model


def make(
    model: mujoco.MjModel,
    varied: Sequence[str] = (),
    derived: Sequence[str] = (),
    graph_mode: str | None = None,
    capacity: float = 1.0,
) -> Physics:
    """Load `model` into MJX-Warp.

    Args:
      model: compiled model.
      varied: fields of the model in which simulations differ.
      derived: of `DERIVED`, what states come with.
      graph_mode: how the kernels are captured into a CUDA graph on a GPU: `WARP` (MJX's default), `WARP_STAGED`,
        `JAX` or `NONE` (see `warp.JaxCallableGraphMode`). A CPU has no graphs.
      capacity: fraction of the model's greatest possible number of contacts to make room for.
    """
    import warp
    from mujoco.mjx.third_party.mujoco_warp import OverflowType

    capsules.repair_warp()
    mode = graph_mode and warp.JaxCallableGraphMode[graph_mode]
    device_model = mjx.put_model(model, impl="warp", graph_mode=mode)
    device_model = device_model.tree_replace({"opt._impl.warn_overflow": 0})  # it would print from every world
    lost = OverflowType.ALL & ~(OverflowType.ITERATIONS | OverflowType.LS_ITERATIONS)
    complete = derive(model, derived)
    # MJX's own arrays have one slot per possible contact and constraint: nothing can exceed them.
    most = mjx.make_data(model, impl="jax")._impl
    num_contacts, num_constraints = math.ceil(capacity * most.ncon), max(1, math.ceil(capacity * most.nefc))

    def blank(num_worlds: int) -> mjx.Data:
        """One world's data, in buffers for `num_worlds`."""
        with jax.ensure_compile_time_eval():
            data = mjx.make_data(model, impl="warp", naconmax=max(1, num_worlds * num_contacts), njmax=num_constraints)
        # Buffers that hold one value must not become constants of the program: they can be 100s of MB.
        return jax.tree.map(_uniform, data)

    def advance(n: int, state: PhysicsState, ctrl: jax.Array) -> PhysicsState:
        """`n` steps of states and controls with any leading axes: the buffers must be sized for all worlds at once."""
        lead = state.qpos.shape[:-1]
        num_worlds = math.prod(lead)
        data = blank(num_worlds)

        def one(state, ctrl):
            own = device_model.replace(**state.model)
            now = data.replace(
                qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.qacc_warmstart, time=state.time, ctrl=ctrl
            )
            now = jax.lax.fori_loop(0, n, lambda _, d: mjx.step(own, d), now)
            fits = now._impl.overflow.reshape(()) & int(lost) == 0
            qpos = jnp.where(fits, now.qpos, jnp.nan)
            warmstart = now.qacc_warmstart
            return state._replace(qpos=qpos, qvel=now.qvel, qacc_warmstart=warmstart, time=now.time)

        flat = jax.tree.map(lambda x: x.reshape(num_worlds, *x.shape[len(lead) :]), (state, ctrl))
        after = jax.vmap(one)(*flat)
        return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), after)

    @functools.cache
    def batched_advance(n: int) -> Callable[[PhysicsState, jax.Array], PhysicsState]:
        """`advance` by a number of steps that the program knows: it need not ask the device when to stop."""
        together = custom_vmap(functools.partial(advance, n))

        @together.def_vmap
        def _(axis_size, batched, state, ctrl):
            def spread(x, has_axis):
                return x if has_axis else jnp.broadcast_to(x, (axis_size, *x.shape))

            state, ctrl = jax.tree.map(spread, (state, ctrl), tuple(batched))
            return together(state, ctrl), jax.tree.map(lambda _: True, state)

        return together

    def step(state: PhysicsState, ctrl: jax.Array, n: int) -> PhysicsState:
        single = jax.tree.map(lambda x: x.astype(jnp.float32), state)
        after = batched_advance(n)(single, ctrl.astype(jnp.float32))
        return complete(jax.tree.map(lambda new, old: new.astype(old.dtype), after, state))

    return from_model("warp", model, step, complete, varied)


def _uniform(leaf):
    """An array of one value as a broadcast of it; any other leaf as it is."""
    if not isinstance(leaf, jax.Array) or leaf.size < 2:
        return leaf
    host = np.asarray(leaf)
    return jnp.full(leaf.shape, host.flat[0], leaf.dtype) if (host == host.flat[0]).all() else leaf
