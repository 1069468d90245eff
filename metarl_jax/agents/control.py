"""Control on a belief: SAC over observation and belief, trained on pools of relabelled windows.

What agents that infer a task by an encoder have in common, whatever infers it. The parts of their epoch need nothing
of each other and may run side by side: `control`, SAC on the beliefs of the encoder as the epoch finds it, `inference`,
which trains that encoder, and, if there is one, a model of rewards. The policy acts with the encoder that its last
beliefs came from.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metarl_jax.data import statistics
from metarl_jax.data.replay import Replay, sample_windows
from metarl_jax.data.statistics import Scale
from metarl_jax.errors import ConfigurationError, check_ranges
from metarl_jax.learners import sac
from metarl_jax.learners.reward_model import Config as RewardModelConfig
from metarl_jax.learners.sac import Config as SACConfig
from metarl_jax.types import Changes, EnvSpec, Metrics, Transition


@dataclasses.dataclass(frozen=True)
class Config:
    """Control on a belief."""

    sac: SACConfig = dataclasses.field(default_factory=SACConfig)
    standardize_belief: bool = False
    """Standardise the belief for the policy with the statistics of pools (which should be large)."""
    standardize_obs: bool = False
    """Standardise the observation for the policy and the critics with the statistics of all data so far."""
    privileged_critics: bool = False
    """Tell the critics the task, which training knows, standardised with the statistics of pools (which should be
    large); the policy knows its belief alone."""
    resting_potential: bool = False
    """Critics learn what is gained over resting: rewards are shaped with the potential of what the task would pay for
    ever if the body stood still where it is, which training knows. Optimal policies stay the same (Ng et al., 1999)."""
    reward_floor: tuple[float, ...] = ()
    """SAC takes what a task pays, what actions cost apart, for no less than this, so that what a fall costs keeps no
    policy from trying, and is not most of what critics learn. One for all base tasks, or one for each in their order;
    empty: there is none."""
    hold_belief: bool = False
    """Critics value the next state under the belief before the step, as TIGR's and CEMRL's codes do, rather than after
    it. What a step reveals then leaves no error behind; without `privileged_critics` it is most of their loss."""
    scale_rate: float = 1.0
    """How far these statistics move towards each pool's; 1: they are the newest pool's. What a pool's differ by from
    the last one's is noise in what the policy is told."""
    sac_reward_normalization: bool = False
    """SAC learns from the standardised reward."""
    window: int = 64
    """Steps of a sampled window; no longer than the horizon."""
    vae_window: int | None = None
    """Steps of the windows that the VAE learns from; None: `window`."""
    vae_updates: int = 128
    """VAE updates per epoch."""
    pretrain_updates: int = 0
    """Further updates of the VAE, and of a model of rewards, in the first epoch, in which SAC waits for the VAE."""
    reward_model: RewardModelConfig = dataclasses.field(default_factory=RewardModelConfig)
    reward_model_updates: int = 0
    """Updates per epoch of a model of rewards, which is told the task and pays in imagined ones; 0: there is none."""
    sac_updates: int = 2048
    """SAC updates per epoch, from the second on, or the first if no encoder learns; 0 learns to infer tasks alone."""
    use_trajectory_sample_sac: bool = True
    """SAC learns from all steps of a window; False: only from its last, which is any step of an episode."""
    pool_windows: int = 4
    """Windows whose beliefs are computed together."""
    updates_per_pool: int = 1
    """Policy updates per pool of windows, each after `sac.policy_every` critic updates. The encoder stands still
    meanwhile, so beliefs stay exact."""


class State(NamedTuple):
    """What control learns."""

    sac: sac.State
    belief_scale: Scale
    task_scale: Scale
    """Of what critics alone are told."""


def init(key: PRNGKeyArray, config: Config, spec: sac.Spec) -> State:
    """Fresh parameters; nothing is standardised yet."""
    belief, task = (statistics.identity(jnp.zeros(size)) for size in (spec.belief_size, spec.privileged_size))
    return State(sac.init(key, config.sac, spec), belief, task)


