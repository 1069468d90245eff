import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.learners import club, context_encoder, transition_decoder
from metarl_jax.learners.context_encoder import Context
from tests.helpers import cached, quick_compilation, same

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

CONFIG = context_encoder.Config(hidden_sizes=(16,), latent_size=2, learning_rate=1e-2)
SPEC = context_encoder.Spec(obs_size=2, action_size=1)
TASK = jnp.array([0, 1, 0, 1])


def context(key, rows=4, num=32) -> Context:
    """Even rows are paid the action, odd ones minus it."""
    keys = jax.random.split(key, 3)
    obs, next_obs = (jax.random.normal(k, (rows, num, 2)) for k in keys[:2])
    action = jax.random.uniform(keys[2], (rows, num, 1), minval=-1.0)
    sign = jnp.where(jnp.arange(rows) % 2 == 0, 1.0, -1.0)[:, None]
    return Context(obs, action, sign * action[..., 0], next_obs)


@cached
def trained():
    def step(state, key):
        return context_encoder.train_step(state, context(key), TASK, CONFIG)

    state = context_encoder.init(jax.random.key(0), CONFIG, SPEC)
    return jax.jit(lambda s, k: jax.lax.scan(step, s, k))(state, jax.random.split(jax.random.key(1), 300))


def test_tasks_that_differ_by_reward_are_told_apart():
    state, metrics = trained()
    z = context_encoder.embed(state.params, CONFIG, context(jax.random.key(2), rows=20)).mean(1)
    even, odd = z[::2], z[1::2]
    between = np.linalg.norm(even.mean(0) - odd.mean(0))
    within = np.mean([np.linalg.norm(part - part.mean(0), axis=-1).mean() for part in (even, odd)])
    assert between > 3 * within, (between, within)
    assert metrics["metric_loss"][-20:].mean() < metrics["metric_loss"][:20].mean() / 2


def test_every_transition_has_an_embedding():
    params, data = trained()[0].params, context(jax.random.key(3))
    each = context_encoder.embed(params, CONFIG, data)
    assert each.shape == (4, 32, 2) and (np.abs(each) < 1).all()


def test_a_further_loss_moves_the_embeddings():
    state, data = trained()[0], context(jax.random.key(3))
    up = lambda z: (-100.0 * jnp.mean(z[..., 0]), {"up": jnp.mean(z[..., 0])})  # noqa: E731
    plain, _ = context_encoder.train_step(state, data, TASK, CONFIG)
    moved, metrics = context_encoder.train_step(state, data, TASK, CONFIG, up)
    first = lambda s: context_encoder.embed(s.params, CONFIG, data)[..., 0].mean()  # noqa: E731
    assert first(moved) > first(plain) and "up" in metrics


def test_next_observations_are_seen_where_they_shall():
    data = context(jax.random.key(3))
    other = data._replace(next_obs=data.next_obs + 1)
    for use in (False, True):
        config = context_encoder.Config(hidden_sizes=(4,), use_next_obs=use)
        params = context_encoder.init(jax.random.key(0), config, SPEC).params
        assert same(*(context_encoder.embed(params, config, x) for x in (data, other))) != use


def test_club_falls_where_embeddings_tell_nothing_of_the_behaviour():
    """The bound of a fitted q, positive for z = a, 0 for z that is independent of it: at most var(z) / ln(1 + 1/e)."""
    config, spec = club.Config(hidden_sizes=(16,), learning_rate=1e-2), club.Spec(2, 1, 1)
    keys = jax.random.split(jax.random.key(0), 3)
    obs, action = jax.random.normal(keys[0], (512, 2)), jax.random.uniform(keys[1], (512, 1), minval=-1.0)

    def bound(latent):
        batch = club.Batch(obs, action, latent)
        step = lambda s, _: club.train_step(s, batch, config, spec)  # noqa: E731
        state, _ = jax.lax.scan(step, club.init(keys[2], config, spec), None, 200)
        return club.information(state.params, batch, keys[2], config, spec)

    told, untold = jax.jit(jax.vmap(bound))(jnp.stack([action, jnp.roll(action, 7, 0)]))
    assert 0.8 < told < 1.2 and abs(untold) < 0.1


def test_club_leaves_alone_what_embeddings_tell_of_the_task():
    """Nothing varies within a context: the bound is 0 whatever q has learnt, even where behaviour tells the context."""
    config, spec = club.Config(hidden_sizes=(4,)), club.Spec(2, 1, 3)
    task = jnp.broadcast_to(jnp.arange(5.0)[:, None, None], (5, 8, 1))
    batch = club.Batch(jnp.tile(task, 2), task, jnp.tile(task, 3))
    params = club.init(jax.random.key(0), config, spec).params
    assert club.information(params, batch, jax.random.key(1), config, spec) == 0.0


def test_the_decoder_predicts_through_the_embedding():
    config, spec = transition_decoder.Config(hidden_sizes=(32,), learning_rate=1e-2), transition_decoder.Spec(2, 1, 1)
    data = context(jax.random.key(0), rows=16, num=16)
    flat = Context(*(x.reshape(256, *x.shape[2:]) for x in data))
    sign = jnp.repeat(jnp.where(jnp.arange(16) % 2 == 0, 1.0, -1.0), 16)[:, None]

    def error(latent):
        batch = transition_decoder.Batch(flat.obs, flat.action, flat.reward, flat.obs, latent)
        step = lambda s, _: transition_decoder.train_step(s, batch, config, spec)  # noqa: E731
        state, _ = jax.lax.scan(step, transition_decoder.init(jax.random.key(1), config, spec), None, 300)
        return transition_decoder.error(state.params, batch, config, spec)

    told, untold = jax.jit(jax.vmap(error))(jnp.stack([sign, jnp.zeros_like(sign)]))
    assert told < 0.02 and untold > 3 * told
