import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.agents import comrl
from metarl_jax.data import offline
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import offline as offline_trainer
from metarl_jax.types import Evaluation, Transition
from tests import probes
from tests.agents.small_comrl import CONFIG, behaviour, with_
from tests.helpers import avals, cached, finite, quick_compilation, same

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

ROWS = np.arange(2)
DATA = behaviour()
QUIRKS = with_(contexts_per_task=1, timeouts_terminate=True)
WITHOUT_METRIC = dataclasses.replace(CONFIG.encoder, metric_weight=0.0)


@cached
def agent(config):
    return comrl.make(config, probes.context().spec, offline_trainer.moments(DATA, ROWS), ROWS)


@cached
def update(config):
    return jax.jit(agent(config).update)


@cached
def initial(config):
    return jax.jit(agent(config).init)(jax.random.key(0))


def updated(config, data=DATA):
    """The state after an epoch, and its metrics."""
    return update(config)(initial(config), data, jax.random.key(1))


OWN = {
    "er_trl": {"discriminator_accuracy", "behaviour_entropy"},
    "focal": set(),
    "csro": {"club_loss", "behaviour_information"},
    "unicorn": {"decoder_loss"},
    "offline_pearl": set(),
}
"""Metrics of each method's own parts."""


@pytest.mark.parametrize("method", comrl.METHODS)
def test_methods(method):
    """Every method has its own parts, and keeps its state's shapes."""
    made = agent(with_(method=method))
    before = jax.eval_shape(made.init, jax.random.key(0))
    after, metrics = jax.eval_shape(made.update, before, DATA, jax.random.key(1))
    assert avals(after) == avals(before)
    assert all(x.shape == () for x in metrics.values())
    assert set.union(*OWN.values()) & set(metrics) == OWN[method]


@pytest.mark.parametrize(
    ("config", "name", "weight"),
    [
        (with_(method="er_trl", entropy_weight=50.0), "behaviour_entropy", -50.0),
        (with_(method="csro", club_weight=500.0), "behaviour_information", 500.0),
        (CONFIG, None, 0.0),  # FOCAL
    ],
)
def test_what_the_encoder_minimises_beside_the_metric(config, name, weight):
    """ER-TRL wants behaviour to look diverse, CSRO embeddings to tell little of it (2 / D of the nats, here D = 2)."""
    metrics = updated(config)[1]
    term = metrics["encoder_loss"] - CONFIG.encoder.metric_weight * metrics["metric_loss"]
    np.testing.assert_allclose(term, weight * metrics[name] if name else 0.0, rtol=1e-3, atol=2e-3)
    assert not name or abs(term) > 0.1  # otherwise its sign would show nothing


def test_standardised_observations_make_units_irrelevant():
    def outcome(change):
        data = DATA._replace(obs=change(DATA.obs), next_obs=change(DATA.next_obs))
        scale = offline_trainer.moments(data, ROWS)
        made = comrl.make(with_(standardize_obs=True), probes.context().spec, scale, ROWS)
        state, _ = jax.jit(made.update)(initial(CONFIG), data, jax.random.key(1))
        batch = offline.sample(jax.tree.map(jnp.asarray, data), jax.random.key(2), jnp.arange(2), 5)
        return made.act(state, batch.obs[:, 0], made.recall(state, batch), jax.random.key(0), False)

    np.testing.assert_allclose(outcome(lambda x: x), outcome(lambda x: 40 * x + 7), atol=5e-3)


def test_control_teaches_the_encoder_of_offline_pearl_alone():
    """Without a metric loss FOCAL's encoder has nothing left to learn from: its gradient is exactly zero."""
    focal, pearl = with_(encoder=WITHOUT_METRIC), with_(method="offline_pearl", encoder=WITHOUT_METRIC)
    state, metrics = updated(focal)
    assert same(state.encoder.params, initial(focal).encoder.params)
    assert not same(state.control, initial(focal).control)
    assert finite((state, metrics)) and metrics["updates"] == CONFIG.steps_per_epoch
    assert not same(updated(pearl)[0].encoder.params, initial(pearl).encoder.params)


@pytest.mark.parametrize(
    ("config", "expected"),
    [(CONFIG, 4 * 10 / 4.001 + 2 * np.sqrt(1e-3) / 2.001), (QUIRKS, 10 / 1.001)],
    ids=["two contexts", "one"],
)
def test_two_contexts_per_task_give_positive_pairs(config, expected):
    """All transitions are one and the same, so all embeddings are: the loss is known from the numbers of pairs."""
    constant = jax.tree.map(np.ones_like, DATA)._replace(count=DATA.count)
    np.testing.assert_allclose(updated(config, constant)[1]["metric_loss"], expected, rtol=1e-5)


