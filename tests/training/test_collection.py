import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.agents import reactive
from metarl_jax.data import offline
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import sac
from metarl_jax.training import collection, trainer
from tests import helpers, probes
from tests.helpers import same

quick = pytest.fixture(autouse=True, scope="module")(helpers.quick_compilation)

EPISODES = 3
RTOL, ATOL = 1e-5, 1e-5
"""How far batched matrix products may round differently."""
AGENT = reactive.Config(
    sac.Config(
        hidden_sizes=(16,),
        obs_embedding=0,
        belief_embedding=0,
        learning_rate=1e-2,
        batch_size=16,
        discount=0.0,
        alpha=1e-2,
        max_grad_norm=None,
    ),
    updates=64,
)
SIZES = trainer.Config(num_envs=2, replay_rows=40, initial_episodes=4)


def stacked(env, conditioned=False):
    return jax.tree.map(lambda x: x[None] if conditioned else x[:, None], env.train_tasks)


@helpers.cached
def collected():
    """Two agents, one per task of the probe `context`, before and after some epochs."""
    env = probes.context()
    made = collection.make(env, reactive.make(AGENT, env.spec), SIZES, stacked(env), EPISODES)
    epoch, behave = jax.jit(made.epoch), jax.jit(made.behave)
    first = jax.jit(made.init)(jax.random.key(0))
    state = first
    for _ in range(6):
        state, metrics = epoch(state)
    return made, first, state, metrics, behave, epoch


def test_behaviour_learns():
    _, first, state, metrics, behave, _ = collected()
    before, after = (np.asarray(behave(s, jax.random.key(1)).returns).mean(1) for s in (first, state))
    assert after.shape == (2,) and (after > before + 2).all() and (after > 0.7 * probes.HORIZON).all()
    assert metrics["train_return"].shape == (2,)
    assert (state.env_steps == (4 + 6 * 2) * probes.HORIZON).all()


def test_agents_side_by_side_are_agents_alone():
    """Equal up to the rounding of batched matrix products."""
    _, first, *_, epoch = collected()
    env = probes.context()
    agent = reactive.make(AGENT, env.spec)
    together, _ = epoch(first)
    alone = jax.jit(lambda state, tasks: collection.make(env, agent, SIZES, tasks, EPISODES).epoch(state)[0])
    for g in range(2):
        own = alone(*jax.tree.map(lambda x, g=g: x[g : g + 1], (first, stacked(env))))
        for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(helpers.data(a)[0], helpers.data(b)[g], rtol=RTOL, atol=ATOL)
    assert not same(*(jax.tree.map(lambda x, g=g: x[g], first.agent.sac.actor) for g in range(2)))


def test_every_agent_sees_its_own_task():
    _, _, state, _, behave, _ = collected()
    np.testing.assert_array_equal(np.unique(state.replay.data.task.spec[0, :16]), [1.0])
    np.testing.assert_array_equal(np.unique(state.replay.data.task.spec[1, :16]), [-1.0])
    np.testing.assert_array_equal(behave(state, jax.random.key(0)).transitions.task.label[:, 0, 0], [0, 1])


def test_one_agent_for_all_tasks():
    env = probes.context()
    made = collection.make(env, reactive.make(AGENT, env.spec), SIZES, stacked(env, True), EPISODES, obs_size=1)
    first = jax.eval_shape(made.init, jax.random.key(0))
    found = jax.eval_shape(made.behave, first, jax.random.key(0))
    assert first.epoch.shape == (1,) and found.length.shape == (2, EPISODES)
    assert found.transitions.obs.shape == (2, EPISODES, probes.HORIZON, 1)
    tasks = collection._OnTasks(env.spec, env.train_tasks, env.reset, env.step).sample_tasks(
        jax.random.key(0), "train", 5
    )
    assert sorted(np.bincount(tasks.label)) == [2, 3]


def known(diverges_at: int = -1):
    """The environment whose every number is known; its third task's simulation may diverge."""
    env = helpers.environment()

    def step(state, action):
        after = env.step(state, action)
        diverged = (state.time + 1 == diverges_at) & (state.task.spec[1] == 6)
        return after._replace(truncated=after.truncated | diverged, metrics=after.metrics | {"diverged": diverged})

    return env._replace(step=step)


def behaviour(env):
    made = collection.make(env, helpers.counting_agent(), SIZES, stacked(env), EPISODES)
    return jax.jit(lambda key: made.behave(made.init(key), key))(jax.random.key(0))


def test_episodes_end_where_they_end():
    env = known()
    found = jax.device_get(behaviour(env))
    np.testing.assert_array_equal(found.length, np.repeat([[2], [3], [6], [6]], EPISODES, 1))
    pay = np.asarray(env.train_tasks.spec[:, 0])
    np.testing.assert_allclose(found.returns[:, 0], pay * [3, 6, 21, 21])
    tasks = offline.Tasks(*map(np.asarray, env.train_tasks))
    data = collection.assemble({100: found, 200: found}, tasks, np.array([0, 0, 1, 2]))
    np.testing.assert_array_equal(data.count, np.array([2, 3, 6, 6]) * 2 * EPISODES)
    table = offline.episodes(data)
    np.testing.assert_array_equal(table.length, np.repeat([2, 3, 6, 6], 2 * EPISODES))
    np.testing.assert_array_equal(table.checkpoint, np.tile(np.repeat([100, 200], EPISODES), 4))
    np.testing.assert_allclose(table.returns, np.repeat(pay * [3, 6, 21, 21], 2 * EPISODES))
    for n in range(4):
        stored = slice(0, data.count[n])
        ends = data.last[n, stored]
        # A termination is terminal, a time-out is not; an episode's steps are connected.
        np.testing.assert_array_equal(data.terminated[n, stored], ends if n % 2 == 0 else np.zeros_like(ends))
        np.testing.assert_array_equal(data.obs[n, stored][1:][~ends[:-1]], data.next_obs[n, stored][:-1][~ends[:-1]])
        assert not data.reward[n, data.count[n] :].any()


def test_a_diverged_step_is_not_stored():
    found = jax.device_get(behaviour(known(diverges_at=3)))
    np.testing.assert_array_equal(found.length, np.repeat([[2], [3], [2], [2]], EPISODES, 1))
    tasks = offline.Tasks(*map(np.asarray, known().train_tasks))
    data = collection.assemble({100: found}, tasks, np.zeros(4, int))
    np.testing.assert_array_equal(data.last[2, : data.count[2]], [False, True] * EPISODES)


def test_sizes_out_of_range():
    env = probes.context()
    with pytest.raises(ConfigurationError, match="episodes must be >= 1, got 0"):
        collection.make(env, reactive.make(AGENT, env.spec), SIZES, stacked(env), 0)
    for updates in (0, 40):
        with pytest.raises(ConfigurationError, match="updates must be"):
            reactive.make(reactive.Config(updates=updates), env.spec)


def test_observations_are_standardised():
    env = probes.context()
    agent = reactive.make(AGENT, env.spec)
    state, key = collected()[1].agent, jax.random.key(0)
    state = jax.tree.map(lambda x: x[0], state)
    twice = state._replace(scale=jax.tree.map(lambda x: 2.0 * x, state.scale))
    obs, memory = jnp.array([[0.3, 1.0]]), agent.begin(state, 1)
    np.testing.assert_allclose(
        agent.act(twice, 2.0 * obs, memory, key, False), agent.act(state, obs, memory, key, False), rtol=1e-6
    )
    assert not same(agent.act(twice, obs, memory, key, False), agent.act(state, obs, memory, key, False))
