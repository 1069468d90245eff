"""Losses of a classifier whose targets are probabilities (TIMRL, Eq. 9)."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def squared_error(logits: Float[Array, "... K"], target: Float[Array, "... K"]) -> Float[Array, "..."]:
    """mean_k (softmax(logits)_k - target_k)^2."""
    chex.assert_equal_shape((logits, target))
    return jnp.mean(jnp.square(jax.nn.softmax(logits) - target), -1)


def cross_entropy(logits: Float[Array, "... K"], target: Float[Array, "... K"]) -> Float[Array, "..."]:
    """-sum_k target_k log softmax(logits)_k, in nats."""
    chex.assert_equal_shape((logits, target))
    return -jnp.sum(target * jax.nn.log_softmax(logits), -1)
