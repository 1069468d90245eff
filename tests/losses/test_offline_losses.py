import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.distributions import normal_log_prob
from metarl_jax.losses.adversarial import discriminator_loss, gaussian_entropy, generator_loss
from metarl_jax.losses.club import club
from metarl_jax.losses.distance_metric import distance_metric
from metarl_jax.losses.divergence import dual_kl, slope_penalty


def test_two_tasks_at_distance_one_half():
    latent = jnp.array([[0.0, 1.0], [1.0, 1.0]])  # d = (1 + 0) / 2
    assert distance_metric(latent, jnp.eye(2, dtype=bool)) == pytest.approx(1 / 0.6 / 1.001, rel=1e-6)
    assert distance_metric(latent, jnp.ones((2, 2), bool)) == pytest.approx(np.sqrt(0.501) / 1.001, rel=1e-6)


def test_three_embeddings_of_two_tasks():
    latent = jnp.array([[0.0], [1.0], [3.0]])
    same = jnp.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], bool)
    expected = np.sqrt(1.001) / 1.001 + (1 / 9.1 + 1 / 4.1) / 2.001
    assert distance_metric(latent, same) == pytest.approx(expected, rel=1e-6)


def test_gradient_is_finite_where_embeddings_coincide():
    gradient = jax.grad(distance_metric)(jnp.ones((3, 2)), jnp.ones((3, 3), bool))
    np.testing.assert_array_equal(gradient, 0.0)


def test_dual_kl():
    np.testing.assert_allclose(dual_kl(jnp.zeros(1), jnp.zeros(1)), -0.0597, atol=1e-4)


def test_dual_kl_is_the_divergence_at_the_best_critic():
    """softplus(c) = pi / b maximises it: E_b[-pi / b] + E_pi[log(pi / b)] + 1 = KL."""
    b, pi = np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.1, 0.4])
    critic = jnp.asarray(np.log(np.expm1(pi / b)))
    i, j = (x.ravel() for x in np.meshgrid(range(3), range(3), indexing="ij"))
    value = np.sum(b[i] * pi[j] * np.asarray(dual_kl(critic[i], critic[j])))
    assert value == pytest.approx(np.sum(pi * np.log(pi / b)), abs=1e-5)


def test_binary_cross_entropies():
    real, fake = jnp.log(jnp.array([3.0, 1.0])), jnp.log(jnp.array([1.0, 1 / 4]))  # P(real) 3/4, 1/2; 1/2, 1/5
    assert discriminator_loss(real, fake) == pytest.approx(-np.log([0.75 * 0.5, 0.5 * 0.8]).sum() / 2, rel=1e-5)
    assert generator_loss(fake) == pytest.approx(-np.log(0.5 * 0.2) / 2, rel=1e-5)


def test_entropy_of_a_linear_generator():
    """a = M e: 1/2 logdet(2 pi e M M^T)."""
    m = jnp.array([[1.0, 0.5, 0.0], [0.0, 2.0, -1.0]])
    samples = jax.random.normal(jax.random.key(0), (40_000, 3)) @ m.T
    expected = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.asarray(m @ m.T))[1]
    assert gaussian_entropy(samples) == pytest.approx(expected, abs=0.02)
    batched = gaussian_entropy(jnp.stack([samples, 2 * samples]))
    assert batched[1] - batched[0] == pytest.approx(2 * np.log(2), abs=1e-3)


def test_slopes_below_one_cost_nothing():
    assert slope_penalty(jnp.array([0.0, 0.5, 1.0])) == 0.0
    assert slope_penalty(jnp.array([0.5, 3.0])) == pytest.approx(2.0)


def test_club_of_correlated_gaussians():
    """z = rho x + noise, both of variance 1, with the true conditional: rho^2 / (1 - rho^2), above the information."""
    rho, key = 0.6, jax.random.split(jax.random.key(0))
    x = jax.random.normal(key[0], (100_000, 1))
    std = jnp.full_like(x, np.sqrt(1 - rho**2))
    z = rho * x + std * jax.random.normal(key[1], x.shape)
    bound = club(normal_log_prob(z, rho * x, std), normal_log_prob(jnp.roll(z, 1, 0), rho * x, std))
    assert bound == pytest.approx(rho**2 / (1 - rho**2), abs=0.02)
    assert bound > -0.5 * np.log(1 - rho**2)
