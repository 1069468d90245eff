import jax
import numpy as np
import pytest

from metarl_jax.data.segments import partners, segments
from tests.helpers import quick_compilation
from tests.learners.small_vae import LENGTH, NUM, changing

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)


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


def test_segments_end_with_episodes_and_tasks():
    windows = changing()
    segment = np.asarray(segments(windows))
    expected = segments_by_hand(jax.tree.map(np.asarray, windows))
    same_as = lambda x: x[:, None] == x[None]  # noqa: E731
    for lane in range(NUM):
        np.testing.assert_array_equal(same_as(segment[:, lane]), same_as(expected[:, lane]))
        assert (np.diff(segment[:, lane]) >= 0).all()
    assert [len(set(segment[:, lane])) for lane in range(NUM)] == [2, 3, 3]


def test_partners_are_uniform_over_the_segment():
    n = 1500
    segment = segments(changing())
    partner = np.asarray(jax.jit(partners, static_argnums=2)(jax.random.key(0), segment, n))
    assert partner.shape == (n, LENGTH, NUM)
    segment = np.asarray(segment)
    for lane in range(NUM):
        for t in range(LENGTH):
            members = np.flatnonzero(segment[:, lane] == segment[t, lane])
            counts = np.bincount(partner[:, t, lane], minlength=LENGTH) / n
            np.testing.assert_array_equal(np.flatnonzero(counts), members)
            np.testing.assert_allclose(counts[members], 1 / len(members), atol=0.06)
