import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.distributions import categorical_kl, normal_kl
from metarl_jax.learners import context_vae, decoding
from metarl_jax.losses.elbo import separated_prior
from metarl_jax.networks.mixture import Evidence, Mixture
from tests.helpers import avals, cached, quick_compilation, same, transitions
from tests.learners.small_vae import LENGTH, NUM, SCALE, SPEC, VALID, WINDOWS, D, K, softmax

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

W = 3
CONFIG = context_vae.Config(
    num_components=K,
    latent_size=D,
    context=W,
    encoder_sizes=(6,),
    state_decoder_sizes=(6,),
    reward_decoder_sizes=(6,),
    learning_rate=1e-2,
)


@cached
def initial():
    return jax.jit(lambda key: context_vae.init(key, CONFIG, SPEC))(jax.random.key(0))


jitted = jax.jit(lambda encoder, windows: context_vae.infer(encoder, CONFIG, SPEC, SCALE, windows))


def infer(windows):
    return jax.tree.map(np.asarray, jitted(initial().encoder, windows))


def test_a_product_of_gaussians_is_pearl_s_closed_form():
    """N(1, 1) N(4, 1/2): variance 1/3, mean 3; probabilities multiply."""
    one = Mixture(jnp.log(jnp.array([0.5, 0.5])), jnp.array([[1.0], [0.0]]), jnp.array([[1.0], [1.0]]))
    two = Mixture(jnp.log(jnp.array([0.2, 0.8])), jnp.array([[4.0], [0.0]]), jnp.array([[0.5**0.5], [1.0]]))
    q = jax.tree.map(jnp.add, Evidence.of(one), Evidence.of(two)).mixture()
    np.testing.assert_allclose(q.mean, [[3.0], [0.0]], rtol=1e-6)
    np.testing.assert_allclose(q.std, [[3.0**-0.5], [0.5**0.5]], rtol=1e-6)
    np.testing.assert_allclose(softmax(np.asarray(q.logits)), [0.2, 0.8], rtol=1e-6)


def by_hand(said: Mixture, steps):
    """The product of the prior and what some steps [(t, n), ...] say, in float64."""
    k = np.arange(K, dtype=float)[:, None]
    precision, pull, logits = np.full((K, D), 4.0), 4.0 * k * np.ones((K, D)), np.zeros(K)
    for t, n in steps:
        mean, std, given = (np.asarray(x[t, n], float) for x in (said.mean, said.std, said.logits))
        precision, pull, logits = precision + std**-2, pull + mean * std**-2, logits + given
    return logits, pull / precision, precision**-0.5


def test_beliefs_are_the_product_over_the_last_transitions_of_the_episode():
    """Recomputed step by step: what came before an episode's start, or is invalid, or too old, says nothing."""
    encoder = context_vae._encoder(CONFIG, SPEC)
    said = jax.jit(encoder.apply)(initial().encoder, decoding.context(SCALE, WINDOWS))
    found = infer(WINDOWS)
    last = np.asarray(WINDOWS.last)
    for n in range(NUM):
        began = 0
        for t in range(LENGTH):
            before = [(u, n) for u in range(max(began, t - W), t) if VALID[u, n]]
            after = [(u, n) for u in range(max(began, t - W + 1), t + 1) if VALID[u, n]]
            for steps, side in ((before, found.before), (after, found.after)):
                for expected, got in zip(by_hand(said, steps), side, strict=True):
                    np.testing.assert_allclose(got[t, n], expected, rtol=1e-4, atol=1e-5)
            began = t + 1 if last[t, n] else began
    prior = separated_prior(found.before)
    np.testing.assert_allclose(found.before.mean[0], prior.mean[0], atol=1e-6)  # an empty history leaves the prior
    assert np.abs(found.after.mean - prior.mean).max() > 0.1


def test_the_ring_is_the_recomputation():
    step = jax.jit(lambda m, t: context_vae.step(initial().encoder, CONFIG, SPEC, SCALE, m, t))
    blank = context_vae.begin(CONFIG, NUM)
    memory, found = blank, infer(WINDOWS)
    assert avals(jax.eval_shape(step, memory, jax.tree.map(lambda x: x[0], WINDOWS))) == avals(memory)
    for t in range(LENGTH):
        for side in ("before", "after"):
            for got, expected in zip(context_vae.mixture(memory), getattr(found, side), strict=True):
                np.testing.assert_allclose(got, expected[t], rtol=1e-4, atol=1e-5)
            if side == "before":
                memory = step(memory, jax.tree.map(lambda x, t=t: x[t], WINDOWS))
        last = WINDOWS.last[t]
        memory = jax.tree.map(lambda x, y, z=last: jnp.where(z.reshape(-1, *[1] * (x.ndim - 1)), x, y), blank, memory)


def test_the_order_of_the_context_is_irrelevant():
    windows = transitions(3, W, 4)
    swapped = jax.tree.map(lambda x: x[::-1], windows)
    one, other = infer(windows).after, infer(swapped).after
    for x, y in zip(one, other, strict=True):
        np.testing.assert_allclose(x[-1], y[-1], rtol=1e-4, atol=1e-5)
    assert np.abs(one.mean[0] - other.mean[0]).max() > 1e-3  # the parts differ, the whole does not


def test_loss_is_the_elbo_under_the_fixed_prior():
    config = dataclasses.replace(CONFIG, kl_z_weight=0.3, kl_y_weight=0.7)
    params = (initial().encoder, initial().decoder)
    loss = jax.jit(lambda c: context_vae.loss(params, config, SPEC, SCALE, WINDOWS, c)[1])
    metrics, q = loss(jax.random.key(0)), infer(WINDOWS).before
    prior = separated_prior(q)
    kl_z = np.sum(softmax(q.logits) * np.asarray(normal_kl(q.mean, q.std, prior.mean, prior.std)), -1)[VALID].mean()
    kl_y = np.asarray(categorical_kl(q.logits, prior.logits))[VALID].mean()
    np.testing.assert_allclose([metrics["kl_z"], metrics["kl_y"]], [kl_z, kl_y], rtol=1e-4)
    total = metrics["reconstruction"] + 0.3 * kl_z + 0.7 * kl_y
    np.testing.assert_allclose(metrics["vae_loss"], total, rtol=1e-4)


def test_training_reduces_the_loss_with_one_trace_over_seeds():
    """A reward that the task decides is decoded better, and every seed learns."""
    windows = transitions(1, 6, 8)
    windows = windows._replace(reward=jnp.where(windows.task.family == 0, 2.0, -2.0))
    entries = []

    @jax.jit
    @jax.vmap
    def train(state, key):
        entries.append(None)
        return context_vae.train_step(state, windows, key, CONFIG, SPEC, SCALE)

    states = jax.vmap(lambda k: context_vae.init(k, CONFIG, SPEC))(jax.random.split(jax.random.key(0), 2))
    errors = []
    for i in range(150):
        states, metrics = train(states, jax.random.split(jax.random.key(i), 2))
        errors.append(np.asarray(metrics["reward_error"]))
    assert len(entries) == 1
    assert (np.mean(errors[-10:], 0) < 0.6 * np.mean(errors[:10], 0)).all()
    assert not same(*(jax.tree.map(lambda x, i=i: x[i], states.encoder) for i in (0, 1)))
