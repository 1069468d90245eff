import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.networks.transformer import Transformer, attend, sinusoids
from tests.helpers import quick_compilation

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)


def test_attention_by_hand():
    """Two keys at scores ln 3 and 0 (d = 4, so the root is 2): weights 3/4 and 1/4."""
    query = jnp.zeros((1, 1, 4)).at[0, 0, 0].set(2.0)
    key = jnp.zeros((3, 1, 4)).at[0, 0, 0].set(jnp.log(3.0)).at[2, 0, 0].set(50.0)
    value = jnp.arange(12.0).reshape(3, 1, 4)
    out, weights = attend(query, key, value, jnp.array([[True, True, False]]))
    np.testing.assert_allclose(weights[0, 0], [0.75, 0.25, 0.0], rtol=1e-6)
    np.testing.assert_allclose(out[0, 0], 0.75 * value[0, 0] + 0.25 * value[1, 0], rtol=1e-6)


def test_nothing_to_attend_to_gives_zeros():
    out, weights = attend(jnp.ones((1, 1, 2)), jnp.ones((3, 1, 2)), jnp.ones((3, 1, 2)), jnp.zeros((1, 3), bool))
    assert not out.any() and not weights.any()


def test_sinusoids():
    wave = sinusoids(jnp.array([0, 3]), 4)
    np.testing.assert_allclose(wave[0], [0, 0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(wave[1], [np.sin(3), np.sin(0.03), np.cos(3), np.cos(0.03)], rtol=1e-5)


T, S, C = 7, 3, 5
NET = Transformer(size=8, num_layers=2, num_heads=2, feed_forward_size=12)
ITEMS = jax.random.normal(jax.random.key(0), (2, T, C))
MASK = jnp.broadcast_to(jnp.arange(T)[:, None] + jnp.arange(S) >= S - 1, (2, T, S))
PARAMS = jax.jit(NET.init)(jax.random.key(1), ITEMS, MASK)
apply = jax.jit(lambda items, mask: NET.apply(PARAMS, items, mask))


def test_each_item_depends_on_its_window_alone():
    """Two layers of three items look back on five: what is older or later changes nothing."""
    features = apply(ITEMS, MASK)[0]
    for t in range(T):
        changed = apply(ITEMS.at[:, t].add(1.0), MASK)[0]
        differs = np.abs(np.asarray(changed - features)).max((0, 2)) > 1e-6
        np.testing.assert_array_equal(differs, [t <= q <= t + 2 * (S - 1) for q in range(T)])


def test_a_window_is_read_like_the_episode_it_was_cut_from():
    later = jnp.concatenate([jax.random.normal(jax.random.key(3), (2, 9, C)), ITEMS], 1)
    mask = jnp.ones((2, T + 9, S), bool)
    whole = NET.apply(PARAMS, later, mask)[0]
    np.testing.assert_allclose(whole[:, -T:][:, 2 * (S - 1) :], apply(ITEMS, MASK)[0][:, 2 * (S - 1) :], atol=1e-5)


def test_order_matters():
    swapped = ITEMS.at[:, 3].set(ITEMS[:, 4]).at[:, 4].set(ITEMS[:, 3])
    assert np.abs(apply(swapped, MASK)[0][:, 5] - apply(ITEMS, MASK)[0][:, 5]).max() > 1e-4


def test_masked_items_never_matter():
    mask = MASK.at[:, :, 0].set(False)
    hidden = mask & (jnp.arange(T)[:, None] + jnp.arange(S) - (S - 1) != 2)
    first, maps = apply(ITEMS, hidden)
    second = apply(ITEMS.at[:, 2].multiply(-3.0), hidden)[0]
    np.testing.assert_allclose(np.delete(first, 2, 1), np.delete(second, 2, 1), atol=1e-6)
    for weights in maps:
        assert not np.asarray(weights)[~np.broadcast_to(hidden[:, :, None], weights.shape)].any()
        seen = np.asarray(weights.sum(-1))[np.asarray(hidden.any(-1))]
        np.testing.assert_allclose(seen, 1.0, rtol=1e-5)


def test_dropout_is_for_training_alone():
    run = lambda train, key: NET.apply(PARAMS, ITEMS, MASK, train, rngs={"dropout": key})[0]  # noqa: E731
    a, b = (run(True, jax.random.key(i)) for i in (0, 1))
    assert np.abs(a - b).max() > 1e-3
    np.testing.assert_allclose(run(False, jax.random.key(0)), apply(ITEMS, MASK)[0], atol=1e-6)
