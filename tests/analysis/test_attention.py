import numpy as np
import pytest

from metarl_jax.analysis import evaluation as evaluations
from metarl_jax.analysis.attention import attention, draw, influence, received, uniform
from metarl_jax.analysis.evaluation import HeldOutTasks
from metarl_jax.types import Evaluation

LENGTH, SIZE = 40, 3


def evaluation(weights, changed=(), rewards=None, recognized=None) -> Evaluation:
    """One seed, one episode of one task that ends where `recognized` is NaN; `weights` [T, L, H]."""
    length = len(weights)
    change = np.isin(np.arange(length), changed).reshape(1, 1, length, 1)
    rewards = np.zeros(length) if rewards is None else np.asarray(rewards)
    found = np.ones((1, 1, length, 1, 1)) if recognized is None else np.reshape(recognized, (1, 1, length, 1, 1))
    values, none = rewards.reshape(change.shape), np.zeros((*change.shape, 1))
    return Evaluation(
        values, none, none, change, np.isfinite(found[..., 0]), found, np.asarray(weights)[None, None, :, None]
    )


def newest(length=LENGTH, layers=1):
    """Attention [T, L, H] to the newest transition alone; none before the first."""
    weights = np.zeros((length, layers, SIZE))
    weights[1:, :, -1] = 1.0
    return weights


def test_influence_by_hand():
    """Two layers of two: each looks half at itself, half back, where the second layer looks back alone."""
    weights = np.zeros((1, 4, 2, 2))
    weights[0, 1] = [[0, 1], [0, 1]]
    weights[0, 2:, 0], weights[0, 2:, 1] = [0.5, 0.5], [1.0, 0.0]
    shares = influence(weights)[0]
    np.testing.assert_allclose(shares[:2], [[0, 0, 0], [1, 0, 0]])
    # Layer 1 at steps 2, 3: (1 + 1/2) / 2 = 3/4 itself, 1/4 back; layer 2: 1/2 itself, 1/2 of what the one before had.
    np.testing.assert_allclose(shares[2], [3 / 8, 1 / 8 + 1 / 2, 0.0])
    np.testing.assert_allclose(shares[3], [3 / 8, 1 / 8 + 3 / 8, 1 / 8])


def test_influence_is_shares():
    rng = np.random.default_rng(0)
    weights = rng.uniform(size=(2, LENGTH, 3, SIZE)) * (uniform(LENGTH, 3, SIZE) > 0)
    weights = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-9)
    shares = influence(weights)
    assert shares.shape == (2, LENGTH, 7) and not shares[:, 0].any()
    np.testing.assert_allclose(shares[:, 1:].sum(-1), 1.0)
    np.testing.assert_allclose(received(influence(uniform(LENGTH, 3, SIZE))), 1.0)
    beyond = np.arange(7) >= np.arange(LENGTH)[:, None]
    assert not shares[:, beyond].any()  # nothing comes from before the episode


def test_share_of_the_new_task():
    """Who looks at the newest transition alone knows of the new task after one step; uniformly, after as many as H."""
    result = attention(evaluation(newest(), changed=[19]))
    np.testing.assert_array_equal(result.since_change, [0.0, 1.0, 1.0, 1.0])
    even = [1 / 2 + 1 / 6, 1 / 6, 1 / 6]  # half of the layer is its residual
    np.testing.assert_allclose(result.uniform, even)
    np.testing.assert_allclose(result.since_change_uniform, [0.0, *np.cumsum(even)])
    blind = attention(evaluation(newest()))
    assert np.isnan(blind.since_change).all()
    np.testing.assert_array_equal(blind.influence, [1.0, 0.0, 0.0])


@pytest.mark.parametrize(("sign", "order"), [(1, np.greater), (-1, np.less)])
def test_surprising_transitions_get_the_attention(sign, order):
    """Weights follow, or oppose, how far the reward departs from the one before."""
    rewards = np.cumsum(np.random.default_rng(0).normal(size=200))
    jumps = np.abs(np.diff(rewards, prepend=0.0))
    weights = np.zeros((200, 1, SIZE))
    for t in range(1, 200):
        seen = [u for u in range(t - SIZE, t) if u >= 0]
        strength = np.exp(sign * 3.0 * jumps[seen])
        weights[t, 0, SIZE - len(seen) :] = strength / strength.sum()
    result = attention(evaluation(weights, rewards=rewards))
    assert sign * result.surprise_correlation > 0.8
    assert order(result.by_surprise[-1], 1.2 if sign > 0 else 0.8) and order(1.0, result.by_surprise[0])


def test_steps_after_an_episode_s_end_do_not_count():
    ended = np.where(np.arange(LENGTH) < 12, 1.0, np.nan)
    weights = newest()
    weights[12:] = [0.0, 0.0, 0.5]
    result = attention(evaluation(weights, changed=[30], recognized=ended))
    np.testing.assert_array_equal(result.influence, [1.0, 0.0, 0.0])
    assert np.isnan(result.since_change).all()


@pytest.mark.parametrize(("length", "changed"), [(LENGTH, [19]), (LENGTH, []), (4, [])])
def test_survives_being_saved_and_is_drawn(tmp_path, length, changed):
    made = evaluation(newest(length, 2), changed=changed)
    tasks = HeldOutTasks(np.zeros(1, int), np.zeros((1, 1)), np.zeros(1, int))
    evaluations.save(tmp_path / "evaluation.npz", made, tasks)
    loaded, _ = evaluations.load(tmp_path / "evaluation.npz")
    np.testing.assert_array_equal(loaded.attention, made.attention)
    draw(tmp_path / "attention.png", loaded, attention(loaded))
    assert (tmp_path / "attention.png").stat().st_size > 1000


def test_without_labels_nothing_says_when_an_episode_ended():
    made = evaluation(newest(), changed=[19])
    unlabelled = made._replace(recognized=made.recognized[..., :0])
    np.testing.assert_array_equal(attention(unlabelled).since_change, attention(made).since_change)


def test_agents_without_attention_have_none(tmp_path):
    made = evaluation(newest())._replace(attention=None)
    assert attention(made) is None
    evaluations.save(tmp_path / "evaluation.npz", made, HeldOutTasks(np.zeros(1), np.zeros((1, 1)), np.zeros(1)))
    assert evaluations.load(tmp_path / "evaluation.npz")[0].attention is None
