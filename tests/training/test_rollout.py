import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from metarl_jax.training import rollout
from tests import helpers
from tests.helpers import HORIZON, TEST, counting_agent, quick_compilation

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

ENV = helpers.environment()


AGENT = counting_agent()
STEPS = 8


@jax.jit
def collect(key):
    memory = AGENT.begin(None, 3)
    return rollout.unroll(ENV, AGENT, None, memory, TEST, key, STEPS, True)


evaluate = jax.jit(lambda key: rollout.evaluate(ENV, AGENT, None, key, 2))
LENGTHS = [2, 4, 6]  # of TEST's episodes; the first terminates, the others are truncated
TIMES = np.stack([np.arange(STEPS) % n + 1 for n in LENGTHS], -1)  # number of each step in its episode
ENDS = np.array(LENGTHS) == TIMES


def test_transitions_are_chains():
    _, result = collect(jax.random.key(0))
    x = jax.tree.map(np.asarray, result.transitions)
    np.testing.assert_array_equal(x.obs[..., 0], TIMES - 1)
    np.testing.assert_array_equal(x.next_obs[..., 0], TIMES)  # also at an end: not the next episode's first
    np.testing.assert_allclose(x.next_obs[..., 1], x.obs[..., 1] + x.action[..., 0], rtol=1e-6)
    inside = ~ENDS[:-1]
    np.testing.assert_array_equal(x.obs[1:][inside], x.next_obs[:-1][inside])
    assert (x.obs[1:][ENDS[:-1]] != x.next_obs[:-1][ENDS[:-1]]).any(-1).all()
    np.testing.assert_array_equal(x.reward, TIMES * np.array([1.0, 10.0, 2.0]))
    np.testing.assert_array_equal(x.gross_reward, 2.0 * x.reward)
    np.testing.assert_array_equal(x.gross_reward_change, (TIMES > 1) * np.array([2.0, 20.0, 4.0]))
    np.testing.assert_array_equal(x.resting, np.stack([TIMES - 1, TIMES], -1))
    np.testing.assert_array_equal(x.last, ENDS)
    np.testing.assert_array_equal(x.terminated, ENDS & np.array([True, False, False]))
    assert x.valid.all()
    np.testing.assert_array_equal(x.task.spec, np.broadcast_to(TEST.spec, (STEPS, 3, 2)))
    starts = x.obs[:, :, 1][TIMES == 1]
    assert len(np.unique(starts)) == starts.size == 4 + 2 + 2  # every lane and episode begins elsewhere
    assert len(np.unique(x.action)) == x.action.size
    np.testing.assert_array_equal(result.task_changed, TIMES == 1)


def test_a_transition_has_the_task_that_paid_for_it():
    """Of a task whose pay grows with every step: a reward is that task's pay times the number of the step."""

    def step(state, action):
        after = ENV.step(state, action)
        return after._replace(task=after.task._replace(spec=after.task.spec.at[0].add(1.0)))

    env = ENV._replace(step=step)
    _, result = jax.jit(
        lambda: rollout.unroll(env, AGENT, None, AGENT.begin(None, 3), TEST, jax.random.key(0), STEPS, True)
    )()
    x = result.transitions
    np.testing.assert_array_equal(x.reward, np.asarray(x.task.spec)[..., 0] * TIMES)
    assert len(np.unique(x.task.spec[:, 0, 0])) == STEPS


def test_collection_forgets_at_episode_ends():
    memory, result = collect(jax.random.key(0))
    belief = np.asarray(result.description["belief"])
    np.testing.assert_array_equal(belief[..., 0], TIMES - 1)  # before the step
    np.testing.assert_array_equal(memory.steps, [0, 0, 2])


