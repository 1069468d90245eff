"""Soft actor-critic losses (Haarnoja et al., 2018)."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def value(q: Float[Array, "2 ..."], pessimism: Float[Array, ""] | float = 1.0) -> Float[Array, "..."]:
    """What two critics are taken for: their mean, less `pessimism` standard deviations (Moskovitz et al., 2021).

    1: the smaller one (clipped double Q-learning; Fujimoto et al., 2018); 0: the mean; -1: the larger one.
    """
    return jnp.min(q, 0) + 0.5 * (1.0 - pessimism) * jnp.abs(q[0] - q[1])


def soft_target(
    reward_t: Float[Array, " B"],
    terminated_t: Bool[Array, " B"],
    next_q_t: Float[Array, "2 B"],
    next_log_prob_t: Float[Array, " B"],
    alpha: Float[Array, ""] | float,
    discount: float,
    pessimism: Float[Array, ""] | float = 1.0,
) -> Float[Array, " B"]:
    """r + gamma (1 - terminated) (Q(s', a') - alpha log pi(a'|s')), Q the `value` of both critics: truncation
    bootstraps, termination cuts.
    """
    chex.assert_equal_shape((reward_t, terminated_t, next_log_prob_t, next_q_t[0]))
    next_value = value(next_q_t, pessimism) - alpha * next_log_prob_t
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
    pessimism: Float[Array, ""] | float = 1.0,
) -> Float[Array, ""]:
    """mean_b weight_b (alpha log pi(a|s) - Q(s, a)), Q the `value` of both critics."""
    return jnp.mean(weight * (alpha * log_prob_tm1 - value(q_tm1, pessimism)))


def temperature_loss(
    log_alpha: Float[Array, ""], log_prob_tm1: Float[Array, " B"], target_entropy: float, weight: Float[Array, " B"]
) -> Float[Array, ""]:
    """-alpha mean_b weight_b (log pi(a|s) + target entropy)."""
    return -jnp.exp(log_alpha) * jnp.mean(weight * jax.lax.stop_gradient(log_prob_tm1 + target_entropy))
