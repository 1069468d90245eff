"""Point robot: a point in the plane that moves by a tenth of the action. Closed-form physics, no engine."""

import jax
import jax.numpy as jnp

from envs.bodies.base import Body
from envs.physics.base import Physics, PhysicsState, cold_start


def physics() -> Physics:
    """xy += 0.1 a, one substep per control step of 1 s."""

    def step(state: PhysicsState, ctrl: jax.Array, n: int) -> PhysicsState:
        return state._replace(qpos=state.qpos + 0.1 * n * ctrl, time=state.time + n, ctrl=ctrl)

    return Physics(
        engine="analytic",
        init=lambda qpos, qvel: cold_start(qpos, qvel, 2),
        step=step,
        qpos0=jnp.zeros(2),
        timestep=1.0,
        ctrl_range=((-1.0, 1.0),) * 2,
        nv=0,
        model=None,
    )


def _obs(state: PhysicsState) -> jax.Array:
    """[2] xy, m."""
    return state.qpos


def body(start: str = "uniform") -> Body:
    """Episodes start at U(-1, 1)^2 (`uniform`, PEARL's dense task) or at the origin (`origin`, its sparse one)."""

    def initial(physics: Physics, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        xy = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        return xy if start == "uniform" else jnp.zeros(2), jnp.zeros(0)

    return Body("point", None, 1, _obs, 2, initial, place=2)
