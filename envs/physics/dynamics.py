"""Models whose masses, inertias, friction and damping differ between simulations.

An engine reads some constants that MuJoCo's compiler derives from masses and inertias (`mj_setConst`). Here they are
derived in JAX, at the reference configuration, so that a task's dynamics are one pure function on every engine and
device.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.errors import ConfigurationError

Fields = dict[str, jax.Array]

INERTIAL = ("body_mass", "body_inertia")
DERIVED = ("body_subtreemass", "body_invweight0", "dof_invweight0", "dof_M0")
"""What an engine reads beside the inertial fields, and what follows from them."""


def with_derived(names: tuple[str, ...]) -> tuple[str, ...]:
    """The fields in which simulations differ if they differ in `names`."""
    return names + (DERIVED if set(names) & set(INERTIAL) else ())


def scaled(model: mujoco.MjModel, factors: Mapping[str, jax.Array]) -> Fields:
    """Fields of `model` times `factors`, which broadcast, and all that follows from them.

    Raises:
      ConfigurationError: masses or inertias of a model with joints other than hinges and slides.
    """
    fields = {name: jnp.asarray(getattr(model, name)) * factor for name, factor in factors.items()}
    return fields | (_derived(model)(fields) if set(fields) & set(INERTIAL) else {})


def _derived(model: mujoco.MjModel) -> Callable[[Fields], Fields]:
    """Body masses [nbody] and principal inertias [nbody, 3] -> the fields `DERIVED`."""
    if not set(model.jnt_type) <= {int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)}:
        raise ConfigurationError("masses and inertias can differ between simulations for hinge and slide joints only")
    data = mujoco.MjData(model)
    data.qpos[:] = model.qpos0
    mujoco.mj_forward(model, data)
    move, turn = np.zeros((2, model.nbody, 3, model.nv))
    for body in range(model.nbody):
        mujoco.mj_jacBodyCom(model, data, move[body], turn[body], body)
    turn_own = np.einsum("bji,bjv->biv", data.ximat.reshape(-1, 3, 3), turn)  # along the principal axes
    below = np.eye(model.nbody)  # [ancestor, body]
    for body in range(model.nbody - 1, 0, -1):
        below[model.body_parentid[body]] += below[body]

    @jax.default_matmul_precision("highest")
    def derive(fields: Fields) -> Fields:
        mass, inertia = (fields.get(name, jnp.asarray(getattr(model, name))) for name in INERTIAL)
        m = jnp.einsum("b,bix,biy->xy", mass, move, move) + jnp.einsum("bi,bix,biy->xy", inertia, turn_own, turn_own)
        m += jnp.diag(jnp.asarray(model.dof_armature))
        inverse = jnp.linalg.inv(m)
        weights = [jnp.einsum("bix,xy,biy->b", jac, inverse, jac) / 3 for jac in (move, turn)]
        return {
            "body_subtreemass": jnp.asarray(below) @ mass,
            "body_invweight0": jnp.stack(weights, -1),
            "dof_invweight0": jnp.diag(inverse),
            "dof_M0": jnp.diag(m),
        }

    return derive
