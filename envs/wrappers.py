"""Functional wrappers: each takes an Environment and returns one."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.core import Environment, State, Task, update_few, update_where, where
from envs.errors import ConfigurationError, is_finite
from envs.physics.base import PhysicsState
from envs.rewards import RewardFn, control_cost, head_start, select
from envs.tasks import SubTask, draw_sets, families


def multi_task(
    env: Environment,
    name: str,
    key: jax.Array,
    train: tuple[SubTask, ...],
    num_train: int,
    num_test: int,
    test: tuple[SubTask, ...] | None = None,
    shared: bool = False,
) -> Environment:
    """Give a body its tasks: the reward of the task's family, and fixed training and test sets.

    Args:
      env: a body's environment.
      name: name of the benchmark.
      key: the task sets are a function of it.
      train, num_train, num_test, test, shared: see `tasks.draw_sets`; `test` makes an out-of-distribution benchmark.
    """
    table = families(*train, *(test or ()))
    reward_fn = select(tuple(table.values()))
    train_tasks, test_tasks = draw_sets(key, train, num_train, num_test, test, shared)

    def free_reward(before: PhysicsState, after: PhysicsState, task: Task) -> jax.Array:
        return reward_fn(before, after, jnp.zeros_like(after.ctrl), task, env.spec.dt)

    def resting_reward(physics: PhysicsState, task: Task) -> jax.Array:
        still = physics._replace(qvel=jnp.zeros_like(physics.qvel))
        return free_reward(still, still, task)

    def step(state: State, action: jax.Array) -> State:
        after = env.step(state, action)
        reward = reward_fn(state.physics, after.physics, after.physics.ctrl, state.task, env.spec.dt)
        reward = reward.astype(state.reward.dtype)
        resting = [resting_reward(x, state.task).astype(reward.dtype) for x in (state.physics, after.physics)]
        gross = free_reward(state.physics, after.physics, state.task).astype(reward.dtype)
        diverged = after.metrics["diverged"]
        metrics = after.metrics | {"resting": jnp.stack(resting), "gross_reward": jnp.where(diverged, 0.0, gross)}
        return after._replace(reward=jnp.where(diverged, 0.0, reward), metrics=metrics)

    subtasks = tuple(dict.fromkeys(s.name for s in train + (test or ())))
    spec = env.spec._replace(
        name=name,
        families=tuple(table),
        subtasks=subtasks,
        task_size=train_tasks.spec.shape[-1],
        action_cost=control_cost(table.values()) * env.spec.max_control**2,
    )
    return env._replace(
        spec=spec,
        train_tasks=train_tasks,
        test_tasks=test_tasks,
        step=step,
        head_start=_head_start(env, tuple(table.values())),
    )


FURTHEST = 1.25
"""Head starts reach from none of what the task asks for to a quarter too much."""


def _head_start(
    env: Environment, rewards: tuple[RewardFn, ...]
) -> Callable[[jax.Array, Task], tuple[jax.Array, jax.Array]] | None:
    """See `Environment.head_start`: U(0, `FURTHEST`) of the way, in tasks whose reward has a head start."""
    found = [head_start(reward) for reward in rewards]
    if not any(found):
        return None
    starts = [start or (lambda qpos, qvel, part: (qpos, qvel)) for start in found]

    def draw(key: jax.Array, task: Task) -> tuple[jax.Array, jax.Array]:
        key, key_part = jax.random.split(key)
        physics = env.reset(key, task).physics
        part = jax.random.uniform(key_part, maxval=FURTHEST) * task.spec
        return jax.lax.switch(task.family, starts, physics.qpos, physics.qvel, part.astype(physics.qpos.dtype))

    return draw


class Changes(NamedTuple):
    """When and into what the task of an episode changes, as pure functions of the state that a step led to."""

    due: Callable[[State], jax.Array]
    """Whether the task may change now."""
    change: Callable[[jax.Array, State], State]
    """(key, state) -> the state with its next task, and with the schedule for the one after it."""
    begin: Callable[[State], dict[str, jax.Array]] = lambda state: {}
    """The schedule at an episode's start."""
    probability: float = 1.0
    """Of a change that is due."""
    smooth: bool = False
    """Whether changes are too small for reports to mark the steps as ones in which the task changed."""


