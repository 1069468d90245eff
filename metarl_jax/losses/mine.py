"""Donsker and Varadhan's bound of mutual information (MINE; Belghazi et al., 2018)."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def donsker_varadhan(joint: Float[Array, " B"], marginal: Float[Array, " B"]) -> Float[Array, ""]:
    """E_joint T - log E_marginal exp T <= I(x; y) in nats, and equal to it for T = log p(x, y) / (p(x) p(y)).

    Args:
      joint: T(x_i, y_i).
      marginal: T(x_i, y_j), each i with some other j.
    """
    chex.assert_equal_shape((joint, marginal))
    return jnp.mean(joint) - (jax.nn.logsumexp(marginal) - jnp.log(marginal.shape[0]))
