"""Mutual information of two vectors, estimated by a network that tells pairs from strangers (MINE), usable alone.

`init`, `train_step` maximises the bound, `information` is the bound on other data.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from metarl_jax.learners.optimizers import adam
from metarl_jax.losses.mine import donsker_varadhan
from metarl_jax.networks.mlp import MLP
from metarl_jax.types import Metrics


@dataclasses.dataclass(frozen=True)
class Config:
    """Statistics network T(x, y)."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Hidden layers."""
    learning_rate: float = 1e-3
    """Adam's step size."""


class Spec(NamedTuple):
    """Sizes of the vectors."""

    x_size: int
    y_size: int


class Batch(NamedTuple):
    """Pairs."""

    x: Float[Array, "B X"]
    y: Float[Array, "B Y"]


class State(NamedTuple):
    """Parameters and optimiser state."""

    params: Any
    opt: Any


def _statistic(params: Any, config: Config, x: Float[Array, "B X"], y: Float[Array, "B Y"]) -> Float[Array, " B"]:
    return MLP((*config.hidden_sizes, 1)).apply(params, jnp.concatenate([x, y], -1))[..., 0]


def init(key: PRNGKeyArray, config: Config, spec: Spec) -> State:
    """Fresh parameters."""
    params = MLP((*config.hidden_sizes, 1)).init(key, jnp.zeros(spec.x_size + spec.y_size))
    return State(params, adam(config.learning_rate).init(params))


def information(params: Any, batch: Batch, key: PRNGKeyArray, config: Config) -> Float[Array, ""]:
    """Lower bound of I(x; y) in nats, with each x against another pair's y."""
    other = batch.y[jax.random.permutation(key, batch.y.shape[0])]
    return donsker_varadhan(_statistic(params, config, *batch), _statistic(params, config, batch.x, other))


def train_step(state: State, batch: Batch, key: PRNGKeyArray, config: Config) -> tuple[State, Metrics]:
    """One Adam step towards a higher bound. Its gradient is biased in small batches: take a few hundred pairs."""
    loss, grads = jax.value_and_grad(lambda params: -information(params, batch, key, config))(state.params)
    updates, opt = adam(config.learning_rate).update(grads, state.opt)
    return State(optax.apply_updates(state.params, updates), opt), {"information": -loss}
