import numpy as np

from metarl_jax.analysis.statistics import bootstrap_interval, iqm


def test_iqm_is_the_mean_of_the_middle_half():
    assert iqm(np.array([-1000.0, 1.0, 3.0, 1000.0])) == 2.0
    np.testing.assert_allclose(iqm(np.array([[0.0, 4.0], [1.0, 5.0], [2.0, 6.0], [9.0, 90.0]])), [1.5, 5.5])


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(20, 300))
    low, high = bootstrap_interval(samples, resamples=500)
    covered = np.mean((low < 0) & (high > 0))
    assert 0.86 < covered < 0.99


def test_a_single_run_has_no_spread():
    low, high = bootstrap_interval(np.array([[1.0, 2.0]]))
    assert low.tolist() == high.tolist() == [1.0, 2.0]
