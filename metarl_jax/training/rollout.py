"""Collecting and evaluating: the same loop of act, step and observe for every agent."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from metarl_jax.errors import ConfigurationError
from metarl_jax.types import Agent, Environment, EnvState, Evaluation, Transition


class Rollout(NamedTuple):
    """Consecutive steps of E lanes."""

    transitions: Transition
    """[T, E, ...]"""
    description: dict[str, jax.Array]
    """[T, E, ...] what the agent believed when it acted."""
    task_changed: Bool[Array, "T E"]
    alive: Bool[Array, "T E"]
    """The step belongs to what is looked at: with `single_episode`, to a lane's first episode."""
    qpos: Float[Array, "T E q"]
    """The body's generalised coordinates when it acted; q = 0 where there is none."""


def select(condition: Bool[Array, " E"], new: Any, old: Any) -> Any:
    """The lanes of `new` where the condition holds, of `old` elsewhere."""
    return jax.tree.map(lambda x, y: jnp.where(condition.reshape(-1, *(1,) * (x.ndim - 1)), x, y), new, old)


def head_start_of(env: Environment) -> Callable[[PRNGKeyArray, Any], EnvState]:
    """Its `reset_ahead`; raises `ConfigurationError` if it has none."""
    reset = getattr(env, "reset_ahead", None)
    if reset is None:
        raise ConfigurationError(
            f"no task of {env.spec.name} asks for a place, a posture or a speed: use --head_starts=0"
        )
    return reset


def unroll(
    env: Environment,
    agent: Agent,
    agent_state: Any,
    memory: Any,
    tasks: Any,
    key: PRNGKeyArray,
    num_steps: int,
    explore: bool,
    single_episode: bool = False,
    imagined: Bool[Array, " E"] | None = None,
    ahead: Bool[Array, " E"] | None = None,
) -> tuple[Any, Rollout]:
    """Step E = len(tasks) lanes, each from a new episode of its own task, for `num_steps` steps.

    Args:
      env: an environment with automatic reset.
      agent: the agent's functions.
      agent_state: its learning state.
      memory: [E, ...] what the agent remembers at the start.
      tasks: [E, ...].
      key: of resets and actions.
      num_steps: T.
      explore: sample actions, or take the policy's mode.
      single_episode: after a lane's first episode its memory stands still and its rewards are 0. Otherwise
        another episode of the same task follows, with a blank memory.
      imagined: lanes that the agent pays itself; None: the environment pays all.
      ahead: lanes whose first episode has a head start; None: all start as the environment resets them.

    Returns:
      The memory [E, ...] at the end, and what happened.

    Raises:
      ConfigurationError: head starts, or imagined lanes, that there are not.
    """
    num = jax.tree.leaves(tasks)[0].shape[0]
    key_reset, key_steps = jax.random.split(key)
    keys = jax.random.split(key_reset, num)
    state = jax.vmap(env.reset)(keys, tasks)
    if ahead is not None:
        state = select(ahead, jax.vmap(head_start_of(env))(keys, tasks), state)
    blank = agent.begin(agent_state, num)

    def step(carry, key):
        state, memory, alive, earned, fresh = carry
        action = agent.act(agent_state, state.obs, memory, key, explore)
        after = jax.vmap(env.step)(state, action)
        last = after.terminated | after.truncated
        transition = Transition(
            obs=state.obs,
            action=action,
            reward=after.reward,
            next_obs=after.final_obs,
            terminated=after.terminated,
            last=last,
            valid=~after.metrics["diverged"],
            task=state.task,
            gross_reward=after.metrics["gross_reward"],
            gross_reward_change=jnp.zeros_like(after.reward),
            resting=after.metrics["resting"],
            imagined=jnp.zeros_like(last),
        )
        if imagined is not None:
            transition = _pay(agent, agent_state, transition, imagined)
        gross = transition.gross_reward
        transition = transition._replace(gross_reward_change=jnp.where(fresh, 0.0, gross - earned))
        if single_episode:
            transition = transition._replace(reward=jnp.where(alive, transition.reward, 0.0))
        changed = after.metrics["task_changed"] & (alive if single_episode else True)
        qpos = getattr(getattr(state, "physics", None), "qpos", jnp.zeros((num, 0)))
        description = agent.describe(agent_state, memory)
        counted = alive
        observed = agent.observe(agent_state, memory, transition)
        if single_episode:
            memory, alive = select(alive, observed, memory), alive & ~last
        else:
            memory = select(last, blank, observed)
        return (after, memory, alive, gross, last), Rollout(transition, description, changed, counted, qpos)

    yes = jnp.ones(num, bool)
    start = (state, memory, yes, jnp.zeros_like(state.reward), yes)
    (_, memory, _, _, _), rollout = jax.lax.scan(step, start, jax.random.split(key_steps, num_steps))
    return memory, rollout


def _pay(agent: Agent, agent_state: Any, transition: Transition, imagined: Bool[Array, " E"]) -> Transition:
    """The transition as the agent's model pays it in the imagined lanes; an action costs what it does everywhere."""
    if agent.gross_reward is None:
        raise ConfigurationError("this agent has no model of rewards to imagine tasks by")
    gross = jnp.where(imagined, agent.gross_reward(agent_state, transition), transition.gross_reward)
    return transition._replace(
        reward=transition.reward + gross - transition.gross_reward,
        gross_reward=gross,
        resting=jnp.where(imagined[:, None], 0.0, transition.resting),
        imagined=imagined,
    )


def first_episode_return(transitions: Transition) -> Float[Array, " E"]:
    """Undiscounted return of each lane's first episode in [T, E]."""
    ended_before = jnp.cumsum(transitions.last, 0) - transitions.last > 0
    return jnp.sum(jnp.where(ended_before, 0.0, transitions.reward), 0)


def evaluate(
    env: Environment,
    agent: Agent,
    agent_state: Any,
    key: PRNGKeyArray,
    num_episodes: int = 1,
    tasks: Any = None,
    memory: Any = None,
) -> Evaluation:
    """Deterministic episodes 1..K with one memory throughout. See `Evaluation`.

    Args:
      env: an environment with automatic reset.
      agent: the agent's functions.
      agent_state: its learning state.
      key: of resets and actions.
      num_episodes: K.
      tasks: [N]; None for the held-out ones.
      memory: [N, ...] before the first episode; None for a blank one.
    """
    tasks = env.test_tasks if tasks is None else tasks

    def episode(memory, key):
        memory, rollout = unroll(env, agent, agent_state, memory, tasks, key, env.spec.horizon, False, True)
        transitions, components = rollout.transitions, rollout.description["component"]
        recognized = jnp.zeros((*transitions.reward.shape, 0))
        if agent.component_of is not None:
            right = jnp.argmax(components, -1) == agent.component_of(transitions.task)
            recognized = jnp.where(rollout.alive, right, jnp.nan)[..., None]
        return memory, Evaluation(
            rewards=transitions.reward,
            beliefs=rollout.description["belief"],
            components=components,
            task_changed=rollout.task_changed,
            alive=rollout.alive,
            recognized=recognized,
            attention=rollout.description.get("attention"),
            gross_rewards=jnp.where(rollout.alive, transitions.gross_reward, 0.0),
            qpos=rollout.qpos,
        )

    memory = agent.begin(agent_state, tasks.family.shape[0]) if memory is None else memory
    return jax.lax.scan(episode, memory, jax.random.split(key, num_episodes))[1]
