"""Context-based offline meta-RL: an encoder of contexts, and behaviour-regularised control on its embedding.

FOCAL, CSRO, UNICORN, offline PEARL and ER-TRL are one algorithm with different losses of the encoder: `METHODS`.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metarl_jax.agents import embedding_terms
from metarl_jax.agents.embedding_terms import TERMS, Inputs, Sizes
from metarl_jax.data import offline
from metarl_jax.data.offline import OfflineBatch, OfflineData
from metarl_jax.data.statistics import Scale
from metarl_jax.errors import ConfigurationError, check_ranges
from metarl_jax.learners import brac, context_encoder
from metarl_jax.learners.brac import Config as BRACConfig
from metarl_jax.learners.context_encoder import Config as EncoderConfig
from metarl_jax.learners.context_encoder import Context
from metarl_jax.types import Agent, Changes, EnvSpec, Metrics, Transition


class Method(NamedTuple):
    """What the encoder learns from."""

    metric: bool
    """Embeddings of one task are pulled together, those of different tasks pushed apart."""
    term: str | None
    """One of `embedding_terms.TERMS`."""


METHODS = {
    "er_trl": Method(metric=True, term="entropy"),
    "focal": Method(metric=True, term=None),
    "csro": Method(metric=True, term="information"),
    "unicorn": Method(metric=True, term="decoder"),
    "offline_pearl": Method(metric=False, term="bellman"),
}


@dataclasses.dataclass(frozen=True)
class Config(embedding_terms.Config):
    """Context-based offline meta-RL."""

    method: str = "er_trl"
    """What the encoder learns from: er_trl, focal, csro, unicorn or offline_pearl."""
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    brac: BRACConfig = dataclasses.field(default_factory=BRACConfig)
    tasks_per_step: int = 16
    """Training tasks that a train step draws, without replacement."""
    batch_size: int = 256
    """Transitions per task that control and the terms learn from."""
    context_size: int = 100
    """Transitions per context."""
    contexts_per_task: int = 2
    """Contexts of each task in a train step; 1 (a quirk of the reference): no two embeddings are pulled together."""
    timeouts_terminate: bool = False
    """Time-outs count as terminal states (a quirk of the reference)."""
    standardize_obs: bool = False
    """Networks see standardised observations, and the encoder standardised rewards."""
    steps_per_epoch: int = 500
    """Train steps per epoch."""


class State(NamedTuple):
    """What is learnt."""

    encoder: context_encoder.State
    term: Any
    control: brac.State


class Memory(NamedTuple):
    """What one agent has seen of its task: leading axis n."""

    total: Float[Array, "n D"]
    """Sum of its transitions' embeddings."""
    num: Float[Array, " n"]

    @property
    def latent(self) -> Float[Array, "n D"]:
        """Their mean; 0 before the first."""
        return self.total / jnp.maximum(self.num, 1.0)[:, None]


def validate(config: Config, num_train: int) -> None:
    """Raise `ConfigurationError` for settings that contradict each other or the data."""
    check_ranges(config)
    if config.method not in METHODS:
        raise ConfigurationError(f"unknown method {config.method!r}: choose {', '.join(METHODS)}")
    if config.brac.penalty not in brac.PENALTIES:
        raise ConfigurationError(f"unknown brac.penalty {config.brac.penalty!r}: choose {', '.join(brac.PENALTIES)}")
    if not 2 <= config.tasks_per_step <= num_train:
        raise ConfigurationError(
            f"tasks_per_step must be in [2, {num_train}] (the data has {num_train} training tasks), "
            f"got {config.tasks_per_step}"
        )
    if config.contexts_per_task not in (1, 2):
        raise ConfigurationError(f"contexts_per_task must be 1 or 2, got {config.contexts_per_task}")
    counts = {"steps_per_epoch": config.steps_per_epoch, "gan.rounds": config.gan.rounds}
    for name, count in (counts | {"brac.divergence_updates": config.brac.divergence_updates}).items():
        if count < 1:
            raise ConfigurationError(f"{name} must be >= 1, got {count}")
    if METHODS[config.method].term == "information" and config.context_size < 2:
        raise ConfigurationError(f"context_size must be >= 2 for {config.method} (embeddings are compared), got 1")
    if config.batch_size < 2:
        raise ConfigurationError(f"batch_size must be >= 2 (a covariance is taken over it), got {config.batch_size}")


def seen_obs(config: Config, scale: Scale, obs: Float[Array, "... O"]) -> Float[Array, "... O"]:
    """Observations as all networks see them; `scale` is of `obs` and `reward` in the data."""
    return (obs - scale.mean.obs) / scale.std.obs if config.standardize_obs else obs


