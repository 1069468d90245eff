import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.data.segments import starts
from metarl_jax.learners import gmm_vae
from metarl_jax.losses.elbo import standard_prior
from tests.helpers import avals, finite, quick_compilation, same, transitions
from tests.learners.small_vae import (
    CONFIG,
    LAST,
    LENGTH,
    NUM,
    OPTIONS,
    SCALE,
    SPEC,
    VALID,
    WINDOWS,
    D,
    K,
    beliefs,
    gradients,
    infer,
    init,
    initial,
    loss,
    params,
    softmax,
    with_,
)

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)


def test_context_is_standardised():
    x, s = WINDOWS, SCALE
    expected = [
        (x.obs - s.mean.obs) / s.std.obs,
        (x.action - s.mean.action) / s.std.action,
        ((x.reward - 2.0) / 3.0)[..., None],
        (x.next_obs - s.mean.next_obs) / s.std.next_obs,
    ]
    np.testing.assert_allclose(gmm_vae.context(SCALE, WINDOWS), np.concatenate(expected, -1), rtol=1e-6)
    expected[2] = ((x.gross_reward - 1.5) / 2.5)[..., None]
    expected.append((np.arcsinh(x.gross_reward_change / 0.025) / 3)[..., None])
    changes = gmm_vae.context(SCALE, WINDOWS, gross_reward=True, reward_change=True)
    np.testing.assert_allclose(changes, np.concatenate(expected, -1), rtol=1e-5, atol=1e-6)


def test_steps_are_the_scan():
    encoder = initial().encoder

    @jax.jit
    def step(carry, transition):
        after = gmm_vae.step(encoder, CONFIG, SPEC, SCALE, carry, transition)
        return after, *(gmm_vae.mixture(encoder, CONFIG, SPEC, x) for x in (carry, after))

    carry = gmm_vae.begin(CONFIG, SPEC, (NUM,))
    for t in range(LENGTH):
        carry, before, after = step(carry, jax.tree.map(lambda x: x[t], WINDOWS))  # noqa: B023
        for side, expected in (("before", before), ("after", after)):
            got = jax.tree.map(lambda x: x[t], getattr(beliefs(), side))  # noqa: B023
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), got, expected)
        carry = jnp.where(LAST[t][:, None], 0.0, carry)


def test_memory_is_forgotten_at_ends_and_blind_to_invalid_steps():
    before, after = beliefs()
    blank = before.mean[0, 0]
    for t, lane in ((0, 1), (0, 2), (3, 1), (5, 1), (4, 2)):
        np.testing.assert_array_equal(before.mean[t, lane], blank)
    assert np.abs(before.mean[4, 1] - blank).max() > 1e-3
    np.testing.assert_array_equal(after.mean[3, [0, 2]], before.mean[3, [0, 2]])  # invalid
    assert np.abs(after.mean[3, 1] - before.mean[3, 1]).max() > 1e-3
    assert (after.std > 0).all()


def test_history_is_causal():
    changed = WINDOWS._replace(reward=WINDOWS.reward.at[1].add(5.0))
    other = infer(initial().encoder, changed)
    moved = np.abs(other.after.mean - beliefs().after.mean).max((-2, -1)) > 1e-5
    expected = np.zeros((LENGTH, NUM), bool)
    expected[1:, 0] = expected[1:3, 1] = expected[1:4, 2] = True
    np.testing.assert_array_equal(moved, expected)
    moved = np.abs(other.before.mean - beliefs().before.mean).max((-2, -1)) > 1e-5
    expected[1:] = expected[:-1] & ~LAST[:-1]
    expected[:2] = expected[:2] & np.array([[False], [False]])
    np.testing.assert_array_equal(moved, expected)


# Priors


def kl_by_hand(q, p):
    """[...]: sum_k q(k) KL(N_k || N'_k), and KL(q(y) || p(y))."""
    probs, prior_probs = softmax(q[0]), softmax(p[0])
    z = np.log(p[2] / q[2]) + (q[2] ** 2 + (q[1] - p[1]) ** 2) / (2 * p[2] ** 2) - 0.5
    return (probs * z.sum(-1)).sum(-1), (probs * np.log(probs / prior_probs)).sum(-1)


