import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.data.replay import Vectors
from metarl_jax.data.statistics import Scale
from metarl_jax.learners import gmm_vae
from metarl_jax.losses.elbo import standard_prior
from tests.helpers import avals, finite, quick_compilation, same, transitions

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

K, D = 3, 2
SPEC = gmm_vae.Spec(obs_size=2, action_size=1)
CONFIG = gmm_vae.Config(
    num_components=K,
    latent_size=D,
    hidden_size=6,
    state_decoder_sizes=(6,),
    reward_decoder_sizes=(6, 6),
    contrastive_weight=0.0,
    learning_rate=3e-3,
    state_weight=2.0,
    reward_weight=0.5,
)
OPTIONS = dataclasses.replace(CONFIG, mutual_information_weight=0.5, contrastive_weight=0.7)
SCALE = Scale(
    Vectors(jnp.array([0.5, -1.0]), jnp.array([0.2]), jnp.array(2.0), jnp.array([0.0, 1.0])),
    Vectors(jnp.array([2.0, 0.5]), jnp.array([0.7]), jnp.array(3.0), jnp.array([1.5, 0.5])),
)
LENGTH, NUM = 7, 3
WINDOWS = transitions(0, LENGTH, NUM)
# Lane 0 is one episode with an invalid step, lane 1 three episodes, lane 2 has an invalid step that ends an episode.
LAST = np.zeros((LENGTH, NUM), bool)
LAST[[2, 4], 1] = LAST[3, 2] = True
VALID = np.ones((LENGTH, NUM), bool)
VALID[3, 0] = VALID[3, 2] = False
WINDOWS = WINDOWS._replace(last=jnp.asarray(LAST), valid=jnp.asarray(VALID))


def with_(**changes):
    return dataclasses.replace(CONFIG, **changes)


init = jax.jit(lambda key: gmm_vae.init(key, CONFIG, SPEC))


@functools.cache
def initial():
    """Parameters with large enough heads that beliefs differ visibly."""
    state = init(jax.random.key(0))
    return state._replace(encoder=jax.tree.map(lambda x: 2.0 * x, state.encoder))


infer = jax.jit(lambda encoder, windows: gmm_vae.infer(encoder, CONFIG, SPEC, SCALE, windows))


@functools.partial(jax.jit, static_argnums=3)
def gradients(params, windows, key, config):
    """((loss, metrics), gradients)"""
    return jax.value_and_grad(gmm_vae.loss, has_aux=True)(params, config, SPEC, SCALE, windows, key)


def loss(*args):
    return gradients(*args)[0]


@functools.cache
def beliefs():
    return jax.tree.map(np.asarray, infer(initial().encoder, WINDOWS))


def params():
    return initial().encoder, initial().decoder


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def test_context_is_standardised():
    x, s = WINDOWS, SCALE
    expected = [
        (x.obs - s.mean.obs) / s.std.obs,
        (x.action - s.mean.action) / s.std.action,
        ((x.reward - 2.0) / 3.0)[..., None],
        (x.next_obs - s.mean.next_obs) / s.std.next_obs,
    ]
    np.testing.assert_allclose(gmm_vae.context(SCALE, WINDOWS), np.concatenate(expected, -1), rtol=1e-6)


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


# What is decoded


def segments_by_hand(windows):
    number, out = 0, np.zeros(windows.reward.shape, int)
    for lane in range(out.shape[1]):
        for t in range(out.shape[0]):
            new = t == 0 or windows.last[t - 1, lane]
            new = new or (windows.task.spec[t, lane] != windows.task.spec[t - 1, lane]).any()
            new = new or windows.task.family[t, lane] != windows.task.family[t - 1, lane]
            number += bool(new)
            out[t, lane] = number
    return out


def changing():
    """Lane 0: the spec changes after step 3; lane 2: only the family, after step 1."""
    task = WINDOWS.task
    task = task._replace(spec=task.spec.at[4:, 0, 1].add(1.0), family=task.family.at[2:, 2].add(1))
    return WINDOWS._replace(task=task)