def make(config: Config, spec: EnvSpec, scale: Scale, train_tasks: np.ndarray) -> Agent:
    """Assemble the agent; it learns from an `OfflineData`.

    Args:
      config: sizes.
      spec: of the environment.
      scale: of `obs` and `reward` in the data.
      train_tasks: rows of the data to learn from.

    Raises:
      ConfigurationError: settings contradict each other or the data.
    """
    validate(config, len(train_tasks))
    method = METHODS[config.method]
    sizes = Sizes(spec.obs_size, spec.action_size, config.encoder.latent_size)
    control_spec = brac.Spec(*sizes)
    encoder = config.encoder if method.metric else dataclasses.replace(config.encoder, metric_weight=0.0)
    term = TERMS[method.term](config, sizes, config.brac) if method.term else None

    obs_seen = functools.partial(seen_obs, config, scale)

    def reward_seen(reward: jax.Array) -> jax.Array:
        return (reward - scale.mean.reward) / scale.std.reward if config.standardize_obs else reward

    def context_of(x: OfflineBatch | Transition) -> Context:
        return Context(obs_seen(x.obs), x.action, reward_seen(x.reward), obs_seen(x.next_obs))

    def init(key: PRNGKeyArray) -> State:
        key_encoder, key_term, key_control = jax.random.split(key, 3)
        return State(
            encoder=context_encoder.init(key_encoder, encoder, context_encoder.Spec(spec.obs_size, spec.action_size)),
            term=term.init(key_term) if term else (),
            control=brac.init(key_control, config.brac, control_spec),
        )

    def begin(state: State, n: int) -> Memory:
        return Memory(jnp.zeros((n, sizes.latent_size)), jnp.zeros(n))

    def recall(state: State, transitions: OfflineBatch) -> Memory:
        embeddings = context_encoder.embed(state.encoder.params, encoder, context_of(transitions))
        return Memory(jnp.sum(embeddings, 1), jnp.full(embeddings.shape[0], float(embeddings.shape[1])))

    def act(state: State, obs: jax.Array, memory: Memory, key: PRNGKeyArray, explore: bool) -> jax.Array:
        return brac.act(state.control, config.brac, control_spec, obs_seen(obs), memory.latent, key, explore)

    def observe(state: State, memory: Memory, transition: Transition) -> Memory:
        embedding = context_encoder.embed(state.encoder.params, encoder, context_of(transition))
        seen = transition.valid.astype(jnp.float32)
        return Memory(memory.total + jnp.where(transition.valid[:, None], embedding, 0.0), memory.num + seen)

    def describe(state: State, memory: Memory) -> dict[str, jax.Array]:
        return {"belief": memory.latent, "component": jnp.ones((*memory.num.shape, 1))}

    def draw(data: OfflineData, key: PRNGKeyArray) -> Inputs:
        """What one train step learns from."""
        key_tasks, key_batch, key_context = jax.random.split(key, 3)
        tasks = jax.random.permutation(key_tasks, jnp.asarray(train_tasks))[: config.tasks_per_step]
        batch = offline.sample(data, key_batch, tasks, config.batch_size)
        several = jnp.tile(tasks, config.contexts_per_task)
        context = offline.sample(data, key_context, several, config.context_size)
        obs, next_obs = obs_seen(batch.obs), obs_seen(batch.next_obs)
        return Inputs(
            batch=batch._replace(obs=obs, next_obs=next_obs),
            context=OfflineBatch(*context_of(context), context.terminated),
            task=several,
            standardized=batch._replace(
                obs=(batch.obs - scale.mean.obs) / scale.std.obs,
                next_obs=(batch.next_obs - scale.mean.obs) / scale.std.obs,
                reward=(batch.reward - scale.mean.reward) / scale.std.reward,
            ),
        )

    def train_step(state: State, inputs: Inputs, key: PRNGKeyArray) -> tuple[State, Metrics]:
        """The term's learner, then the encoder, then control, all on the embeddings of the encoder as it was."""
        key_term, key_loss, key_control = jax.random.split(key, 3)
        context = Context(*inputs.context[:4])
        embeddings = context_encoder.embed(state.encoder.params, encoder, context)
        metrics: Metrics = {}
        learnt, further = state.term, None
        if term:
            learnt, metrics = term.train(state.term, inputs, embeddings, key_term)

            def further(embeddings):
                return term.loss(learnt, state.control, inputs, embeddings, key_loss)

        trained, encoder_metrics = context_encoder.train_step(state.encoder, context, inputs.task, encoder, further)
        transitions = embedding_terms.transitions_of(inputs, embedding_terms.latents(inputs, embeddings))
        control, control_metrics = brac.train_step(state.control, transitions, key_control, config.brac, control_spec)
        return State(trained, learnt, control), metrics | encoder_metrics | control_metrics

    def learn(state: State, data: OfflineData, key: PRNGKeyArray) -> tuple[Changes, Metrics]:
        """All in one part: encoder and control learn in turns, each from the other's newest."""
        if config.timeouts_terminate:
            data = data._replace(terminated=data.last)

        def body(state, key):
            key_data, key_train = jax.random.split(key)
            return train_step(state, draw(data, key_data), key_train)

        state, metrics = jax.lax.scan(body, state, jax.random.split(key, config.steps_per_epoch))
        return state._asdict(), jax.tree.map(jnp.mean, metrics) | {"updates": jnp.asarray(config.steps_per_epoch)}

    return Agent(init, begin, act, observe, {"learning": learn}, describe, recall=recall)
