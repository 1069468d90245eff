"""Small things that tests share: an environment whose every number is known, and random windows.

A step of `environment` pays `spec[0]` times its number in the episode (1, 2, ...); an episode lasts `spec[1]` steps
and ends by termination in family 0, by truncation in family 1. The observation is [steps taken, random start + sum of
actions].
"""

import contextlib
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import EnvSpec, Task
from metarl_jax.types import Agent, Transition

HORIZON = 6


def cached(make):
    """`functools.cache` whose arrays are values even if the first test to ask for them does so inside a trace.

    A thread of its own begins outside of all traces.
    """

    @functools.cache
    @functools.wraps(make)
    def made(*args, **kwargs):
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(make, *args, **kwargs).result()

    return made


def spec(name: str, **sizes: Any) -> EnvSpec:
    """The spec of an environment without physics: one number per observation, action and task, unless told."""
    default = EnvSpec(name, 1, 1, 1, HORIZON, 1.0, ("one",), ("one",), engine="none", variant="none")
    return default._replace(**sizes)


_KINDS = ("terminates", "truncates")
SPEC = spec("known", obs_size=2, task_size=2, families=_KINDS, subtasks=_KINDS)


class State(NamedTuple):
    obs: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final_obs: jax.Array
    task: Task
    metrics: dict[str, jax.Array]
    time: jax.Array
    key: jax.Array


class Environment(NamedTuple):
    spec: EnvSpec
    train_tasks: Task
    test_tasks: Task
    reset: Any
    step: Any
    reset_ahead: Any = None

    def sample_tasks(self, key, split, n):
        tasks = {"train": self.train_tasks, "test": self.test_tasks}[split]
        index = jax.random.randint(key, (n,), 0, tasks.family.shape[0])
        return jax.tree.map(lambda x: x[index], tasks)


def tasks(family, pay, length) -> Task:
    family = jnp.asarray(family)
    return Task(family, jnp.stack([jnp.asarray(pay, jnp.float32), jnp.asarray(length, jnp.float32)], -1), family)


TRAIN = tasks([0, 1, 0, 1], [1.0, 10.0, -1.0, 3.0], [2, 3, 6, 6])
TEST = tasks([0, 1, 1], [1.0, 10.0, 2.0], [2, 4, 6])


def environment(entries: list | None = None) -> Environment:
    """`entries` grows by one whenever Python enters `step`."""

    def reset(key, task):
        key, key_start = jax.random.split(key)
        obs = jnp.array([0.0, 0.0]).at[1].set(jax.random.normal(key_start))
        false, zero = jnp.zeros((), bool), jnp.zeros(())
        metrics = {"diverged": false, "task_changed": false, "resting": jnp.zeros(2), "gross_reward": zero}
        return State(obs, zero, false, false, obs, task, metrics, jnp.zeros((), jnp.int32), key)

    def step(state, action):
        if entries is not None:
            entries.append(None)
        pay, length = state.task.spec
        time = state.time + 1
        moved = jnp.stack([time.astype(jnp.float32), state.obs[1] + action[0]])
        done = time >= length
        key, key_reset = jax.random.split(state.key)
        fresh = reset(key_reset, state.task)
        return State(
            obs=jnp.where(done, fresh.obs, moved),
            reward=pay * time,
            terminated=done & (state.task.family == 0),
            truncated=done & (state.task.family == 1),
            final_obs=moved,
            task=state.task,
            metrics=state.metrics
            | {
                "task_changed": time == 1,
                "resting": jnp.stack([state.obs[0], moved[0]]),
                "gross_reward": 2.0 * pay * time,
            },
            time=jnp.where(done, 0, time),
            key=key,
        )

    return Environment(SPEC, TRAIN, TEST, reset, step)


class Memory(NamedTuple):
    steps: jax.Array
    paid: jax.Array


class Learnt(NamedTuple):
    weight: jax.Array


def counting_agent() -> Agent:
    """Remembers how many transitions it has seen and what they paid; acts 0.5, or at random; learns the mean reward."""

    def begin(state, n):
        return Memory(jnp.zeros(n), jnp.zeros(n))

    def act(state, obs, memory, key, explore):
        return jax.random.uniform(key, (obs.shape[0], 1)) if explore else jnp.full((obs.shape[0], 1), 0.5)

    def observe(state, memory, transition):
        return Memory(memory.steps + 1, memory.paid + transition.reward)

    def describe(state, memory):
        return {"belief": jnp.stack([memory.steps, memory.paid], -1), "component": jnp.ones((*memory.steps.shape, 1))}

    def learn(state, replay, key):
        weight = 0.9 * state.weight + 0.1 * replay.moments.mean.reward + 0.01 * jax.random.normal(key)
        return {"weight": weight}, {"weight": weight, "updates": jnp.asarray(1)}

    def init(key):
        return Learnt(jax.random.normal(key))

    return Agent(init=init, begin=begin, act=act, observe=observe, parts={"learning": learn}, describe=describe)


def transitions(seed: int, *lead: int, num_tasks: int = 2) -> Transition:
    """Random transitions [*lead, ...] without ends, all valid; a task for each entry of the last leading axis."""
    rng = np.random.default_rng(seed)
    task = np.arange(lead[-1]) % num_tasks
    task = np.broadcast_to(task, lead)
    false = np.zeros(lead, bool)
    numbers = Transition(
        obs=rng.normal(size=(*lead, 2)).astype(np.float32),
        action=rng.uniform(-1, 1, (*lead, 1)).astype(np.float32),
        reward=rng.normal(size=lead).astype(np.float32),
        next_obs=rng.normal(size=(*lead, 2)).astype(np.float32),
        terminated=false,
        last=false,
        valid=~false,
        task=Task(task, np.stack([task, task], -1).astype(np.float32), task),
        gross_reward=rng.normal(size=lead).astype(np.float32),
        gross_reward_change=rng.normal(size=lead).astype(np.float32),
        resting=rng.normal(size=(*lead, 2)).astype(np.float32),
        imagined=false,
    )
    return jax.tree.map(jnp.asarray, numbers)


def same(x, y) -> bool:
    """Whether two pytrees are equal bit for bit."""
    assert jax.tree.structure(x) == jax.tree.structure(y)
    return all(np.array_equal(data(a), data(b)) for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True))


def data(x) -> np.ndarray:
    """A leaf as numbers, random keys too."""
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


@contextlib.contextmanager
def float64():
    """Double precision in every thread; `jax.enable_x64` sets the caller's alone, and callbacks run in others too."""
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


def fails(capsys, command, *argv: str) -> str:
    """The one line that a wrong input costs."""
    capsys.readouterr()
    assert command(list(argv)) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.err.startswith("error: "), captured.err
    return captured.err


def finite(tree) -> bool:
    return all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(tree))


def avals(tree) -> list:
    """Shapes and types of a pytree, weak types too: what decides whether a jitted function is traced again."""
    return [
        (jax.tree_util.keystr(path), x.shape, x.dtype, bool(getattr(x, "weak_type", False)))
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    ]


def quick_compilation():
    """For an autouse fixture: compiling is most of the time of tests this small, so let XLA optimise little."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