def validate(config: Config, spec: EnvSpec) -> None:
    """Raise `ConfigurationError` for numbers out of range, or that contradict each other or the benchmark."""
    check_ranges(config)
    sac.validate(config.sac)
    least = {"pool_windows": 1, "updates_per_pool": 1, "sac_updates": 0, "vae_updates": 0, "pretrain_updates": 0}
    for name, low in least.items():
        if (count := getattr(config, name)) < low:
            raise ConfigurationError(f"{name} must be >= {low}, got {count}")
    if config.resting_potential and config.sac.discount == 1.0:
        raise ConfigurationError("the potential of resting for ever is infinite with sac.discount=1: use less")
    if config.sac.action_cost and config.sac_reward_normalization:
        raise ConfigurationError("sac.action_cost is in units of the reward: use it without sac_reward_normalization")
    if len(config.reward_floor) not in (0, 1, len(spec.families)):
        raise ConfigurationError(
            f"reward_floor must be one number or {len(spec.families)} ({', '.join(spec.families)}), "
            f"got {len(config.reward_floor)}"
        )
    for name in ("window", "vae_window"):
        size = getattr(config, name)
        if size is not None and not 2 <= size <= spec.horizon:
            raise ConfigurationError(f"{name} must be in [2, {spec.horizon}] ({spec.name}'s horizon), got {size}")
    per_window = config.window if config.use_trajectory_sample_sac else 1
    if config.pool_windows * per_window < config.sac.batch_size:
        need = -(-config.sac.batch_size // per_window)
        raise ConfigurationError(
            f"{config.pool_windows} windows give {config.pool_windows * per_window} transitions, fewer than the SAC "
            f"batch of {config.sac.batch_size}: use pool_windows >= {need}"
        )
    block = config.sac.policy_every * config.updates_per_pool
    if config.sac_updates % block:
        raise ConfigurationError(
            f"sac_updates ({config.sac_updates}) must be a multiple of policy_every x updates_per_pool ({block})"
        )


def repeat(
    update: Callable[[Any, PRNGKeyArray], tuple[Any, Metrics]], learner: Any, num: Int[Array, ""], key: PRNGKeyArray
) -> tuple[Any, Metrics]:
    """`num` updates of a learner, and the means of their metrics, 0 if there are none: a loop of any length, compiled
    once.
    """

    def body(i, carry):
        learner, sums = carry
        learner, metrics = update(learner, jax.random.fold_in(key, i))
        return learner, jax.tree.map(jnp.add, sums, metrics)

    no_metrics = jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda: update(learner, key)[1]))
    learner, sums = jax.lax.fori_loop(0, num, body, (learner, no_metrics))
    return learner, jax.tree.map(lambda x: x / jnp.maximum(num, 1), sums)


def fresh_windows(config: Config, replay: Replay, key: PRNGKeyArray) -> Transition:
    """Windows [T, N, ...] for a pool."""
    last_only = not config.use_trajectory_sample_sac
    return sample_windows(replay, key, config.pool_windows, config.window, any_last_step=last_only)


def seen(config: Config, scale: Scale, obs: Float[Array, "... obs"]) -> Float[Array, "... obs"]:
    """An observation as policy and critics see it."""
    return (obs - scale.mean.obs) / scale.std.obs if config.standardize_obs else obs


def sac_spec(config: Config, spec: EnvSpec, belief_size: int) -> sac.Spec:
    """Sizes of what policy and critics see of environments of `spec`."""
    num_families = len(spec.families)
    privileged_size = num_families * (1 + spec.task_size) if config.privileged_critics else 0
    return sac.Spec(spec.obs_size, spec.action_size, belief_size, privileged_size)


def _potential_gain(windows: Transition, discount: float) -> Float[Array, "T N"]:
    """`discount` potential(next state) - potential(state) of resting; that of terminal states is 0."""
    before, after = jnp.moveaxis(windows.resting, -1, 0)
    following = jnp.concatenate([before[1:], after[-1:]])  # under the next step's task, if that is another
    after = jnp.where(windows.last, after, following)
    return (discount * jnp.where(windows.terminated, 0.0, after) - before) / (1.0 - discount)


def pool(
    config: Config,
    spec: EnvSpec,
    scale: Scale,
    windows: Transition,
    before: Float[Array, "T N b"],
    after: Float[Array, "T N b"],
    own_obs_size: int | None = None,
) -> sac.Batch:
    """Windows [T, N, ...] with the belief before and after each step, as transitions [P, ...] for SAC.

    Beliefs and tasks are not standardised yet. Only the first `own_obs_size` entries of observations are the policy's.
    """
    reward = windows.reward
    if config.reward_floor:
        floors = jnp.broadcast_to(jnp.asarray(config.reward_floor), len(spec.families))
        reward += jnp.maximum(floors[windows.task.family] - windows.gross_reward, 0.0)
    if config.resting_potential:
        reward += _potential_gain(windows, config.sac.discount)
    if config.sac_reward_normalization:
        reward = (reward - scale.mean.reward) / scale.std.reward
    batch = sac.Batch(
        obs=seen(config, scale, windows.obs)[..., :own_obs_size],
        belief=before,
        action=windows.action,
        reward=reward,
        next_obs=seen(config, scale, windows.next_obs)[..., :own_obs_size],
        next_belief=before if config.hold_belief else after,
        terminated=windows.terminated,
        weight=windows.valid.astype(jnp.float32),
    )
    if config.privileged_critics:
        task = windows.task.vector(len(spec.families))
        # The last step's successor is not in the window: it has the same task, or one that nobody could foresee.
        batch = batch._replace(privileged=task, next_privileged=jnp.concatenate([task[1:], task[-1:]]))
    if not config.use_trajectory_sample_sac:
        return jax.tree.map(lambda x: x[-1], batch)
    return jax.tree.map(lambda x: x.reshape(windows.reward.size, *x.shape[2:]), batch)  # a belief may have size 0


