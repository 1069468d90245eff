import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.agents import belief_forms, cemrl
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import context_vae
from tests.agents.small_moss import CONFIG as MOSS
from tests.agents.small_moss import VAE_SPEC, D, K, N, data
from tests.helpers import HORIZON, SPEC, avals, cached, quick_compilation, same, transitions

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

CONFIG = cemrl.Config(
    vae=context_vae.Config(
        num_components=K,
        latent_size=D,
        context=3,
        encoder_sizes=(6,),
        state_decoder_sizes=(6,),
        reward_decoder_sizes=(6,),
        batch_size=5,
        learning_rate=1e-2,
    ),
    sac=MOSS.sac,
    window=HORIZON,
    vae_updates=2,
    sac_updates=2,
    pool_windows=4,
    standardize_belief=True,
)


def with_(**changes):
    return dataclasses.replace(CONFIG, **changes)


def with_vae(**changes):
    return with_(vae=dataclasses.replace(CONFIG.vae, **changes))


@cached
def agent(config):
    return cemrl.make(config, SPEC)


@cached
def initial():
    return jax.jit(agent(CONFIG).init)(jax.random.key(0))


@cached
def updated(config):
    """After two epochs: in the first SAC waits for the encoder."""
    update = jax.jit(agent(config).update)
    return update(update(initial(), data(), jax.random.key(1))[0], data(), jax.random.key(2))


def test_an_update_trains_both_learners():
    state, metrics = updated(CONFIG)
    assert not same(state.vae, initial().vae) and not same(state.sac, initial().sac)
    assert metrics["updates"] == 4 and state.num_epochs == 2
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics)))
    assert avals(state) == avals(initial())


def test_the_belief_in_acting_is_the_one_sac_learns_from():
    made, state = agent(CONFIG), updated(CONFIG)[0]
    windows = transitions(7, 5, N)
    beliefs = jax.jit(lambda w: context_vae.infer(state.acting_encoder, CONFIG.vae, VAE_SPEC, state.scale, w))(windows)
    memory, observe = made.begin(state, N), jax.jit(made.observe)
    for t in range(5):
        memory = observe(state, memory, jax.tree.map(lambda x, t=t: x[t], windows))
        q = jax.tree.map(lambda x, t=t: x[t], beliefs.after)
        raw = belief_forms.vector("component", q, jax.random.key(0))
        np.testing.assert_allclose(memory.belief, state.belief_scale.apply(raw), atol=1e-3)
    np.testing.assert_allclose(made.describe(state, memory)["component"], jax.nn.softmax(q.logits), atol=1e-5)


def test_forms_of_belief():
    for form, size in (("sample", D), ("mixture", K * (1 + 2 * D))):
        made = agent(with_(belief=form))
        state = jax.eval_shape(made.init, jax.random.key(0))
        assert jax.eval_shape(lambda s, m=made: m.begin(s, N), state).belief.shape == (N, size)
    made, state = agent(with_(belief="sample")), jax.jit(agent(with_(belief="sample")).init)(jax.random.key(0))
    memory, act = made.begin(state, N), jax.jit(made.act, static_argnums=4)
    one, other = (act(state, jnp.ones((N, 2)), memory, jax.random.key(i), False) for i in (0, 1))
    assert not same(one, other)  # each action draws its own


def test_nothing_is_known_at_first():
    made, state = agent(CONFIG), updated(CONFIG)[0]
    memory = made.begin(state, N)
    np.testing.assert_allclose(made.describe(state, memory)["component"], np.full((N, K), 1 / K), rtol=1e-5)
    rows = jax.tree.map(lambda x: x[:N, 0], data().data)
    later = made.describe(state, made.observe(state, memory, rows))["component"]
    np.testing.assert_allclose(later.sum(-1), 1.0, rtol=1e-5)
    assert np.abs(later - 1 / K).max() > 1e-3


@pytest.mark.parametrize(
    ("config", "spec", "message"),
    [
        (with_vae(context=0), SPEC, "vae.context must be >= 1, got 0"),
        (with_vae(num_components=0), SPEC, "vae.num_components must be >= 1"),
        (with_vae(decode="past"), SPEC, "unknown decode 'past': choose self, next, trajectory, task"),
        (with_vae(decode="task"), SPEC._replace(stationary=False), "one task per episode, unlike known"),
        (with_(belief="oracle"), SPEC, "unknown belief 'oracle': choose component, mixture, sample"),
        (with_(window=99), SPEC, r"window must be in \[2, 6\]"),
    ],
)
def test_wrong_settings_are_one_line(config, spec, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        cemrl.make(config, spec)
    assert "\n" not in str(error.value)
