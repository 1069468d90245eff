"""A model of rewards in an agent, and the tasks it makes episodes of."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.agents import moss
from metarl_jax.data import replay, statistics
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import reward_model
from metarl_jax.training import rollout, trainer
from tests import helpers
from tests.agents import small_moss
from tests.helpers import HORIZON, SPEC, TEST, TRAIN, counting_agent, quick_compilation, same

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

MODEL = reward_model.Config(hidden_sizes=(8,), batch_size=64, learning_rate=1e-2)
CONFIG = small_moss.with_(reward_model=MODEL, reward_model_updates=40)


@helpers.cached
def learnt(imagined: bool = False):
    """The model's part of an epoch, from data that is paid for or none of it."""
    data = small_moss.data()
    if imagined:
        data = data._replace(data=data.data._replace(imagined=jnp.ones_like(data.data.imagined)))
    part = jax.jit(small_moss.agent(CONFIG).parts["reward_model"])
    return part(small_moss.initial(CONFIG), data, jax.random.key(1))


def test_a_model_of_rewards_is_a_part_of_its_own():
    changes, metrics = learnt()
    assert set(changes) == {"reward_model"} and metrics["updates"] == 40 + CONFIG.pretrain_updates
    assert 0.0 < metrics["reward_model_loss"] < 1.5
    without = small_moss.agent(small_moss.CONFIG)
    assert "reward_model" not in without.parts and without.gross_reward is None


def test_nothing_is_learnt_from_what_was_imagined():
    changes, metrics = learnt(imagined=True)
    assert metrics["reward_model_loss"] == 0.0
    assert same(changes["reward_model"].params, small_moss.initial(CONFIG).reward_model.params)


def test_the_model_pays_in_units_of_the_environment():
    scale = statistics.scale(small_moss.data().moments)
    state = small_moss.initial(CONFIG)._replace(scale=scale, **learnt()[0])
    x = jax.tree.map(lambda leaf: leaf[0], small_moss.data().data)
    model, task = state.reward_model, x.task.vector(2)
    told = scale.apply(replay.vectors(x))
    expected = reward_model.predict(model.params, model.task_scale, told, task, MODEL)
    found = small_moss.agent(CONFIG).gross_reward(state, x)
    np.testing.assert_allclose(found, scale.mean.gross_reward + scale.std.gross_reward * expected, rtol=1e-5)


# A world whose rewards the agent makes up: it pays a hundred times what the task asks for.

PAID = 100.0
AGENT = counting_agent()._replace(gross_reward=lambda state, x: PAID * x.task.spec[..., 0])
LANES = jnp.array([True, False, True])


def test_imagined_lanes_are_paid_by_the_agent_for_the_cost_of_the_environment():
    unroll = jax.jit(
        lambda imagined: rollout.unroll(
            helpers.environment(), AGENT, None, AGENT.begin(None, 3), TEST, jax.random.key(0), HORIZON, True,
            imagined=imagined,
        )
    )  # fmt: skip
    real, made_up = (jax.tree.map(np.asarray, unroll(x)[1].transitions) for x in (jnp.zeros(3, bool), LANES))
    lanes = np.asarray(LANES)
    assert (made_up.imagined == lanes).all() and not real.imagined.any()
    assert same(*(jax.tree.map(lambda x: x[:, ~lanes], x._replace(imagined=x.obs)) for x in (real, made_up)))
    gross = np.broadcast_to(PAID * TEST.spec[:, 0], (HORIZON, 3))[:, lanes]
    np.testing.assert_allclose(made_up.gross_reward[:, lanes], gross)
    cost = (real.reward - real.gross_reward)[:, lanes]
    np.testing.assert_allclose(made_up.reward[:, lanes], gross + cost, rtol=1e-5)
    assert (made_up.gross_reward_change[:, lanes] == 0.0).all()  # that of the made-up reward, which stays
    assert (made_up.resting[:, lanes] == 0.0).all() and (real.resting[:, lanes] != 0.0).any()


