"""Probe environments: tiny, in pure JAX, each with a known answer. The one that fails tells what is broken.

| probe | what must work | answer |
|---|---|---|
| `constant` | critic, bootstrapping through truncation | Q = 1 / (1 - gamma) everywhere |
| `delayed` | propagation of value back from a terminal reward | Q at step t = gamma^(H - 1 - t) |
| `action` | policy gradient through the critic | a = 0.5 |
| `context` | inference of the task from one transition | a = +-1 from the second step on |
| `changing` | forgetting a task that changed in mid-episode | a = +-1 two steps after the change |
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.core import EnvSpec, Task
from tests.helpers import spec

HORIZON = 8


class State(NamedTuple):
    obs: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final_obs: jax.Array
    task: Task
    time: jax.Array
    metrics: dict[str, jax.Array]


class Probe(NamedTuple):
    """An environment of the library's protocol."""

    spec: EnvSpec
    train_tasks: Task
    test_tasks: Task
    reset: Callable[[jax.Array, Task], State]
    step: Callable[[State, jax.Array], State]

    def sample_tasks(self, key: jax.Array, split: str, n: int) -> Task:
        index = jax.random.permutation(key, jnp.arange(n) % 2)
        return jax.tree.map(lambda x: x[index], self.train_tasks)


RewardFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(time, action, spec) -> reward."""


def _make(
    name: str, reward_fn: RewardFn, terminates: bool = False, changes_at: int | None = None, clock: bool = True
) -> Probe:
    sign = jnp.asarray([[1.0], [-1.0]])
    tasks = Task(jnp.zeros(2, jnp.int32), sign, jnp.arange(2))

    def observe(time):
        return jnp.stack([time / HORIZON if clock else jnp.zeros(()), jnp.ones(())])

    def reset(key: jax.Array, task: Task) -> State:
        del key
        obs, false = observe(jnp.zeros(())), jnp.zeros((), bool)
        metrics = {"diverged": false, "task_changed": false, "resting": jnp.zeros(2), "gross_reward": jnp.zeros(())}
        return State(obs, jnp.zeros(()), false, false, obs, task, jnp.zeros((), jnp.int32), metrics)

    def step(state: State, action: jax.Array) -> State:
        time = state.time + 1
        done = time >= HORIZON
        final_obs = observe(time.astype(jnp.float32))
        changed = time == (changes_at if changes_at is not None else -1)
        task = state.task._replace(spec=jnp.where(changed, -state.task.spec, state.task.spec))
        reward = reward_fn(state.time, action[0], state.task.spec[0])
        return State(
            obs=jnp.where(done, observe(jnp.zeros(())), final_obs),
            reward=reward,
            terminated=done & terminates,
            truncated=done & (not terminates),
            final_obs=final_obs,
            task=task,
            time=jnp.where(done, 0, time),
            metrics=state.metrics | {"task_changed": changed, "gross_reward": reward},
        )

    sizes = {"obs_size": 2, "horizon": HORIZON, "subtasks": ("plus", "minus")}
    return Probe(spec(name, stationary=changes_at is None, **sizes), tasks, tasks, reset, step)


def constant() -> Probe:
    """Reward 1 at every step of a truncated episode. No clock: the state after the last step is no new one."""
    return _make("constant", lambda time, action, spec: jnp.ones(()), clock=False)


def delayed() -> Probe:
    """Reward 1 at the last step, which is terminal."""
    return _make("delayed", lambda time, action, spec: jnp.where(time == HORIZON - 1, 1.0, 0.0), terminates=True)


def action() -> Probe:
    """Reward -(a - 0.5)^2."""
    return _make("action", lambda time, action, spec: -jnp.square(action - 0.5))


def context() -> Probe:
    """Reward a times a hidden sign, which the first transition reveals."""
    return _make("context", lambda time, action, spec: action * spec)


def changing() -> Probe:
    """As `context`, but the sign flips after half of the episode."""
    return _make("changing", lambda time, action, spec: action * spec, changes_at=HORIZON // 2)


ALL: dict[str, Callable[[], Any]] = {f.__name__: f for f in (constant, delayed, action, context, changing)}
