"""The physics protocol: three engines, one meaning.

An engine advances a `PhysicsState` by `n` substeps under a constant control. The state is the complete
integration state (everything the next step depends on), so a step is a pure function and a checkpoint
written with one engine continues on another.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Bool, Float


class PhysicsState(NamedTuple):
    """Integration state of one simulation, in generalised coordinates (SI units)."""

    qpos: Float[Array, " nq"]
    qvel: Float[Array, " nv"]
    qacc_warmstart: Float[Array, " nv"]
    """Previous acceleration; the contact solver starts from it, so the next step depends on it."""
    time: Float[Array, ""]
    ctrl: Float[Array, " nu"]
    """The control that led here; zero at the start. The next step does not depend on it."""
    model: dict[str, Array]
    """Fields of the model that this simulation has values of its own for; see `envs.physics.dynamics`."""
    derived: dict[str, Array]
    """What its body computes from all this, once, for observations, rewards and termination."""


StepFn = Callable[[PhysicsState, jax.Array, int], PhysicsState]
"""(state, ctrl [nu], n) -> the state `n` substeps later; not finite, or beyond `is_finite`'s limit, where the
simulation diverged."""


class Physics(NamedTuple):
    """One engine loaded with one model: pure functions over `PhysicsState`."""

    engine: str
    """`native`, `mjx`, `warp` or `analytic`."""
    init: Callable[[jax.Array, jax.Array], PhysicsState]
    """(qpos [nq], qvel [nv]) -> state at time 0 with a cold solver and the model's own values."""
    step: StepFn
    qpos0: jax.Array
    """[nq] reference configuration of the model."""
    timestep: float
    """Seconds per substep."""
    ctrl_range: tuple[tuple[float, float], ...]
    """(low, high) of each actuator."""
    nv: int
    """Degrees of freedom."""
    model: mujoco.MjModel | None
    """What the engine has loaded; None for closed-form physics."""


def from_model(engine: str, model: mujoco.MjModel, step: StepFn, varied: Sequence[str] = ()) -> Physics:
    """An engine's `step` with what an environment needs to know of `model`.

    Args:
      engine: its name.
      model: what it has loaded.
      step: takes `state.model` into account.
      varied: fields of the model in which simulations differ.
    """

    def init(qpos: jax.Array, qvel: jax.Array) -> PhysicsState:
        own = {name: jnp.asarray(getattr(model, name), jnp.result_type(float)) for name in varied}
        return cold_start(qpos, qvel, model.nu)._replace(model=own)

    return Physics(
        engine=engine,
        init=init,
        step=step,
        qpos0=jnp.asarray(model.qpos0),
        timestep=float(model.opt.timestep),
        ctrl_range=tuple((float(low), float(high)) for low, high in model.actuator_ctrlrange),
        nv=model.nv,
        model=model,
    )


def cold_start(qpos: jax.Array, qvel: jax.Array, nu: int = 0) -> PhysicsState:
    """A `PhysicsState` at time 0 whose solver has no history: qpos [nq], qvel [nv], for `nu` actuators."""
    dtype = jnp.result_type(float)
    qpos, qvel = jnp.asarray(qpos, dtype), jnp.asarray(qvel, dtype)
    return PhysicsState(qpos, qvel, jnp.zeros_like(qvel), jnp.zeros((), dtype), jnp.zeros(nu, dtype), {}, {})


def is_finite(state: PhysicsState, limit: float = 1e6) -> Bool[Array, ""]:
    """Whether a simulation is still one: every coordinate finite and below `limit` (m, rad, m/s, rad/s)."""
    return jnp.all(jnp.abs(state.qpos) < limit) & jnp.all(jnp.abs(state.qvel) < limit)