Redraw = Callable[[jax.Array, Task], Task]
"""(key, task) -> the next task."""


def every(redraw: Redraw, period: int, probability: float = 1.0) -> Changes:
    """A new task before the steps t = period, 2 period, ... of an episode, with a probability.

    Raises:
      ConfigurationError: period < 1 or a probability outside [0, 1].
    """
    _check_period(period)
    if not 0.0 <= probability <= 1.0:
        raise ConfigurationError(f"non-stationary: probability must be in [0, 1], got {probability}")

    def due(state: State) -> jax.Array:
        return _goes_on(state) & (state.time % period == 0)

    def change(key: jax.Array, state: State) -> State:
        return state._replace(task=redraw(key, state.task))

    return Changes(due, change, probability=float(probability))


def moved(redraw: Redraw, distance: float, place: int = 1) -> Changes:
    """A new task whenever the torso is `distance` + U(0, 1) m away from where the last change was.

    Args:
      redraw: gives it.
      distance: in m; for the first change of an episode, from where it began.
      place: coordinates of the torso along the ground, see `Body.place`.

    Raises:
      ConfigurationError: distance <= 0.
    """
    if not distance > 0.0:
        raise ConfigurationError(f"non-stationary: distance must be positive, got {distance}")

    def begin(state: State) -> dict[str, jax.Array]:
        gap = distance + jax.random.uniform(jax.random.fold_in(state.key, 1))
        return {"from": state.physics.qpos[:place], "gap": gap.astype(state.physics.qpos.dtype)}

    def due(state: State) -> jax.Array:
        away = jnp.linalg.norm(state.physics.qpos[:place] - state.schedule["from"])
        return _goes_on(state) & (away >= state.schedule["gap"])

    def change(key: jax.Array, state: State) -> State:
        return state._replace(task=redraw(key, state.task), schedule=begin(state))

    return Changes(due, change, begin)


def drift(amplitude: float, period: int) -> Changes:
    """A spec that swings about its first value: spec(t) = spec(0) + amplitude sin(2 pi t / period).

    It is back there as an episode ends, as the next one begins with it; so says the last `final_obs` of an oracle.

    Raises:
      ConfigurationError: period < 1, or an amplitude that is not finite.
    """
    _check_period(period)
    if not is_finite(amplitude):
        raise ConfigurationError(f"non-stationary: amplitude must be finite, got {amplitude}")

    def change(key: jax.Array, state: State) -> State:
        swing = _goes_on(state) * amplitude * jnp.sin(2 * jnp.pi * state.time / period)  # the next episode begins at 0
        return state._replace(task=state.task._replace(spec=state.schedule["spec"] + swing))

    return Changes(lambda state: jnp.ones((), bool), change, lambda state: {"spec": state.task.spec}, smooth=True)


def _check_period(period: int) -> None:
    if period < 1:
        raise ConfigurationError(f"non-stationary: period must be >= 1, got {period}")


def _goes_on(state: State) -> jax.Array:
    """Whether the episode does."""
    return ~(state.terminated | state.truncated)


def non_stationary(env: Environment, changes: Changes) -> Environment:
    """Change the task in mid-episode as `changes` says, without telling the agent.

    The observation does not tell; `metrics["task_changed"]` does, for reports. Wrap the time limit first: a task is
    not redrawn where an episode ends.
    """

    def start(state: State) -> State:
        return state._replace(schedule=changes.begin(state))

    def maybe_change(state: State) -> State:
        key, key_coin, key_task = jax.random.split(state.key, 3)
        after = changes.change(key_task, state._replace(key=key))
        differs = (after.task.family != state.task.family) | jnp.any(after.task.spec != state.task.spec)
        happens = jax.random.bernoulli(key_coin, changes.probability) & differs
        task = where(happens, after.task, state.task)
        marked = state.metrics | {"task_changed": happens & (not changes.smooth)}
        return after._replace(task=task, metrics=marked)

    def step(state: State, action: jax.Array) -> State:
        after = env.step(state, action)
        return update_where(changes.due(after), maybe_change, after)

    return _episodes(env, start)._replace(spec=env.spec._replace(stationary=False), step=step)


