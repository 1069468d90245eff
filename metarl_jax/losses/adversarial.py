"""Losses of a generative adversarial network, and the entropy of what it generates (ER-TRL)."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def discriminator_loss(real_logits: Float[Array, " B"], fake_logits: Float[Array, " B"]) -> Float[Array, ""]:
    """Binary cross-entropy, real against 1 and fake against 0: mean softplus(-real) + mean softplus(fake)."""
    chex.assert_equal_shape((real_logits, fake_logits))
    return jnp.mean(jax.nn.softplus(-real_logits)) + jnp.mean(jax.nn.softplus(fake_logits))


def generator_loss(fake_logits: Float[Array, " B"]) -> Float[Array, ""]:
    """Binary cross-entropy of fakes against 1 (the non-saturating form): mean softplus(-fake)."""
    return jnp.mean(jax.nn.softplus(-fake_logits))


def gaussian_entropy(samples: Float[Array, "... B A"]) -> Float[Array, "..."]:
    """Entropy in nats of a Gaussian with the samples' covariance: 1/2 logdet(2 pi e Sigma), Sigma += 1e-5 I."""
    num, size = samples.shape[-2:]
    centred = samples - jnp.mean(samples, -2, keepdims=True)
    covariance = jnp.swapaxes(centred, -1, -2) @ centred / (num - 1) + 1e-5 * jnp.eye(size)
    return 0.5 * jnp.linalg.slogdet(2 * jnp.pi * jnp.e * covariance)[1]
