"""A body: what turns physics into an environment without a goal."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.core import Environment, EnvSpec, State, Task, where
from envs.errors import ConfigurationError
from envs.physics.base import Physics, PhysicsState, is_finite


class Body(NamedTuple):
    """Observation, reset distribution and termination of a robot; everything but its model and its task."""

    name: str
    file: str | None
    """Model file of the `gymnasium` package; None for closed-form physics."""
    frame_skip: int
    """Physics substeps per control step."""
    obs: Callable[[PhysicsState], jax.Array]
    obs_size: int
    initial: Callable[[Physics, jax.Array], tuple[jax.Array, jax.Array]]
    """(physics, key) -> qpos [nq], qvel [nv] of a new episode."""
    healthy: Callable[[PhysicsState], jax.Array] | None = None
    """Whether the episode may go on; None if it never terminates."""
    timestep: float | None = None
    """Seconds per substep; None for the model file's."""
    derived: tuple[str, ...] = ()
    """Fields of `mjData` that its observation or its rewards read; of `envs.physics.base.DERIVED`."""
    place: int = 1
    """How many coordinates, the first of qpos, tell where on the ground it is, m: x of planar bodies, else x and y."""


def environment(body: Body, physics: Physics, variant: str) -> Environment:
    """The body as an environment whose reward is always 0 and whose episodes only end by termination.

    Actions in [-1, 1] are clipped and mapped linearly onto the actuators' ranges. A simulation that diverges, or is
    given an action that is not finite (which the C engine would take for 0), is put back at rest in the reference
    configuration, with zero reward, `truncated` and `metrics["diverged"]` set: nothing non-finite leaves.
    """
    low, high = jnp.asarray(physics.ctrl_range).T
    limits = {abs(limit) for ends in physics.ctrl_range for limit in ends}
    at_rest = physics.init(physics.qpos0, jnp.zeros(physics.nv))
    nothing = Task(jnp.zeros(1, jnp.int32), jnp.zeros((1, 0)), jnp.zeros(1, jnp.int32))
    spec = EnvSpec(
        name=body.name,
        obs_size=body.obs_size,
        action_size=len(physics.ctrl_range),
        task_size=0,
        horizon=0,
        dt=physics.timestep * body.frame_skip,
        families=(),
        subtasks=(),
        engine=physics.engine,
        variant=variant,
        max_control=limits.pop() if len(limits) == 1 else 0.0,
    )

    def state_from(key, task, qpos, qvel):
        state = physics.init(qpos, qvel)
        obs = body.obs(state)
        false = jnp.zeros((), bool)
        return State(
            obs=obs,
            reward=jnp.zeros_like(obs, shape=()),
            terminated=false,
            truncated=false,
            final_obs=obs,
            task=task,
            physics=state,
            time=jnp.zeros((), jnp.int32),
            key=key,
            metrics={
                "diverged": false,
                "task_changed": false,
                "resting": jnp.zeros_like(obs, shape=2),
                "gross_reward": jnp.zeros_like(obs, shape=()),
            },
            schedule={},
        )

    def reset(key, task):
        key, noise = jax.random.split(key)
        return state_from(key, task, *body.initial(physics, noise))

    def step(state, action):
        if jnp.shape(action) != low.shape:
            raise ConfigurationError(f"an action here has shape {low.shape}, got {jnp.shape(action)}")
        ctrl = low + (jnp.clip(action, -1.0, 1.0) + 1.0) * 0.5 * (high - low)
        after = physics.step(state.physics, ctrl.astype(state.physics.qpos.dtype), body.frame_skip)
        diverged = ~is_finite(after) | ~jnp.all(jnp.isfinite(action))
        reference = jax.tree.map(lambda x, y: x.astype(y.dtype), at_rest, after)._replace(model=after.model)
        after = where(diverged, reference, after)
        obs = body.obs(after)
        healthy = jnp.ones((), bool) if body.healthy is None else body.healthy(after)
        return state._replace(
            obs=obs,
            reward=jnp.zeros_like(state.reward),
            terminated=~healthy & ~diverged,
            truncated=diverged,
            final_obs=obs,
            physics=after,
            time=state.time + 1,
            key=jax.random.fold_in(state.key, 0),  # also where nothing is drawn: see `Environment.step`
            metrics=state.metrics | {"diverged": diverged, "task_changed": jnp.zeros((), bool)},
        )

    return Environment(spec, nothing, nothing, reset, step, state_from)
