import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.learners import mine
from metarl_jax.losses.mine import donsker_varadhan
from tests import helpers

CONFIG = mine.Config(hidden_sizes=(32, 32), learning_rate=3e-3)
SPEC = mine.Spec(x_size=2, y_size=1)


def pairs(key, correlation, n=512) -> mine.Batch:
    """y correlates with the first entry of x alone."""
    x, noise = jax.random.normal(key, (2, n, 2))
    return mine.Batch(x, (correlation * x + jnp.sqrt(1 - correlation**2) * noise)[:, :1])


@helpers.cached
def trained(correlation):
    def step(state, key):
        key_pairs, key_train = jax.random.split(key)
        return mine.train_step(state, pairs(key_pairs, correlation), key_train, CONFIG)

    state = mine.init(jax.random.key(0), CONFIG, SPEC)
    return jax.jit(lambda s, k: jax.lax.scan(step, s, k))(state, jax.random.split(jax.random.key(1), 800))


@pytest.mark.parametrize("correlation", [0.0, 0.8, -0.95])
def test_information_of_correlated_gaussians(correlation):
    """-1/2 log(1 - correlation^2) = 0, 0.511 and 1.164 nats, on pairs that it has not seen."""
    state, _ = trained(correlation)
    found = mine.information(state.params, pairs(jax.random.key(2), correlation, 20_000), jax.random.key(3), CONFIG)
    np.testing.assert_allclose(found, -0.5 * np.log(1 - correlation**2), rtol=0.08, atol=0.02)


def test_the_bound_is_reached_by_the_log_density_ratio():
    x, y = (v[:, 0] for v in pairs(jax.random.key(0), 0.8, 100_000))
    ratio = lambda x, y: -0.5 * jnp.log(0.36) - (x**2 + y**2 - 1.6 * x * y) / 0.72 + (x**2 + y**2) / 2  # noqa: E731
    other = y[jax.random.permutation(jax.random.key(1), len(y))]
    true = donsker_varadhan(ratio(x, y), ratio(x, other))
    np.testing.assert_allclose(true, -0.5 * np.log(0.36), rtol=0.02)
    assert donsker_varadhan(0.5 * ratio(x, y), 0.5 * ratio(x, other)) < true - 0.05
    np.testing.assert_allclose(donsker_varadhan(ratio(x, y) + 3.0, ratio(x, other) + 3.0), true, atol=1e-4)
