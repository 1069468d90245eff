"""Embeds a task as the mean over its transitions' embeddings, by distance-metric learning (FOCAL; Li et al., 2021).

Usable alone: `init`, `train_step`, `embed` for single transitions, whose mean is the context's embedding.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from metarl_jax.learners.optimizers import adam
from metarl_jax.losses.distance_metric import distance_metric
from metarl_jax.networks.mlp import MLP
from metarl_jax.types import Metrics


@dataclasses.dataclass(frozen=True)
class Config:
    """Context encoder."""

    hidden_sizes: tuple[int, ...] = (200, 200, 200)
    """Hidden layers, applied to each transition alone."""
    latent_size: int = 20
    """Dimensions of a task's embedding, each in (-1, 1)."""
    use_next_obs: bool = False
    """Transitions include the next observation, which tells dynamics apart."""
    learning_rate: float = 3e-4
    """Adam's step size."""
    metric_weight: float = 10.0
    """Weight of the distance-metric loss."""


class Spec(NamedTuple):
    """Sizes of the vectors."""

    obs_size: int
    action_size: int


class Context(NamedTuple):
    """Transitions of one task per row; leading axes are documented where it is used."""

    obs: Float[Array, "... O"]
    action: Float[Array, "... A"]
    reward: Float[Array, "..."]
    next_obs: Float[Array, "... O"]


class State(NamedTuple):
    """Parameters and optimiser state."""

    params: Any
    opt: Any


Term = Callable[[Float[Array, "M N D"]], tuple[Float[Array, ""], Metrics]]
"""A further loss of the transitions' embeddings, weighted, and what to report of it."""


def _network(config: Config) -> MLP:
    return MLP((*config.hidden_sizes, config.latent_size))


def _inputs(config: Config, context: Context) -> Float[Array, "... i"]:
    parts = [context.obs, context.action, context.reward[..., None]]
    return jnp.concatenate([*parts, context.next_obs] if config.use_next_obs else parts, -1)


def init(key: jax.Array, config: Config, spec: Spec) -> State:
    """Fresh parameters."""
    obs, action = jnp.zeros(spec.obs_size), jnp.zeros(spec.action_size)
    params = _network(config).init(key, _inputs(config, Context(obs, action, jnp.zeros(()), obs)))
    return State(params, adam(config.learning_rate).init(params))


def embed(params: Any, config: Config, context: Context) -> Float[Array, "... D"]:
    """Embedding of each transition."""
    return jnp.tanh(_network(config).apply(params, _inputs(config, context)))


def train_step(
    state: State, context: Context, task: Int[Array, " M"], config: Config, term: Term | None = None
) -> tuple[State, Metrics]:
    """One Adam step on the distance metric of M contexts of N transitions each, and on `term` if there is one.

    Args:
      state: before the step.
      context: [M, N, ...]. Only tasks with several contexts give pairs that are pulled together.
      task: of each context.
      config: sizes.
      term: a further loss.
    """

    def objective(params):
        embeddings = embed(params, config, context)
        latent = jnp.mean(embeddings, -2)
        metric = distance_metric(latent, task[:, None] == task[None])
        more, metrics = term(embeddings) if term else (0.0, {})
        total = config.metric_weight * metric + more
        spread = jnp.mean(jnp.std(latent, 0))
        return total, {"encoder_loss": total, "metric_loss": metric, "latent_spread": spread} | metrics

    grads, metrics = jax.grad(objective, has_aux=True)(state.params)
    updates, opt = adam(config.learning_rate).update(grads, state.opt)
    return State(optax.apply_updates(state.params, updates), opt), metrics
