import jax
import numpy as np
import pytest

from metarl_jax.analysis import actions, diversity, information, representation
from metarl_jax.analysis.diversity import Gaussian

RNG = np.random.default_rng(0)


def test_distance_of_gaussians():
    """Of equal shapes it is that of the means; of equal means and axes, that of the standard deviations."""
    mean, spread = np.array([3.0, 4.0]), np.diag([4.0, 1.0])
    at_0 = Gaussian(np.zeros(2), spread)
    np.testing.assert_allclose(diversity.wasserstein(at_0, at_0), 0.0, atol=1e-7)
    np.testing.assert_allclose(diversity.wasserstein(at_0, Gaussian(mean, spread)), 5.0)
    np.testing.assert_allclose(diversity.wasserstein(at_0, Gaussian(mean, np.diag([49.0, 1.0]))), np.sqrt(50.0))
    turned = Gaussian(np.zeros(2), np.diag([1.0, 4.0]))
    np.testing.assert_allclose(diversity.wasserstein(at_0, turned), np.sqrt(2.0))


def test_behaviour_is_compared_in_the_same_states():
    """One policy, seen more in other places, is at no distance from itself; another one is at the distance it acts."""
    obs = RNG.uniform(-1, 1, (3, 400, 1))
    obs[1] *= np.abs(obs[1])
    act = np.sin(3 * obs)
    act[2] += 0.7
    found = diversity.distances(obs, act)
    assert found[0, 1] < 0.03
    np.testing.assert_allclose(found[0, 2], 0.7, atol=0.03)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(diversity.mean_pairwise(found), (found[0, 1] + found[0, 2] + found[1, 2]) / 3)


def test_correlation():
    np.testing.assert_allclose(diversity.correlation(np.array([1.0, 2, 3]), np.array([2.0, 4, 6])), 1.0)
    assert diversity.correlation(np.array([1.0, 2]), np.array([2.0, 4])) is None


@pytest.mark.parametrize("regressor", representation.REGRESSORS)
def test_error_of_the_task_parameter(regressor):
    """The noise where the embedding tells it, its own spread where it does not; a constant column does not count."""
    task = np.repeat(np.arange(20), 20)
    spec = np.stack([task / 5.0, np.ones(400)], -1)
    told = np.stack([spec[:, 0] + RNG.normal(0, 0.1, 400), RNG.normal(size=400)], -1)
    errors = representation.rmse(told, spec, regressor)
    assert errors.shape == (representation.RESAMPLES,)
    assert 0.09 < errors.mean() < 0.15
    untold = representation.rmse(told[:, 1:], spec, regressor).mean()
    np.testing.assert_allclose(untold, spec[:, 0].std(), rtol=0.2)


def test_whole_tasks_can_be_left_out():
    """An embedding that is a name, not a number, tells known tasks but no new ones."""
    task = np.repeat(np.arange(10), 20)
    name = np.eye(10)[RNG.permutation(10)[task]]
    spec = task[:, None].astype(float)
    assert representation.rmse(name, spec, "linear").max() < 1e-6
    assert representation.rmse(name, spec, "linear", task).min() > 1.0


def test_information_of_an_embedding(monkeypatch):
    """A coin that names the sign of an action tells log 2 nats of it; another coin nothing."""
    monkeypatch.setattr(information, "STEPS", 1_000)
    coin = RNG.integers(0, 2, (6_000, 1)) * 2.0 - 1.0
    action = coin * RNG.uniform(0.2, 1.0, coin.shape)
    estimate = jax.jit(information.estimate)
    np.testing.assert_allclose(estimate(coin, action, jax.random.key(0)), np.log(2), atol=0.05)
    assert abs(estimate(RNG.permutation(coin), action, jax.random.key(0))) < 0.05


def test_difference_of_histograms():
    left = actions.histograms(np.array([[-1.0, 0.5], [-1.0, 0.5]]))
    right = actions.histograms(np.array([[1.0, 0.5], [-1.0, 0.5]]))
    np.testing.assert_allclose(left.sum(-1), 1.0)
    np.testing.assert_allclose(actions.total_variation(left, right), [0.5, 0.0])
