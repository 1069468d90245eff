"""Soft actor-critic over an observation and a belief, usable alone: `init`, `train_step`, `act`.

`train_step` is `critic_step` and `policy_step`, for callers who want several of the one per one of the other.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from metarl_jax.distributions import tanh_normal_sample
from metarl_jax.errors import ConfigurationError, check_ranges
from metarl_jax.learners.optimizers import adam
from metarl_jax.losses import sac as losses
from metarl_jax.networks.actor_critic import Actor, TwinCritic
from metarl_jax.types import Metrics


@dataclasses.dataclass(frozen=True)
class Config:
    """Soft actor-critic."""

    hidden_sizes: tuple[int, ...] = (300, 300, 300)
    """Units of each hidden layer of the policy and of both critics."""
    obs_embedding: int = 32
    """Size of the observation's embedding; 0: none."""
    belief_embedding: int = 32
    """Size of the belief's embedding; 0: none."""
    layer_norm: bool = False
    """Layer normalisation in the critics."""
    action_cost: float = 0.0
    """What the task takes per squared action and step, if it is known: the critics subtract it themselves, so that it
    is no part of what their networks must learn. Beside values that are 100 times as large it would be lost."""
    learning_rate: float = 3e-4
    """Adam's step size, for policy, critics and temperature."""
    learning_rate_held_for: float | None = None
    """Critic updates for which the step size of policy and critics is held; then it halves with every half of them
    more, down to a tenth. The temperature's stays. None: all stay."""
    batch_size: int = 256
    """Transitions per update."""
    discount: float = 0.99
    """Gamma."""
    target_rate: float = 0.005
    """Tau: how far the target critics move per update."""
    alpha: float = 0.2
    """Entropy temperature; its initial value if it is learnt."""
    automatic_entropy_tuning: bool = False
    """Learn the temperature so that the entropy is `target_entropy` per action."""
    target_entropy: float = -1.0
    """Nats per action that a learnt temperature keeps."""
    reward_scale: float = 1.0
    """Factor on the reward."""
    pessimism: float = 1.0
    """What counts of the two critics is their mean less so many standard deviations: 1, the smaller one, is as
    published, 0 their mean. The smaller one keeps values from running away, and holds back what has few successes."""
    max_grad_norm: float | None = 0.5
    """Clip the policy's gradient, and that of both critics together, at this global norm; None: do not clip."""
    policy_every: int = 1
    """Critic updates per policy update."""
    average_rate: float = 1.0
    """Deterministic actions come from an exponential average of the policy's parameters, which moves by this share per
    policy update; 1: from the newest parameters."""


class Spec(NamedTuple):
    """Sizes of the vectors."""

    obs_size: int
    action_size: int
    belief_size: int = 0
    privileged_size: int = 0
    """Entries of what the critics alone are told."""


class Batch(NamedTuple):
    """Transitions. `belief` may have size 0."""

    obs: Float[Array, "B O"]
    belief: Float[Array, "B b"]
    action: Float[Array, "B A"]
    reward: Float[Array, " B"]
    next_obs: Float[Array, "B O"]
    next_belief: Float[Array, "B b"]
    terminated: Bool[Array, " B"]
    weight: Float[Array, " B"]
    """1, or 0 for a transition that must not count."""
    privileged: Float[Array, "B p"] | None = None
    """What training knows beyond the belief, such as the task: for the critics alone (asymmetric actor-critic; Pinto
    et al., 2018)."""
    next_privileged: Float[Array, "B p"] | None = None


class State(NamedTuple):
    """Parameters and optimiser states."""

    actor: Any
    average_actor: Any
    """For deterministic actions."""
    critic: Any
    target_critic: Any
    log_alpha: jax.Array
    actor_opt: Any
    critic_opt: Any
    alpha_opt: Any


def validate(config: Config) -> None:
    """Raise `ConfigurationError` for a setting that is out of range."""
    check_ranges(config, "sac.")
    for name, low in (("policy_every", 1), ("obs_embedding", 0), ("belief_embedding", 0)):
        if (value := getattr(config, name)) < low:
            raise ConfigurationError(f"sac.{name} must be >= {low}, got {value}")
    if not -1.0 <= config.pessimism <= 1.0:
        raise ConfigurationError(f"sac.pessimism must be in [-1, 1], got {config.pessimism}")
    if not config.alpha > 0.0:
        raise ConfigurationError(f"sac.alpha must be positive (1e-8 is as good as no entropy), got {config.alpha}")


def _actor(config: Config, spec: Spec) -> Actor:
    return Actor(spec.action_size, config.hidden_sizes, config.obs_embedding, config.belief_embedding)


def _critic(config: Config) -> TwinCritic:
    embeddings = config.obs_embedding, config.belief_embedding
    return TwinCritic(config.hidden_sizes, *embeddings, config.layer_norm, config.reward_scale * config.action_cost)


def _optimizer(config: Config, every: int = 1) -> optax.GradientTransformation:
    """Of a network that is updated with one in `every` critic updates."""
    updates = config.learning_rate_held_for
    return adam(config.learning_rate, config.max_grad_norm, held_for=None if updates is None else updates / every)


