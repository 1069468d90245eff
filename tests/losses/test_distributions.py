import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax import distributions
from tests.helpers import quick_compilation

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

RNG = np.random.default_rng(0)
MEAN, PRIOR_MEAN = RNG.normal(size=(2, 3, 4)).astype(np.float32)
STD, PRIOR_STD = RNG.uniform(0.2, 2.0, (2, 3, 4)).astype(np.float32)
LOGITS, PRIOR_LOGITS = RNG.normal(size=(2, 3, 5)).astype(np.float32)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def test_normal_kl():
    value = distributions.normal_kl(MEAN, STD, PRIOR_MEAN, PRIOR_STD)
    terms = np.log(PRIOR_STD / STD) + (STD**2 + (MEAN - PRIOR_MEAN) ** 2) / (2 * PRIOR_STD**2) - 0.5
    np.testing.assert_allclose(value, terms.sum(-1), rtol=1e-5)
    multivariate = distrax.MultivariateNormalDiag(MEAN, STD)
    prior = distrax.MultivariateNormalDiag(PRIOR_MEAN, PRIOR_STD)
    np.testing.assert_allclose(value, multivariate.kl_divergence(prior), rtol=1e-5)
    np.testing.assert_allclose(distributions.normal_kl(MEAN, STD, MEAN, STD), 0.0, atol=1e-6)


def test_categorical_kl_and_entropy():
    p, p0 = softmax(LOGITS), softmax(PRIOR_LOGITS)
    value = distributions.categorical_kl(LOGITS, PRIOR_LOGITS)
    np.testing.assert_allclose(value, (p * np.log(p / p0)).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(distributions.categorical_entropy(LOGITS), -(p * np.log(p)).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(distributions.categorical_entropy(jnp.zeros((2, 5))), np.log(5.0), rtol=1e-6)


def test_tanh_normal_density_is_the_change_of_variables():
    sample = jax.jit(jax.vmap(distributions.tanh_normal_sample, (0, None, None)))
    mean, std = jnp.array([0.3, -1.0]), jnp.array([0.5, 0.9])
    action, log_prob = sample(jax.random.split(jax.random.key(0), 4000), mean, std)
    a = np.asarray(action, np.float64)
    assert a.shape == (4000, 2) and (abs(a) < 1).all()
    keep = (abs(a) < 0.99).all(-1)  # arctanh of a float32 close to 1 is too coarse
    u, h = np.arctanh(a[keep]), 1e-4
    slope = (np.tanh(u + h) - np.tanh(u - h)) / (2 * h)
    normal = -0.5 * ((u - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(log_prob[keep], (normal - np.log(slope)).sum(-1), atol=2e-3)
    # The samples follow that density: quantiles of arctanh(a) are those of the normal.
    np.testing.assert_allclose(np.median(np.arctanh(a), 0), mean, atol=0.06)
    np.testing.assert_allclose(np.quantile(np.arctanh(a), 0.8413, 0), mean + std, atol=0.1)


def test_tanh_normal_is_reparameterised_and_finite_when_saturated():
    grad = jax.grad(lambda mean: distributions.tanh_normal_sample(jax.random.key(0), mean, jnp.ones(2))[0].sum())
    assert (grad(jnp.zeros(2)) > 0).all()
    action, log_prob = distributions.tanh_normal_sample(jax.random.key(0), jnp.full(2, 30.0), jnp.ones(2))
    np.testing.assert_allclose(action, 1.0)
    assert np.isfinite(log_prob)
