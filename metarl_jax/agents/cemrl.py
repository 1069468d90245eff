"""CEMRL-style inference on MoSS's loop: every recent transition votes for the task, whatever their order; SAC acts."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metarl_jax.agents import belief_forms, control, imagination, inference
from metarl_jax.agents.hyperparameters import Values, replaced
from metarl_jax.data import statistics
from metarl_jax.data.replay import Replay, unscaled
from metarl_jax.data.statistics import Scale
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import context_vae, reward_model, sac
from metarl_jax.learners.context_vae import Config as VAEConfig
from metarl_jax.networks.mixture import Mixture
from metarl_jax.types import Agent, Changes, EnvSpec, Metrics, Transition


@dataclasses.dataclass(frozen=True)
class Config(control.Config):
    """How the two learners share an epoch."""

    vae: VAEConfig = dataclasses.field(default_factory=VAEConfig)
    belief: str = "component"
    """What the policy sees. `component`: mean and standard deviation of the most likely component; `mixture`:
    responsibilities, means and standard deviations of all; `sample`: a posterior sample."""


class State(NamedTuple):
    """What CEMRL learns."""

    vae: context_vae.State
    sac: sac.State
    acting_encoder: Any
    """The VAE's as the last epoch found it: SAC's last beliefs are its, and so are those that the policy acts on."""
    scale: Scale
    """Of observations, actions and rewards, for the acting encoder and the policy."""
    belief_scale: Scale
    task_scale: Scale
    """Of what critics alone are told."""
    reward_model: reward_model.State | None
    num_epochs: Int[Array, ""]


class Memory(NamedTuple):
    """What one agent remembers of its task: leading axis n."""

    recent: context_vae.Memory
    belief: Float[Array, "n b"]
    """Standardised, as the policy sees it."""


def validate(config: Config, spec: EnvSpec) -> None:
    """Raise `ConfigurationError` for settings that contradict each other or the benchmark."""
    control.validate(config, spec)
    inference.validate(config.vae, spec)
    imagination.validate(config, config.vae)
    if config.belief not in belief_forms.FORMS:
        raise ConfigurationError(f"unknown belief {config.belief!r}: choose {', '.join(belief_forms.FORMS)}")
    if config.vae.context < 1:
        raise ConfigurationError(f"vae.context must be >= 1, got {config.vae.context}")


def make(config: Config, spec: EnvSpec, values: Values | None = None) -> Agent:
    """CEMRL for environments of `spec`, as pure functions.

    `values` replace hyper-parameters of the configuration, which is checked without them: they may be traced.

    Raises:
      ConfigurationError: see `validate`.
    """
    validate(config, spec)
    config = replaced(config, values or {})
    vae_spec = context_vae.Spec(spec.obs_size, spec.action_size)
    belief_size = belief_forms.size(config.belief, config.vae.num_components, config.vae.latent_size)
    sac_spec = control.sac_spec(config, spec, belief_size)
    imagined = imagination.make(config, spec)

    def init(key: PRNGKeyArray) -> State:
        key_vae, key_sac, key_model = jax.random.split(key, 3)
        vae = context_vae.init(key_vae, config.vae, vae_spec)
        return State(
            vae=vae,
            acting_encoder=jax.tree.map(jnp.copy, vae.encoder),  # a copy, so that all can be donated
            scale=unscaled(spec.obs_size, spec.action_size),
            reward_model=imagined.init(key_model),
            num_epochs=jnp.zeros((), jnp.int32),
            **control.init(key_sac, config, sac_spec)._asdict(),
        )

    def read(state: State, q: Mixture, key: PRNGKeyArray) -> Float[Array, "... b"]:
        return state.belief_scale.apply(belief_forms.vector(config.belief, q, key))

    def begin(state: State, n: int) -> Memory:
        recent = context_vae.begin(config.vae, n)
        return Memory(recent, read(state, context_vae.mixture(recent), jax.random.key(0)))

    def act(state: State, obs: jax.Array, memory: Memory, key: PRNGKeyArray, explore: bool) -> jax.Array:
        q = context_vae.mixture(memory.recent)
        belief, key = belief_forms.acted_on(config.belief, memory.belief, q, state.belief_scale, key)
        obs = control.seen(config, state.scale, obs)
        return sac.act(state.sac, config.sac, sac_spec, obs, belief, key, explore)

    def observe(state: State, memory: Memory, transition: Transition) -> Memory:
        recent = context_vae.step(state.acting_encoder, config.vae, vae_spec, state.scale, memory.recent, transition)
        return Memory(recent, read(state, context_vae.mixture(recent), jax.random.key(0)))

    def describe(state: State, memory: Memory) -> dict[str, jax.Array]:
        q = context_vae.mixture(memory.recent)
        belief = belief_forms.shown(config.belief, memory.belief, q, state.belief_scale)
        return {"belief": belief, "component": jax.nn.softmax(q.logits)}

    def make_pool(state: State, replay: Replay, key: PRNGKeyArray) -> sac.Batch:
        key_sample, key_before, key_after = jax.random.split(key, 3)
        windows = control.fresh_windows(config, replay, key_sample)
        beliefs = context_vae.infer(state.acting_encoder, config.vae, vae_spec, state.scale, windows)
        before = belief_forms.vector(config.belief, beliefs.before, key_before)
        after = belief_forms.vector(config.belief, beliefs.after, key_after)
        return control.pool(config, spec, state.scale, windows, before, after)

    def learn_control(state: State, replay: Replay, key: PRNGKeyArray) -> tuple[Changes, Metrics]:
        """An epoch's SAC updates on the beliefs of the encoder as the epoch finds it."""
        acting = {"acting_encoder": state.vae.encoder, "scale": statistics.scale(replay.moments)}
        waits = inference.learns(config)
        return control.epoch(config, sac_spec, state, acting, lambda s, k: make_pool(s, replay, k), waits, key)

    learn_inference = inference.part(config, config.vae, vae_spec, context_vae.train_step)
    parts = {"control": learn_control, "inference": learn_inference, **imagined.parts}
    return Agent(init, begin, act, observe, parts, describe, gross_reward=imagined.gross_reward)
