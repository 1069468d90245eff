import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.errors import ConfigurationError
from metarl_jax.training import trainer
from tests import helpers
from tests.helpers import HORIZON, TRAIN, avals, counting_agent, finite, quick_compilation, same

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

CONFIG = trainer.Config(num_envs=3, replay_rows=8, eval_lanes=1)
AGENT = counting_agent()


@helpers.cached
def made(seeds):
    """A trainer, its jitted functions, and the list that counts Python's entries into `env.step`."""
    entries = []
    env = helpers.environment(entries)
    t = trainer.make(env, AGENT, CONFIG, seeds)
    return t, jax.jit(t.init), jax.jit(t.epoch), jax.jit(t.evaluate), entries


@helpers.cached
def two_epochs(seeds):
    """The states before, between and after two epochs, and the last metrics."""
    _, init, epoch, _, _ = made(seeds)
    first = init(jax.random.key(0))
    second, _ = epoch(first)
    return first, second, *epoch(second)


def test_one_trace_of_the_environment_per_epoch():
    _, _, epoch, _, entries = made(1)
    first, second, third, _ = two_epochs(1)
    assert len(entries) == 2  # one entry for `init`, one for `epoch`
    epoch(third)
    assert len(entries) == 2
    assert avals(first) == avals(second) == avals(third)


def test_counters_and_data():
    first, second, third, metrics = two_epochs(1)
    t = made(1)[0]
    assert t.num_seeds == 1 and t.env_steps_per_epoch == 3 * HORIZON
    assert [int(s.env_steps[0]) for s in (first, second, third)] == [HORIZON * n for n in (4, 7, 10)]
    assert [int(s.epoch[0]) for s in (first, second, third)] == [0, 1, 2]
    assert [int(s.replay.size[0]) for s in (first, second, third)] == [4, 7, 7]  # eight rows: the third block wraps
    assert metrics["replay_rows"].shape == (1,) and metrics["diverged"] == 0 and metrics["updates"] == 1
    assert finite(metrics) and finite(third.agent)
    assert t.replay_bytes == sum(x.nbytes for x in jax.tree.leaves(first.replay.data))


def test_rows_are_lanes_from_their_first_step():
    first, _, third, _ = two_epochs(1)
    rows = jax.tree.map(lambda x: np.asarray(x[0]), third.replay.data)
    obs, length = rows.obs[:7], rows.task.spec[:7, :1, 1]
    np.testing.assert_array_equal(obs[..., 0], np.arange(HORIZON) % length)
    np.testing.assert_array_equal(rows.reward[:7], (obs[..., 0] + 1) * rows.task.spec[:7, :, 0])
    assert {tuple(x) for x in rows.task.spec[:7, 0]} <= {tuple(np.asarray(x)) for x in TRAIN.spec}
    assert not same(first.replay.data.obs[0, :3], third.replay.data.obs[0, :3])  # written over


def test_train_return_is_that_of_first_episodes():
    _, second, third, metrics = two_epochs(1)
    del second
    rows = jax.tree.map(lambda x: np.asarray(x[0]), third.replay.data)  # the last block is in rows 0..2
    pay, length = rows.task.spec[:3, 0, 0], rows.task.spec[:3, 0, 1]
    np.testing.assert_allclose(metrics["train_return"], [np.mean(pay * length * (length + 1) / 2)], rtol=1e-6)


def test_the_same_seed_gives_the_same_bits():
    _, init, epoch, _, _ = made(1)
    again, _ = epoch(epoch(init(jax.random.key(0)))[0])
    assert same(again, two_epochs(1)[2])
    other, _ = epoch(epoch(init(jax.random.key(1)))[0])
    assert not same(other.agent, again.agent) and not same(other.replay.data.obs, again.replay.data.obs)


def test_seeds_are_a_leading_axis():
    t, _, _, evaluate, _ = made(2)
    first, second, third, metrics = two_epochs(2)
    for x in jax.tree.leaves((first, second, third, metrics)):
        assert x.shape[0] == 2
    assert t.replay_bytes == 2 * made(1)[0].replay_bytes
    assert finite(metrics)
    for part in (third.agent, third.replay.data.obs, third.replay.data.action, third.key):
        assert not same(*(jax.tree.map(lambda x: x[i], part) for i in (0, 1)))  # noqa: B023
    assert third.env_steps.tolist() == [10 * HORIZON] * 2
    result = evaluate(third, jax.random.key(0))
    assert result.rewards.shape == (2, 1, HORIZON, 3)
    assert result.beliefs.shape == (2, 1, HORIZON, 3, 2) and result.components.shape[-1] == 1


def test_evaluation_is_of_the_test_tasks():
    _, _, _, evaluate, _ = made(1)
    state = two_epochs(1)[2]
    result = evaluate(state, jax.random.key(0))
    np.testing.assert_allclose(result.returns, [[[3, 100, 42]]])
    assert same(state, two_epochs(1)[2])


def test_evaluation_is_of_the_training_tasks_if_told():
    env = helpers.environment()
    t = trainer.make(env, AGENT, dataclasses.replace(CONFIG, eval_tasks="train"))
    result = jax.jit(t.evaluate)(two_epochs(1)[2], jax.random.key(0))
    np.testing.assert_allclose(result.returns, [[[3, 60, -21, 63]]])


def test_few_tasks_are_played_several_times_each():
    env = helpers.environment()
    tasks = trainer.tasks_of(env, dataclasses.replace(CONFIG, eval_lanes=7))
    np.testing.assert_array_equal(tasks.label, np.tile(env.test_tasks.label, 3))
    assert trainer.tasks_of(env, dataclasses.replace(CONFIG, eval_lanes=3)).label.shape == (3,)


def test_example_transition_matches_what_is_collected():
    first = two_epochs(1)[0]
    example = trainer.example_transition(helpers.environment())
    expected = jax.tree.map(lambda x: (x.shape[3:], x.dtype), first.replay.data)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), example) == expected


@pytest.mark.parametrize(
    ("changes", "seeds", "message"),
    [
        ({"num_envs": 0}, 1, "num_envs must be >= 1, got 0"),
        ({"initial_episodes": 0}, 1, "initial_episodes must be >= 1, got 0"),
        ({}, 0, "seeds must be >= 1, got 0"),
        ({"eval_tasks": "held-out"}, 1, "unknown eval_tasks 'held-out': choose test or train"),
        ({"replay_rows": 3}, 1, "replay_rows is 3, but one block of data has 4 rows"),
        ({"num_envs": 9}, 1, "replay_rows is 8, but one block of data has 9 rows"),
        ({"initial_episodes": 20}, 1, "one block of data has 20 rows"),
        ({"eval_lanes": 0}, 1, "eval_lanes must be >= 1, got 0"),
        ({"eval_episodes": 0}, 1, "eval_episodes must be >= 1, got 0"),
    ],
)
def test_errors(changes, seeds, message):
    env = helpers.environment()
    with pytest.raises(ConfigurationError, match=message) as caught:
        trainer.make(env, AGENT, dataclasses.replace(CONFIG, **changes), seeds)
    assert "\n" not in str(caught.value)


def test_a_first_random_block_of_any_size():
    env = helpers.environment()
    t = trainer.make(env, AGENT, dataclasses.replace(CONFIG, initial_episodes=7), 1)
    state = jax.eval_shape(t.init, jax.random.key(0))
    assert state.replay.data.reward.shape == (1, 8, HORIZON)
    assert jnp.issubdtype(state.key.dtype, jax.dtypes.prng_key)
