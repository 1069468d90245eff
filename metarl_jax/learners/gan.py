"""Conditional GAN of behaviour actions given state and task embedding (ER-TRL), usable alone.

`init`, `train_step`, `generate`. `entropy` of what it generates is differentiable in the embedding.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from metarl_jax.learners.optimizers import adam
from metarl_jax.losses.adversarial import discriminator_loss, gaussian_entropy, generator_loss
from metarl_jax.networks.adversarial import Discriminator, Generator
from metarl_jax.types import Metrics


@dataclasses.dataclass(frozen=True)
class Config:
    """Conditional GAN."""

    generator_sizes: tuple[int, ...] = (200, 200, 200)
    """Hidden layers of the generator."""
    discriminator_sizes: tuple[int, ...] = (256, 256)
    """Hidden layers of the discriminator."""
    noise_size: int = 20
    """Dimensions of the generator's Gaussian noise."""
    rounds: int = 5
    """Discriminator and generator updates per train step, in turn."""
    generator_learning_rate: float = 1e-4
    """Adam's step size for the generator."""
    discriminator_learning_rate: float = 4e-4
    """Adam's step size for the discriminator: a faster judge notices what is missing (Heusel et al., 2017)."""
    momentum: float = 0.0
    """Adam's beta 1. With the usual 0.9 generated actions collapse: entropies end 1 to 4 nats too low."""


class Spec(NamedTuple):
    """Sizes of the vectors."""

    obs_size: int
    action_size: int
    latent_size: int


class Batch(NamedTuple):
    """Behaviour: what was done in which state of which task."""

    obs: Float[Array, "B O"]
    action: Float[Array, "B A"]
    """In [-1, 1]."""
    latent: Float[Array, "B D"]
    """Embedding of the task."""


class State(NamedTuple):
    """Parameters and optimiser states."""

    generator: Any
    discriminator: Any
    generator_opt: Any
    discriminator_opt: Any


def _networks(config: Config, spec: Spec) -> tuple[Generator, Discriminator]:
    return Generator(spec.action_size, config.generator_sizes), Discriminator(config.discriminator_sizes)


def _optimizers(config: Config) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """Of the generator, of the discriminator."""
    return (
        adam(config.generator_learning_rate, momentum=config.momentum),
        adam(config.discriminator_learning_rate, momentum=config.momentum),
    )


def init(key: PRNGKeyArray, config: Config, spec: Spec) -> State:
    """Fresh parameters."""
    keys = jax.random.split(key)
    generator_net, discriminator_net = _networks(config, spec)
    obs, action = jnp.zeros(spec.obs_size), jnp.zeros(spec.action_size)
    latent, noise = jnp.zeros(spec.latent_size), jnp.zeros(config.noise_size)
    generator = generator_net.init(keys[0], obs, latent, noise)
    discriminator = discriminator_net.init(keys[1], action, obs, latent)
    for_generator, for_discriminator = _optimizers(config)
    return State(generator, discriminator, for_generator.init(generator), for_discriminator.init(discriminator))


def generate(
    generator: Any,
    config: Config,
    spec: Spec,
    obs: Float[Array, "... O"],
    latent: Float[Array, "... D"],
    key: PRNGKeyArray,
) -> Float[Array, "... A"]:
    """A random action in each state of each task."""
    noise = jax.random.normal(key, (*obs.shape[:-1], config.noise_size))
    latent = jnp.broadcast_to(latent, (*obs.shape[:-1], spec.latent_size))
    return _networks(config, spec)[0].apply(generator, obs, latent, noise)


def entropy(
    generator: Any,
    config: Config,
    spec: Spec,
    obs: Float[Array, "... B O"],
    latent: Float[Array, "... D"],
    key: PRNGKeyArray,
) -> Float[Array, "..."]:
    """Entropy in nats of the generated actions over B states, one embedding per row (Gaussian estimate)."""
    return gaussian_entropy(generate(generator, config, spec, obs, latent[..., None, :], key))


def train_step(state: State, batch: Batch, key: PRNGKeyArray, config: Config, spec: Spec) -> tuple[State, Metrics]:
    """`rounds` times: one Adam step of the discriminator, one of the generator, each on fresh noise.

    Embeddings are inputs: no gradient reaches whatever made them.
    """
    batch = jax.lax.stop_gradient(batch)
    _, judge = _networks(config, spec)
    for_generator, for_discriminator = _optimizers(config)

    def logits(discriminator, action):
        return judge.apply(discriminator, action, batch.obs, batch.latent)

    def fake(generator, key):
        return generate(generator, config, spec, batch.obs, batch.latent, key)

    def one_round(state: State, key: PRNGKeyArray):
        key_discriminator, key_generator = jax.random.split(key)
        fakes = jax.lax.stop_gradient(fake(state.generator, key_discriminator))

        def judge_objective(params):
            real, made = logits(params, batch.action), logits(params, fakes)
            return discriminator_loss(real, made), jnp.mean(jnp.concatenate([real > 0, made <= 0]))

        (d_loss, accuracy), grads = jax.value_and_grad(judge_objective, has_aux=True)(state.discriminator)
        updates, discriminator_opt = for_discriminator.update(grads, state.discriminator_opt)
        discriminator = optax.apply_updates(state.discriminator, updates)

        def generator_objective(params):
            return generator_loss(logits(discriminator, fake(params, key_generator)))

        g_loss, grads = jax.value_and_grad(generator_objective)(state.generator)
        updates, generator_opt = for_generator.update(grads, state.generator_opt)
        generator = optax.apply_updates(state.generator, updates)
        metrics = {"discriminator_loss": d_loss, "generator_loss": g_loss, "discriminator_accuracy": accuracy}
        return State(generator, discriminator, generator_opt, discriminator_opt), metrics

    state, metrics = jax.lax.scan(one_round, state, jax.random.split(key, config.rounds))
    return state, jax.tree.map(jnp.mean, metrics)
