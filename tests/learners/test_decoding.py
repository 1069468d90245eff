import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.data.replay import Vectors
from metarl_jax.data.segments import segments
from metarl_jax.learners import decoding, gmm_vae
from tests.helpers import quick_compilation, transitions
from tests.learners.small_vae import (
    CONFIG,
    LENGTH,
    NUM,
    SCALE,
    SPEC,
    VALID,
    WINDOWS,
    D,
    K,
    changing,
    gradients,
    infer,
    loss,
    params,
    softmax,
    with_,
)

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)


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
        next_obs, paid = decoding.decoder(CONFIG, SPEC).apply(decoder, target.obs, target.action, q.mean[:, :, k])
        state += probs[..., k] * np.mean(np.square(next_obs - target.next_obs), -1)
        reward += probs[..., k] * np.square(paid[..., 0] - target.reward)
    return np.asarray(state), np.asarray(reward)


def that_decodes(decode):
    return with_(decode="trajectory", decode_samples=400) if decode == "trajectory" else with_(decode=decode)


def test_which_transition_a_belief_decodes():
    encoder, decoder = certain()
    windows, now = changing(), np.tile(np.arange(LENGTH)[:, None], (1, NUM))
    before, after = infer(encoder, windows)
    segment = np.asarray(segments(windows))
    results = {}
    for decode in ("self", "next", "trajectory"):
        _, results[decode] = loss((encoder, decoder), windows, jax.random.key(0), that_decodes(decode))

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


@pytest.mark.parametrize("gross", [False, True])
def test_progress_is_decoded_beside_the_reward(gross):
    """In root mean squares of the batch's valid steps; the reward as it is, or without what the action costs."""
    encoder, _ = certain()
    config = with_(decode="next", progress_weight=0.3, gross_reward=gross)
    decoder = decoding.init(jax.random.key(1), config, SPEC)
    _, found = loss((encoder, decoder), WINDOWS, jax.random.key(0), config)
    before, _ = gmm_vae.infer(encoder, config, SPEC, SCALE, WINDOWS)
    progress = np.asarray(WINDOWS.resting[..., 1] - WINDOWS.resting[..., 0])
    progress = progress / np.sqrt(np.mean(np.square(progress[VALID])))
    target = SCALE.apply(Vectors(*(getattr(WINDOWS, n) for n in Vectors._fields)))
    rewarded = target.gross_reward if gross else target.reward
    probs, expected = softmax(np.asarray(before.logits)), 0.0
    for k in range(K):
        inputs = (target.obs, target.action, before.mean[:, :, k])
        _, paid = decoding.decoder(config, SPEC).apply(decoder, *inputs)
        squares = 0.5 * np.square(paid[..., 0] - rewarded) + 0.3 * np.square(paid[..., 1] - progress)
        expected += probs[..., k] * squares
    np.testing.assert_allclose(found["reward_error"], np.asarray(expected)[VALID].mean(), rtol=5e-3)


@pytest.mark.parametrize("decode", ["self", "next", "trajectory"])
def test_a_strictly_predictive_belief_has_not_seen_its_target(decode):
    """Where every step is an episode, a transition reaches its own belief only if that belief has seen it."""
    single = WINDOWS._replace(last=jnp.ones_like(WINDOWS.last))
    _, (encoder, decoder) = gradients(params(), single, jax.random.key(0), that_decodes(decode))
    seen = np.abs(encoder["params"]["gru"]["inputs"]["kernel"]).max()
    assert (seen > 0) == (decode == "self")
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(decoder))


def test_half_of_the_targets_are_siblings_where_there_are_any():
    encoder, decoder = certain()
    config = with_(decode="task", decode_samples=400)
    siblings = transitions(9, LENGTH, NUM)
    valid = siblings.valid.at[:, 2].set(False)  # lane 2 has none
    siblings = siblings._replace(valid=valid, reward=siblings.reward + 6.0)
    own = that_decodes("trajectory")
    (_, alone), (_, both) = (
        gmm_vae.loss((encoder, decoder), c, SPEC, SCALE, WINDOWS, jax.random.key(0), s)
        for c, s in ((own, None), (config, siblings))
    )
    before, _ = infer(encoder, WINDOWS)
    now = np.zeros((LENGTH, NUM), int)
    other = np.stack([errors_by_hand(decoder, before, siblings, now + t)[1] for t in range(LENGTH)]).mean(0)
    segment = np.asarray(segments(WINDOWS))
    grid = np.stack([errors_by_hand(decoder, before, WINDOWS, now + t)[1] for t in range(LENGTH)])
    pair = (segment[None] == segment[:, None]) * 1.0
    mine = np.einsum("ptl,ptl->tl", grid, pair / pair.sum(0) * VALID[:, None])
    mixed = np.where(np.arange(NUM) == 2, mine, (mine + other) / 2)
    np.testing.assert_allclose(alone["reward_error"], 0.5 * mine[VALID].mean(), rtol=0.05)
    np.testing.assert_allclose(both["reward_error"], 0.5 * mixed[VALID].mean(), rtol=0.05)
    assert abs(mixed[VALID].mean() / mine[VALID].mean() - 1) > 0.1  # the two could be told apart


@pytest.mark.parametrize("decode", ["next", "task"])
def test_some_steps_stand_for_all(decode):
    """One step per update: each of the window's steps in turn, and nothing else, is what the loss tells of."""
    params = certain()
    windows, siblings = WINDOWS._replace(valid=jnp.ones_like(WINDOWS.valid)), transitions(9, LENGTH, NUM)
    siblings = siblings._replace(obs=siblings.obs[:1].repeat(LENGTH, 0), valid=jnp.zeros_like(siblings.valid))
    windows = jax.tree.map(lambda x: x[:1].repeat(LENGTH, 0), windows) if decode == "task" else windows
    before, _ = infer(params[0], windows)
    now = np.tile(np.arange(LENGTH)[:, None], (1, NUM))
    each = 0.5 * errors_by_hand(params[1], before, windows, now)[1].mean(1)
    config, keys = with_(decode=decode, elbo_steps=1), jax.random.split(jax.random.key(0), 40)
    found = jax.vmap(lambda key: gmm_vae.loss(params, config, SPEC, SCALE, windows, key, siblings)[1])(keys)
    which = np.abs(np.asarray(found["reward_error"])[:, None] - each).argmin(1)
    np.testing.assert_allclose(found["reward_error"], each[which], rtol=5e-3)
    assert set(which) == set(range(LENGTH))


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
