"""Divergence of a policy from the behaviour that made the data (BRAC; Wu et al., 2019)."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def dual_kl(behaviour_logits: Float[Array, " B"], policy_logits: Float[Array, " B"]) -> Float[Array, " B"]:
    """Dual form of KL(pi || b) at each state: -softplus(c(a_b)) + log(softplus(c(a_pi)) + 1e-8) + 1.

    Its maximum over critics c is the divergence; any critic gives a lower bound.
    """
    chex.assert_equal_shape((behaviour_logits, policy_logits))
    return -jax.nn.softplus(behaviour_logits) + jnp.log(jax.nn.softplus(policy_logits) + 1e-8) + 1.0


def slope_penalty(slope: Float[Array, " B"]) -> Float[Array, ""]:
    """mean_b max(slope_b - 1, 0)^2: a critic whose slope stays below 1 is left alone."""
    return jnp.mean(jnp.square(jax.nn.relu(slope - 1.0)))
