"""Behaviour-regularised actor-critic with a dual estimate of the divergence (BRAC-KL; Wu et al., 2019), usable alone.

`init`, `train_step`, `act`. Networks see the embedding of the task beside the observation, as FOCAL's do.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from metarl_jax.distributions import tanh_normal_sample
from metarl_jax.learners.optimizers import adam
from metarl_jax.losses.divergence import dual_kl, slope_penalty
from metarl_jax.losses.sac import critic_loss
from metarl_jax.networks.actor_critic import Actor, Critic, TwinCritic
from metarl_jax.networks.mlp import MLP
from metarl_jax.types import Metrics


@dataclasses.dataclass(frozen=True)
class Config:
    """Behaviour-regularised actor-critic."""

    hidden_sizes: tuple[int, ...] = (256, 256, 256)
    """Hidden layers of the policy, both critics, the value and the divergence's critic."""
    learning_rate: float = 3e-4
    """Adam's step size, for all but the divergence's critic."""
    discount: float = 0.99
    """Gamma."""
    target_rate: float = 0.005
    """Tau: how far the target value moves per update."""
    reward_scale: float = 5.0
    """Factor on the reward."""
    temperature: float = 1.0
    """Weight of the policy's entropy."""
    mean_weight: float = 1e-3
    """Penalty on the squares of the policy's means, before tanh."""
    std_weight: float = 1e-3
    """Penalty on the squares of the policy's log standard deviations."""
    divergence_updates: int = 3
    """Updates of the divergence's critic per train step."""
    divergence_learning_rate: float = 1e-4
    """Adam's step size, for the divergence's critic."""
    penalty_weight: float = 5.0
    """Weight of the penalty that keeps the divergence's critic smooth in the action."""
    penalty: str = "gradient"
    """What it keeps below 1: the norm of the critic's `gradient`, or its `output` (a quirk of the reference)."""
    divergence_weight: float = 50.0
    """Initial weight alpha of the divergence in the policy's loss."""
    max_divergence_weight: float = 2000.0
    """Its upper bound."""
    divergence_target: float = 0.05
    """Divergence that alpha is adapted to."""
    divergence_weight_rate: float = 1.0
    """How fast alpha is adapted; 0: it is fixed."""
    cloning_weight: float = 0.0
    """Weight, in units of the mean |Q|, of the squared distance between the policy's mode and the behaviour's action
    (TD3+BC; Fujimoto and Gu, 2021): an option beside the divergence, which alone takes many updates. 0: the paper."""
    average_rate: float = 1.0
    """Deterministic actions come from an exponential average of the policy's parameters, which moves by this share per
    update; 1: from the newest parameters."""


PENALTIES = ("gradient", "output")
LOG_STD_RANGE = (-20.0, 0.0)


class Spec(NamedTuple):
    """Sizes of the vectors."""

    obs_size: int
    action_size: int
    latent_size: int


class Batch(NamedTuple):
    """Transitions of the behaviour, and the embeddings of their tasks."""

    obs: Float[Array, "B O"]
    latent: Float[Array, "B D"]
    action: Float[Array, "B A"]
    """In [-1, 1]."""
    reward: Float[Array, " B"]
    next_obs: Float[Array, "B O"]
    terminated: Bool[Array, " B"]


class State(NamedTuple):
    """Parameters and optimiser states."""

    actor: Any
    average_actor: Any
    """What acts without exploration."""
    critic: Any
    value: Any
    target_value: Any
    divergence: Any
    """Critic of the divergence."""
    alpha: Float[Array, ""]
    """Weight of the divergence."""
    actor_opt: Any
    critic_opt: Any
    value_opt: Any
    divergence_opt: Any


def _actor(config: Config, spec: Spec) -> Actor:
    return Actor(spec.action_size, config.hidden_sizes, log_std_range=LOG_STD_RANGE)


def _critic(config: Config) -> TwinCritic:
    return TwinCritic(config.hidden_sizes)


def _divergence(config: Config) -> Critic:
    return Critic(config.hidden_sizes)


def _value(
    params: Any, config: Config, obs: Float[Array, "... O"], latent: Float[Array, "... D"]
) -> Float[Array, "..."]:
    return MLP((*config.hidden_sizes, 1)).apply(params, jnp.concatenate([obs, latent], -1))[..., 0]


