"""Imagination: a model of rewards, by which an agent pays itself in tasks that nobody gave it.

Latent Dynamics Mixture (Lee & Chung, 2021) makes tasks up by mixing beliefs. Training knows its tasks, so here tasks
themselves are made up (`training.trainer.around`), and the model is told them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from metarl_jax.agents import control, inference
from metarl_jax.data import statistics
from metarl_jax.data.replay import Replay, Vectors, sample_windows, vectors
from metarl_jax.data.statistics import Scale
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import decoding, reward_model
from metarl_jax.types import Changes, EnvSpec, Metrics, Transition


class Imagination(NamedTuple):
    """What an agent needs of it: its state has a field `reward_model`."""

    init: Callable[[PRNGKeyArray], reward_model.State | None]
    """(key) -> the field."""
    parts: Mapping[str, Callable[[Any, Any, PRNGKeyArray], tuple[Changes, Metrics]]]
    """As `Agent.parts`."""
    gross_reward: Callable[[Any, Transition], jax.Array] | None
    """As `Agent.gross_reward`."""


NONE = Imagination(lambda key: None, {}, None)


def validate(config: control.Config, vae_config: decoding.Config) -> None:
    """Raise `ConfigurationError` for settings that need to know more of tasks than a model of rewards tells."""
    if config.reward_model_updates < 0:
        raise ConfigurationError(f"reward_model_updates must be >= 0, got {config.reward_model_updates}")
    if config.reward_model_updates and (config.resting_potential or vae_config.progress_weight):
        raise ConfigurationError(
            "what an imagined task pays for standing still is not known: use --imagined_episodes=0, or neither "
            "--resting_potential nor --vae.progress_weight"
        )


def make(config: control.Config, spec: EnvSpec, own_obs_size: int | None = None) -> Imagination:
    """The model of rewards for environments of `spec`.

    It sees the first `own_obs_size` entries of observations, where the others tell the task.
    """
    if not config.reward_model_updates:
        return NONE
    obs_size, num_families = own_obs_size or spec.obs_size, len(spec.families)
    model_spec = reward_model.Spec(obs_size, spec.action_size, num_families * (1 + spec.task_size))

    def seen(scale: Scale, transition: Transition) -> Vectors:
        x: Vectors = scale.apply(vectors(transition))
        return x._replace(obs=x.obs[..., :obs_size], next_obs=x.next_obs[..., :obs_size])

    def learn(state: Any, replay: Replay, key: PRNGKeyArray) -> tuple[Changes, Metrics]:
        """An epoch's updates on transitions that the environment paid for."""
        scale = statistics.scale(replay.moments)

        def update(model: reward_model.State, key: PRNGKeyArray) -> tuple[reward_model.State, Metrics]:
            windows = sample_windows(replay, key, config.reward_model.batch_size, 1)
            x = jax.tree.map(lambda leaf: leaf[0], windows)
            paid = (x.valid & ~x.imagined).astype(jnp.float32)
            batch = reward_model.Batch(seen(scale, x), x.task.vector(num_families), paid)
            return reward_model.train_step(model, batch, config.reward_model)

        num = inference.num_updates(config, config.reward_model_updates, state.num_epochs)
        model, metrics = control.repeat(update, state.reward_model, num, key)
        return {"reward_model": model}, metrics | {"updates": num}

    def gross_reward(state: Any, transition: Transition) -> jax.Array:
        model, task = state.reward_model, transition.task.vector(num_families)
        x = seen(state.scale, transition)
        found = reward_model.predict(model.params, model.task_scale, x, task, config.reward_model)
        return state.scale.mean.gross_reward + state.scale.std.gross_reward * found

    def init(key: PRNGKeyArray) -> reward_model.State:
        return reward_model.init(key, config.reward_model, model_spec)

    return Imagination(init, {"reward_model": learn}, gross_reward)