def test_segments_end_with_episodes_and_tasks():
    windows = changing()
    segment = np.asarray(gmm_vae.segments(windows))
    expected = segments_by_hand(jax.tree.map(np.asarray, windows))
    same_as = lambda x: x[:, None] == x[None]  # noqa: E731
    for lane in range(NUM):
        np.testing.assert_array_equal(same_as(segment[:, lane]), same_as(expected[:, lane]))
        assert (np.diff(segment[:, lane]) >= 0).all()
    assert [len(set(segment[:, lane])) for lane in range(NUM)] == [2, 3, 3]


def test_partners_are_uniform_over_the_segment():
    n = 1500
    segment = gmm_vae.segments(changing())
    partner = np.asarray(jax.jit(gmm_vae._partners, static_argnums=2)(jax.random.key(0), segment, n))
    assert partner.shape == (n, LENGTH, NUM)
    segment = np.asarray(segment)
    for lane in range(NUM):
        for t in range(LENGTH):
            members = np.flatnonzero(segment[:, lane] == segment[t, lane])
            counts = np.bincount(partner[:, t, lane], minlength=LENGTH) / n
            np.testing.assert_array_equal(np.flatnonzero(counts), members)
            np.testing.assert_allclose(counts[members], 1 / len(members), atol=0.06)


def certain():
    """Parameters whose posteriors have almost no width: latents are means, whatever the key."""
    encoder, decoder = params()
    head = encoder["params"]["head"]
    std = K + K * D
    kernel = head["kernel"].at[:, K:std].multiply(10.0)  # and means far apart
    head = {"kernel": kernel.at[:, std:].set(0.0), "bias": head["bias"].at[std:].set(-20.0)}
    return {"params": encoder["params"] | {"head": head}}, decoder


def errors_by_hand(decoder, q, windows, partner):
    """State and reward error of the mixture q [...] on transition `partner` of each step."""
    target = jax.tree.map(
        lambda x: x[partner, np.arange(NUM)], SCALE.apply(Vectors(*(getattr(windows, n) for n in Vectors._fields)))
    )
    state, reward = 0.0, 0.0
    probs = softmax(np.asarray(q.logits))
    for k in range(K):
        next_obs, predicted = gmm_vae._decoder(CONFIG, SPEC).apply(decoder, target.obs, target.action, q.mean[:, :, k])
        state += probs[..., k] * np.mean(np.square(next_obs - target.next_obs), -1)
        reward += probs[..., k] * np.square(predicted - target.reward)
    return np.asarray(state), np.asarray(reward)


def decoding(decode):
    return with_(decode="trajectory", decode_samples=400) if decode == "trajectory" else with_(decode=decode)


def test_which_transition_a_belief_decodes():
    encoder, decoder = certain()
    windows, now = changing(), np.tile(np.arange(LENGTH)[:, None], (1, NUM))
    before, after = infer(encoder, windows)
    segment = np.asarray(gmm_vae.segments(windows))
    results = {}
    for decode in ("self", "next", "trajectory"):
        _, results[decode] = loss((encoder, decoder), windows, jax.random.key(0), decoding(decode))

    expected = {
        "self": errors_by_hand(decoder, after, windows, now),
        "next": errors_by_hand(decoder, before, windows, now),
    }
    # Every step of every lane on every step it could be paired with.
    grid = np.stack([errors_by_hand(decoder, before, windows, np.full_like(now, t)) for t in range(LENGTH)])
    pair = (segment[None] == segment[:, None]) * 1.0  # [partner, step, lane]
    share = pair / pair.sum(0) * VALID[:, None]
    expected["trajectory"] = np.einsum("pstl,ptl->stl", grid, share)

    for decode, (state, reward) in expected.items():
        tolerance = 0.05 if decode == "trajectory" else 5e-3
        np.testing.assert_allclose(results[decode]["state_error"], 2.0 * state[VALID].mean(), rtol=tolerance)
        np.testing.assert_allclose(results[decode]["reward_error"], 0.5 * reward[VALID].mean(), rtol=tolerance)
        total = results[decode]["state_error"] + results[decode]["reward_error"]
        np.testing.assert_allclose(results[decode]["reconstruction"], total, rtol=1e-5)
    gap = abs(expected["self"][1][VALID].mean() / expected["next"][1][VALID].mean() - 1)
    assert gap > 0.02  # the two readings could be told apart


