"""How different the behaviour policies of a data set are: 2-Wasserstein distances of Gaussians of their actions.

The policies are not stored, so what one does in a state of another task is taken to be what it did in the nearest of
its own stored states. Both policies of a pair are compared on the union of both tasks' states.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metarl_jax.analysis import figures


class Gaussian(NamedTuple):
    """Moments of actions."""

    mean: Float[np.ndarray, "... A"]
    covariance: Float[np.ndarray, "... A A"]


def gaussian(actions: Float[np.ndarray, "... n A"]) -> Gaussian:
    """Mean and covariance over n actions."""
    mean = actions.mean(-2)
    centred = actions - mean[..., None, :]
    return Gaussian(mean, np.swapaxes(centred, -1, -2) @ centred / (actions.shape[-2] - 1))


def _root(matrix: Float[np.ndarray, "... A A"]) -> Float[np.ndarray, "... A A"]:
    """Symmetric square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def wasserstein(p: Gaussian, q: Gaussian) -> Float[np.ndarray, "..."]:
    """W2 = sqrt(|m_p - m_q|^2 + tr(S_p + S_q - 2 (S_q^1/2 S_p S_q^1/2)^1/2))."""
    half = _root(q.covariance)
    cross = _root(half @ p.covariance @ half)
    trace = np.trace(p.covariance + q.covariance - 2 * cross, axis1=-2, axis2=-1)
    return np.sqrt(np.maximum(np.square(p.mean - q.mean).sum(-1) + trace, 0.0))


def imputed(obs: Float[np.ndarray, "N n O"], action: Float[np.ndarray, "N n A"]) -> Float[np.ndarray, "N N n A"]:
    """Actions of policy i in the states of task j, from the nearest of its own states; its own where i = j."""
    scaled = (obs - obs.mean((0, 1))) / np.maximum(obs.std((0, 1)), 1e-6)
    queries = scaled.reshape(-1, obs.shape[-1])
    result = np.empty((len(obs), *action.shape))
    for i, own in enumerate(scaled):
        distance = np.square(own).sum(-1) - 2 * queries @ own.T  # up to a constant of each query
        result[i] = action[i][distance.argmin(-1)].reshape(action.shape)
        result[i, i] = action[i]
    return result


def distances(obs: Float[np.ndarray, "N n O"], action: Float[np.ndarray, "N n A"]) -> Float[np.ndarray, "N N"]:
    """Pairwise distances of N behaviour policies, from n stored states and actions of each; 0 on the diagonal."""
    actions = imputed(obs, action)
    result = np.zeros((len(obs), len(obs)))
    for i in range(len(obs)):
        union = np.arange(i + 1, len(obs))
        first, second = (
            np.concatenate([np.broadcast_to(on_i, on_j.shape), on_j], 1)
            for on_i, on_j in ((actions[i, i], actions[i, union]), (actions[union, i], actions[union, union]))
        )
        result[i, union] = result[union, i] = wasserstein(gaussian(first), gaussian(second))
    return result


def mean_pairwise(matrix: Float[np.ndarray, "N N"]) -> float:
    """Mean over pairs."""
    return float(matrix[np.triu_indices(len(matrix), 1)].mean())


def correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's r; None for fewer than three points, or where one of both does not vary."""
    if len(x) < 3 or not np.std(x) or not np.std(y):
        return None
    return float(np.corrcoef(x, y)[0, 1])


def draw(path: Path, matrices: Mapping[str, np.ndarray], gains: Mapping[str, float], r: float | None) -> None:
    """The distances within each benchmark, and gains against their means."""
    figure, axes = figures.new(len(matrices) + 1, width=4.2)
    top = max(matrix.max() for matrix in matrices.values())
    for axis, (name, matrix) in zip(axes, matrices.items(), strict=False):
        image = axis.imshow(matrix, vmin=0, vmax=top)
        axis.grid(False)
        axis.set(title=name, xlabel="training task", ylabel="training task")
    figure.colorbar(image, ax=axes[len(matrices) - 1], label="2-Wasserstein distance of behaviour")
    for name, gain in gains.items():
        x = mean_pairwise(matrices[name])
        axes[-1].plot(x, gain, "o", color="C0")
        axes[-1].annotate(name, (x, gain), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes[-1].axhline(0.0, color="0.6", linewidth=1)
    axes[-1].set(xlabel="mean distance", ylabel="score of er_trl - focal")
    axes[-1].set_title("" if r is None else f"Pearson r = {r:.2f}", fontsize=10)
    figures.save(figure, path)
