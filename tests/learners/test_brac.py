import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.distributions import tanh_normal_sample
from metarl_jax.learners import brac
from tests.helpers import avals, cached, finite, quick_compilation

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

SPEC = brac.Spec(obs_size=2, action_size=1, latent_size=3)
CONFIG = brac.Config(hidden_sizes=(32,), learning_rate=3e-3, divergence_learning_rate=3e-3, target_rate=0.05)
NUM = 64


def batch(seed=0, terminated=False) -> brac.Batch:
    """Behaviour around a = -0.4; the reward is the action."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    action = jnp.clip(-0.4 + 0.1 * normal(NUM, 1), -1, 1)
    obs, next_obs, latent = normal(NUM, 2), normal(NUM, 2), normal(NUM, 3)
    return brac.Batch(obs, latent, action, action[:, 0], next_obs, jnp.full(NUM, terminated))


@cached
def initial():
    return jax.jit(lambda: brac.init(jax.random.key(0), CONFIG, SPEC))()


@jax.jit
def step(state, batch, key):
    return brac.train_step(state, batch, key, CONFIG, SPEC)


@pytest.mark.parametrize("terminated", [False, True])
def test_a_time_out_bootstraps_and_a_termination_does_not(terminated):
    state, data = initial(), batch(terminated=terminated)
    loss, _ = brac.q_loss(state.critic, state.target_value, data, CONFIG)
    value = brac._value(state.target_value, CONFIG, data.next_obs, data.latent)
    target = 5 * data.reward + (0 if terminated else 0.99 * value)
    q = brac.q_values(state.critic, CONFIG, data.obs, data.latent, data.action)
    np.testing.assert_allclose(loss, np.square(q - target).mean(1).sum(), rtol=1e-5)


def test_value_follows_the_soft_q_and_q_the_target_value():
    old, data = initial()._replace(target_value=jax.tree.map(lambda x: x + 0.1, initial().value)), batch()
    new, metrics = step(old, data, jax.random.key(0))
    loss, _ = brac.q_loss(old.critic, old.target_value, data, CONFIG)
    np.testing.assert_allclose(metrics["critic_loss"], loss, rtol=1e-5)
    moved = jax.tree.map(lambda v, t: 0.05 * v + 0.95 * t, new.value, old.target_value)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), new.target_value, moved)
    policy = brac._actor(CONFIG, SPEC).apply(old.actor, data.obs, data.latent)
    action, log_prob = tanh_normal_sample(jax.random.split(jax.random.key(0))[1], *policy)
    soft = brac.q_values(new.critic, CONFIG, data.obs, data.latent, action).min(0) - log_prob
    error = brac._value(old.value, CONFIG, data.obs, data.latent) - soft
    np.testing.assert_allclose(metrics["value_loss"], np.square(error).mean(), rtol=1e-4)


def test_embeddings_get_no_gradient_from_training_but_may_from_the_critics():
    state, data = initial(), batch()

    def after(latent):
        new, metrics = brac.train_step(state, data._replace(latent=latent), jax.random.key(0), CONFIG, SPEC)
        return sum(jnp.sum(x) for x in jax.tree.leaves((new[:7], metrics)))

    np.testing.assert_array_equal(jax.jit(jax.grad(after))(data.latent), 0.0)
    q_loss = lambda latent: brac.q_loss(state.critic, state.target_value, data._replace(latent=latent), CONFIG)[0]  # noqa: E731
    assert np.abs(jax.grad(q_loss)(data.latent)).max() > 1e-4


@pytest.mark.parametrize("alpha", [0.0, 50.0, 2000.0])
def test_the_weight_follows_the_divergence(alpha):
    new, metrics = step(initial()._replace(alpha=jnp.asarray(alpha)), batch(), jax.random.key(0))
    expected = np.clip(alpha + metrics["divergence"] - CONFIG.divergence_target, 0.0, CONFIG.max_divergence_weight)
    np.testing.assert_allclose(new.alpha, expected, rtol=1e-6)
    assert metrics["divergence_weight"] == new.alpha and avals(new) == avals(initial()) and finite((new, metrics))


def test_the_reference_penalises_outputs_not_slopes():
    """A critic that is 3 everywhere has no slope."""
    flat = jax.tree.map(jnp.zeros_like, initial().divergence)
    flat["params"]["MLP_0"]["Dense_1"]["bias"] += 3.0
    data = batch()
    penalties = {
        kind: brac._smoothness(flat, data, data.action, jax.random.key(0), dataclasses.replace(CONFIG, penalty=kind))
        for kind in brac.PENALTIES
    }
    np.testing.assert_allclose(penalties["output"], 4.0, rtol=1e-6)
    np.testing.assert_allclose(penalties["gradient"], 0.0, atol=1e-6)


@pytest.mark.parametrize(("alpha", "cloning"), [(100.0, 0.0), (0.0, 20.0)], ids=["divergence", "cloning"])
def test_the_policy_is_kept_at_the_behaviour(alpha, cloning):
    """Of a behaviour around -0.4 whose reward grows with the action; five per unit of it are to be had."""
    data = batch()

    def action_learnt(scale):
        config = dataclasses.replace(
            CONFIG, divergence_weight_rate=0.0, discount=0.0, cloning_weight=scale * cloning if cloning else 0.0
        )
        train = lambda s, k: (brac.train_step(s, data, k, config, SPEC)[0], None)  # noqa: E731
        keys = jax.random.split(jax.random.key(1), 500)
        state = brac.init(jax.random.key(0), config, SPEC)._replace(alpha=scale * alpha)
        state, _ = jax.lax.scan(train, state, keys)
        return brac.act(state, config, SPEC, data.obs, data.latent, keys[0], explore=False).mean()

    free, kept = jax.jit(jax.vmap(action_learnt))(jnp.array([0.0, 1.0]))
    assert free > 0.3 and abs(kept + 0.4) < 0.2, (free, kept)


def test_deterministic_actions_come_from_the_average_policy():
    config = dataclasses.replace(CONFIG, average_rate=0.25)
    first = initial()
    second, _ = jax.jit(lambda s: brac.train_step(s, batch(), jax.random.key(0), config, SPEC))(first)
    expected = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, first.actor, second.actor)
    for average, by_hand in zip(*map(jax.tree.leaves, (second.average_actor, expected)), strict=True):
        np.testing.assert_allclose(average, by_hand, atol=1e-6)
    act = lambda s, explore: brac.act(s, config, SPEC, batch().obs, batch().latent, jax.random.key(0), explore)  # noqa: E731
    for explore, other in ((False, "actor"), (True, "average_actor")):
        unchanged = second._replace(**{other: first.critic})  # parameters of another network would not even fit
        np.testing.assert_array_equal(act(second, explore), act(unchanged, explore))
