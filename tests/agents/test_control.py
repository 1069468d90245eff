"""What agents that act on a belief have in common."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.agents import cemrl, control, moss, timrl
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import sac
from tests import helpers
from tests.agents import small_moss, test_cemrl, test_timrl
from tests.helpers import quick_compilation

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

SPEC = sac.Spec(obs_size=2, action_size=1, belief_size=1, privileged_size=1)
SAC = sac.Config(hidden_sizes=(4,), obs_embedding=0, belief_embedding=0, batch_size=4, policy_every=1)
CONFIG = control.Config(
    SAC, standardize_belief=True, scale_rate=0.25, window=2, pool_windows=4, sac_updates=2, updates_per_pool=1
)


def make_pool(key):
    """Eight transitions whose beliefs have mean 4 and deviation 2, and whose tasks are ten times as large."""
    belief = jnp.tile(jnp.array([[2.0], [6.0]]), (4, 1))
    obs, scalar = jnp.zeros((8, 2)), jnp.zeros(8)
    return sac.Batch(
        obs, belief, scalar[:, None], scalar, obs, belief, scalar > 0, scalar + 1, 10 * belief, 10 * belief
    )


@pytest.mark.parametrize(("num_epochs", "mean", "std"), [(0, 4.0, 2.0), (10, 1.75, 1.4375)])
def test_statistics_are_the_mean_of_the_first_pools_and_then_move_slowly(num_epochs, mean, std):
    """Two pools, from mean 0 and deviation 1: at first all the way, later a quarter of it each time."""
    before = control.init(jax.random.key(0), CONFIG, SPEC)
    train = jax.jit(lambda state, num: control.train(CONFIG, SPEC, state, make_pool, num, jax.random.key(1))[0])
    after = train(before, jnp.asarray(num_epochs))
    np.testing.assert_allclose([after.belief_scale.mean[0], after.belief_scale.std[0]], [mean, std], rtol=1e-5)
    if not num_epochs:
        np.testing.assert_allclose([after.task_scale.mean[0], after.task_scale.std[0]], [40.0, 20.0], rtol=1e-5)


AGENTS = {
    "moss": (moss, small_moss.CONFIG),
    "cemrl": (cemrl, test_cemrl.CONFIG),
    "timrl": (timrl, test_timrl.CONFIG),
    "forced": (timrl, dataclasses.replace(test_timrl.CONFIG, forced_accuracy=0.5)),
}


@pytest.mark.parametrize("name", AGENTS)
def test_sac_learns_on_the_beliefs_that_acting_has(monkeypatch, name):
    """Before each stored step and after it, as an agent holds them that lives through the episode; critics are told the
    tasks of both steps in the units of their scale. Rows are whole windows, and observations say which step it is."""
    algorithm, config = AGENTS[name]
    config = dataclasses.replace(config, sac_updates=1, privileged_critics=True)  # one pool, one scale
    made, data, batches = algorithm.make(config, helpers.SPEC), small_moss.data(), []

    def step(learner, batch, *_):
        jax.debug.callback(batches.append, batch)
        return learner, {"loss": jnp.zeros(())}

    monkeypatch.setattr(sac, "critic_step", step)
    monkeypatch.setattr(sac, "policy_step", step)
    begun = jax.jit(made.init)(jax.random.key(0))._replace(num_epochs=jnp.ones((), jnp.int32))  # SAC does not wait
    changes, _ = jax.jit(made.parts["control"])(begun, data, jax.random.key(1))
    jax.effects_barrier()
    state, rows = begun._replace(**changes), jax.tree.map(lambda x: x.swapaxes(0, 1), data.data)
    observe, memory = jax.jit(made.observe), made.begin(state, 8)
    beliefs = [memory.belief]
    for t in range(helpers.HORIZON):
        memory = observe(state, memory, jax.tree.map(lambda x, t=t: x[t], rows))
        beliefs.append(memory.belief)
    beliefs, told = np.stack(beliefs), np.asarray(state.task_scale.apply(rows.task.vector(len(helpers.SPEC.families))))
    assert len(batches) == 2 and np.abs(np.diff(beliefs, axis=0)).max() > 1e-2
    for batch in batches:
        row, time = np.asarray(batch.obs).astype(int).T
        np.testing.assert_allclose(batch.belief, beliefs[time, row], atol=1e-3)
        np.testing.assert_allclose(batch.next_belief, beliefs[time + 1, row], atol=1e-3)
        np.testing.assert_allclose(batch.privileged, told[time, row], atol=1e-5)
        following = told[np.minimum(time + 1, helpers.HORIZON - 1), row]
        np.testing.assert_allclose(batch.next_privileged, following, atol=1e-5)


def test_rewards_have_a_floor_and_shaped_ones_telescope():
    """Discounted, they are those of the task plus the potential at the end, less the one at the start; a terminal state
    has none. What comes after a change counts as the next step's task pays it."""
    config = dataclasses.replace(CONFIG, resting_potential=True, window=5)
    discount = config.sac.discount
    windows = helpers.transitions(0, 5, 3)
    rest = windows.resting.at[:-1, :, 1].set(windows.resting[1:, :, 0])  # as where tasks do not change
    changed = rest.at[2, 0, 1].add(9.0)
    ends = jnp.zeros((5, 3), bool).at[4, 1:].set(True)
    windows = windows._replace(resting=changed, last=ends, terminated=ends.at[:, 2].set(False))
    nothing = jnp.zeros((5, 3, 0))
    spec = helpers.spec("any", obs_size=2, families=("even", "odd"))

    def rewards(config):
        scale = None  # nothing is standardised
        batch = control.pool(dataclasses.replace(config, standardize_obs=False), spec, scale, windows, nothing, nothing)
        return np.asarray(batch.reward).reshape(5, 3)

    powers = discount ** np.arange(5)[:, None]
    cost = windows.gross_reward - windows.reward
    floored = rewards(dataclasses.replace(CONFIG, reward_floor=(-0.2,)))
    np.testing.assert_allclose(floored, np.maximum(windows.gross_reward, -0.2) - cost, atol=1e-6)
    assert np.isclose(floored, windows.reward).any() and (floored > windows.reward + 0.1).any()
    floors = np.array([-0.2, 0.1, -0.2])  # by the family of each window's task
    floored = rewards(dataclasses.replace(CONFIG, reward_floor=(-0.2, 0.1)))
    np.testing.assert_allclose(floored, np.maximum(windows.gross_reward, floors) - cost, atol=1e-6)
    gain = (powers * (rewards(config) - rewards(CONFIG))).sum(0) * (1 - discount)
    end = discount**5 * np.asarray(rest[4, :, 1]) * [1, 0, 1]
    np.testing.assert_allclose(gain, end - np.asarray(rest[0, :, 0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dataclasses.replace(CONFIG, reward_floor=(-1.0, -1.0)), r"one number or 1 \(one\), got 2"),
        (
            dataclasses.replace(CONFIG, sac=dataclasses.replace(SAC, action_cost=0.1), sac_reward_normalization=True),
            "without sac_reward_normalization",
        ),
    ],
)
def test_contradictions(config, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        control.validate(config, helpers.spec("any", obs_size=2))
    assert "\n" not in str(error.value)
