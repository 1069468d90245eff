"""How much an embedding tells of the behaviour: CLUB's bound of I(z; s, a) (CSRO; Gao et al., 2023), usable alone.

`init`, `train_step` fits q(z | s, a), `information` is the bound, differentiable in the embedding.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from metarl_jax.distributions import normal_log_prob
from metarl_jax.learners.optimizers import adam
from metarl_jax.losses.club import club
from metarl_jax.networks.actor_critic import Actor
from metarl_jax.types import Metrics


@dataclasses.dataclass(frozen=True)
class Config:
    """Variational conditional q(z | s, a)."""

    hidden_sizes: tuple[int, ...] = (200, 200)
    """Hidden layers."""
    learning_rate: float = 3e-4
    """Adam's step size."""


class Spec(NamedTuple):
    """Sizes of the vectors."""

    obs_size: int
    action_size: int
    latent_size: int


class Batch(NamedTuple):
    """What was done where, and its embedding."""

    obs: Float[Array, "B O"]
    action: Float[Array, "B A"]
    latent: Float[Array, "B D"]


class State(NamedTuple):
    """Parameters and optimiser state."""

    params: Any
    opt: Any


def _network(config: Config, spec: Spec) -> Actor:
    """A Gaussian of z: the policy's network, which makes one of two inputs."""
    return Actor(spec.latent_size, config.hidden_sizes)


def init(key: PRNGKeyArray, config: Config, spec: Spec) -> State:
    """Fresh parameters."""
    params = _network(config, spec).init(key, jnp.zeros(spec.obs_size), jnp.zeros(spec.action_size))
    return State(params, adam(config.learning_rate).init(params))


def train_step(state: State, batch: Batch, config: Config, spec: Spec) -> tuple[State, Metrics]:
    """One Adam step of maximum likelihood. Embeddings are inputs: no gradient reaches whatever made them."""
    batch = jax.lax.stop_gradient(batch)

    def objective(params):
        mean, std = _network(config, spec).apply(params, batch.obs, batch.action)
        return -jnp.mean(normal_log_prob(batch.latent, mean, std))

    loss, grads = jax.value_and_grad(objective)(state.params)
    updates, opt = adam(config.learning_rate).update(grads, state.opt)
    return State(optax.apply_updates(state.params, updates), opt), {"club_loss": loss}


def information(params: Any, batch: Batch, key: PRNGKeyArray, config: Config, spec: Spec) -> Float[Array, ""]:
    """Upper bound of I(z; s, a) in nats, with each transition's embedding against another one's."""
    mean, std = _network(config, spec).apply(params, batch.obs, batch.action)
    other = batch.latent[jax.random.permutation(key, batch.latent.shape[0])]
    return club(normal_log_prob(batch.latent, mean, std), normal_log_prob(other, mean, std))
