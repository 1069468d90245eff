"""Statistics of few runs: interquartile mean, bootstrap intervals (Agarwal et al., 2021), how many runs are needed."""

import math

import numpy as np
from scipy import stats

FEW = 4
"""Runs from which on an interquartile mean leaves any out, and its bootstrap interval is less than their range."""


def iqm(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Interquartile mean along `axis`: the mean of the middle half, robust to one failed run of four or more."""
    return stats.trim_mean(values, 0.25, axis=axis)


def bootstrap_interval(
    values: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile-bootstrap interval of the IQM over runs.

    Args:
      values: [runs, ...], each column an estimate of its own.

    Returns:
      (low, high) [...]: of fewer than `FEW` runs their range, of one the value itself.
    """
    values = np.asarray(values)
    if values.shape[0] < 2:
        return values[0], values[0]
    result = stats.bootstrap(
        (values,),
        iqm,
        axis=0,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        vectorized=True,
        batch=100,  # bounds the memory: resamples x runs x columns
        rng=np.random.default_rng(seed),
    )
    return result.confidence_interval.low, result.confidence_interval.high


def seeds_needed(difference: float, stds: tuple[float, float], level: float = 0.05, power: float = 0.8) -> float:
    """Runs of each of two settings with which Welch's test finds a difference of their means, if these are the truth.

    The first n at which a noncentral t says so, from what a normal distribution says, which is too few:
    (z_(1 - level / 2) + z_power)^2 (std_1^2 + std_2^2) / difference^2.

    Args:
      difference: of the means.
      stds: standard deviations over runs of either setting, one of them above 0.
      level: chance that the test finds a difference where there is none.
      power: chance that it finds this one.

    Returns:
      At least 2; infinity where there is no difference.
    """
    if difference == 0:
        return math.inf
    variances = np.square(stds)
    quantiles = stats.norm.ppf([1 - level / 2, power])
    n = max(2, math.ceil(quantiles.sum() ** 2 * variances.sum() / difference**2))

    def missed(n: int) -> float:
        freedom = (n - 1) * variances.sum() ** 2 / np.sum(variances**2)
        shift = abs(difference) / math.sqrt(variances.sum() / n)
        return stats.nct.cdf(stats.t.isf(level / 2, freedom), freedom, shift)  # NaN, not 0, for an immense shift

    while missed(n) > 1 - power:
        n += 1
    return n
