"""A training run on stored data: learn; evaluate with three kinds of context, all in one program of episodes.

| context | what tells the task |
|---|---|
| `offline` | an episode's worth of stored transitions of the task |
| `prior` | nothing in the first episodes; what they collected afterwards |
| `non_prior` | what is collected, from the first step on: first by random actions, then by the policy |
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metarl_jax.data import offline, statistics
from metarl_jax.data.offline import OfflineData
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import rollout
from metarl_jax.training.trainer import learning, learnt, over_seeds
from metarl_jax.types import Agent, Environment, Epoch, Evaluation, Metrics, Trainer, TrainState, Transition

CONTEXTS = ("offline", "prior", "non_prior")
FOREVER = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True)
class Config:
    """Evaluation."""

    adapt_episodes: int = 2
    """Episodes that collect context before those that count."""
    eval_episodes: int = 1
    """Episodes in a row that count, per task and context; the first gives the scores."""
    eval_repeats: int = 2
    """Times that each task is evaluated with each context."""


class Memory(NamedTuple):
    """What one lane has collected, and what of it the policy may see: leading axis n."""

    collected: Any
    shown: Any
    random_steps: Int[Array, " n"]
    """Steps left of random actions in the first episode."""
    fixed_episodes: Int[Array, " n"]
    """Episodes left in which `shown` stays as it is."""


def with_contexts(agent: Agent) -> Agent:
    """The agent with a `Memory` around its own."""

    def begin(state: Any, n: int) -> Memory:
        blank = agent.begin(state, n)
        zero = jnp.zeros(n, jnp.int32)
        return Memory(blank, blank, zero, zero)

    def act(state: Any, obs: jax.Array, memory: Memory, key: PRNGKeyArray, explore: bool) -> jax.Array:
        key_random, key = jax.random.split(key)
        action = agent.act(state, obs, memory.shown, key, explore)
        anything = jax.random.uniform(key_random, action.shape, minval=-1.0)
        return jnp.where(memory.random_steps[:, None] > 0, anything, action)

    def observe(state: Any, memory: Memory, transition: Transition) -> Memory:
        collected = agent.observe(state, memory.collected, transition)
        fixed = jnp.maximum(memory.fixed_episodes - transition.last, 0)
        shown = rollout.select(fixed > 0, memory.shown, collected)
        # A body that falls early has had its random actions: they must not reach the episodes that count.
        random_steps = jnp.where(transition.last, 0, jnp.maximum(memory.random_steps - 1, 0))
        return Memory(collected, shown, random_steps, fixed)

    def describe(state: Any, memory: Memory) -> dict[str, jax.Array]:
        return agent.describe(state, memory.shown)

    return agent._replace(begin=begin, act=act, observe=observe, describe=describe)


def moments(data: OfflineData, rows: np.ndarray) -> statistics.Scale:
    """Mean and standard deviation of `obs` and `reward` over all stored transitions of some tasks, on the host."""

    def average(of: Callable[[np.ndarray, str], np.ndarray]) -> dict[str, np.ndarray]:
        """Of a function of each transition's columns, task by task: all of them at once need several times the data."""
        found = {}
        for name in Columns._fields:
            values = [of(getattr(data, name)[n, : data.count[n]].astype(np.float64), name).sum(0) for n in rows]
            found[name] = np.sum(values, 0) / data.count[rows].sum()
        return found

    means = average(lambda x, name: x)
    variances = average(lambda x, name: np.square(x - means[name]))
    std = {name: statistics.usable(jnp.asarray(np.sqrt(x), jnp.float32)) for name, x in variances.items()}
    mean = {name: jnp.asarray(x, jnp.float32) for name, x in means.items()}
    return statistics.Scale(Columns(**mean), Columns(**std))


class Columns(NamedTuple):
    """What is standardised of a transition."""

    obs: Float[Array, " O"]
    reward: Float[Array, ""]