@pytest.mark.parametrize(("decode", "use_global_prior"), [("self", False), ("next", False), ("next", True)])
def test_kl_is_to_the_previous_posterior(decode, use_global_prior):
    _, metrics = loss(params(), WINDOWS, jax.random.key(1), with_(decode=decode, use_global_prior=use_global_prior))
    posterior = beliefs().after if decode == "self" else beliefs().before
    standard = np.zeros(K), np.zeros((K, D)), np.ones((K, D))
    kl_z, kl_y = [], []
    for t in range(LENGTH):
        for lane in range(NUM):
            begins = t == 0 or LAST[t - 1, lane]
            q = [x[t, lane] for x in posterior]
            prior = standard if begins or use_global_prior else [x[t - 1, lane] for x in posterior]
            if VALID[t, lane]:
                z, y = kl_by_hand(q, prior)
                kl_z.append(z)
                kl_y.append(y)
    np.testing.assert_allclose(metrics["kl_z"], np.mean(kl_z), rtol=1e-4)
    np.testing.assert_allclose(metrics["kl_y"], np.mean(kl_y), rtol=1e-3)
    parts = metrics["reconstruction"] + 1e-3 * metrics["kl_z"] + 1e-3 * metrics["kl_y"]
    np.testing.assert_allclose(metrics["vae_loss"], parts, rtol=1e-5)


@pytest.mark.parametrize("stop_z", [False, True])
@pytest.mark.parametrize("stop_y", [False, True])
def test_where_the_gradient_of_the_prior_flows(stop_z, stop_y):
    q = beliefs().after
    fresh = jnp.asarray(np.concatenate([np.ones((1, NUM), bool), LAST[:-1]]))
    config = with_(stop_z_prior=stop_z, stop_y_prior=stop_y)
    prior, vjp = jax.vjp(lambda previous: gmm_vae._prior(config, q, previous, fresh), beliefs().before)
    for got, previous, default in zip(prior, beliefs().before, standard_prior(q), strict=True):
        mask = np.asarray(fresh).reshape(LENGTH, NUM, *(1,) * (got.ndim - 2))
        np.testing.assert_array_equal(got, np.where(mask, default, previous))
    (grad,) = vjp(jax.tree.map(jnp.ones_like, prior))
    for name, stopped in (("logits", stop_y), ("mean", stop_z), ("std", stop_z)):
        expected = np.zeros_like(getattr(q, name))
        expected[~np.asarray(fresh)] = 0.0 if stopped else 1.0
        np.testing.assert_array_equal(getattr(grad, name), expected)


# Options


def test_mutual_information_contrast_and_labels():
    key = jax.random.key(0)
    (plain, without), plain_grads = gradients(params(), WINDOWS, key, CONFIG)
    (value, metrics), grads = gradients(params(), WINDOWS, key, OPTIONS)
    assert "contrastive_loss" not in without and metrics["contrastive_loss"] > 0
    probs = softmax(beliefs().before.logits)[VALID]
    marginal = probs.mean(0)
    information = -(marginal * np.log(marginal)).sum() + (probs * np.log(probs)).sum(-1).mean()
    assert information > 1e-4
    np.testing.assert_allclose(metrics["marginal_entropy"] - metrics["responsibility_entropy"], information, rtol=1e-2)
    family = np.asarray(WINDOWS.task.family)[VALID]
    assert set(family) == {0, 1}
    surprise = -np.log(probs[np.arange(family.size), family]).mean()
    np.testing.assert_allclose(metrics["base_task_loss"], surprise, rtol=1e-5)
    expected = plain - 0.5 * information + 0.7 * metrics["contrastive_loss"] + 0.3 * surprise
    np.testing.assert_allclose(value, expected, atol=1e-5)
    assert finite(grads) and not same(grads, plain_grads)


def test_labels_make_components_base_tasks():
    state, config = initial(), with_(base_task_weight=1.0, learning_rate=3e-2)
    update = jax.jit(lambda state, key: gmm_vae.train_step(state, WINDOWS, key, config, SPEC, SCALE))
    for i in range(200):
        state, metrics = update(state, jax.random.key(i))
    q = gmm_vae.infer(state.encoder, CONFIG, SPEC, SCALE, WINDOWS).before
    known = VALID & ~np.asarray(starts(WINDOWS.last))
    assert metrics["base_task_loss"] < 0.5  # 0.69 where nothing but K = 2 of 3 is known
    np.testing.assert_array_equal(np.argmax(q.logits, -1)[known], WINDOWS.task.family[known])


def test_base_tasks_may_be_told():
    """In place of the labels; a step whose base task is not known does not count."""
    config = with_(base_task_weight=1.0)

    def error(**told):
        return gmm_vae.loss(params(), config, SPEC, SCALE, WINDOWS, jax.random.key(0), **told)[1]["base_task_loss"]

    family = WINDOWS.task.family
    np.testing.assert_allclose(error(base_task=family), error(), rtol=1e-6)
    assert abs(error(base_task=(family + 1) % K) - error()) > 1e-3
    first = jnp.arange(NUM) == 0
    log_probs = jax.nn.log_softmax(infer(params()[0], WINDOWS).before.logits)
    own = -jnp.take_along_axis(log_probs, family[..., None], -1)[..., 0]
    expected = jnp.mean(own[:, 0], where=WINDOWS.valid[:, 0])
    np.testing.assert_allclose(error(base_task=jnp.where(first, family, -1)), expected, rtol=1e-5)
    assert error(base_task=jnp.full_like(family, -1)) == 0.0
    config = with_(base_task_weight=1.0, base_tasks="rewards")
    with pytest.raises(ValueError, match="needs base_task"):
        error()


