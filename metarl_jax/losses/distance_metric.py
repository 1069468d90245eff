"""Distance-metric learning of task embeddings (FOCAL; Li et al., 2021)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def distance_metric(latent: Float[Array, "M D"], same_task: Bool[Array, "M M"]) -> Float[Array, ""]:
    """Pull embeddings of one task together, push those of different tasks apart.

    With d_ij = mean_k (z_ik - z_jk)^2, the mean over pairs i < j of one task of sqrt(d_ij + 1e-3), plus the mean over
    pairs of different tasks of 1 / (d_ij + 0.1). A mean is a sum over (number of pairs + 1e-3), as in the reference.
    """
    pair = jnp.triu(jnp.ones(same_task.shape, bool), 1)
    d = jnp.mean(jnp.square(latent[:, None] - latent[None]), -1)

    def mean(values, chosen):
        return jnp.sum(jnp.where(chosen, values, 0.0)) / (jnp.sum(chosen) + 1e-3)

    return mean(jnp.sqrt(d + 1e-3), pair & same_task) + mean(1.0 / (d + 0.1), pair & ~same_task)