def test_invalid_steps_are_marked():
    def step(state, action):
        after = ENV.step(state, action)
        return after._replace(metrics=after.metrics | {"diverged": after.reward == 2.0})

    env = ENV._replace(step=step)
    _, result = jax.jit(
        lambda: rollout.unroll(env, AGENT, None, AGENT.begin(None, 3), TEST, jax.random.key(0), 3, False)
    )()
    np.testing.assert_array_equal(result.transitions.valid, np.asarray(result.transitions.reward) != 2.0)
    assert not result.transitions.valid.all()


def test_first_episode_return():
    _, result = collect(jax.random.key(0))
    np.testing.assert_allclose(rollout.first_episode_return(result.transitions), [1 + 2, 10 * 10, 2 * 21])


def test_evaluation():
    result = evaluate(jax.random.key(0))
    alive = np.arange(1, HORIZON + 1)[:, None] <= np.array(LENGTHS)
    rewards = np.where(alive, np.arange(1, HORIZON + 1)[:, None] * np.array([1.0, 10.0, 2.0]), 0.0)
    np.testing.assert_array_equal(result.rewards, [rewards, rewards])
    np.testing.assert_array_equal(result.returns, [[3, 100, 42]] * 2)
    # The memory stands still after the end of an episode, and lives on into the next one.
    seen = np.minimum(np.arange(HORIZON)[:, None], LENGTHS)
    np.testing.assert_array_equal(result.beliefs[..., 0], [seen, seen + np.array(LENGTHS)])
    np.testing.assert_array_equal(result.beliefs[1, 0, :, 1], [3, 100, 42])
    assert result.components.shape == (2, HORIZON, 3, 1)


def test_no_change_of_task_is_reported_after_the_end():
    """What the next episode of a finished lane does is not part of the evaluation."""
    changed = np.asarray(evaluate(jax.random.key(0)).task_changed)
    expected = np.zeros((2, HORIZON, 3), bool)
    expected[:, 0] = True
    np.testing.assert_array_equal(changed, expected)


def test_what_an_evaluation_tells_of_its_steps():
    """An agent that adds up its actions, each 0.5 unless it explores, and believes in class 1 from its second step on:
    right or wrong by the family of its task, until the episode ends."""

    def observe(state, memory, transition):
        return memory._replace(steps=memory.steps + 1, paid=memory.paid + transition.action[:, 0])

    def describe(state, memory):
        return AGENT.describe(state, memory) | {"component": jax.nn.one_hot((memory.steps > 0).astype(jnp.int32), 2)}

    agent = AGENT._replace(observe=observe, describe=describe, component_of=lambda task: task.family)
    result = jax.jit(lambda key: rollout.evaluate(ENV, agent, None, key))(jax.random.key(0))
    step = np.arange(HORIZON)[:, None]
    alive = step < np.array(LENGTHS)
    right = (step > 0) == (np.asarray(TEST.family) > 0)
    np.testing.assert_array_equal(result.alive[0], alive)
    np.testing.assert_array_equal(result.recognized[0, ..., 0], np.where(alive, right, np.nan))
    np.testing.assert_array_equal(result.gross_rewards, 2.0 * result.rewards)
    np.testing.assert_allclose(result.beliefs[0, ..., 1], 0.5 * np.minimum(step, LENGTHS))  # deterministic


def test_an_evaluation_tells_where_bodies_were_at_each_action():
    env = envs.make("point_robot", horizon=4)
    agent = AGENT._replace(act=lambda state, obs, memory, key, explore: jnp.full((obs.shape[0], 2), 0.5))
    tasks = jax.tree.map(lambda x: x[:3], env.test_tasks)
    qpos = np.asarray(rollout.evaluate(env, agent, None, jax.random.key(0), 2, tasks).qpos)
    assert qpos.shape == (2, 4, 3, 2) and np.abs(qpos[:, 0]).max() <= 1.0  # where episodes begin
    np.testing.assert_allclose(np.diff(qpos, axis=1), 0.05, atol=1e-6)
    assert evaluate(jax.random.key(0)).qpos.shape[-1] == 0  # without a body
