"""Distributions used by the losses. The only importer of distrax."""

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def normal_kl(
    mean: Float[Array, "... D"],
    std: Float[Array, "... D"],
    prior_mean: Float[Array, "... D"],
    prior_std: Float[Array, "... D"],
) -> Float[Array, "..."]:
    """KL( N(mean, std^2) || N(prior_mean, prior_std^2) ) of diagonal Gaussians, in nats."""
    return jnp.sum(distrax.Normal(mean, std).kl_divergence(distrax.Normal(prior_mean, prior_std)), -1)


def normal_log_prob(
    x: Float[Array, "... D"], mean: Float[Array, "... D"], std: Float[Array, "... D"]
) -> Float[Array, "..."]:
    """Log-density of a diagonal Gaussian, in nats."""
    return jnp.sum(distrax.Normal(mean, std).log_prob(x), -1)


def categorical_kl(logits: Float[Array, "... K"], prior_logits: Float[Array, "... K"]) -> Float[Array, "..."]:
    """KL( Cat(softmax(logits)) || Cat(softmax(prior_logits)) ), in nats."""
    return distrax.Categorical(logits).kl_divergence(distrax.Categorical(prior_logits))


def categorical_entropy(logits: Float[Array, "... K"]) -> Float[Array, "..."]:
    """Entropy of Cat(softmax(logits)), in nats."""
    return distrax.Categorical(logits).entropy()


def tanh_normal_sample(
    key: jax.Array, mean: Float[Array, "... A"], std: Float[Array, "... A"]
) -> tuple[Float[Array, "... A"], Float[Array, "..."]]:
    """Reparameterised sample of tanh(N(mean, std^2)) and its log-density, in nats summed over actions."""
    policy = distrax.Transformed(distrax.Normal(mean, std), distrax.Tanh())
    action, log_prob = policy.sample_and_log_prob(seed=key)
    return action, jnp.sum(log_prob, -1)
