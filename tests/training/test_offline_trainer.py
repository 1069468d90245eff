import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.data.offline import OfflineData
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import offline
from metarl_jax.training.trainer import over_seeds
from metarl_jax.types import Transition
from tests import helpers
from tests.helpers import HORIZON, Memory, avals, counting_agent, quick_compilation, same

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

RNG = np.random.default_rng(0)
NUM, LENGTH = 3, 12
DATA = OfflineData(
    obs=RNG.normal(size=(NUM, LENGTH, 2)).astype(np.float32),
    action=RNG.uniform(-1, 1, (NUM, LENGTH, 1)).astype(np.float32),
    reward=np.broadcast_to(np.array([[1.0], [2.0], [3.0]], np.float32), (NUM, LENGTH)).copy(),
    next_obs=RNG.normal(size=(NUM, LENGTH, 2)).astype(np.float32),
    terminated=np.zeros((NUM, LENGTH), bool),
    last=np.zeros((NUM, LENGTH), bool),
    count=np.array([12, 6, 12], np.int32),
    checkpoint=np.zeros((NUM, LENGTH), np.int32),
    task=helpers.TEST,
    split=np.array([0, 0, 1], np.int32),
)
CONFIG = offline.Config(adapt_episodes=1, eval_episodes=2, eval_repeats=2)


def learning_agent():
    """The counting agent, which learns the mean reward of the data and recalls stored transitions."""

    def learn(state, data, key):
        weight = 0.9 * state.weight + 0.1 * data.reward.mean() + 0.01 * jax.random.normal(key)
        return {"weight": weight}, {"weight": weight, "updates": jnp.asarray(1)}

    def recall(state, batch):
        return Memory(jnp.full(batch.reward.shape[0], 100.0), batch.reward.sum(1))

    return counting_agent()._replace(parts={"learning": learn}, recall=recall)


@helpers.cached
def made(seeds):
    """A trainer, its jitted functions, and the list that counts Python's entries into `env.step`."""
    entries = []
    env = helpers.environment(entries)
    t = offline.make(env, learning_agent(), DATA, CONFIG, seeds, 7.0, np.array([0, 1, 1]))
    return t, jax.jit(t.init), jax.jit(t.epoch), jax.jit(t.evaluate), entries


def test_epochs_learn_from_data_that_is_no_part_of_the_state():
    t, init, epoch, _, entries = made(1)
    first = init(jax.random.key(0))
    second, metrics = epoch(first, *t.constants)
    third, _ = epoch(second, *t.constants)
    assert avals(first) == avals(second) == avals(third) and not entries
    assert sum(x.size for x in jax.tree.leaves((first.agent, first.replay))) == 1
    assert (third.epoch, third.env_steps, metrics["train_return"]) == (2, 0, 7.0)
    assert t.replay_bytes == sum(x.nbytes for x in jax.tree.leaves(DATA)) and t.env_steps_per_epoch == 0
    assert same(epoch(first, *t.constants)[0], second)


def test_seeds_share_the_data():
    t, init, epoch, evaluate, _ = made(2)
    state, metrics = epoch(init(jax.random.key(0)), *t.constants)
    assert t.replay_bytes == made(1)[0].replay_bytes and metrics["weight"].shape == (2,)
    assert state.agent.weight[0] != state.agent.weight[1]
    assert evaluate(state, jax.random.key(0), *t.constants).rewards.shape == (2, 2, HORIZON, 3 * NUM)


def test_contexts():
    """Beliefs are (transitions seen, rewards seen); rewards of the three tasks' episodes sum to 3, 100 and 42."""
    t, init, _, evaluate, entries = made(1)
    found = evaluate(init(jax.random.key(0)), jax.random.key(1), *t.constants)
    assert len(entries) == 1  # one trace for all contexts, tasks, repeats and episodes
    evaluate(init(jax.random.key(0)), jax.random.key(2), *t.constants)
    assert len(entries) == 1
    np.testing.assert_allclose(found.returns[0], [[3, 100, 42] * 3] * 2)
    starts = np.asarray(found.beliefs[0, :, 0]).reshape(2, 3, NUM, 2)  # episode, context, task
    length, paid = np.array([2, 4, 6]), np.array([3, 100, 42])
    np.testing.assert_allclose(starts[:, 0, :, 0], 100)
    np.testing.assert_allclose(starts[:, 0, :, 1], [[6, 12, 12]] * 2)  # the third recalls the data of the second
    for context in (1, 2):
        np.testing.assert_allclose(starts[:, context], [np.stack([n * length, n * paid], -1) for n in (1, 2)])


def test_what_a_lane_may_see_and_do():
    agent = offline.with_contexts(learning_agent())
    blank = agent.begin(None, 3)
    memory = blank._replace(
        shown=Memory(jnp.array([9.0, 0, 0]), jnp.zeros(3)),
        random_steps=jnp.array([0, 0, 9]),  # more than the first episode has steps
        fixed_episodes=jnp.array([offline.FOREVER, 1, 0]),
    )
    task = jax.tree.map(lambda x: x[:3], helpers.TEST)
    zeros, no = jnp.zeros((3, 2)), jnp.zeros(3, bool)
    step = Transition(zeros, zeros[:, :1], jnp.ones(3), zeros, no, no, ~no, task, jnp.zeros(3), jnp.zeros(3), zeros, no)
    seen, random = [], []
    for last in (False, True, False):
        random.append(np.asarray(agent.act(None, zeros, memory, jax.random.key(3), False))[:, 0] != 0.5)
        memory = agent.observe(None, memory, step._replace(last=jnp.full(3, last)))
        seen.append(np.asarray(memory.shown.steps).tolist())
    assert seen == [[9, 0, 1], [9, 2, 2], [9, 3, 3]]  # the second waits for the end of an episode
    np.testing.assert_array_equal(random, [[False, False, True]] * 2 + [[False] * 3])


def test_moments_are_of_stored_transitions_of_the_given_tasks():
    scale = offline.moments(DATA, np.array([0, 1]))
    obs = np.concatenate([DATA.obs[0], DATA.obs[1, :6]])
    np.testing.assert_allclose(scale.mean.obs, obs.mean(0), rtol=1e-5)
    np.testing.assert_allclose(scale.std.obs, obs.std(0), rtol=1e-5)
    np.testing.assert_allclose(scale.mean.reward, (12 + 12) / 18, rtol=1e-6)


@pytest.mark.parametrize(("name", "seeds"), [("adapt_episodes", 1), ("eval_repeats", 1), (None, 0)])
def test_sizes(name, seeds):
    config = offline.Config(**({name: 0} if name else {}))
    with pytest.raises(ConfigurationError, match=f"{name or 'seeds'} must be >= 1, got 0"):
        offline.make(helpers.environment(), learning_agent(), DATA, config, seeds)


def test_shared_arguments_are_not_batched():
    f = over_seeds(lambda x, y: x + y.sum(), 2, shared=1)
    np.testing.assert_array_equal(f(jnp.arange(2.0), jnp.ones(5)), [5.0, 6.0])
    np.testing.assert_array_equal(over_seeds(lambda x, y: x + y.sum(), 1, shared=1)(jnp.ones(1), jnp.ones(5)), [6.0])
