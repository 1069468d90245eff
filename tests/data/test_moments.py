from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.data import statistics


class Pair(NamedTuple):
    vector: jax.Array
    scalar: jax.Array


def blocks():
    """Three blocks of (vector, scalar, mask), the last one without a valid row."""
    rng = np.random.default_rng(0)
    vectors = [rng.normal(loc, 3.0, (n, 2)).astype(np.float32) for loc, n in ((100.0, 5), (-7.0, 11), (1e4, 3))]
    scalars = [v[:, 0] * 0.5 + 1.0 for v in vectors]
    masks = [np.array([1, 1, 0, 1, 1.0]), np.array([0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1.0]), np.zeros(3)]
    return list(zip(vectors, scalars, [m.astype(np.float32) for m in masks], strict=True))


@pytest.mark.parametrize("tree", [Pair, lambda vector, scalar: (vector, scalar)], ids=["named", "tuple"])
def test_merge_is_mean_and_std_of_all_valid_rows(tree):
    merge = jax.jit(statistics.merge)
    moments = statistics.init(tree(jnp.zeros(2), jnp.zeros(())))
    for vector, scalar, mask in blocks():
        moments = merge(moments, tree(vector, scalar), mask)
    scale = statistics.scale(moments)
    valid = [np.concatenate([b[i][b[2] > 0] for b in blocks()]).astype(np.float64) for i in (0, 1)]
    assert moments.num == len(valid[0]) == 13
    expected = tree(*valid)
    for (mean, std), x in zip(
        zip(jax.tree.leaves(scale.mean), jax.tree.leaves(scale.std), strict=True),
        jax.tree.leaves(expected),
        strict=True,
    ):
        np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5)
        np.testing.assert_allclose(std, x.std(0), rtol=1e-4)


def test_masked_rows_are_ignored_if_finite():
    """A masked row may hold any finite number. Not NaN: environments let nothing non-finite out."""
    mask = jnp.array([1.0, 0.0, 1.0])
    start = statistics.init(jnp.zeros(()))
    clean, dirty = (statistics.merge(start, jnp.array([1.0, x, 3.0]), mask) for x in (0.0, 1e6))
    np.testing.assert_array_equal(jax.tree.leaves(clean), jax.tree.leaves(dirty))
    np.testing.assert_allclose([clean.mean, clean.m2], [2.0, 2.0])


def test_scale_keeps_constant_entries():
    data = jnp.stack([jnp.full(50, 4.0), jnp.linspace(-1.0, 1.0, 50)], -1)
    scale = statistics.scale(statistics.merge(statistics.init(data[0]), data, jnp.ones(50)))
    np.testing.assert_allclose(scale.std, [1.0, np.linspace(-1, 1, 50).std()], rtol=1e-5)
    applied = scale.apply(data)
    np.testing.assert_allclose(applied[:, 0], 0.0, atol=1e-6)
    np.testing.assert_allclose([applied[:, 1].mean(), applied[:, 1].std()], [0.0, 1.0], atol=1e-5)


def test_no_data_is_the_identity():
    example = Pair(jnp.zeros(2), jnp.zeros(()))
    for scale in (statistics.scale(statistics.init(example)), statistics.identity(example)):
        np.testing.assert_array_equal(scale.apply(Pair(jnp.array([2.0, 3.0]), jnp.array(4.0))).vector, [2.0, 3.0])
        np.testing.assert_array_equal(scale.std.scalar, 1.0)
