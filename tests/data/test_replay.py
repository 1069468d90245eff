import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.data import replay
from tests.helpers import quick_compilation, transitions

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

ROWS, LENGTH = 5, 6
EXAMPLE = jax.tree.map(lambda x: x[0, 0], transitions(0, 1, 1))
TRACES = []


@jax.jit
def insert(state, rows):
    TRACES.append(rows.reward.shape)
    return replay.insert(state, rows)


sample = jax.jit(replay.sample_windows, static_argnums=(2, 3, 4))


def block(ids):
    """Rows whose reward says where they are: 100 id + time."""
    rows = transitions(ids[0], len(ids), LENGTH)
    return rows._replace(reward=100.0 * jnp.asarray(ids)[:, None] + jnp.arange(LENGTH))


def ids(state):
    return (np.asarray(state.data.reward[:, 0]) // 100).astype(int).tolist()


def test_ring():
    state = replay.init(EXAMPLE, ROWS, LENGTH)
    assert (state.size, state.position) == (0, 0)
    seen = []
    for new in ([1, 2], [3, 4], [5, 6], [7, 8], [9, 10]):
        state = insert(state, block(new))
        seen.append((ids(state), int(state.size), int(state.position)))
    assert seen == [
        ([1, 2, 0, 0, 0], 2, 2),
        ([1, 2, 3, 4, 0], 4, 4),
        ([5, 6, 3, 4, 0], 4, 2),  # two rows do not fit behind four
        ([5, 6, 7, 8, 0], 4, 4),
        ([9, 10, 7, 8, 0], 4, 2),
    ]
    assert TRACES.count((2, LENGTH)) == 1  # whatever the fill level
    state = insert(state, block([11, 12, 13]))
    assert (ids(state), int(state.size), int(state.position)) == ([9, 10, 11, 12, 13], 5, 5)
    state = insert(state, block([14]))
    assert (ids(state), int(state.size), int(state.position)) == ([14, 10, 11, 12, 13], 5, 1)
    state = insert(insert(state, block([15, 16, 17])), block([18, 19]))
    assert (ids(state), int(state.size), int(state.position)) == ([18, 19, 16, 17, 13], 4, 2)  # 13 would stay for ever


def test_a_block_longer_than_what_was_there_is_kept_when_it_wraps():
    state = insert(insert(replay.init(EXAMPLE, ROWS, LENGTH), block([1, 2])), block([3, 4, 5, 6]))
    assert (ids(state)[:4], int(state.size), int(state.position)) == ([3, 4, 5, 6], 4, 4)


def test_every_leaf_is_written():
    state = insert(replay.init(EXAMPLE, ROWS, LENGTH), block([1, 2]))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[:2], y), state.data, block([1, 2]))
    assert not state.data.valid[2:].any()


def test_moments_are_of_valid_transitions():
    rows = block([1, 2])
    rows = rows._replace(valid=rows.valid.at[1, 3:].set(False))
    state = insert(replay.init(EXAMPLE, ROWS, LENGTH), rows)
    valid = np.asarray(rows.valid)
    assert state.moments.num == valid.sum() == 9
    for mean, x in zip(state.moments.mean, replay.vectors(rows), strict=True):
        np.testing.assert_allclose(mean, np.asarray(x)[valid].mean(0), rtol=1e-5, atol=1e-6)


def test_windows_are_contiguous_and_uniform():
    state = insert(insert(replay.init(EXAMPLE, ROWS, LENGTH), block([1, 2])), block([3, 4]))
    length, n = 3, 16_000
    windows = sample(state, jax.random.key(0), n, length)
    reward = np.asarray(windows.reward)
    assert reward.shape == (length, n) and windows.obs.shape == (length, n, 2)
    np.testing.assert_array_equal(np.diff(reward, axis=0), 1.0)
    row, start = reward[0] // 100, reward[0] % 100
    counts = np.array([[np.sum((row == r) & (start == t)) for t in range(LENGTH - length + 1)] for r in (1, 2, 3, 4)])
    assert counts.sum() == n  # nothing else was drawn: no empty row, no start too late
    expected = n / counts.size
    assert np.sum((counts - expected) ** 2 / expected) < 40  # chi-squared with 15 degrees of freedom: p < 1e-3
    # All leaves come from the same place.
    match = state.data.obs[(row - 1).astype(int), start.astype(int)]
    np.testing.assert_array_equal(windows.obs[0], match)