def test_an_agent_is_told_what_it_paid_itself():
    step = jax.jit(
        lambda imagined: rollout.unroll(
            helpers.environment(), AGENT, None, AGENT.begin(None, 3), TEST, jax.random.key(0), 2, True,
            imagined=imagined,
        )
    )  # fmt: skip
    believed = step(LANES)[1].description["belief"][1, :, 1]  # what the first step paid
    paid = step(LANES)[1].transitions.reward[0]
    np.testing.assert_allclose(believed, paid)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_tasks_around_the_known_ones(margin):
    """Uniform in the box of each family, which the margin widens on both sides; the family stays."""
    known = TRAIN._replace(family=jnp.array([0, 0, 1, 1]))  # pay 1 and 10, length 2 and 3; pay -1 and 3, length 6
    tasks = jax.tree.map(lambda x: jnp.tile(x, (500, *(1,) * (x.ndim - 1))), known)
    found = jax.jit(trainer.around)(jax.random.key(0), tasks, known, margin)
    assert (found.family == tasks.family).all()
    spec = np.asarray(found.spec).reshape(500, 2, 2, 2).swapaxes(0, 1)  # by family; two of each, of two numbers
    for drawn, low, high in ((spec[0], (1.0, 2.0), (10.0, 3.0)), (spec[1], (-1.0, 6.0), (3.0, 6.0))):
        width = np.subtract(high, low)
        place = (drawn - low)[..., width > 0] / width[width > 0]
        assert (place >= -margin - 1e-5).all() and (place <= 1.0 + margin + 1e-5).all()
        quartiles = np.quantile(place, [0.25, 0.5, 0.75])
        np.testing.assert_allclose(quartiles, 0.5 + (1.0 + 2.0 * margin) * np.array([-0.25, 0.0, 0.25]), atol=0.06)
        assert (drawn[..., width == 0] == 6.0).all()


@helpers.cached
def two_epochs():
    made = trainer.make(helpers.environment(), AGENT, trainer.Config(num_envs=5, replay_rows=40, imagined_episodes=0.4))
    state = jax.jit(made.init)(jax.random.key(0))
    epoch = jax.jit(made.epoch)
    first, _ = epoch(state)
    return first, *epoch(first)


def test_a_share_of_the_episodes_is_imagined_after_the_first_epoch():
    first, second, metrics = two_epochs()
    before, after = (np.asarray(s.replay.data.imagined[0]) for s in (first, second))
    assert not before.any() and (after[9:14, 0] == [True, True, False, False, False]).all()
    assert (after == after[:, :1]).all()  # whole episodes
    real = jax.tree.map(lambda x: np.asarray(x[0, 11:14]), second.replay.data)
    pay, length = real.task.spec[:, 0, 0], real.task.spec[:, 0, 1]
    np.testing.assert_allclose(metrics["train_return"], [np.mean(pay * length * (length + 1) / 2)], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "agent", "spec", "message"),
    [
        ({"imagined_episodes": 1.0}, AGENT, {}, r"imagined_episodes must be in \[0, 1\), got 1.0"),
        ({"imagined_episodes": 0.4}, counting_agent(), {}, "use --reward_model_updates=100 or so"),
        ({"imagined_episodes": float("nan")}, AGENT, {}, r"imagined_episodes must be in \[0, 1\), got nan"),
        ({"imagined_margin": -0.5}, AGENT, {}, "imagined_margin must be finite and >= 0, got -0.5"),
        ({"imagined_margin": float("nan")}, AGENT, {}, "imagined_margin must be finite and >= 0, got nan"),
        ({"imagined_episodes": 0.1}, AGENT, {}, "imagined_episodes=0.1 of num_envs=3 is no whole episode"),
        ({"imagined_episodes": 0.4, "num_envs": 1}, AGENT, {}, "imagined_episodes=0.4 of num_envs=1 is no whole"),
        ({"imagined_episodes": 0.4}, AGENT, {"same_dynamics": False}, "differ in how bodies move"),
        ({"imagined_episodes": 0.4}, AGENT, {"stationary": False}, "change in mid-episode: use --imagined_episodes=0"),
    ],
)
def test_tasks_that_cannot_be_imagined(changes, agent, spec, message):
    env = helpers.environment()
    env = env._replace(spec=env.spec._replace(**spec))
    with pytest.raises(ConfigurationError, match=message) as caught:
        trainer.make(env, agent, trainer.Config(**({"num_envs": 3, "replay_rows": 8} | changes)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward_model_updates": -1}, "reward_model_updates must be >= 0, got -1"),
        ({"reward_model": dataclasses.replace(MODEL, batch_size=0)}, "reward_model.batch_size must be >= 1, got 0"),
        ({"reward_model": dataclasses.replace(MODEL, hidden_sizes=(8, 0))}, r"sizes must be >= 1, got \(8, 0\)"),
        (
            {"reward_model": dataclasses.replace(MODEL, learning_rate=0.0)},
            "learning_rate must be positive and finite, got 0.0",
        ),
        ({"resting_potential": True}, "pays for standing still is not known"),
        ({"vae": dataclasses.replace(CONFIG.vae, progress_weight=1.0)}, "pays for standing still is not known"),
    ],
)
def test_settings_that_need_what_the_model_does_not_know(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        moss.make(dataclasses.replace(CONFIG, **changes), SPEC)
