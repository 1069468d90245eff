"""Soft actor-critic losses (Haarnoja et al., 2018)."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def soft_target(
    reward_t: Float[Array, " B"],
    terminated_t: Bool[Array, " B"],
    next_q_t: Float[Array, "2 B"],
    next_log_prob_t: Float[Array, " B"],
    alpha: Float[Array, ""] | float,
    discount: float,
) -> Float[Array, " B"]:
    """r + gamma (1 - terminated) (min_i Q_i(s', a') - alpha log pi(a'|s')): truncation bootstraps, termination cuts."""
    chex.assert_equal_shape((reward_t, terminated_t, next_log_prob_t, next_q_t[0]))
    next_value = jnp.min(next_q_t, 0) - alpha * next_log_prob_t
    return jax.lax.stop_gradient(reward_t + discount * (1.0 - terminated_t) * next_value)


def critic_loss(
    q_tm1: Float[Array, "2 B"], target_tm1: Float[Array, " B"], weight: Float[Array, " B"]
) -> Float[Array, ""]:
    """sum_i mean_b weight_b (Q_i - target)^2."""
    return jnp.sum(jnp.mean(weight * jnp.square(q_tm1 - target_tm1), -1))


def actor_loss(
    q_tm1: Float[Array, "2 B"],
    log_prob_tm1: Float[Array, " B"],
    alpha: Float[Array, ""] | float,
    weight: Float[Array, " B"],
) -> Float[Array, ""]:
    """mean_b weight_b (alpha log pi(a|s) - min_i Q_i(s, a))."""
    return jnp.mean(weight * (alpha * log_prob_tm1 - jnp.min(q_tm1, 0)))


def temperature_loss(
    log_alpha: Float[Array, ""], log_prob_tm1: Float[Array, " B"], target_entropy: float, weight: Float[Array, " B"]
) -> Float[Array, ""]:
    """-alpha mean_b weight_b (log pi(a|s) + target entropy)."""
    return -jnp.exp(log_alpha) * jnp.mean(weight * jax.lax.stop_gradient(log_prob_tm1 + target_entropy))
