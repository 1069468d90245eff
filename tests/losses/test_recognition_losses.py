import jax.numpy as jnp
import numpy as np

from metarl_jax.distributions import normal_kl
from metarl_jax.losses.elbo import separated_prior
from metarl_jax.losses.recognition import cross_entropy, squared_error
from metarl_jax.networks.mixture import Mixture

LOGITS = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
TARGET = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def test_squared_error_against_one_hot():
    expected = [(0.09 + 0.04 + 0.01) / 3, (0.0625 + 0.5625 + 0.25) / 3]
    np.testing.assert_allclose(squared_error(LOGITS, TARGET), expected, rtol=1e-5)


def test_cross_entropy():
    np.testing.assert_allclose(cross_entropy(LOGITS, TARGET), -np.log([0.7, 0.25]), rtol=1e-5)


def test_kl_to_separated_priors():
    """KL(N(m, s^2) || N(k, 1/4)) = ln(1/(2 s)) + 2 (s^2 + (m - k)^2) - 1/2 per dimension."""
    mean, std = jnp.array([[0.3, -1.0], [2.0, 1.0], [0.0, 2.0]]), jnp.array([[0.5, 1.0], [0.1, 2.0], [0.3, 0.7]])
    prior = separated_prior(Mixture(jnp.array([5.0, 0.0, 1.0]), mean, std))
    m, s, k = np.asarray(mean), np.asarray(std), np.arange(3.0)[:, None]
    expected = (np.log(0.5 / s) + 2 * (s**2 + (m - k) ** 2) - 0.5).sum(-1)
    np.testing.assert_allclose(normal_kl(mean, std, prior.mean, prior.std), expected, rtol=1e-5)
    np.testing.assert_array_equal(prior.logits, 0.0)