def init(key: PRNGKeyArray, config: Config, spec: Spec) -> State:
    """Fresh parameters."""
    key_actor, key_critic = jax.random.split(key)
    obs, belief, action = jnp.zeros(spec.obs_size), jnp.zeros(spec.belief_size), jnp.zeros(spec.action_size)
    actor = _actor(config, spec).init(key_actor, obs, belief)
    known = jnp.zeros(spec.belief_size + spec.privileged_size)
    critic = _critic(config).init(key_critic, obs, known, action)
    log_alpha = jnp.log(jnp.asarray(config.alpha, jnp.float32))
    return State(
        actor=actor,
        average_actor=jax.tree.map(jnp.copy, actor),  # copies, so that all can be donated
        critic=critic,
        target_critic=jax.tree.map(jnp.copy, critic),
        log_alpha=log_alpha,
        actor_opt=_optimizer(config, config.policy_every).init(actor),
        critic_opt=_optimizer(config).init(critic),
        alpha_opt=optax.adam(config.learning_rate).init(log_alpha),
    )


def act(
    state: State,
    config: Config,
    spec: Spec,
    obs: Float[Array, "... O"],
    belief: Float[Array, "... b"],
    key: PRNGKeyArray,
    explore: bool,
) -> Float[Array, "... A"]:
    """Actions in (-1, 1): a sample of the policy, or its mode."""
    mean, std = _actor(config, spec).apply(state.actor if explore else state.average_actor, obs, belief)
    return tanh_normal_sample(key, mean, std)[0] if explore else jnp.tanh(mean)


def q_values(
    state: State,
    config: Config,
    spec: Spec,
    obs: Float[Array, "... O"],
    belief: Float[Array, "... b"],
    action: Float[Array, "... A"],
) -> Float[Array, "2 ..."]:
    """Both critics' values; `belief` holds what they know: the belief, then what is privileged, if anything is."""
    return _critic(config).apply(state.critic, obs, belief, action)


def _known(belief: Float[Array, "B b"], privileged: Float[Array, "B p"] | None) -> Float[Array, "B b+p"]:
    """What the critics know of the task."""
    return belief if privileged is None else jnp.concatenate([belief, privileged], -1)


def train_step(state: State, batch: Batch, key: PRNGKeyArray, config: Config, spec: Spec) -> tuple[State, Metrics]:
    """One update of the critics, then one of the policy and the temperature, whatever `config.policy_every` says: who
    wants more of the former calls `critic_step` and `policy_step`.

    Beliefs are inputs, not parameters: no gradient reaches whatever made them.
    """
    key_critic, key_policy = jax.random.split(key)
    state, critic_metrics = critic_step(state, batch, key_critic, config, spec)
    state, policy_metrics = policy_step(state, batch, key_policy, config, spec)
    return state, critic_metrics | policy_metrics


def critic_step(state: State, batch: Batch, key: PRNGKeyArray, config: Config, spec: Spec) -> tuple[State, Metrics]:
    """One Adam step of both critics towards the soft target; the target critics follow."""
    batch = jax.lax.stop_gradient(batch)
    actor, critic = _actor(config, spec), _critic(config)
    next_action, next_log_prob = tanh_normal_sample(key, *actor.apply(state.actor, batch.next_obs, batch.next_belief))
    next_known, known = _known(batch.next_belief, batch.next_privileged), _known(batch.belief, batch.privileged)
    next_q = critic.apply(state.target_critic, batch.next_obs, next_known, next_action)
    alpha = jnp.exp(state.log_alpha)
    target = losses.soft_target(
        config.reward_scale * batch.reward,
        batch.terminated,
        next_q,
        next_log_prob,
        alpha,
        config.discount,
        config.pessimism,
    )

    def objective(params):
        q = critic.apply(params, batch.obs, known, batch.action)
        return losses.critic_loss(q, target, batch.weight), jnp.mean(q)

    (loss, q_mean), grads = jax.value_and_grad(objective, has_aux=True)(state.critic)
    updates, critic_opt = _optimizer(config).update(grads, state.critic_opt, state.critic)
    params = optax.apply_updates(state.critic, updates)
    target_critic = optax.incremental_update(params, state.target_critic, config.target_rate)
    state = state._replace(critic=params, critic_opt=critic_opt, target_critic=target_critic)
    return state, {"critic_loss": loss, "q": q_mean}


def policy_step(state: State, batch: Batch, key: PRNGKeyArray, config: Config, spec: Spec) -> tuple[State, Metrics]:
    """One Adam step of the policy, and of the temperature if it is learnt."""
    batch = jax.lax.stop_gradient(batch)
    actor, critic = _actor(config, spec), _critic(config)
    alpha = jnp.exp(state.log_alpha)

    def objective(params):
        action, log_prob = tanh_normal_sample(key, *actor.apply(params, batch.obs, batch.belief))
        q = critic.apply(state.critic, batch.obs, _known(batch.belief, batch.privileged), action)
        return losses.actor_loss(q, log_prob, alpha, batch.weight, config.pessimism), log_prob

    (loss, log_prob), grads = jax.value_and_grad(objective, has_aux=True)(state.actor)
    updates, actor_opt = _optimizer(config, config.policy_every).update(grads, state.actor_opt, state.actor)
    new_actor = optax.apply_updates(state.actor, updates)
    average = optax.incremental_update(new_actor, state.average_actor, config.average_rate)
    state = state._replace(actor=new_actor, average_actor=average, actor_opt=actor_opt)
    if config.automatic_entropy_tuning:
        target = config.target_entropy * spec.action_size
        grad = jax.grad(losses.temperature_loss)(state.log_alpha, log_prob, target, batch.weight)
        update, alpha_opt = optax.adam(config.learning_rate).update(grad, state.alpha_opt)
        state = state._replace(log_alpha=optax.apply_updates(state.log_alpha, update), alpha_opt=alpha_opt)
    return state, {"actor_loss": loss, "entropy": -jnp.mean(log_prob), "alpha": alpha}
