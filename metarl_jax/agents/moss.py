"""MoSS: a recurrent Gaussian-mixture VAE infers the task, Bayes-adaptive SAC acts on the belief."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from metarl_jax.agents import belief_forms, control, imagination, inference
from metarl_jax.agents.hyperparameters import Values, replaced
from metarl_jax.data import statistics
from metarl_jax.data.replay import Replay, unscaled
from metarl_jax.data.statistics import Scale
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import base_tasks, decoding, gmm_vae, reward_model, sac
from metarl_jax.learners.gmm_vae import Config as VAEConfig
from metarl_jax.networks.mixture import Mixture
from metarl_jax.types import Agent, Changes, EnvSpec, Metrics, Transition


@dataclasses.dataclass(frozen=True)
class Config(control.Config):
    """How the two learners share an epoch."""

    vae: VAEConfig = dataclasses.field(default_factory=VAEConfig)
    belief: str = "component"
    """What the policy sees. `component`: mean and standard deviation of the most likely component (the paper's);
    `mixture`: responsibilities, means and standard deviations of all; `sample`: a posterior sample (ablation);
    `oracle`: the task itself, an upper bound, from an environment that reveals it (no task inference is learnt)."""
    online_inference: bool = True
    """Update the belief at every step; False: only between episodes (ablation). SAC then learns from half of the
    windows with the belief of an agent that knows nothing, as in first episodes, from the others with that of their
    last step."""
    retain_hidden: bool = True
    """Keep the encoder's memory for the whole episode; False: the belief follows from the last `window` steps alone,
    read anew at every step (the reference's code; `window` times the work)."""


class State(NamedTuple):
    """What MoSS learns."""

    vae: gmm_vae.State
    sac: sac.State
    acting_encoder: Any
    """The VAE's as the last epoch found it: SAC's last beliefs are its, and so are those that the policy acts on."""
    scale: Scale
    """Of observations, actions and rewards, for the acting encoder and the policy."""
    belief_scale: Scale
    task_scale: Scale
    """Of what critics alone are told."""
    reward_model: reward_model.State | None
    base_tasks: base_tasks.BaseTasks | None
    """What components are taught, where no labels do."""
    num_epochs: Int[Array, ""]
    """Epochs of learning so far."""


class Memory(NamedTuple):
    """What one agent remembers of its task: leading axis n."""

    carry: Float[Array, "n H"]
    belief: Float[Array, "n b"]
    """Standardised, as the policy sees it."""
    recent: Float[Array, "n W C"]
    """The last context items, newest last; W = 0 if the memory is retained."""
    present: Bool[Array, "n W"]
    """Which of them hold an item."""


def belief_size(config: Config, spec: EnvSpec) -> int:
    """Length of the belief vector that the policy sees."""
    if config.belief == "oracle":
        return len(spec.families) * (1 + spec.task_size)
    return belief_forms.size(config.belief, config.vae.num_components, config.vae.latent_size)


def validate(config: Config, spec: EnvSpec) -> None:
    """Raise `ConfigurationError` for settings that contradict each other or the benchmark."""
    control.validate(config, spec)
    known = (*belief_forms.FORMS, "oracle")
    if config.belief not in known:
        raise ConfigurationError(f"unknown belief {config.belief!r}: choose {', '.join(known)}")
    if config.belief in ("sample", "oracle") and not config.online_inference:
        why = "draws anew at every step" if config.belief == "sample" else "infers nothing"
        raise ConfigurationError(f"belief={config.belief} {why}: use it with online_inference")
    inference.validate(config.vae, spec)
    imagination.validate(config, config.vae)
    if config.vae.contrastive_weight and not spec.stationary:
        raise ConfigurationError(
            f"the contrastive loss needs one task per episode, unlike {spec.name}: use --vae.contrastive_weight=0"
        )
    finds = config.vae.base_tasks == "rewards"
    if config.vae.base_tasks not in gmm_vae.TEACHERS:
        raise ConfigurationError(f"unknown base_tasks {config.vae.base_tasks!r}: choose {', '.join(gmm_vae.TEACHERS)}")
    if finds and not config.vae.base_task_weight:
        raise ConfigurationError(
            "base tasks found in rewards are to be taught: use --vae.base_task_weight=0.1, or --vae.base_tasks=labels"
        )
    if not config.vae.base_task_weight:
        return
    if len(spec.families) == 1:
        without = "--vae.base_task_weight=0" + (" --vae.base_tasks=labels" if finds else "")
        raise ConfigurationError(f"{spec.name} has one base task, nothing to tell apart: use {without}")
    if config.vae.num_components < len(spec.families):
        raise ConfigurationError(
            f"{len(spec.families)} base tasks ({', '.join(spec.families)}) need --vae.num_components >= "
            f"{len(spec.families)} to have one each, got {config.vae.num_components}"
        )
    if finds and not spec.stationary:
        raise ConfigurationError(
            f"base tasks are found where an episode has one task, unlike {spec.name}: use --vae.base_tasks=labels"
        )


def make(config: Config, spec: EnvSpec, values: Values | None = None) -> Agent:
    """MoSS for environments of `spec`, as pure functions.

    `values` replace hyper-parameters of the configuration, which is checked without them: they may be traced.

    Raises:
      ConfigurationError: see `validate`.
    """
    validate(config, spec)
    config = replaced(config, values or {})
    oracle = config.belief == "oracle"
    # A revealed task is the tail of the observation.
    own_obs_size = spec.obs_size - (belief_size(config, spec) if oracle else 0)
    vae_spec = gmm_vae.Spec(spec.obs_size, spec.action_size)
    sac_spec = control.sac_spec(config, spec, belief_size(config, spec))._replace(obs_size=own_obs_size)
    imagined = imagination.make(config, spec, own_obs_size)
    finds = bool(config.vae.base_task_weight) and config.vae.base_tasks == "rewards"

    def init(key: PRNGKeyArray) -> State:
        key_vae, key_sac, key_model = jax.random.split(key, 3)
        vae = gmm_vae.init(key_vae, config.vae, vae_spec)
        return State(
            vae=vae,
            acting_encoder=jax.tree.map(jnp.copy, vae.encoder),  # a copy, so that all can be donated
            scale=unscaled(spec.obs_size, spec.action_size),
            reward_model=imagined.init(key_model),
            base_tasks=base_tasks.init(config.vae.num_components, spec.task_size) if finds else None,
            num_epochs=jnp.zeros((), jnp.int32),
            **control.init(key_sac, config, sac_spec)._asdict(),
        )

    def read(state: State, q: Mixture, key: PRNGKeyArray) -> Float[Array, "... b"]:
        if oracle:
            return jnp.zeros((*q.logits.shape[:-1], sac_spec.belief_size))
        return state.belief_scale.apply(belief_forms.vector(config.belief, q, key))

    def mixture(state: State, carry: jax.Array) -> Mixture:
        return gmm_vae.mixture(state.acting_encoder, config.vae, vae_spec, carry)

    def begin(state: State, n: int) -> Memory:
        carry = gmm_vae.begin(config.vae, vae_spec, (n,))
        width = 0 if config.retain_hidden else config.window
        recent = jnp.zeros((n, width, decoding.context_size(*vae_spec, config.vae.reward_change)))
        belief = read(state, mixture(state, carry), jax.random.key(0))
        return Memory(carry, belief, recent, jnp.zeros((n, width), bool))

    def remember(state: State, memory: Memory, transition: Transition) -> Memory:
        """The memory with its carry, but not yet its belief, after `transition`."""
        encoder = state.acting_encoder
        if config.retain_hidden:
            return memory._replace(
                carry=gmm_vae.step(encoder, config.vae, vae_spec, state.scale, memory.carry, transition)
            )
        item = gmm_vae.context(state.scale, transition, config.vae.gross_reward, config.vae.reward_change)
        recent = jnp.concatenate([memory.recent[:, 1:], item[:, None]], 1)
        present = jnp.concatenate([memory.present[:, 1:], transition.valid[:, None]], 1)
        carry = gmm_vae.recall(encoder, config.vae, vae_spec, recent, present)
        return memory._replace(carry=carry, recent=recent, present=present)

    def believed(state: State, obs: jax.Array, memory: Memory) -> tuple[jax.Array, jax.Array]:
        """What the policy sees: its own observation, and its belief."""
        belief = state.belief_scale.apply(obs[..., own_obs_size:]) if oracle else memory.belief
        return control.seen(config, state.scale, obs)[..., :own_obs_size], belief

    def act(state: State, obs: jax.Array, memory: Memory, key: PRNGKeyArray, explore: bool) -> jax.Array:
        obs, belief = believed(state, obs, memory)
        q = mixture(state, memory.carry)
        belief, key = belief_forms.acted_on(config.belief, belief, q, state.belief_scale, key)
        return sac.act(state.sac, config.sac, sac_spec, obs, belief, key, explore)

    def observe(state: State, memory: Memory, transition: Transition) -> Memory:
        if oracle:
            return memory._replace(belief=believed(state, transition.next_obs, memory)[1])
        memory = remember(state, memory, transition)
        belief = read(state, mixture(state, memory.carry), jax.random.key(0))
        if not config.online_inference:
            belief = jnp.where(transition.last[:, None], belief, memory.belief)
        return memory._replace(belief=belief)

    def describe(state: State, memory: Memory) -> dict[str, jax.Array]:
        q = mixture(state, memory.carry)
        belief = belief_forms.shown(config.belief, memory.belief, q, state.belief_scale)
        component = jax.nn.softmax(q.logits)
        return {"belief": belief, "component": jnp.ones((len(component), 1)) if oracle else component}

    def make_pool(state: State, replay: Replay, key: PRNGKeyArray) -> sac.Batch:
        """Transitions [P, ...] of fresh windows with the acting encoder's beliefs; beliefs not standardised."""
        key_sample, key_before, key_after, key_first = jax.random.split(key, 4)
        windows = control.fresh_windows(config, replay, key_sample)
        if oracle:
            before, after = windows.obs[..., own_obs_size:], windows.next_obs[..., own_obs_size:]
        else:
            beliefs = gmm_vae.infer(state.acting_encoder, config.vae, vae_spec, state.scale, windows)
            before = belief_forms.vector(config.belief, beliefs.before, key_before)
            after = belief_forms.vector(config.belief, beliefs.after, key_after)
        if not config.online_inference:
            blank = mixture(state, gmm_vae.begin(config.vae, vae_spec, after.shape[1:2]))
            first = jax.random.bernoulli(key_first, 0.5, (after.shape[1], 1))
            kept = jnp.where(first, belief_forms.vector(config.belief, blank, key_before), after[-1])
            before = after = jnp.broadcast_to(kept, after.shape)
        return control.pool(config, spec, state.scale, windows, before, after, own_obs_size)

    def learn_control(state: State, replay: Replay, key: PRNGKeyArray) -> tuple[Changes, Metrics]:
        """An epoch's SAC updates on the beliefs of the encoder as the epoch finds it."""
        acting = {"acting_encoder": state.vae.encoder, "scale": statistics.scale(replay.moments)}
        waits = not oracle and inference.learns(config)
        return control.epoch(config, sac_spec, state, acting, lambda s, k: make_pool(s, replay, k), waits, key)

    def learn_inference(state: State, replay: Replay, key: PRNGKeyArray) -> tuple[Changes, Metrics]:
        """An epoch's VAE updates, of components that are taught what tasks pay for."""
        key, key_look = jax.random.split(key)

        def look(known: base_tasks.BaseTasks) -> base_tasks.BaseTasks:
            return base_tasks.find(known, replay, key_look, config.vae.gross_reward)

        found = jax.lax.cond(state.num_epochs % base_tasks.EVERY == 0, look, lambda known: known, state.base_tasks)

        def train_step(vae, windows, key, vae_config, spec, scale, siblings):
            base_task = found.of(windows)
            return gmm_vae.train_step(vae, windows, key, vae_config, spec, scale, siblings, base_task=base_task)

        changes, metrics = inference.part(config, config.vae, vae_spec, train_step)(state, replay, key)
        return changes | {"base_tasks": found}, metrics

    learn_vae = learn_inference if finds else inference.part(config, config.vae, vae_spec, gmm_vae.train_step)
    parts = {"control": learn_control, **({} if oracle else {"inference": learn_vae}), **imagined.parts}
    return Agent(init, begin, act, observe, parts, describe, gross_reward=imagined.gross_reward)
