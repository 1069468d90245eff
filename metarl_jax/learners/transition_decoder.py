"""Predicts reward and next state through the task's embedding (UNICORN; Li et al., 2024), usable alone.

`init`, `train_step`, and `error`, differentiable in the embedding.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from metarl_jax.learners.optimizers import adam
from metarl_jax.networks.mlp import MLP
from metarl_jax.types import Metrics


@dataclasses.dataclass(frozen=True)
class Config:
    """Decoder of transitions."""

    hidden_sizes: tuple[int, ...] = (256, 256)
    """Hidden layers."""
    learning_rate: float = 3e-4
    """Adam's step size."""


class Spec(NamedTuple):
    """Sizes of the vectors."""

    obs_size: int
    action_size: int
    latent_size: int


class Batch(NamedTuple):
    """Transitions, standardised, and the embeddings of their tasks."""

    obs: Float[Array, "B O"]
    action: Float[Array, "B A"]
    reward: Float[Array, " B"]
    next_obs: Float[Array, "B O"]
    latent: Float[Array, "B D"]


class State(NamedTuple):
    """Parameters and optimiser state."""

    params: Any
    opt: Any


def _network(config: Config, spec: Spec) -> MLP:
    return MLP((*config.hidden_sizes, spec.obs_size + 1))


def init(key: PRNGKeyArray, config: Config, spec: Spec) -> State:
    """Fresh parameters."""
    params = _network(config, spec).init(key, jnp.zeros(spec.obs_size + spec.action_size + spec.latent_size))
    return State(params, adam(config.learning_rate).init(params))


def error(params: Any, batch: Batch, config: Config, spec: Spec) -> Float[Array, ""]:
    """Mean squared error of the next observation and the reward."""
    inputs = jnp.concatenate([batch.obs, batch.action, batch.latent], -1)
    target = jnp.concatenate([batch.next_obs, batch.reward[..., None]], -1)
    return jnp.mean(jnp.square(_network(config, spec).apply(params, inputs) - target))


def train_step(state: State, batch: Batch, config: Config, spec: Spec) -> tuple[State, Metrics]:
    """One Adam step. Embeddings are inputs: no gradient reaches whatever made them."""
    loss, grads = jax.value_and_grad(error)(state.params, jax.lax.stop_gradient(batch), config, spec)
    updates, opt = adam(config.learning_rate).update(grads, state.opt)
    return State(optax.apply_updates(state.params, updates), opt), {"decoder_loss": loss}
