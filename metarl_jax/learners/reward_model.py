"""What a transition pays in a task that is told, learnt from tasks that were played; usable alone.

`init`, `train_step`, and `predict`, also for tasks beyond those: rectified linear units go on straight, and so do
rewards that are distances to what a task asks for.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from metarl_jax.data import statistics
from metarl_jax.data.replay import Vectors
from metarl_jax.data.statistics import Scale
from metarl_jax.learners.optimizers import adam
from metarl_jax.networks.mlp import MLP
from metarl_jax.types import Metrics

SCALE_RATE = 0.01
"""How far the standardisation of tasks moves towards that of each batch."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Model of rewards."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Hidden layers."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    batch_size: int = 256
    """Transitions per update."""


class Spec(NamedTuple):
    """Sizes of the vectors."""

    obs_size: int
    action_size: int
    task_size: int
    """Of `Task.vector`."""


class Batch(NamedTuple):
    """Transitions and their tasks."""

    x: Vectors
    """[B, ...] standardised."""
    task: Float[Array, "B v"]
    """`Task.vector`, as it is."""
    weight: Float[Array, " B"]
    """1, or 0 for what must not be learnt from."""


class State(NamedTuple):
    """Parameters, optimiser state, and how tasks are standardised."""

    params: Any
    opt: Any
    task_scale: Scale


def init(key: PRNGKeyArray, config: Config, spec: Spec) -> State:
    """Fresh parameters; tasks are not standardised yet."""
    params = _network(config).init(key, jnp.zeros(2 * spec.obs_size + spec.action_size + spec.task_size))
    return State(params, adam(config.learning_rate).init(params), statistics.identity(jnp.zeros(spec.task_size)))


def _network(config: Config) -> MLP:
    return MLP((*config.hidden_sizes, 1))


def predict(
    params: Any, task_scale: Scale, x: Vectors, task: Float[Array, "... v"], config: Config
) -> Float[Array, "..."]:
    """The standardised gross reward of standardised transitions [...] in these tasks; that of `x` is not read."""
    inputs = jnp.concatenate([x.obs, x.action, x.next_obs, task_scale.apply(task)], -1)
    return _network(config).apply(params, inputs)[..., 0]


def train_step(state: State, batch: Batch, config: Config) -> tuple[State, Metrics]:
    """One Adam step on the mean squared error of the gross reward."""
    found = statistics.scale(statistics.merge(statistics.init(batch.task[0]), batch.task, batch.weight))
    rate = SCALE_RATE * jnp.any(batch.weight > 0.0)
    task_scale = jax.tree.map(lambda old, new: old + rate * (new - old), state.task_scale, found)

    def loss(params: Any) -> Float[Array, ""]:
        error = predict(params, task_scale, batch.x, batch.task, config) - batch.x.gross_reward
        return jnp.sum(batch.weight * jnp.square(error)) / jnp.maximum(jnp.sum(batch.weight), 1.0)

    value, grads = jax.value_and_grad(loss)(state.params)
    updates, opt = adam(config.learning_rate).update(grads, state.opt)
    return State(optax.apply_updates(state.params, updates), opt, task_scale), {"reward_model_loss": value}