def init(key: PRNGKeyArray, config: Config, spec: Spec) -> State:
    """Fresh parameters."""
    keys = jax.random.split(key, 4)
    obs, latent, action = jnp.zeros(spec.obs_size), jnp.zeros(spec.latent_size), jnp.zeros(spec.action_size)
    actor = _actor(config, spec).init(keys[0], obs, latent)
    critic = _critic(config).init(keys[1], obs, latent, action)
    value = MLP((*config.hidden_sizes, 1)).init(keys[2], jnp.concatenate([obs, latent]))
    divergence = _divergence(config).init(keys[3], obs, latent, action)
    optimizer = adam(config.learning_rate)
    return State(
        actor=actor,
        average_actor=jax.tree.map(jnp.copy, actor),  # copies, so that all can be donated
        critic=critic,
        value=value,
        target_value=jax.tree.map(jnp.copy, value),
        divergence=divergence,
        alpha=jnp.asarray(config.divergence_weight, jnp.float32),
        actor_opt=optimizer.init(actor),
        critic_opt=optimizer.init(critic),
        value_opt=optimizer.init(value),
        divergence_opt=adam(config.divergence_learning_rate).init(divergence),
    )


def act(
    state: State,
    config: Config,
    spec: Spec,
    obs: Float[Array, "... O"],
    latent: Float[Array, "... D"],
    key: PRNGKeyArray,
    explore: bool,
) -> Float[Array, "... A"]:
    """Actions in (-1, 1): a sample of the policy, or its mode."""
    mean, std = _actor(config, spec).apply(state.actor if explore else state.average_actor, obs, latent)
    return tanh_normal_sample(key, mean, std)[0] if explore else jnp.tanh(mean)


def q_values(
    critic: Any,
    config: Config,
    obs: Float[Array, "... O"],
    latent: Float[Array, "... D"],
    action: Float[Array, "... A"],
) -> Float[Array, "2 ..."]:
    """Both critics' values."""
    return _critic(config).apply(critic, obs, latent, action)


def q_loss(critic: Any, target_value: Any, batch: Batch, config: Config) -> tuple[Float[Array, ""], Metrics]:
    """sum_i mean_b (Q_i - [scale r + gamma (1 - terminated) V_target(s')])^2: a time-out bootstraps.

    Differentiable in the embedding, through Q alone: the step of offline PEARL's encoder.
    """
    next_value = _value(target_value, config, batch.next_obs, batch.latent)
    target = config.reward_scale * batch.reward + config.discount * (1.0 - batch.terminated) * next_value
    q = q_values(critic, config, batch.obs, batch.latent, batch.action)
    loss = critic_loss(q, jax.lax.stop_gradient(target), jnp.ones_like(target))
    return loss, {"critic_loss": loss, "q": jnp.mean(q)}


def train_step(state: State, batch: Batch, key: PRNGKeyArray, config: Config, spec: Spec) -> tuple[State, Metrics]:
    """Updates of the divergence's critic, then one each of Q, V, the policy and the divergence's weight.

    Embeddings are inputs: no gradient reaches whatever made them.
    """
    batch = jax.lax.stop_gradient(batch)
    key_divergence, key_policy = jax.random.split(key)
    state = _divergence_steps(state, batch, key_divergence, config, spec)
    state, critic_metrics = _critic_step(state, batch, config)
    state, policy_metrics = _policy_step(state, batch, key_policy, config, spec)
    return state, critic_metrics | policy_metrics


def _smoothness(
    params: Any, batch: Batch, action: Float[Array, "B A"], key: PRNGKeyArray, config: Config
) -> Float[Array, ""]:
    """The penalty at random places between the policy's actions and the behaviour's."""
    share = jax.random.uniform(key, (action.shape[0], 1))
    between = action + share * (batch.action - action)

    def output(obs, latent, action):
        return _divergence(config).apply(params, obs, latent, action)

    if config.penalty == "output":
        return slope_penalty(jnp.abs(output(batch.obs, batch.latent, between)))
    slope = jax.vmap(jax.grad(output, argnums=2))(batch.obs, batch.latent, between)
    return slope_penalty(jnp.sqrt(jnp.sum(jnp.square(slope), -1) + 1e-12))  # the root has no gradient at 0


