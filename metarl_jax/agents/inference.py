"""Inference by a VAE: the part of an agent's epoch that `control` does without, trained on windows of its own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from metarl_jax.agents import control
from metarl_jax.data import statistics
from metarl_jax.data.replay import Replay, sample_siblings, sample_windows
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import decoding
from metarl_jax.types import Changes, EnvSpec, Metrics, Transition


def validate(config: decoding.Config, spec: EnvSpec) -> None:
    """Raise `ConfigurationError` for a setting of the VAE that is out of range, or contradicts the benchmark."""
    if config.decode not in decoding.TARGETS:
        raise ConfigurationError(f"unknown decode {config.decode!r}: choose {', '.join(decoding.TARGETS)}")
    if config.decode == "task" and not spec.stationary:
        raise ConfigurationError(
            f"decoding other episodes of the task needs one task per episode, unlike {spec.name}: "
            "use --vae.decode=trajectory"
        )
    for name in ("num_components", "decode_samples"):
        if getattr(config, name) < 1:
            raise ConfigurationError(f"vae.{name} must be >= 1, got {getattr(config, name)}")
    if config.elbo_steps is not None and config.elbo_steps < 1:
        raise ConfigurationError(f"vae.elbo_steps must be >= 1, or None for all steps, got {config.elbo_steps}")


def learns(config: control.Config) -> bool:
    """Whether the VAE is ever updated."""
    return config.vae_updates + config.pretrain_updates > 0


def num_updates(config: control.Config, updates: int, num_epochs: Int[Array, ""]) -> Int[Array, ""]:
    """Of a learner that has so many per epoch: the first one's include `pretrain_updates`."""
    return updates + jnp.where(num_epochs == 0, config.pretrain_updates, 0)


def train(
    config: control.Config,
    vae_config: decoding.Config,
    train_step: Callable[[Any, Transition, Transition | None, PRNGKeyArray], tuple[Any, Metrics]],
    vae: Any,
    replay: Replay,
    num: Int[Array, ""],
    key: PRNGKeyArray,
) -> tuple[Any, Metrics]:
    """`num` updates (vae, windows, siblings, key) on fresh windows; siblings are other episodes of the same tasks.

    They are None unless those are what beliefs decode.
    """

    def update(vae, key):
        key_sample, key_sibling, key_train = jax.random.split(key, 3)
        windows = sample_windows(replay, key_sample, vae_config.batch_size, config.vae_window or config.window)
        siblings = sample_siblings(replay, key_sibling, windows) if vae_config.decode == "task" else None
        return train_step(vae, windows, siblings, key_train)

    return control.repeat(update, vae, num, key)


def part(
    config: control.Config, vae_config: decoding.Config, spec: Any, train_step: Callable[..., tuple[Any, Metrics]]
) -> Callable[[Any, Replay, PRNGKeyArray], tuple[Changes, Metrics]]:
    """The part of an agent's epoch that trains its VAE alone, the state's field `vae`.

    Args:
      config: numbers of updates.
      vae_config: of the VAE.
      spec: of the VAE.
      train_step: (vae, windows, key, vae_config, spec, scale, siblings) -> the VAE after an update, and metrics.
    """

    def learn(state: Any, replay: Replay, key: PRNGKeyArray) -> tuple[Changes, Metrics]:
        scale = statistics.scale(replay.moments)

        def step(vae: Any, windows: Transition, siblings: Transition | None, key: PRNGKeyArray) -> tuple[Any, Metrics]:
            return train_step(vae, windows, key, vae_config, spec, scale, siblings)

        num = num_updates(config, config.vae_updates, state.num_epochs)
        vae, metrics = train(config, vae_config, step, state.vae, replay, num, key)
        return {"vae": vae}, metrics | {"updates": num}

    return learn
