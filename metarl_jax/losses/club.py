"""CLUB: an upper bound of mutual information by a variational conditional (Cheng et al., 2020)."""

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float


def club(paired_log_prob: Float[Array, "..."], shuffled_log_prob: Float[Array, "..."]) -> Float[Array, ""]:
    """E_p(z,x) log q(z|x) - E_p(z)p(x) log q(z|x) >= I(z; x), if q is the true conditional.

    Args:
      paired_log_prob: log q(z_i | x_i).
      shuffled_log_prob: log q(z_j | x_i), each i with some other j.
    """
    chex.assert_equal_shape((paired_log_prob, shuffled_log_prob))
    return jnp.mean(paired_log_prob) - jnp.mean(shuffled_log_prob)
