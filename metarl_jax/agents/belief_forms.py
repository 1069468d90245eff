"""What a policy sees of a mixture posterior."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarl_jax.networks.mixture import Mixture, most_likely

FORMS = ("component", "mixture", "sample")
"""`component`: mean and standard deviation of the most likely component; `mixture`: responsibilities, means and
standard deviations of all; `sample`: a sample of the most likely component."""


def size(form: str, num_components: int, latent_size: int) -> int:
    """Length of the vector."""
    return {
        "component": 2 * latent_size,
        "sample": latent_size,
        "mixture": num_components * (1 + 2 * latent_size),
    }[form]


def vector(form: str, q: Mixture, key: PRNGKeyArray) -> Float[Array, "... b"]:
    """The belief as the policy's input, before standardisation."""
    if form == "mixture":
        flat = [x.reshape(*x.shape[:-2], -1) for x in (q.mean, q.std)]
        return jnp.concatenate([jax.nn.softmax(q.logits), *flat], -1)
    mean, std = most_likely(q)
    if form == "sample":
        return mean + std * jax.random.normal(key, mean.shape)
    return jnp.concatenate([mean, std], -1)
