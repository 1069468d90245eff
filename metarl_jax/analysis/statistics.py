"""Statistics of few runs: interquartile mean and bootstrap intervals (Agarwal et al., 2021)."""

import numpy as np
from scipy import stats


def iqm(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Interquartile mean along `axis`: the mean of the middle half, robust to one failed run."""
    return stats.trim_mean(values, 0.25, axis=axis)


def bootstrap_interval(
    values: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile-bootstrap interval of the IQM over runs.

    Args:
      values: [runs, ...], each column an estimate of its own.

    Returns:
      (low, high) [...]; both the value itself where there is a single run.
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