def _moved(old: Scale, data: Float[Array, "P d"], weight: Float[Array, " P"], rate: Float[Array, ""]) -> Scale:
    """`old`, moved by `rate` towards the standardisation of a pool."""
    new = statistics.scale(statistics.merge(statistics.init(data[0]), data, weight))
    return jax.tree.map(lambda x, y: x + rate * (y - x), old, new)


def train(
    config: Config,
    spec: sac.Spec,
    state: State,
    make_pool: Callable[[PRNGKeyArray], sac.Batch],
    num_epochs: Int[Array, ""],
    key: PRNGKeyArray,
) -> tuple[State, Metrics]:
    """All SAC updates of an epoch, after `num_epochs` others: pools of relabelled windows, minibatches from each."""
    if not config.sac_updates:
        return state, {}
    size = config.pool_windows * (config.window if config.use_trajectory_sample_sac else 1)
    batch_size, policy_every = config.sac.batch_size, config.sac.policy_every

    def minibatch(pool: sac.Batch, key: PRNGKeyArray) -> sac.Batch:
        if batch_size == size:
            return pool
        index = jax.random.randint(key, (batch_size,), 0, size)
        return jax.tree.map(lambda x: x[index], pool)

    def update(sac_state, inputs):
        """`policy_every` critic updates, then one policy update."""
        pool, key = inputs
        key_critic, key_index, key_policy = jax.random.split(key, 3)

        def critic_update(sac_state, key):
            key_index, key = jax.random.split(key)
            return sac.critic_step(sac_state, minibatch(pool, key_index), key, config.sac, spec)

        keys = jax.random.split(key_critic, policy_every)
        sac_state, metrics = jax.lax.scan(critic_update, sac_state, keys)
        batch = minibatch(pool, key_index)
        sac_state, policy_metrics = sac.policy_step(sac_state, batch, key_policy, config.sac, spec)
        return sac_state, jax.tree.map(jnp.mean, metrics) | policy_metrics

    def epoch_of_pool(state: State, inputs):
        key, pools_before = inputs
        key_pool, key_updates = jax.random.split(key)
        pool = make_pool(key_pool)
        rate = jnp.maximum(config.scale_rate, 1.0 / (1.0 + pools_before))  # at first the mean of all
        belief_scale, task_scale = state.belief_scale, state.task_scale
        if config.standardize_belief:
            belief_scale = _moved(belief_scale, pool.belief, pool.weight, rate)
            pool = pool._replace(
                belief=belief_scale.apply(pool.belief), next_belief=belief_scale.apply(pool.next_belief)
            )
        if pool.privileged is not None:
            task_scale = _moved(task_scale, pool.privileged, pool.weight, rate)
            pool = pool._replace(
                privileged=task_scale.apply(pool.privileged), next_privileged=task_scale.apply(pool.next_privileged)
            )
        keys = jax.random.split(key_updates, config.updates_per_pool)
        sac_state, metrics = jax.lax.scan(lambda s, k: update(s, (pool, k)), state.sac, keys)
        return State(sac_state, belief_scale, task_scale), metrics

    num_pools = config.sac_updates // (policy_every * config.updates_per_pool)
    pools_before = num_epochs * num_pools + jnp.arange(num_pools)
    state, metrics = jax.lax.scan(epoch_of_pool, state, (jax.random.split(key, num_pools), pools_before))
    return state, jax.tree.map(jnp.mean, metrics)


def epoch(
    config: Config,
    spec: sac.Spec,
    state: Any,
    acting: Changes,
    make_pool: Callable[[Any, PRNGKeyArray], sac.Batch],
    waits: bool,
    key: PRNGKeyArray,
) -> tuple[Changes, Metrics]:
    """The part of an agent's epoch that trains SAC.

    Args:
      config: sizes.
      spec: of what SAC sees.
      state: the agent's, with the fields of `State`, `num_epochs` and those of `acting`.
      acting: what the beliefs come from that SAC learns from now and the policy acts on from now on.
      make_pool: (state with `acting`, key) -> transitions for `train`.
      waits: begin in the second epoch, as what beliefs come from is untrained in the first.
      key: of all updates.
    """
    state = state._replace(**acting)
    before = State(*(getattr(state, name) for name in State._fields))

    def update(learner: State, key: PRNGKeyArray) -> tuple[State, Metrics]:
        return train(config, spec, learner, lambda k: make_pool(state, k), state.num_epochs - waits, key)

    num = (state.num_epochs >= waits).astype(jnp.int32)
    learnt, metrics = repeat(update, before, num, key)
    changes = acting | learnt._asdict() | {"num_epochs": state.num_epochs + 1}
    return changes, metrics | {"updates": num * config.sac_updates}
