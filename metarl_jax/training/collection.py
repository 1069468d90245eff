"""Collecting offline data: behaviour policies for many tasks, trained in one program, and episodes of them.

`G` agents learn side by side, each from `n` tasks of its own: one per task (G = N, n = 1), or a single one that its
observations tell the task (G = 1, n = N). `K` episodes of `T` steps are stored per task.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metarl_jax.data import offline, replay
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import rollout, trainer
from metarl_jax.types import Agent, Environment, EnvSpec, Epoch, TrainState, Transition


class Behaviour(NamedTuple):
    """Stochastic episodes of trained policies."""

    transitions: Transition
    """[N, K, T, ...]"""
    length: Int[Array, "N K"]
    """Steps of each episode that are to be stored: up to its end, or to where the simulation diverged."""

    @property
    def returns(self) -> Float[Array, "N K"]:
        """Undiscounted."""
        stored = jnp.arange(self.transitions.reward.shape[-1]) < self.length[..., None]
        return jnp.sum(jnp.where(stored, self.transitions.reward, 0.0), -1)


class Collector(NamedTuple):
    """Pure functions over the states [G, ...] of all agents."""

    init: Callable[[PRNGKeyArray], TrainState]
    """Includes the first data, of untrained policies."""
    epoch: Epoch
    """Every agent collects a block of episodes and learns; metrics [G]."""
    behave: Callable[[TrainState, PRNGKeyArray], Behaviour]
    env_steps_per_epoch: int
    """Of one agent."""
    initial_env_steps: int
    """Of one agent, within `init`."""
    replay_bytes: int
    """Of all agents."""


class _OnTasks(NamedTuple):
    """An environment whose training and test tasks are `tasks` [n, ...]."""

    spec: EnvSpec
    train_tasks: Any
    reset: Callable[[PRNGKeyArray, Any], Any]
    step: Callable[[Any, jax.Array], Any]

    @property
    def test_tasks(self) -> Any:
        return self.train_tasks

    def sample_tasks(self, key: PRNGKeyArray, split: str, n: int) -> Any:
        """Each task floor or ceil of n / size times."""
        size = self.train_tasks.family.shape[0]
        index = (jax.random.randint(key, (), 0, size) + jnp.arange(n)) % size
        return jax.tree.map(lambda x: x[index], self.train_tasks)


def make(
    env: Environment, agent: Agent, config: trainer.Config, tasks: Any, episodes: int, obs_size: int | None = None
) -> Collector:
    """Assemble a collector.

    Args:
      env: one environment, with automatic reset.
      agent: made for `env.spec`.
      config: sizes of one agent's data.
      tasks: [G, n, ...] of each agent.
      episodes: K, per task.
      obs_size: leading entries of the observations that are stored; None: all.

    Raises:
      ConfigurationError: a size is not positive, or the initial data does not fit the replay.
    """
    if episodes < 1:
        raise ConfigurationError(f"episodes must be >= 1, got {episodes}")
    num_agents, per_agent = tasks.family.shape
    horizon = env.spec.horizon
    initial = per_agent if config.initial_episodes is None else config.initial_episodes

    def learner(tasks: Any):
        return trainer.make(_OnTasks(env.spec, tasks, env.reset, env.step), agent, config)

    # Wrong sizes are refused here, not when the program is traced.
    names = learner(jax.tree.map(lambda x: x[0], tasks)).epoch.parts

    def first(tree: Any) -> Any:
        """Without the trainer's axis of seeds."""
        return jax.tree.map(lambda x: x[0], tree)

    def init_one(key: PRNGKeyArray, tasks: Any) -> TrainState:
        return first(learner(tasks).init(key))

    def over_agents(function: Callable[[Epoch], Callable[..., Any]]) -> Callable[..., Any]:
        """A function of one agent's epoch, for all of them."""

        def one(tasks: Any, *args: Any) -> Any:
            return first(function(learner(tasks).epoch)(*jax.tree.map(lambda x: x[None], args)))

        return lambda *args: jax.vmap(one)(tasks, *args)

    def part(name: str) -> Callable[..., Any]:
        return over_agents(lambda epoch: epoch.parts[name])

    def behave_one(state: TrainState, tasks: Any, key: PRNGKeyArray) -> Behaviour:
        lanes = jax.tree.map(lambda x: jnp.repeat(x, episodes, 0), tasks)
        memory = agent.begin(state.agent, per_agent * episodes)
        _, unrolled = rollout.unroll(env, agent, state.agent, memory, lanes, key, horizon, True, single_episode=True)
        stored = jnp.cumprod(unrolled.alive & unrolled.transitions.valid, 0)
        transitions = unrolled.transitions._replace(
            obs=unrolled.transitions.obs[..., :obs_size], next_obs=unrolled.transitions.next_obs[..., :obs_size]
        )
        by_task = lambda x: x.swapaxes(0, 1).reshape(per_agent, episodes, horizon, *x.shape[2:])  # noqa: E731
        return Behaviour(jax.tree.map(by_task, transitions), stored.sum(0).reshape(per_agent, episodes))

    def behave(state: TrainState, key: PRNGKeyArray) -> Behaviour:
        found = jax.vmap(behave_one)(state, tasks, jax.random.split(key, num_agents))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)

    return Collector(
        init=lambda key: jax.vmap(init_one)(jax.random.split(key, num_agents), tasks),
        epoch=Epoch({name: part(name) for name in names}, over_agents(lambda epoch: epoch.finish)),
        behave=behave,
        env_steps_per_epoch=config.num_envs * horizon,
        initial_env_steps=initial * horizon,
        replay_bytes=num_agents * replay.num_bytes(trainer.example_transition(env), config.replay_rows, horizon),
    )


def assemble(
    behaviours: Mapping[int, Behaviour], tasks: offline.Tasks, split: Int[np.ndarray, " N"]
) -> offline.OfflineData:
    """The data set of some behaviours on the host, in their order.

    Args:
      behaviours: env steps that the policies had been trained for -> their episodes on all tasks [N].
      tasks: [N, ...].
      split: see `OfflineData`.
    """
    count = np.sum([np.sum(length, 1) for _, length in behaviours.values()], 0, np.int32)
    first, *_ = behaviours.values()
    examples = {name: np.asarray(getattr(first.transitions, name)) for name in offline.OfflineBatch._fields}
    rows = {name: np.zeros((len(split), count.max(), *x.shape[3:]), x.dtype) for name, x in examples.items()}
    rows |= {"last": np.zeros((len(split), count.max()), bool), "checkpoint": np.zeros((len(split), count.max()), int)}
    begin = np.zeros(len(split), int)
    for checkpoint, (found, length) in behaviours.items():
        index = np.arange(found.reward.shape[-1])
        for n, lengths in enumerate(np.asarray(length)):
            kept = index < lengths[:, None]
            place = slice(begin[n], begin[n] + lengths.sum())
            for name in examples:
                rows[name][n, place] = getattr(found, name)[n][kept]
            rows["last"][n, place] = (index == lengths[:, None] - 1)[kept]
            rows["checkpoint"][n, place] = checkpoint
        begin += np.sum(length, 1)
    return offline.OfflineData(task=tasks, split=split, count=count, **rows)
