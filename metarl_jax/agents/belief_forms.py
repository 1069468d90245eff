"""What a policy sees of a mixture posterior."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metarl_jax.data.statistics import Scale
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


def acted_on(
    form: str, belief: Float[Array, "n b"], q: Mixture, scale: Scale, key: PRNGKeyArray
) -> tuple[Float[Array, "n b"], PRNGKeyArray]:
    """What an action is chosen by, and a key for the choice: the belief that is remembered, or a sample of its own."""
    if form != "sample":
        return belief, key
    key, key_belief = jax.random.split(key)
    return scale.apply(vector(form, q, key_belief)), key


def shown(form: str, belief: Float[Array, "n b"], q: Mixture, scale: Scale) -> Float[Array, "n b"]:
    """What figures show: the belief that is remembered; where each action draws its own, what they vary around."""
    return scale.apply(most_likely(q)[0]) if form == "sample" else belief