def _episodes(env: Environment, start: Callable[[State], State]) -> Environment:
    """`env` with `start` applied to the first state of every episode."""
    return env._replace(
        reset=lambda key, task: start(env.reset(key, task)),
        state_from=lambda key, task, qpos, qvel: start(env.state_from(key, task, qpos, qvel)),
    )


def random_dynamics(env: Environment, fields: Callable[[jax.Array], dict[str, jax.Array]]) -> Environment:
    """Give each simulation a model of its own, as its task's spec says.

    Args:
      env: its physics was loaded with the names of these fields; an environment with automatic reset, whose
        episodes keep their model.
      fields: spec [p] -> the model's fields, such as `body_mass` [nbody] in kg; see `envs.physics.dynamics`.
    """

    def dress(state: State) -> State:
        own = fields(state.task.spec)
        own = {name: own[name].astype(x.dtype) for name, x in state.physics.model.items()}
        return state._replace(physics=state.physics._replace(model=own))

    def step(state: State, action: jax.Array) -> State:
        after = env.step(state, action)
        kept = after._replace(physics=after.physics._replace(model=state.physics.model))
        return kept if env.spec.stationary else update_where(after.metrics["task_changed"], dress, kept)

    return _episodes(env, dress)._replace(spec=env.spec._replace(same_dynamics=False), step=step)


def time_limit(env: Environment, horizon: int) -> Environment:
    """Truncate an episode after `horizon` control steps.

    Raises:
      ConfigurationError: horizon < 1.
    """
    if horizon < 1:
        raise ConfigurationError(f"horizon must be >= 1, got {horizon}")

    def step(state: State, action: jax.Array) -> State:
        after = env.step(state, action)
        return after._replace(truncated=after.truncated | ((after.time >= horizon) & ~after.terminated))

    return env._replace(spec=env.spec._replace(horizon=horizon), step=step)


def auto_reset(env: Environment) -> Environment:
    """Begin a new episode of the current task as soon as one ends.

    The step that ends an episode keeps its reward and flags; its `final_obs` is the old episode's last
    observation, and everything else is the new episode's.
    """

    def begin(ended: State) -> State:
        return env.reset(ended.key, ended.task)._replace(
            reward=ended.reward,
            terminated=ended.terminated,
            truncated=ended.truncated,
            final_obs=ended.final_obs,
            metrics=ended.metrics,
        )

    def step(state: State, action: jax.Array) -> State:
        after = env.step(state, action)
        return update_few(after.terminated | after.truncated, begin, after)

    return env._replace(step=step)


def reveal_task(env: Environment) -> Environment:
    """Append the task, as `Task.vector`, to the observation, for oracles that need not infer it."""
    num_families = len(env.spec.families)
    extra = num_families * (1 + env.spec.task_size)

    def told(obs: jax.Array, task: Task) -> jax.Array:
        return jnp.concatenate([obs, task.vector(num_families)]).astype(obs.dtype)

    def reveal(state: State) -> State:
        return state._replace(obs=told(state.obs, state.task), final_obs=told(state.final_obs, state.task))

    def conceal(state: State) -> State:
        size = env.spec.obs_size
        return state._replace(obs=state.obs[:size], final_obs=state.final_obs[:size])

    return env._replace(
        spec=env.spec._replace(obs_size=env.spec.obs_size + extra),
        reset=lambda key, task: reveal(env.reset(key, task)),
        step=lambda state, action: reveal(env.step(conceal(state), action)),
        state_from=lambda key, task, qpos, qvel: reveal(env.state_from(key, task, qpos, qvel)),
    )
