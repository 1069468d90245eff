"""Several settings in one vmapped program."""

import dataclasses
import functools
import inspect
import re

import jax
import numpy as np
import pytest

from experiments import setup
from metarl_jax.agents import cemrl, moss, timrl
from metarl_jax.agents.hyperparameters import TRACEABLE, replaced
from metarl_jax.training import trainer
from tests import helpers
from tests.agents import small_moss, test_cemrl, test_timrl
from tests.agents.small_moss import CONFIG

quick = pytest.fixture(autouse=True, scope="module")(helpers.quick_compilation)

DATA = trainer.Config(num_envs=3, replay_rows=8, eval_lanes=1)
TUNED = replaced(CONFIG, {"sac.learning_rate_held_for": 2.0, "vae.learning_rate_held_for": 2.0})
TUNED = dataclasses.replace(TUNED, sac=dataclasses.replace(TUNED.sac, automatic_entropy_tuning=True))
OTHER = {name: 0.7 for name in TRACEABLE} | {"sac.learning_rate": 3e-3, "vae.learning_rate": 2e-3}
OWN = {name: getattr(getattr(TUNED, name.split(".")[0]), name.split(".")[1]) for name in TRACEABLE}


def trained(num_seeds, config=TUNED, members=None):
    """State, metrics and returns after three epochs: SAC waits in the first, and all step sizes have begun to fall."""
    env = helpers.environment()
    t = trainer.make(env, moss.make(config, env.spec), DATA, num_seeds, members)
    state, epoch = jax.jit(t.init)(jax.random.key(0)), jax.jit(t.epoch)
    for _ in range(3):
        state, metrics = epoch(state)
    return state, metrics, jax.jit(t.evaluate)(state, jax.random.key(1)).returns


MEMBERS = (OWN, OTHER, *(OWN | {name: OTHER[name]} for name in TRACEABLE))
"""The configuration's own values, others of all that may be traced, and of one alone."""


@pytest.fixture(scope="module")
def together():
    values = {name: np.array([member[name] for member in MEMBERS]) for name in TRACEABLE}
    make = functools.partial(moss.make, TUNED, helpers.SPEC)
    return trained(1, members=trainer.Members(make, values))


def test_a_member_is_the_run_with_its_values(together):
    """Up to how XLA rounds batched programs."""
    alone = trained(1, replaced(TUNED, OTHER))
    for x, y in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(x[1], y[0], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", TRACEABLE)
def test_every_value_makes_a_difference(together, name):
    agent, place = together[0].agent, 2 + TRACEABLE.index(name)
    assert not helpers.same(*(jax.tree.map(lambda x, i=i: x[i], (agent.sac, agent.vae)) for i in (0, place)))


@pytest.mark.parametrize(("algorithm", "config"), [(cemrl, test_cemrl.CONFIG), (timrl, test_timrl.CONFIG)])
def test_other_algorithms_can_be_traced(algorithm, config):
    """No branch is on a value."""
    tuned = dataclasses.replace(config, sac=dataclasses.replace(config.sac, automatic_entropy_tuning=True))

    def learn(values, key):
        agent = algorithm.make(tuned, helpers.SPEC, values)
        return agent.update(agent.init(key), small_moss.data(), key)

    jax.eval_shape(learn, {name: jax.numpy.ones(()) for name in TRACEABLE}, jax.random.key(0))


def test_members_have_the_same_seeds_and_members_come_first():
    env = helpers.environment()
    members = trainer.Members(lambda values: helpers.counting_agent(), {"sac.alpha": np.array([1.0, 2.0, 3.0])})
    t = trainer.make(env, helpers.counting_agent(), DATA, 2, members)
    plain = trainer.make(env, helpers.counting_agent(), DATA, 2)
    weight = jax.jit(t.create)(jax.random.key(0)).agent.weight
    assert t.num_seeds == 6 and t.replay_bytes == 3 * plain.replay_bytes
    np.testing.assert_array_equal(weight, np.tile(jax.jit(plain.create)(jax.random.key(0)).agent.weight, 3))


def test_equal_seeds_of_members_are_not_the_same_numbers_of_the_fast_generator():
    """Which draws all lanes of a batch from the first one's key (`compilation.configure`)."""
    members = trainer.Members(lambda values: helpers.counting_agent(), {"sac.alpha": np.array([1.0, 2.0])})
    t = trainer.make(helpers.environment(), helpers.counting_agent(), DATA, 2, members)
    weight = jax.jit(t.create)(jax.random.key(0, impl="rbg")).agent.weight
    assert len(set(np.asarray(weight).tolist())) == 4


def test_the_help_names_what_may_be_traced():
    told = re.sub(r"\s+", " ", inspect.getsource(setup.Config))
    for group in ("sac", "vae"):
        fields = [name.split(".")[1] for name in TRACEABLE if name.startswith(f"{group}.")]
        assert f"f {group}. {', '.join(fields[:-1])} and {fields[-1]}" in told
