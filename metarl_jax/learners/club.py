"""How much embeddings tell of the behaviour within a task: CLUB's bound of I(z; s, a) (CSRO; Gao et al., 2023).

Usable alone: `init`, `train_step` fits q(z | s, a), `information` is the bound, differentiable in the embedding.
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
from metarl_jax.networks.mlp import MLP
from metarl_jax.types import Metrics


@dataclasses.dataclass(frozen=True)
class Config:
    """Variational conditional q(z | s, a)."""

    hidden_sizes: tuple[int, ...] = (200, 200, 200)
    """Hidden layers."""
    learning_rate: float = 3e-4
    """Adam's step size."""


class Spec(NamedTuple):
    """Sizes of the vectors."""

    obs_size: int
    action_size: int
    latent_size: int


class Batch(NamedTuple):
    """What was done where, and its embedding: N transitions of each context."""

    obs: Float[Array, "... N O"]
    action: Float[Array, "... N A"]
    latent: Float[Array, "... N D"]


class State(NamedTuple):
    """Parameters and optimiser state."""

    params: Any
    opt: Any


def _network(config: Config, spec: Spec) -> MLP:
    return MLP((*config.hidden_sizes, 2 * spec.latent_size))


def _conditional(
    params: Any, batch: Batch, config: Config, spec: Spec
) -> tuple[Float[Array, "... N D"], Float[Array, "... N D"]]:
    """Mean and standard deviation of q(z | s, a): tanh and sqrt(softplus(tanh)), as in the reference.

    Deviations below 0.56 are out of reach: with exact ones the bound of any embedding but a constant has no limit.
    """
    inputs = jnp.concatenate([batch.obs, batch.action], -1)
    mean, width = jnp.split(jnp.tanh(_network(config, spec).apply(params, inputs)), 2, -1)
    return mean, jnp.sqrt(jax.nn.softplus(width))


def init(key: PRNGKeyArray, config: Config, spec: Spec) -> State:
    """Fresh parameters."""
    params = _network(config, spec).init(key, jnp.zeros(spec.obs_size + spec.action_size))
    return State(params, adam(config.learning_rate).init(params))


def train_step(state: State, batch: Batch, config: Config, spec: Spec) -> tuple[State, Metrics]:
    """One Adam step of maximum likelihood. Embeddings are inputs: no gradient reaches whatever made them."""
    batch = jax.lax.stop_gradient(batch)

    def objective(params):
        mean, std = _conditional(params, batch, config, spec)
        return -jnp.mean(normal_log_prob(batch.latent, mean, std))

    loss, grads = jax.value_and_grad(objective)(state.params)
    updates, opt = adam(config.learning_rate).update(grads, state.opt)
    return State(optax.apply_updates(state.params, updates), opt), {"club_loss": loss}


def information(params: Any, batch: Batch, key: PRNGKeyArray, config: Config, spec: Spec) -> Float[Array, ""]:
    """Upper bound of I(z; s, a) in nats, with each transition's embedding against another one's of its own context.

    Of its own, as in the reference's code: against those of other tasks it would bound what embeddings tell of the task
    too, as far as behaviour shows it, and undo what the distance metric learns.
    """
    mean, std = _conditional(params, batch, config, spec)
    other = jnp.roll(batch.latent, jax.random.randint(key, (), 1, batch.latent.shape[-2]), -2)
    return club(normal_log_prob(batch.latent, mean, std), normal_log_prob(other, mean, std))
