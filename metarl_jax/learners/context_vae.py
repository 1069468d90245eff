"""Gaussian-mixture VAE whose belief is a product over recent transitions, in whatever order (CEMRL), usable alone.

`init`, `train_step`, `infer` for whole windows, `begin`, `step` and `mixture` for one transition at a time.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from metarl_jax.data.segments import starts
from metarl_jax.data.statistics import Scale
from metarl_jax.learners import decoding
from metarl_jax.learners.decoding import Beliefs, Spec, State, context, context_size
from metarl_jax.losses.elbo import separated_prior
from metarl_jax.networks.mixture import Evidence, Mixture, TransitionMixtureEncoder
from metarl_jax.types import Metrics, Transition

Memory = Evidence
"""[n, W, ...] of the last W transitions, newest last; zeros, which say nothing, where there was none."""


@dataclasses.dataclass(frozen=True)
class Config(decoding.Config):
    """Product-of-Gaussians VAE."""

    context: int = 30
    """W: transitions that inform the belief."""
    encoder_sizes: tuple[int, ...] | None = None
    """Hidden layers that read a transition; None: two of 5 x (2 obs + action + 1) units."""


def _encoder(config: Config, spec: Spec) -> TransitionMixtureEncoder:
    width = 5 * context_size(*spec, config.reward_change)
    sizes = (width,) * 2 if config.encoder_sizes is None else config.encoder_sizes
    return TransitionMixtureEncoder(sizes, config.num_components, config.latent_size)


def init(key: PRNGKeyArray, config: Config, spec: Spec) -> State:
    """Fresh parameters."""
    key_encoder, key_decoder = jax.random.split(key)
    encoder = _encoder(config, spec).init(key_encoder, jnp.zeros(context_size(*spec, config.reward_change)))
    decoder = decoding.init(key_decoder, config, spec)
    opt = decoding.optimizer(config).init((encoder, decoder))
    return State(encoder, decoder, opt)


def _nothing(config: Config, lead: tuple[int, ...]) -> Evidence:
    shape = (*lead, config.num_components, config.latent_size)
    return Evidence(jnp.zeros(shape[:-1]), jnp.zeros(shape), jnp.zeros(shape))


def begin(config: Config, n: int) -> Memory:
    """The memories of an empty history."""
    return _nothing(config, (n, config.context))


def _evidence(encoder: Any, config: Config, spec: Spec, scale: Scale, transition: Transition) -> Evidence:
    """What each transition [...] says by itself; an invalid one says nothing."""
    said = Evidence.of(
        _encoder(config, spec).apply(encoder, context(scale, transition, config.gross_reward, config.reward_change))
    )
    valid = transition.valid
    return jax.tree.map(lambda x: jnp.where(valid.reshape(*valid.shape, *(1,) * (x.ndim - valid.ndim)), x, 0.0), said)


def step(encoder: Any, config: Config, spec: Spec, scale: Scale, memory: Memory, transition: Transition) -> Memory:
    """The memories after one more transition [n]: the oldest is forgotten."""
    new = _evidence(encoder, config, spec, scale, transition)
    return jax.tree.map(lambda ring, x: jnp.concatenate([ring[:, 1:], x[:, None]], 1), memory, new)


def _belief(total: Evidence) -> Mixture:
    """The product of all evidence and the prior N(k, 0.5), which is what an empty history leaves."""
    prior = Evidence.of(separated_prior(Mixture(*total)))  # which reads shapes alone
    return jax.tree.map(jnp.add, total, prior).mixture()


def mixture(memory: Memory) -> Mixture:
    """What a memory believes."""
    return _belief(jax.tree.map(lambda ring: jnp.sum(ring, 1), memory))


def infer(encoder: Any, config: Config, spec: Spec, scale: Scale, windows: Transition) -> Beliefs:
    """Beliefs along windows [T, N, ...], each from the last W transitions of the same episode in the window."""
    said = _evidence(encoder, config, spec, scale, windows)
    fresh = starts(windows.last)

    def one_further_back(carry, _):
        total, item = carry
        # Nothing reaches over an episode's start; the first step of a window is one, so nothing wraps around either.
        item = jax.tree.map(
            lambda x: jnp.where(fresh.reshape(*fresh.shape, *(1,) * (x.ndim - 2)), 0.0, jnp.roll(x, 1, 0)), item
        )
        return (jax.tree.map(jnp.add, total, item), item), None

    further = min(config.context, len(fresh)) - 1
    (total, _), _ = jax.lax.scan(one_further_back, (said, said), None, further)
    blank = _belief(_nothing(config, fresh.shape[1:]))
    return decoding.beliefs(_belief(total), blank, windows.last)


def loss(
    params: tuple[Any, Any],
    config: Config,
    spec: Spec,
    scale: Scale,
    windows: Transition,
    key: PRNGKeyArray,
    siblings: Transition | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """-ELBO of windows [T, N, ...] under the prior N(k, 0.5), averaged over valid steps; params = (encoder, decoder).

    `siblings` [T, N, ...] are other episodes of the same tasks, to decode if `decode` is `task`.
    """
    encoder, decoder = params
    beliefs = infer(encoder, config, spec, scale, windows)
    q = beliefs.after if config.decode == "self" else beliefs.before
    total, metrics = decoding.objective(decoder, config, spec, scale, windows, siblings, q, separated_prior(q), key)
    return total, metrics | {"vae_loss": total}


def train_step(
    state: State,
    windows: Transition,
    key: PRNGKeyArray,
    config: Config,
    spec: Spec,
    scale: Scale,
    siblings: Transition | None = None,
) -> tuple[State, Metrics]:
    """One Adam step on windows [T, N, ...]; see `loss` for `siblings`."""
    params = (state.encoder, state.decoder)
    grads, metrics = jax.grad(loss, has_aux=True)(params, config, spec, scale, windows, key, siblings)
    updates, opt = decoding.optimizer(config).update(grads, state.opt, params)
    encoder, decoder = optax.apply_updates(params, updates)
    return State(encoder, decoder, opt), metrics
