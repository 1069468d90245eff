"""What a task's embedding is trained for besides the distance metric: one small learner and one loss each.

| term | loss of the encoder | its own learner |
|---|---|---|
| `entropy` | minus the entropy of what behaviour looks like, given the embedding (ER-TRL) | a GAN of behaviour |
| `information` | an upper bound of what embeddings tell of the behaviour within a task (CSRO) | q(z given s, a) |
| `decoder` | the error of predicted rewards and next states (UNICORN) | the decoder |
| `bellman` | the critics' (offline PEARL) | none |
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metarl_jax.data.offline import OfflineBatch
from metarl_jax.learners import brac, club, gan, transition_decoder
from metarl_jax.learners.brac import Config as BRACConfig
from metarl_jax.learners.club import Config as ClubConfig
from metarl_jax.learners.gan import Config as GANConfig
from metarl_jax.learners.transition_decoder import Config as DecoderConfig
from metarl_jax.types import Metrics


@dataclasses.dataclass(frozen=True)
class Config:
    """The terms; a method uses one of them, or none."""

    gan: GANConfig = dataclasses.field(default_factory=GANConfig)
    entropy_weight: float = 5.0
    """ER-TRL: weight of the entropy of generated actions."""
    club: ClubConfig = dataclasses.field(default_factory=ClubConfig)
    club_weight: float = 25.0
    """CSRO: weight of the information between embeddings and behaviour, counted as in the reference: twice the nats per
    dimension."""
    decoder: DecoderConfig = dataclasses.field(default_factory=DecoderConfig)
    decoder_weight: float = 7.0
    """UNICORN: weight of the decoder's error."""


class Sizes(NamedTuple):
    """Sizes of the vectors, as all learners here name them."""

    obs_size: int
    action_size: int
    latent_size: int


class Inputs(NamedTuple):
    """What one train step has drawn, observations and contexts' rewards as networks see them."""

    batch: OfflineBatch
    """[T, B, ...] transitions of each task."""
    context: OfflineBatch
    """[M, N, ...] contexts; the first T are one of each task, in the same order."""
    task: Int[Array, " M"]
    """Of each context."""
    standardized: OfflineBatch
    """`batch` with observations and rewards standardised."""


class Term(NamedTuple):
    """A further loss of the embeddings of transitions [M, N, D]."""

    init: Callable[[PRNGKeyArray], Any]
    """(key) -> the learner's state."""
    train: Callable[[Any, Inputs, Float[Array, "M N D"], PRNGKeyArray], tuple[Any, Metrics]]
    """(state, inputs, embeddings, key) -> the state after it has learnt; no gradient reaches the embeddings."""
    loss: Callable[[Any, brac.State, Inputs, Float[Array, "M N D"], PRNGKeyArray], tuple[Float[Array, ""], Metrics]]
    """(state, control, inputs, embeddings, key) -> the weighted loss."""


def latents(inputs: Inputs, embeddings: Float[Array, "M N D"]) -> Float[Array, "T D"]:
    """Embedding of each task, from its first context."""
    return jnp.mean(embeddings[: inputs.batch.reward.shape[0]], 1)


def rows(batch: OfflineBatch, latent: Float[Array, "T D"]) -> tuple[OfflineBatch, Float[Array, "TB D"]]:
    """Transitions [T, B, ...] of T tasks in one row each, with the embeddings of their tasks."""
    num = batch.reward.shape[1]
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch), jnp.repeat(latent, num, 0)


def _entropy(config: Config, sizes: Sizes, _: BRACConfig) -> Term:
    spec = gan.Spec(*sizes)

    def train(state, inputs, embeddings, key):
        flat, latent = rows(inputs.batch, latents(inputs, embeddings))
        return gan.train_step(state, gan.Batch(flat.obs, flat.action, latent), key, config.gan, spec)

    def loss(state, control, inputs, embeddings, key):
        latent = latents(inputs, embeddings)
        entropy = jnp.mean(gan.entropy(state.generator, config.gan, spec, inputs.batch.obs, latent, key))
        return -config.entropy_weight * entropy, {"behaviour_entropy": entropy}

    return Term(lambda key: gan.init(key, config.gan, spec), train, loss)


def _information(config: Config, sizes: Sizes, _: BRACConfig) -> Term:
    spec = club.Spec(*sizes)

    def behaviour(inputs, embeddings):
        return club.Batch(inputs.context.obs, inputs.context.action, embeddings)

    def train(state, inputs, embeddings, key):
        return club.train_step(state, behaviour(inputs, embeddings), config.club, spec)

    def loss(state, control, inputs, embeddings, key):
        bound = club.information(state.params, behaviour(inputs, embeddings), key, config.club, spec)
        # The reference takes the mean over dimensions of (z - mean)^2 / variance, which is 2 / D of the log-density.
        return config.club_weight * 2.0 / sizes.latent_size * bound, {"behaviour_information": bound}

    return Term(lambda key: club.init(key, config.club, spec), train, loss)


def _decoder(config: Config, sizes: Sizes, _: BRACConfig) -> Term:
    spec = transition_decoder.Spec(*sizes)

    def transitions(inputs, embeddings):
        flat, latent = rows(inputs.standardized, latents(inputs, embeddings))
        return transition_decoder.Batch(flat.obs, flat.action, flat.reward, flat.next_obs, latent)

    def train(state, inputs, embeddings, key):
        return transition_decoder.train_step(state, transitions(inputs, embeddings), config.decoder, spec)

    def loss(state, control, inputs, embeddings, key):
        error = transition_decoder.error(state.params, transitions(inputs, embeddings), config.decoder, spec)
        return config.decoder_weight * error, {}

    return Term(lambda key: transition_decoder.init(key, config.decoder, spec), train, loss)


def _bellman(_: Config, sizes: Sizes, control_config: BRACConfig) -> Term:
    def loss(state, control, inputs, embeddings, key):
        batch = transitions_of(inputs, latents(inputs, embeddings))
        return brac.q_loss(control.critic, control.target_value, batch, control_config)[0], {}

    return Term(lambda key: (), lambda state, inputs, embeddings, key: (state, {}), loss)


def transitions_of(inputs: Inputs, latent: Float[Array, "T D"]) -> brac.Batch:
    """What control learns from."""
    flat, latent = rows(inputs.batch, latent)
    return brac.Batch(flat.obs, latent, flat.action, flat.reward, flat.next_obs, flat.terminated)


TERMS: dict[str, Callable[[Config, Sizes, BRACConfig], Term]] = {
    "entropy": _entropy,
    "information": _information,
    "decoder": _decoder,
    "bellman": _bellman,
}