def make(
    env: Environment,
    agent: Agent,
    data: OfflineData,
    config: Config,
    num_seeds: int = 1,
    behaviour_return: float = float("nan"),
    context_of: np.ndarray | None = None,
) -> Trainer:
    """Assemble a trainer.

    Test "tasks" are those of the data, once per context: `offline` on all of them, then `prior`, then `non_prior`.

    Args:
      env: one environment.
      agent: its parts learn from an `OfflineData`, its `recall` remembers an `OfflineBatch`.
      data: on the host.
      config: sizes.
      num_seeds: seeds trained at once, by vmap over whole epochs; the data is not copied.
      behaviour_return: mean return of the training tasks' data, reported as `train_return`: nothing is collected.
      context_of: [N] the task whose data is the offline context of each task; None: its own.

    Raises:
      ConfigurationError: a size is not positive.
    """
    for name, low in (("adapt_episodes", 1), ("eval_episodes", 1), ("eval_repeats", 1)):
        if (value := getattr(config, name)) < low:
            raise ConfigurationError(f"{name} must be >= {low}, got {value}")
    if num_seeds < 1:
        raise ConfigurationError(f"seeds must be >= 1, got {num_seeds}")
    num_tasks, horizon = len(data.count), env.spec.horizon
    sources = np.arange(num_tasks) if context_of is None else context_of
    lanes = len(CONTEXTS) * num_tasks
    actor = with_contexts(agent)

    def create(key: jax.Array) -> TrainState:
        key, key_agent = jax.random.split(key)
        return TrainState(agent.init(key_agent), (), key, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def finish(state: TrainState, brought: Mapping[str, Any]) -> tuple[TrainState, Metrics]:
        state, metrics = learnt(agent, state, brought)
        return state, metrics | {"train_return": jnp.asarray(behaviour_return, jnp.float32)}

    def memories(agent_state: Any, data: OfflineData, key: PRNGKeyArray) -> Memory:
        """What the policy knows at first, for each context and task."""
        assert agent.recall is not None
        stored = offline.sample(data, key, jnp.asarray(sources), horizon)
        recalled, blank = agent.recall(agent_state, stored), agent.begin(agent_state, num_tasks)
        shown = jax.tree.map(lambda *parts: jnp.concatenate(parts), recalled, blank, blank)
        steps, fixed = (jnp.repeat(jnp.asarray(x), num_tasks) for x in protocol)
        return Memory(agent.begin(agent_state, lanes), shown, steps, fixed)

    protocol = np.array([(0, 0, horizon // 2), (FOREVER, config.adapt_episodes, 0)], np.int32)

    def evaluate(state: TrainState, key: PRNGKeyArray, data: OfflineData) -> Evaluation:
        key_memory, key_roll = jax.random.split(key)
        tasks = jax.tree.map(lambda x: jnp.tile(x, (len(CONTEXTS), *(1,) * (x.ndim - 1))), data.task)
        keys = jax.random.split(key_memory, config.eval_repeats)
        repeated = [memories(state.agent, data, k) for k in keys]
        tasks, memory = (
            jax.tree.map(lambda *parts: jnp.concatenate(parts), *parts)
            for parts in ([tasks] * config.eval_repeats, repeated)
        )
        num = config.adapt_episodes + config.eval_episodes
        found = rollout.evaluate(env, actor, state.agent, key_roll, num, tasks, memory)
        found = jax.tree.map(lambda x: x[config.adapt_episodes :], found)
        first = jax.tree.map(lambda x: x[:, :, :lanes], found)
        rewards = found.rewards.reshape(*found.rewards.shape[:2], config.eval_repeats, lanes)
        return first._replace(rewards=jnp.mean(rewards, 2))  # the rest is of the first repeat

    parts = learning(agent, lambda state, data: data)

    return Trainer(
        num_seeds=num_seeds,
        create=lambda key: over_seeds(create, num_seeds)(jax.random.split(key, num_seeds)),
        fill=lambda state: state,
        epoch=Epoch(
            {name: over_seeds(part, num_seeds, shared=1) for name, part in parts.items()},
            over_seeds(finish, num_seeds),
        ),
        evaluate=lambda state, key, data: over_seeds(evaluate, num_seeds, shared=1)(
            state, jax.random.split(key, num_seeds), data
        ),
        env_steps_per_epoch=0,
        replay_bytes=sum(x.nbytes for x in jax.tree.leaves(data)),
        constants=(data,),
    )
