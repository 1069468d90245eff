"""InfoNCE over trajectories (MoSS, Eq. 2; van den Oord et al., 2018)."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def infonce(
    query: Float[Array, "N D"], key: Float[Array, "N D"], same_task: Bool[Array, "N N"], temperature: float
) -> Float[Array, ""]:
    """-mean_i log[ exp s(q_i, k_i) / (exp s(q_i, k_i) + sum_j exp s(q_i, k_j)) ], s(u, v) = -||u - v|| / temperature.

    Args:
      query: embedding of each trajectory at one step.
      key: embedding of the same trajectory at another step: `key[i]` is the positive of `query[i]`.
      same_task: which trajectories share a task; only the others' keys are negatives.
      temperature: scale of the distance.
    """
    chex.assert_equal_shape((query, key))
    squared = jnp.sum(jnp.square(query[:, None] - key[None]), -1)
    similarity = -jnp.sqrt(squared + 1e-12) / temperature  # the root has no gradient at 0
    positive = jnp.eye(query.shape[0], dtype=bool)
    candidates = jnp.where(positive | ~same_task, similarity, -jnp.inf)
    return jnp.mean(jax.nn.logsumexp(candidates, -1) - jnp.diag(similarity))
