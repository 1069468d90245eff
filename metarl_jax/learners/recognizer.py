"""Transformer that recognises the class of a task from recent transitions (TIMRL), usable alone.

`init`, `train_step`, `infer` for whole windows, `begin` and `step` for one transition at a time.
"""

import dataclasses
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from metarl_jax.data.segments import starts
from metarl_jax.data.statistics import Scale
from metarl_jax.learners.decoding import context, context_size
from metarl_jax.learners.optimizers import adam
from metarl_jax.losses import recognition
from metarl_jax.networks.recognizer import Recognizer
from metarl_jax.types import Metrics, Transition

LOSSES = {"mse": recognition.squared_error, "cross_entropy": recognition.cross_entropy}


@dataclasses.dataclass(frozen=True)
class Config:
    """Transformer recogniser."""

    context: int = 10
    """H: transitions that each layer looks back on, the newest included; L layers see the last L (H - 1) + 1."""
    model_size: int = 64
    """Features of an item."""
    num_layers: int = 2
    """Attention layers."""
    num_heads: int = 4
    """Attention heads."""
    feed_forward_size: int = 256
    """Hidden units of the feed-forward layers."""
    dropout: float = 0.1
    """In training."""
    loss: str = "mse"
    """`mse` between class probabilities and target (the paper's Eq. 9), or `cross_entropy`."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    batch_size: int = 32
    """Windows per update."""


class Spec(NamedTuple):
    """Sizes of the vectors."""

    obs_size: int
    action_size: int
    num_classes: int


class State(NamedTuple):
    """Parameters and optimiser state."""

    params: Any
    opt: Any


class Memory(NamedTuple):
    """What n recognisers remember: keys and values of their last H items in each of L layers, newest last."""

    keys: Float[Array, "n L H A d"]
    values: Float[Array, "n L H A d"]
    present: Bool[Array, "n H"]
    """Which places hold a valid item."""
    logits: Float[Array, "n K"]
    """Of the class; zeros, which is uniform, before the first item."""
    attention: Float[Array, "n L A H"]
    """How much each layer of the newest item looked at the last H; zeros before the first item."""


class Recognition(NamedTuple):
    """Class logits around each step of a window."""

    before: Float[Array, "T N K"]
    after: Float[Array, "T N K"]
    attention: list[Float[Array, "N T A H"]]
    """Weights of each layer: how much each step looks at the last H, itself the last of them."""


def _network(config: Config, spec: Spec) -> Recognizer:
    return Recognizer(
        spec.num_classes,
        config.model_size,
        config.num_layers,
        config.num_heads,
        config.feed_forward_size,
        config.dropout,
    )


def init(key: PRNGKeyArray, config: Config, spec: Spec) -> State:
    """Fresh parameters."""
    items = jnp.zeros((1, context_size(spec.obs_size, spec.action_size)))
    params = _network(config, spec).init(key, items, jnp.ones((1, config.context), bool))
    return State(params, adam(config.learning_rate).init(params))


def begin(config: Config, spec: Spec, n: int) -> Memory:
    """The memories of `n` recognisers that have seen nothing."""
    shape = (n, config.num_layers, config.context, config.num_heads, config.model_size // config.num_heads)
    return Memory(
        keys=jnp.zeros(shape),
        values=jnp.zeros(shape),
        present=jnp.zeros((n, config.context), bool),
        logits=jnp.zeros((n, spec.num_classes)),
        attention=jnp.zeros((n, config.num_layers, config.num_heads, config.context)),
    )


def step(params: Any, config: Config, spec: Spec, scale: Scale, memory: Memory, transition: Transition) -> Memory:
    """The memories after one more transition [n]; an invalid one tells nothing and is never looked at."""
    valid = transition.valid[:, None]
    present = jnp.concatenate([memory.present[:, 1:], valid], 1)
    keys, values, attention, logits = _network(config, spec).apply(
        params, memory.keys, memory.values, present, context(scale, transition), method="step"
    )
    return Memory(keys, values, present, jnp.where(valid, logits, memory.logits), attention)


def infer(
    params: Any,
    config: Config,
    spec: Spec,
    scale: Scale,
    windows: Transition,
    dropout_key: PRNGKeyArray | None = None,
) -> Recognition:
    """Logits along windows [T, N, ...], each read from an empty memory and forgotten at episode ends.

    The same numbers as `step` by step. With `dropout_key`, as in training.
    """
    fresh = starts(windows.last)
    time = jnp.arange(len(fresh))[:, None]
    began = jax.lax.cummax(jnp.where(fresh, time, 0), axis=0)
    seen = time[..., None] + jnp.arange(config.context) - (config.context - 1)  # [T, 1, H]
    valid = jnp.take_along_axis(windows.valid[..., None], jnp.maximum(seen, 0), 0)
    mask = valid & (seen >= began[..., None])
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    lane_first = (x.swapaxes(0, 1) for x in (context(scale, windows), mask))
    logits, attention = _network(config, spec).apply(params, *lane_first, dropout_key is not None, rngs=rngs)
    newest = jax.lax.cummax(jnp.where(windows.valid, time, -1), axis=0)
    after = jnp.take_along_axis(logits.swapaxes(0, 1), jnp.maximum(newest, 0)[..., None], 0)
    after = jnp.where((newest >= began)[..., None], after, 0.0)
    previous = jnp.concatenate([jnp.zeros_like(after[:1]), after[:-1]])
    return Recognition(jnp.where(fresh[..., None], 0.0, previous), after, attention)


def loss(
    params: Any,
    config: Config,
    spec: Spec,
    scale: Scale,
    windows: Transition,
    target: Float[Array, "T N K"],
    key: PRNGKeyArray,
) -> tuple[Float[Array, ""], Metrics]:
    """Mean error of the classes recognised from each valid step and those before it, against `target` probabilities."""
    logits = infer(params, config, spec, scale, windows, key).after
    chex.assert_equal_shape((logits, target))
    weight = windows.valid / jnp.maximum(jnp.sum(windows.valid), 1.0)
    total = jnp.sum(weight * LOSSES[config.loss](logits, target))
    right = jnp.argmax(logits, -1) == jnp.argmax(target, -1)
    return total, {"recognition_loss": total, "train_recognition_accuracy": jnp.sum(weight * right)}


def train_step(
    state: State,
    windows: Transition,
    target: Float[Array, "T N K"],
    key: PRNGKeyArray,
    config: Config,
    spec: Spec,
    scale: Scale,
) -> tuple[State, Metrics]:
    """One Adam step on windows [T, N, ...] whose classes are `target`, as probabilities."""
    target = jax.lax.stop_gradient(target)
    grads, metrics = jax.grad(loss, has_aux=True)(state.params, config, spec, scale, windows, target, key)
    updates, opt = adam(config.learning_rate).update(grads, state.opt, state.params)
    return State(optax.apply_updates(state.params, updates), opt), metrics