@pytest.mark.parametrize("decode", ["self", "next", "trajectory"])
def test_a_strictly_predictive_belief_has_not_seen_its_target(decode):
    """Where every step is an episode, a transition reaches its own belief only if that belief has seen it."""
    single = WINDOWS._replace(last=jnp.ones_like(WINDOWS.last))
    _, (encoder, decoder) = gradients(params(), single, jax.random.key(0), decoding(decode))
    seen = np.abs(encoder["params"]["gru"]["inputs"]["kernel"]).max()
    assert (seen > 0) == (decode == "self")
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(decoder))


def test_half_of_the_targets_are_siblings_where_there_are_any():
    encoder, decoder = certain()
    config = with_(decode="task", decode_samples=400)
    siblings = transitions(9, LENGTH, NUM)
    valid = siblings.valid.at[:, 2].set(False)  # lane 2 has none
    siblings = siblings._replace(valid=valid, reward=siblings.reward + 6.0)
    own = decoding("trajectory")
    (_, alone), (_, both) = (
        gmm_vae.loss((encoder, decoder), c, SPEC, SCALE, WINDOWS, jax.random.key(0), s)
        for c, s in ((own, None), (config, siblings))
    )
    before, _ = infer(encoder, WINDOWS)
    now = np.zeros((LENGTH, NUM), int)
    other = np.stack([errors_by_hand(decoder, before, siblings, now + t)[1] for t in range(LENGTH)]).mean(0)
    segment = np.asarray(gmm_vae.segments(WINDOWS))
    grid = np.stack([errors_by_hand(decoder, before, WINDOWS, now + t)[1] for t in range(LENGTH)])
    pair = (segment[None] == segment[:, None]) * 1.0
    mine = np.einsum("ptl,ptl->tl", grid, pair / pair.sum(0) * VALID[:, None])
    mixed = np.where(np.arange(NUM) == 2, mine, (mine + other) / 2)
    np.testing.assert_allclose(alone["reward_error"], 0.5 * mine[VALID].mean(), rtol=0.05)
    np.testing.assert_allclose(both["reward_error"], 0.5 * mixed[VALID].mean(), rtol=0.05)
    assert abs(mixed[VALID].mean() / mine[VALID].mean() - 1) > 0.1  # the two could be told apart


def test_invalid_transitions_do_not_count():
    config = with_(decode="next")
    key = jax.random.key(0)
    (value, _), grads = gradients(params(), WINDOWS, key, config)
    garbage = {
        n: getattr(WINDOWS, n).at[3, 0].set(1e3).at[3, 2].set(-1e3) for n in ("obs", "action", "reward", "next_obs")
    }
    (other, _), other_grads = gradients(params(), WINDOWS._replace(**garbage), key, config)
    np.testing.assert_allclose(value, other, rtol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6), grads, other_grads)
    (nothing, _), grads = gradients(params(), WINDOWS._replace(valid=jnp.zeros_like(WINDOWS.valid)), key, config)
    assert nothing == 0.0 and all((x == 0).all() for x in jax.tree.leaves(grads))


# Options


def test_mutual_information_and_contrast():
    key = jax.random.key(0)
    (plain, without), plain_grads = gradients(params(), WINDOWS, key, CONFIG)
    (value, metrics), grads = gradients(params(), WINDOWS, key, OPTIONS)
    assert "contrastive_loss" not in without and metrics["contrastive_loss"] > 0
    probs = softmax(beliefs().before.logits)[VALID]
    marginal = probs.mean(0)
    information = -(marginal * np.log(marginal)).sum() + (probs * np.log(probs)).sum(-1).mean()
    assert information > 1e-4
    np.testing.assert_allclose(metrics["marginal_entropy"] - metrics["responsibility_entropy"], information, rtol=1e-2)
    expected = plain - 0.5 * information + 0.7 * metrics["contrastive_loss"]
    np.testing.assert_allclose(value, expected, atol=1e-5)
    assert finite(grads) and not same(grads, plain_grads)


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
