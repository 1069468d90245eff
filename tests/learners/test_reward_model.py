"""The model of rewards on a family whose rewards are known: -|speed - asked for|."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.data.replay import Vectors
from metarl_jax.learners import reward_model
from tests.helpers import cached, finite, quick_compilation, same

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

SPEC = reward_model.Spec(obs_size=2, action_size=1, task_size=2)
CONFIG = reward_model.Config(hidden_sizes=(32, 32), learning_rate=3e-3)


def batch(key, low: float, high: float, num: int = 256) -> reward_model.Batch:
    """Speeds of 0 to 6 in tasks that ask for `low` to `high`; the other entries say nothing."""
    key_obs, key_task, key_action = jax.random.split(key, 3)
    obs = jax.random.uniform(key_obs, (num, 2, 2), minval=0.0, maxval=6.0)
    asked = jax.random.uniform(key_task, (num,), minval=low, maxval=high)
    gross = -jnp.abs(obs[:, 1, 0] - asked)
    action = jax.random.normal(key_action, (num, 1))
    x = Vectors(obs[:, 0], action, gross - 0.1, obs[:, 1], gross)
    return reward_model.Batch(x, jnp.stack([jnp.ones(num), asked], -1), jnp.ones(num))


step = jax.jit(lambda state, key: reward_model.train_step(state, batch(key, 2.0, 4.0), CONFIG))


@cached
def trained():
    state = reward_model.init(jax.random.key(0), CONFIG, SPEC)
    many = jax.jit(lambda s, keys: jax.lax.scan(step, s, keys))
    return many(state, jax.random.split(jax.random.key(1), 3_000))


def error(state, low: float, high: float) -> float:
    """Mean absolute."""
    data = batch(jax.random.key(2), low, high, 2_000)
    found = reward_model.predict(state.params, state.task_scale, data.x, data.task, CONFIG)
    return float(jnp.mean(jnp.abs(found - data.x.gross_reward)))


def test_it_learns_what_tasks_pay_and_goes_on_straight_beyond_them():
    state, metrics = trained()
    assert metrics["reward_model_loss"][0] > 1.0 and np.mean(metrics["reward_model_loss"][-50:]) < 0.01
    assert error(state, 2.0, 4.0) < 0.05
    assert error(state, 1.0, 2.0) < 0.15 and error(state, 4.0, 5.0) < 0.15  # a constant would be off by 1.5 and more


def test_tasks_are_standardised_and_constant_entries_are_not():
    scale = trained()[0].task_scale
    np.testing.assert_allclose(scale.mean, [1.0, 3.0], atol=0.05)
    np.testing.assert_allclose(scale.std, [1.0, 2.0 / np.sqrt(12.0)], atol=0.05)


def test_what_has_no_weight_is_not_learnt_from():
    state = reward_model.init(jax.random.key(0), CONFIG, SPEC)
    data = batch(jax.random.key(3), 2.0, 4.0, 64)
    half = data._replace(weight=data.weight.at[32:].set(0.0))
    wrong = half.x._replace(gross_reward=half.x.gross_reward.at[32:].set(1e3), obs=half.x.obs.at[32:].set(-1e3))
    given = [reward_model.train_step(state, half._replace(x=x), CONFIG) for x in (half.x, wrong)]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), *given)
    nothing, metrics = reward_model.train_step(state, data._replace(weight=jnp.zeros(64)), CONFIG)
    assert finite(nothing) and metrics["reward_model_loss"] == 0.0


def test_the_reward_that_is_asked_for_is_not_read():
    state = trained()[0]
    data = batch(jax.random.key(4), 2.0, 4.0, 8)
    blank = data.x._replace(reward=jnp.zeros(8), gross_reward=jnp.zeros(8))
    found = [reward_model.predict(state.params, state.task_scale, x, data.task, CONFIG) for x in (data.x, blank)]
    assert same(*found)
