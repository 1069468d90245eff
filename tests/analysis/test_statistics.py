import math

import numpy as np
from scipy import stats

from metarl_jax.analysis.statistics import bootstrap_interval, iqm, seeds_needed


def test_iqm_is_the_mean_of_the_middle_half():
    assert iqm(np.array([-1000.0, 1.0, 3.0, 1000.0])) == 2.0
    np.testing.assert_allclose(iqm(np.array([[0.0, 4.0], [1.0, 5.0], [2.0, 6.0], [9.0, 90.0]])), [1.5, 5.5])


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(20, 300))
    low, high = bootstrap_interval(samples, resamples=500)
    covered = np.mean((low < 0) & (high > 0))
    assert 0.86 < covered < 0.99


def test_interval_is_the_middle_95_percent_of_resampled_iqms():
    rng = np.random.default_rng(0)
    values = rng.normal(size=12)
    means = iqm(values[rng.integers(0, 12, (20_000, 12))], axis=1)
    found = np.ravel(bootstrap_interval(values[:, None], resamples=20_000))
    np.testing.assert_allclose(found, np.quantile(means, [0.025, 0.975]), atol=0.03)


def test_a_single_run_has_no_spread():
    low, high = bootstrap_interval(np.array([[1.0, 2.0]]))
    assert low.tolist() == high.tolist() == [1.0, 2.0]


def test_three_runs_have_no_middle_half():
    """Nothing is trimmed, and the interval is from the lowest to the highest."""
    three = np.array([[1.0], [2.0], [9.0]])
    low, high = bootstrap_interval(three)
    assert (iqm(three)[0], low[0], high[0]) == (4.0, 1.0, 9.0)


def test_as_many_seeds_as_are_needed_find_the_difference():
    assert seeds_needed(1.0, (1.0, 1.0)) == 17  # as tables of the t-test say
    n = seeds_needed(-3.0, (1.0, 4.0))
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.0, 1.0, (n, 4000)), rng.normal(-3.0, 4.0, (n, 4000))
    found = np.mean(stats.ttest_ind(one, other, equal_var=False).pvalue < 0.05)
    assert 0.78 < found < 0.84
    assert seeds_needed(1e9, (1.0, 0.0)) == 2 and seeds_needed(0.0, (1.0, 1.0)) == math.inf
