"""The evidence lower bound of a Gaussian-mixture VAE (MoSS, Eq. 1, 4, 5)."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarl_jax.distributions import categorical_kl, normal_kl
from metarl_jax.networks.mixture import Mixture


def standard_prior(like: Mixture) -> Mixture:
    """Uniform components, each N(0, I), in the shape of `like`."""
    return Mixture(jnp.zeros_like(like.logits), jnp.zeros_like(like.mean), jnp.ones_like(like.std))


def separated_prior(like: Mixture, std: float = 0.5) -> Mixture:
    """Uniform components, the k-th N(k, std^2) in every dimension, k = 0, 1, ... (CEMRL; TIMRL, Eq. 11)."""
    k = jnp.arange(like.mean.shape[-2], dtype=like.mean.dtype)[:, None]
    return Mixture(jnp.zeros_like(like.logits), jnp.broadcast_to(k, like.mean.shape), jnp.full_like(like.std, std))


def sample_components(key: jax.Array, q: Mixture) -> Float[Array, "... K D"]:
    """One reparameterised latent per component."""
    return q.mean + q.std * jax.random.normal(key, q.mean.shape)


def negative_elbo(
    errors: Float[Array, "... K"], q: Mixture, prior: Mixture, z_weight: float, y_weight: float
) -> tuple[Float[Array, "..."], dict[str, Float[Array, "..."]]]:
    """-ELBO = sum_k q(y=k) [ error_k + alpha KL( q(z|k) || p(z|k) ) ] + beta KL( q(y) || p(y) ).

    Args:
      errors: reconstruction error of each component's latent.
      q: posterior.
      prior: prior; stop its gradients outside where they must not flow.
      z_weight: alpha.
      y_weight: beta.

    Returns:
      The loss [...] and its parts: `reconstruction`, `kl_z`, `kl_y`, unweighted.
    """
    chex.assert_equal_shape((errors, q.logits, prior.logits))
    probs = jax.nn.softmax(q.logits)
    parts = {
        "reconstruction": jnp.sum(probs * errors, -1),
        "kl_z": jnp.sum(probs * normal_kl(q.mean, q.std, prior.mean, prior.std), -1),
        "kl_y": categorical_kl(q.logits, prior.logits),
    }
    return parts["reconstruction"] + z_weight * parts["kl_z"] + y_weight * parts["kl_y"], parts
