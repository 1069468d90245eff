import jax
import jax.numpy as jnp
import numpy as np

from metarl_jax.losses.elbo import negative_elbo, sample_components, standard_prior
from metarl_jax.networks.mixture import Mixture

PROBS, PRIOR_PROBS = np.array([0.25, 0.75]), np.array([0.6, 0.4])
MEAN, PRIOR_MEAN = np.array([[1.0, -1.0], [0.5, 2.0]]), np.array([[0.0, 0.5], [1.0, 1.0]])
STD, PRIOR_STD = np.array([[0.5, 2.0], [1.0, 0.1]]), np.array([[1.0, 1.0], [2.0, 0.5]])
ERRORS = np.array([1.0, 3.0])
# Any shift of the logits is the same distribution.
Q = Mixture(*(jnp.asarray(x, jnp.float32) for x in (np.log(PROBS) + 7.0, MEAN, STD)))
PRIOR = Mixture(*(jnp.asarray(x, jnp.float32) for x in (np.log(PRIOR_PROBS) - 2.0, PRIOR_MEAN, PRIOR_STD)))


def kl(mean, std, prior_mean, prior_std):
    """KL of one-dimensional Gaussians."""
    return np.log(prior_std / std) + (std**2 + (mean - prior_mean) ** 2) / (2 * prior_std**2) - 0.5


def by_hand(prior_probs, prior_mean, prior_std, alpha, beta):
    """-ELBO of the specification, component by component, dimension by dimension."""
    total = 0.0
    for k in range(2):
        kl_z = sum(kl(MEAN[k, d], STD[k, d], prior_mean[k, d], prior_std[k, d]) for d in range(2))
        total += PROBS[k] * (ERRORS[k] + alpha * kl_z)
    return total + beta * sum(PROBS[k] * np.log(PROBS[k] / prior_probs[k]) for k in range(2))


def test_negative_elbo_by_hand():
    errors = jnp.asarray(ERRORS, jnp.float32)
    value, parts = negative_elbo(errors, Q, PRIOR, 0.3, 0.7)
    np.testing.assert_allclose(value, by_hand(PRIOR_PROBS, PRIOR_MEAN, PRIOR_STD, 0.3, 0.7), rtol=1e-5)
    np.testing.assert_allclose(parts["reconstruction"], 0.25 * 1.0 + 0.75 * 3.0, rtol=1e-6)
    np.testing.assert_allclose(parts["kl_y"], by_hand(PRIOR_PROBS, PRIOR_MEAN, PRIOR_STD, 0, 1) - 2.5, rtol=1e-4)
    np.testing.assert_allclose(parts["kl_z"], by_hand(PRIOR_PROBS, PRIOR_MEAN, PRIOR_STD, 1, 0) - 2.5, rtol=1e-5)

    value, _ = negative_elbo(errors, Q, standard_prior(Q), 0.3, 0.7)
    np.testing.assert_allclose(value, by_hand([0.5, 0.5], np.zeros((2, 2)), np.ones((2, 2)), 0.3, 0.7), rtol=1e-5)


def test_leading_axes_are_kept_apart():
    two = jax.tree.map(lambda x: jnp.stack([x, x]), Q)
    value, _ = negative_elbo(jnp.array([[1.0, 3.0], [3.0, 1.0]]), two, two, 1.0, 1.0)
    np.testing.assert_allclose(value, [2.5, 1.5], rtol=1e-6)


def test_components_are_sampled_apart_and_reparameterised():
    draw = jax.jit(jax.vmap(sample_components, (0, None)))
    z = draw(jax.random.split(jax.random.key(0), 5000), Q)
    np.testing.assert_allclose(z.mean(0), MEAN, atol=0.1)
    np.testing.assert_allclose(z.std(0), STD, rtol=0.05)
    noise = ((z - MEAN) / STD).reshape(-1, 4)
    np.testing.assert_allclose(np.corrcoef(noise.T), np.eye(4), atol=0.07)
    grad = jax.grad(lambda q: sample_components(jax.random.key(0), q).sum())(Q)
    np.testing.assert_allclose(grad.mean, 1.0)
    np.testing.assert_allclose(grad.std, noise_of(0), rtol=1e-4)


def noise_of(seed):
    return (sample_components(jax.random.key(seed), Q) - Q.mean) / Q.std