def test_one_task_has_nothing_to_contrast():
    alone = WINDOWS._replace(task=jax.tree.map(jnp.zeros_like, WINDOWS.task))
    _, metrics = loss(params(), alone, jax.random.key(0), OPTIONS)
    np.testing.assert_allclose(metrics["contrastive_loss"], 0.0, atol=1e-6)


def test_contrast_compares_two_different_steps_of_a_window():
    """Embeddings that name their step: the distance to the positive shows which steps were drawn."""
    length, num = 4, 8
    windows = transitions(0, length, num, num_tasks=num)
    step = jnp.arange(length, dtype=jnp.float32)
    mean = jnp.broadcast_to((10.0**step)[:, None, None, None], (length, num, 1, 1))
    q = gmm_vae.Mixture(jnp.zeros((length, num, 1)), mean, mean)
    seen = []

    def record(query, key, same_task, temperature):
        seen.append((query, key, same_task))
        return 0.0

    original, gmm_vae.infonce = gmm_vae.infonce, record
    try:
        for i in range(12):
            gmm_vae._contrast(CONFIG, windows, q, jax.random.key(i))
    finally:
        gmm_vae.infonce = original
    first, second = (np.log10(np.stack([np.asarray(x[i])[:, 0] for x in seen])).round().astype(int) for i in (0, 1))
    assert (first != second).all()
    assert len(set(zip(first.ravel().tolist(), second.ravel().tolist(), strict=True))) == length * (length - 1)
    np.testing.assert_array_equal(seen[0][2], np.eye(num, dtype=bool))


def test_most_likely_component():
    q = jax.tree.map(jnp.asarray, beliefs().after)
    mean, std = gmm_vae.most_likely(q)
    for t in range(LENGTH):
        for lane in range(NUM):
            k = np.argmax(q.logits[t, lane])
            np.testing.assert_array_equal(mean[t, lane], q.mean[t, lane, k])
            np.testing.assert_array_equal(std[t, lane], q.std[t, lane, k])


# Learning

ENTRIES = []


@jax.jit
def train(state, key):
    """Forty updates on the same windows."""
    ENTRIES.append(None)

    def body(state, key):
        return gmm_vae.train_step(state, WINDOWS, key, with_(decode="trajectory"), SPEC, SCALE)

    return jax.lax.scan(body, state, jax.random.split(key, 40))


def test_training_reduces_the_loss_with_one_trace():
    ENTRIES.clear()
    train.clear_cache()
    state, first = train(initial(), jax.random.key(0))
    state, second = train(state, jax.random.key(1))
    assert len(ENTRIES) == 1
    losses = np.concatenate([first["vae_loss"], second["vae_loss"]])
    assert losses[-20:].mean() < 0.8 * losses[:10].mean()
    assert finite(state)


def test_seeds_are_a_vmap():
    keys = jax.random.split(jax.random.key(0), 2)
    states = jax.tree.map(lambda *x: jnp.stack(x), *map(init, keys))
    both, _ = jax.jit(jax.vmap(train))(states, keys)
    for i in range(2):
        one, _ = train(jax.tree.map(lambda x: x[i], states), keys[i])  # noqa: B023
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x[i], y, atol=2e-5), (both.encoder, both.decoder), one[:2])  # noqa: B023
    assert not same(*(jax.tree.map(lambda x: x[i], both.encoder) for i in range(2)))  # noqa: B023


def test_state_keeps_its_types():
    step = lambda state: gmm_vae.train_step(state, WINDOWS, jax.random.key(0), CONFIG, SPEC, SCALE)[0]  # noqa: E731
    assert avals(jax.eval_shape(step, initial())) == avals(initial())


def test_the_reference_sizes_are_the_default():
    state = jax.eval_shape(lambda: gmm_vae.init(jax.random.key(0), gmm_vae.Config(), gmm_vae.Spec(20, 6)))
    assert state.encoder["params"]["gru"]["recurrent"]["kernel"].shape == (235, 3 * 235)  # the paper's cheetah
    shapes = jax.tree.map(lambda x: x.shape, state.decoder["params"])
    width = 5 * (20 + 6 + 5)
    assert [shapes["state"][f"Dense_{i}"]["kernel"] for i in range(3)] == [(31, width), (width, width), (width, 20)]
    assert [shapes["reward"][f"Dense_{i}"]["kernel"][1] for i in range(4)] == [width, width, width, 1]