def _divergence_steps(state: State, batch: Batch, key: PRNGKeyArray, config: Config, spec: Spec) -> State:
    """Adam steps towards the best critic of the divergence."""

    def update(carry, key):
        params, opt = carry
        key_action, key_between = jax.random.split(key)
        action = act(state, config, spec, batch.obs, batch.latent, key_action, explore=True)

        def objective(params):
            kl = _kl(params, batch, action, config)
            return -jnp.mean(kl) + config.penalty_weight * _smoothness(params, batch, action, key_between, config)

        updates, opt = adam(config.divergence_learning_rate).update(jax.grad(objective)(params), opt)
        return (optax.apply_updates(params, updates), opt), None

    keys = jax.random.split(key, config.divergence_updates)
    (params, opt), _ = jax.lax.scan(update, (state.divergence, state.divergence_opt), keys)
    return state._replace(divergence=params, divergence_opt=opt)


def _kl(divergence: Any, batch: Batch, action: Float[Array, "B A"], config: Config) -> Float[Array, " B"]:
    """Estimated KL of the policy, which chose `action`, from the behaviour."""
    actions = jnp.stack([batch.action, action])
    obs, latent = (jnp.broadcast_to(x, (2, *x.shape)) for x in (batch.obs, batch.latent))
    return dual_kl(*_divergence(config).apply(divergence, obs, latent, actions))


def _critic_step(state: State, batch: Batch, config: Config) -> tuple[State, Metrics]:
    """One Adam step of both critics towards the target value."""
    grads, metrics = jax.grad(q_loss, has_aux=True)(state.critic, state.target_value, batch, config)
    updates, opt = adam(config.learning_rate).update(grads, state.critic_opt)
    return state._replace(critic=optax.apply_updates(state.critic, updates), critic_opt=opt), metrics


def _policy_step(state: State, batch: Batch, key: PRNGKeyArray, config: Config, spec: Spec) -> tuple[State, Metrics]:
    """One Adam step of the value and of the policy, on the same actions; then the divergence's weight moves."""
    optimizer = adam(config.learning_rate)

    def objective(actor):
        mean, std = _actor(config, spec).apply(actor, batch.obs, batch.latent)
        action, log_prob = tanh_normal_sample(key, mean, std)
        q = jnp.min(q_values(state.critic, config, batch.obs, batch.latent, action), 0)
        kl = _kl(state.divergence, batch, action, config)
        size = config.mean_weight * jnp.mean(jnp.square(mean)) + config.std_weight * jnp.mean(jnp.square(jnp.log(std)))
        soft_value = q - config.temperature * log_prob
        distance = jnp.mean(jnp.square(jnp.tanh(mean) - batch.action))
        cloning = config.cloning_weight * jax.lax.stop_gradient(jnp.mean(jnp.abs(q))) * distance
        return jnp.mean(state.alpha * kl - soft_value) + size + cloning, (soft_value, kl, log_prob, distance)

    (loss, (soft_value, kl, log_prob, distance)), grads = jax.value_and_grad(objective, has_aux=True)(state.actor)
    updates, actor_opt = optimizer.update(grads, state.actor_opt)
    actor = optax.apply_updates(state.actor, updates)

    def value_objective(params):
        return jnp.mean(jnp.square(_value(params, config, batch.obs, batch.latent) - soft_value))

    value_loss, grads = jax.value_and_grad(value_objective)(state.value)
    updates, value_opt = optimizer.update(grads, state.value_opt)
    value = optax.apply_updates(state.value, updates)
    divergence = jnp.mean(kl)
    alpha = state.alpha + config.divergence_weight_rate * (divergence - config.divergence_target)
    state = state._replace(
        actor=actor,
        average_actor=optax.incremental_update(actor, state.average_actor, config.average_rate),
        actor_opt=actor_opt,
        value=value,
        value_opt=value_opt,
        target_value=optax.incremental_update(value, state.target_value, config.target_rate),
        alpha=jnp.clip(alpha, 0.0, config.max_divergence_weight),
    )
    metrics = {"value_loss": value_loss, "actor_loss": loss, "entropy": -jnp.mean(log_prob), "distance": distance}
    return state, metrics | {"divergence": divergence, "divergence_weight": state.alpha}