def test_a_window_may_be_a_whole_row():
    state = insert(replay.init(EXAMPLE, ROWS, LENGTH), block([1, 2]))
    reward = sample(state, jax.random.key(0), 8, LENGTH).reward
    np.testing.assert_array_equal(reward % 100, np.tile(np.arange(LENGTH)[:, None], 8))


def test_windows_that_end_anywhere_begin_with_invalid_steps():
    state = insert(replay.init(EXAMPLE, ROWS, LENGTH), block([1, 2]))
    length, n = 3, 8_000
    windows = jax.tree.map(np.asarray, sample(state, jax.random.key(0), n, length, True))
    end = windows.reward[-1] % 100
    counts = np.bincount(end.astype(int), minlength=LENGTH)
    assert np.all(np.abs(counts - n / LENGTH) < 5 * np.sqrt(n / LENGTH))
    time = end + np.arange(1 - length, 1)[:, None]
    np.testing.assert_array_equal(windows.reward % 100, np.maximum(time, 0))
    row = (windows.reward[0] // 100).astype(int) - 1
    valid = np.asarray(state.data.valid)[row, np.maximum(time, 0).astype(int)]
    np.testing.assert_array_equal(windows.valid, (time >= 0) & valid)


def test_bytes():
    state = replay.init(EXAMPLE, ROWS, LENGTH)
    assert replay.num_bytes(EXAMPLE, ROWS, LENGTH) == sum(x.nbytes for x in jax.tree.leaves(state.data))


def test_an_empty_replay_can_be_donated():
    donating = jax.jit(replay.insert, donate_argnums=0)
    assert donating(replay.init(EXAMPLE, ROWS, LENGTH), block([1, 2])).size == 2


def test_a_block_larger_than_the_replay_is_refused():
    with pytest.raises((TypeError, ValueError)):
        jax.eval_shape(replay.insert, replay.init(EXAMPLE, 1, LENGTH), block([1, 2]))


def test_siblings_are_other_episodes_of_the_same_task():
    kind = jnp.asarray([0, 1, 0, 0, 2])  # the task of each row
    rows = block([1, 2, 3, 4, 5])
    spec = jnp.broadcast_to(kind[:, None, None], (ROWS, LENGTH, 2)).astype(jnp.float32)
    rows = rows._replace(task=rows.task._replace(family=jnp.zeros((ROWS, LENGTH), jnp.int32), spec=spec))
    state = insert(replay.init(EXAMPLE, ROWS, LENGTH), rows)
    n, length = 600, 4
    windows = sample(state, jax.random.key(0), n, length)
    siblings = jax.jit(replay.sample_siblings)(state, jax.random.key(1), windows)
    np.testing.assert_array_equal(siblings.task.spec, windows.task.spec)
    assert siblings.valid.all()
    drawn = np.asarray(siblings.reward)
    np.testing.assert_array_equal(np.diff(drawn, axis=0), 1.0)  # consecutive steps of one row
    of_three = drawn[0][np.asarray(windows.task.spec)[0, :, 0] == 0]
    counts = np.unique(of_three // 100, return_counts=True)
    np.testing.assert_array_equal(counts[0], [1, 3, 4])
    np.testing.assert_allclose(counts[1] / len(of_three), 1 / 3, atol=0.08)
    assert set(np.unique(drawn[0] % 100)) == {0, 1, 2}
    unknown = windows._replace(task=windows.task._replace(spec=windows.task.spec + 7.0))
    assert not replay.sample_siblings(state, jax.random.key(1), unknown).valid.any()
