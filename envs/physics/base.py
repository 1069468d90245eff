"""The physics protocol: three engines, one meaning.

An engine advances a `PhysicsState` by `n` substeps under a constant control. The state is the complete
integration state (everything the next step depends on), so a step is a pure function and a checkpoint
written with one engine continues on another.
"""

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Bool, Float

from envs.errors import ConfigurationError

with contextlib.redirect_stdout(io.StringIO()):  # it prints that warp is missing, which nobody needs to know of here
    from mujoco import mjx


class PhysicsState(NamedTuple):
    """Integration state of one simulation, in generalised coordinates (SI units)."""

    qpos: Float[Array, " nq"]
    qvel: Float[Array, " nv"]
    qacc_warmstart: Float[Array, " nv"]
    """Previous acceleration; the contact solver starts from it, so the next step depends on it."""
    time: Float[Array, ""]
    ctrl: Float[Array, " nu"]
    """The control that led here; zero at the start. The next step does not depend on it."""
    qfrc_actuator: Float[Array, " nv"]
    """Its forces and torques on the joints, N and N m."""
    model: dict[str, Array]
    """Fields of the model that this simulation has values of its own for; see `envs.physics.dynamics`."""
    derived: dict[str, Array]
    """Fields of `mjData` that its body's observation or reward reads, at this state; see `derive`."""


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


DERIVED = ("subtree_com", "cinert", "cvel")
"""Fields of `mjData` that a state can come with: [nbody, 3] centre of mass of each body and what hangs on it, m;
[nbody, 10] and [nbody, 6] inertia and velocity of each body about it."""


def derive(model: mujoco.MjModel, names: Sequence[str]) -> Callable[[PhysicsState], PhysicsState]:
    """XLA's computation of the fields `names` of `DERIVED`, at the state itself.

    `mj_step` leaves those of one substep before.
    """
    if not names:
        return lambda state: state
    device_model = mjx.put_model(model, impl="jax")

    def of(state: PhysicsState) -> PhysicsState:
        own = device_model.replace(**state.model)
        data = mjx.make_data(device_model, impl="jax").replace(qpos=state.qpos, qvel=state.qvel)
        for stage in (mjx.kinematics, mjx.com_pos, mjx.com_vel):
            data = stage(own, data)
        found = {"subtree_com": data.subtree_com, "cinert": data._impl.cinert, "cvel": data.cvel}
        return state._replace(derived={name: found[name].astype(state.qpos.dtype) for name in names})

    return of


def from_model(
    engine: str,
    model: mujoco.MjModel,
    step: StepFn,
    complete: Callable[[PhysicsState], PhysicsState],
    varied: Sequence[str] = (),
) -> Physics:
    """An engine's `step` with what an environment needs to know of `model`.

    Args:
      engine: its name.
      model: what it has loaded.
      step: takes `state.model` into account, and makes `state.derived` current.
      complete: does so for a state that no step led to.
      varied: fields of the model in which simulations differ.

    Raises:
      ConfigurationError: an actuator is none that a `PhysicsState` describes.
    """
    _check_actuators(model)

    # Accelerators round factors of matrix products to 8 or 11 bits where nobody asks for more.
    exact = jax.default_matmul_precision("highest")

    @exact
    def init(qpos: jax.Array, qvel: jax.Array) -> PhysicsState:
        own = {name: jnp.asarray(getattr(model, name), jnp.result_type(float)) for name in varied}
        return complete(cold_start(qpos, qvel, model.nu)._replace(model=own))

    gear = np.zeros((model.nv, model.nu))
    gear[model.jnt_dofadr[model.actuator_trnid[:, 0]], np.arange(model.nu)] = model.actuator_gear[:, 0]

    @exact
    def step_and_note(state: PhysicsState, ctrl: jax.Array, n: int) -> PhysicsState:
        return step(state, ctrl, n)._replace(ctrl=ctrl, qfrc_actuator=jnp.asarray(gear, ctrl.dtype) @ ctrl)

    return Physics(
        engine=engine,
        init=init,
        step=step_and_note,
        qpos0=jnp.asarray(model.qpos0),
        timestep=float(model.opt.timestep),
        ctrl_range=tuple((float(low), float(high)) for low, high in model.actuator_ctrlrange),
        nv=model.nv,
        model=model,
    )


def _check_actuators(model: mujoco.MjModel) -> None:
    """Raise `ConfigurationError` unless all actuators are motors without memory on joints, whose range is known."""
    if model.na:
        raise ConfigurationError("actuators with an activation state are not supported: use motors")
    for i in range(model.nu):
        name = repr(model.actuator(i).name or i)
        if model.actuator_trntype[i] != mujoco.mjtTrn.mjTRN_JOINT:
            raise ConfigurationError(f"actuator {name} must drive a joint")
        if not model.actuator_ctrllimited[i]:
            raise ConfigurationError(f'actuator {name} needs a range of its control, such as ctrlrange="-1 1"')
        joint = model.actuator_trnid[i, 0]
        if mujoco.mjtJoint(model.jnt_type[joint]) not in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE):
            raise ConfigurationError(f"actuator {name} must drive a hinge or a slide")
        fixed = model.actuator_gaintype[i] == mujoco.mjtGain.mjGAIN_FIXED and model.actuator_gainprm[i, 0] == 1.0
        if not fixed or model.actuator_biastype[i] != mujoco.mjtBias.mjBIAS_NONE:
            raise ConfigurationError(f"actuator {name} must be a motor")
        if model.actuator_forcelimited[i] or model.jnt_actfrclimited[joint]:
            raise ConfigurationError(f"actuator {name} must have a limited control, not a limited force")


def cold_start(qpos: jax.Array, qvel: jax.Array, nu: int = 0) -> PhysicsState:
    """A `PhysicsState` at time 0 whose solver has no history: qpos [nq], qvel [nv], for `nu` actuators."""
    dtype = jnp.result_type(float)
    qpos, qvel = jnp.asarray(qpos, dtype), jnp.asarray(qvel, dtype)
    warmstart, torque, ctrl = jnp.zeros_like(qvel), jnp.zeros_like(qvel), jnp.zeros(nu, dtype)
    return PhysicsState(qpos, qvel, warmstart, jnp.zeros((), dtype), ctrl, torque, {}, {})


def is_finite(state: PhysicsState, limit: float = 1e6) -> Bool[Array, ""]:
    """Whether a simulation is still one: every coordinate finite and below `limit` (m, rad, m/s, rad/s)."""
    return jnp.all(jnp.abs(state.qpos) < limit) & jnp.all(jnp.abs(state.qvel) < limit)
