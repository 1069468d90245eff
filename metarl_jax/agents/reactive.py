"""SAC on the observation alone: an agent that infers nothing, for single tasks and for tasks told in observations."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from metarl_jax.agents import control
from metarl_jax.data import statistics
from metarl_jax.data.replay import Replay, sample_windows, unscaled
from metarl_jax.data.statistics import Scale
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import sac
from metarl_jax.learners.sac import Config as SACConfig
from metarl_jax.types import Agent, Changes, EnvSpec, Metrics

POOL_UPDATES = 16
"""Policy updates whose batches are drawn together."""


@dataclasses.dataclass(frozen=True)
class Config:
    """A policy of the observation."""

    sac: SACConfig = dataclasses.field(
        default_factory=lambda: SACConfig(obs_embedding=0, belief_embedding=0, policy_every=2)
    )
    updates: int = 256
    """Critic updates per epoch."""
    standardize_obs: bool = True
    """Policy and critics see observations standardised with the statistics of all data so far."""


class State(NamedTuple):
    """What it learns."""

    sac: sac.State
    scale: Scale
    """Of observations; used where they are standardised."""


def validate(config: Config) -> None:
    """Raise `ConfigurationError` for sizes that contradict each other."""
    sac.validate(config.sac)
    if config.updates < 1:
        raise ConfigurationError(f"updates must be >= 1, got {config.updates}")
    block = POOL_UPDATES * config.sac.policy_every
    if config.updates % block:
        raise ConfigurationError(f"updates must be a multiple of {POOL_UPDATES} x policy_every, got {config.updates}")


def make(config: Config, spec: EnvSpec) -> Agent:
    """SAC for environments of `spec`, as pure functions.

    Raises:
      ConfigurationError: see `validate`.
    """
    validate(config)
    sac_spec = sac.Spec(spec.obs_size, spec.action_size)
    drawn = POOL_UPDATES * config.sac.policy_every * config.sac.batch_size
    training = control.Config(
        sac=config.sac,
        standardize_obs=config.standardize_obs,
        window=1,
        sac_updates=config.updates,
        pool_windows=drawn,
        updates_per_pool=POOL_UPDATES,
    )
    nothing_known = statistics.identity(jnp.zeros(0))

    def init(key: PRNGKeyArray) -> State:
        return State(sac.init(key, config.sac, sac_spec), unscaled(spec.obs_size, spec.action_size))

    def begin(state: State, n: int) -> jax.Array:
        return jnp.zeros((n, 0))

    def act(state: State, obs: jax.Array, memory: jax.Array, key: PRNGKeyArray, explore: bool) -> jax.Array:
        obs = control.seen(training, state.scale, obs)
        return sac.act(state.sac, config.sac, sac_spec, obs, memory, key, explore)

    def describe(state: State, memory: jax.Array) -> dict[str, jax.Array]:
        return {"belief": memory, "component": jnp.ones((*memory.shape[:-1], 1))}

    def learn(state: State, replay: Replay, key: PRNGKeyArray) -> tuple[Changes, Metrics]:
        scale = statistics.scale(replay.moments)

        def make_pool(key: PRNGKeyArray) -> sac.Batch:
            windows = sample_windows(replay, key, drawn, 1)
            nothing = jnp.zeros((*windows.reward.shape, 0))
            return control.pool(training, spec, scale, windows, nothing, nothing)

        before = control.State(state.sac, nothing_known, nothing_known)
        learnt, metrics = control.train(training, sac_spec, before, make_pool, jnp.zeros((), jnp.int32), key)
        return {"sac": learnt.sac, "scale": scale}, metrics | {"updates": jnp.asarray(config.updates)}

    return Agent(init, begin, act, lambda state, memory, transition: memory, {"control": learn}, describe)