def test_time_outs_bootstrap_unless_the_quirk_is_on():
    terminal = DATA._replace(terminated=DATA.last)
    assert not same(updated(CONFIG)[0].control.critic, updated(CONFIG, terminal)[0].control.critic)
    assert same(updated(QUIRKS)[0], updated(QUIRKS, terminal)[0])


def test_memories_agree():
    """Stored transitions recalled at once, or observed one by one; invalid ones tell nothing."""
    made, state = agent(CONFIG), updated(CONFIG)[0]
    batch = offline.sample(jax.tree.map(jnp.asarray, DATA), jax.random.key(0), jnp.arange(2), 5)
    memory = made.begin(state, 2)
    np.testing.assert_array_equal(memory.latent, 0.0)
    for t in range(5):
        no, resting = jnp.zeros(2, bool), jnp.zeros((2, 2))
        step = Transition(*(x[:, t] for x in batch), no, ~no, DATA.task, jnp.zeros(2), jnp.zeros(2), resting, no)
        memory = made.observe(state, memory, step)
        memory = made.observe(state, memory, step._replace(reward=step.reward + 9, valid=jnp.zeros(2, bool)))
    np.testing.assert_allclose(memory.latent, made.recall(state, batch).latent, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "pearl"}, "unknown method 'pearl': choose er_trl, focal, csro, unicorn, offline_pearl"),
        ({"tasks_per_step": 3}, r"tasks_per_step must be in \[2, 2\]"),
        ({"contexts_per_task": 3}, "contexts_per_task must be 1 or 2, got 3"),
        ({"context_size": 0}, "context_size must be >= 1, got 0"),
        ({"batch_size": 1}, "batch_size must be >= 2"),
        ({"method": "csro", "context_size": 1}, "context_size must be >= 2 for csro"),
        ({"entropy_weight": -5.0}, "entropy_weight must be >= 0 and finite, got -5"),
        ({"brac": dataclasses.replace(CONFIG.brac, discount=1.5)}, r"brac.discount must be in \[0, 1\], got 1.5"),
        ({"brac": dataclasses.replace(CONFIG.brac, target_rate=2.0)}, r"brac.target_rate must be in \(0, 1\], got 2"),
        (
            {"brac": dataclasses.replace(CONFIG.brac, learning_rate=np.nan)},
            "brac.learning_rate must be positive and finite",
        ),
        ({"brac": dataclasses.replace(CONFIG.brac, penalty="none")}, "unknown brac.penalty 'none'"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        comrl.validate(with_(**changes), 2)


def evaluated(method: str, data, steps: int) -> dict[str, np.ndarray]:
    """Returns [task] of the deterministic policy with each kind of context."""
    env = probes.context()
    made = comrl.make(with_(method=method, steps_per_epoch=steps), env.spec, offline_trainer.moments(data, ROWS), ROWS)
    run = offline_trainer.make(env, made, data, offline_trainer.Config(adapt_episodes=1, eval_repeats=4))
    state, _ = jax.jit(run.epoch)(jax.jit(run.init)(jax.random.key(0)), *run.constants)
    evaluation: Evaluation = jax.jit(run.evaluate)(state, jax.random.key(1), *run.constants)
    returns = np.asarray(evaluation.returns)[0, 0].reshape(len(offline_trainer.CONTEXTS), 2)
    return dict(zip(offline_trainer.CONTEXTS, returns, strict=True))


def test_a_task_that_only_rewards_tell():
    """Uniform behaviour: cloned, it returns 0 on both tasks; the sign of the action must follow the rewards."""
    returns = evaluated("focal", DATA, 1_000)
    assert returns["offline"].min() > 0.5 * probes.HORIZON, returns
    assert returns["non_prior"].min() > 0.5 * probes.HORIZON, returns


@pytest.mark.slow
def test_behaviour_that_leaks_the_task():
    """Cloning the mixed data still returns 0; with stored contexts ER-TRL does better than the behaviour itself."""
    data = behaviour(leak=0.3)
    returns = evaluated("er_trl", data, 1_500)
    own = data.reward.mean(1) * probes.HORIZON
    assert (returns["offline"] > own).all(), (returns, own)
