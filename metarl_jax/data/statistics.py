"""Running mean and standard deviation of a pytree of vectors (Chan et al., 1983)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


class Moments(NamedTuple):
    """Number of data, mean and sum of squared deviations; the last two are pytrees of [...]."""

    num: Float[Array, ""]
    mean: Any
    m2: Any


def init(example: PyTree) -> Moments:
    """No data yet; `example` has the leaves of one datum."""
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), example)
    return Moments(jnp.zeros(()), zeros, jax.tree.map(jnp.copy, zeros))


def merge(moments: Moments, data: PyTree, mask: Float[Array, " n"]) -> Moments:
    """Add data [n, ...] where mask is 1."""
    added = jnp.sum(mask)
    num = moments.num + added
    safe = jnp.maximum(num, 1.0)

    def leaf(mean, m2, x):
        weight = mask.reshape(mask.shape + (1,) * (x.ndim - 1))
        new_mean = jnp.sum(weight * x, 0) / jnp.maximum(added, 1.0)
        new_m2 = jnp.sum(weight * jnp.square(x - new_mean), 0)
        delta = new_mean - mean
        return mean + delta * added / safe, m2 + new_m2 + jnp.square(delta) * moments.num * added / safe

    means, structure = jax.tree.flatten(moments.mean)
    merged = [leaf(*args) for args in zip(means, jax.tree.leaves(moments.m2), jax.tree.leaves(data), strict=True)]
    mean, m2 = (jax.tree.unflatten(structure, leaves) for leaves in zip(*merged, strict=True))
    return Moments(num, mean, m2)


MIN_STD = 1e-3
"""A standard deviation below this is a constant's."""


class Scale(NamedTuple):
    """Standardisation: pytrees of mean and standard deviation."""

    mean: Any
    std: Any

    def apply(self, data: PyTree) -> PyTree:
        """(data - mean) / std, per leaf."""
        return jax.tree.map(lambda x, m, s: (x - m) / s, data, self.mean, self.std)


def identity(example: PyTree) -> Scale:
    """Mean 0, standard deviation 1."""
    return Scale(
        jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), example),
        jax.tree.map(lambda x: jnp.ones(x.shape, jnp.float32), example),
    )


def scale(moments: Moments) -> Scale:
    """The standardisation of all data seen so far; identity while there is none. Constant entries keep scale 1."""
    return Scale(
        moments.mean, jax.tree.map(lambda m2: usable(jnp.sqrt(m2 / jnp.maximum(moments.num, 1.0))), moments.m2)
    )


def usable(std: Float[Array, "..."]) -> Float[Array, "..."]:
    """Standard deviations that can be divided by: 1 for constant entries."""
    return jnp.where(std < MIN_STD, 1.0, std)
