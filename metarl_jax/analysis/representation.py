"""Does an embedding tell the task? Regression of the task's parameter, and a map."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from metarl_jax.analysis import figures, latents

REGRESSORS: dict[str, Callable[[], Any]] = {"linear": LinearRegression, "svr": lambda: MultiOutputRegressor(SVR())}
"""The second has an RBF kernel and the settings of scikit-learn; both see standardised numbers."""
TEST_SHARE = 0.2
RESAMPLES = 5


def rmse(
    latent: Float[np.ndarray, "n D"],
    spec: Float[np.ndarray, "n p"],
    regressor: str,
    task: Int[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " r"]:
    """Root mean square error of predicted task parameters on the fifth that was left out, per resample.

    Args:
      latent: embeddings.
      spec: parameters of their tasks; those that are the same for all tasks are left out.
      regressor: one of `REGRESSORS`.
      task: of each embedding, to leave out whole tasks; None: to leave out embeddings, whatever their task.
    """
    spec = spec[:, spec.std(0) > 0]
    kind = ShuffleSplit if task is None else GroupShuffleSplit
    split = kind(RESAMPLES, test_size=TEST_SHARE, random_state=0)
    errors = []
    for train, test in split.split(latent, groups=task):
        mean, std = spec[train].mean(0), spec[train].std(0)
        std = np.where(std > 0, std, 1.0)  # training has one task, or several that agree in this
        model = make_pipeline(StandardScaler(), REGRESSORS[regressor]()).fit(latent[train], (spec[train] - mean) / std)
        errors.append(np.sqrt(np.mean(np.square(mean + std * model.predict(latent[test]) - spec[test]))))
    return np.array(errors)


def draw(
    path: Path,
    errors: Mapping[str, Mapping[str, Float[np.ndarray, "..."]]],
    maps: Mapping[str, Float[np.ndarray, "n D"]],
    spec: Float[np.ndarray, "n p"],
    published: Mapping[str, Mapping[str, Sequence[float]]],
) -> None:
    """Errors of every method, and a t-SNE map of each one's embeddings.

    Args:
      path: of the image.
      errors: method -> regressor -> errors of all seeds and resamples.
      maps: method -> embeddings of one seed, each with a row of `spec`.
      spec: parameters of their tasks.
      published: method -> regressor -> (mean, standard deviation) of the reference; drawn as lines.
    """
    figure, axes = figures.new(len(maps) + 1, width=3.8)
    width = 0.8 / len(REGRESSORS)
    for place, name in enumerate(errors):
        for i, regressor in enumerate(REGRESSORS):
            x = place + (i - (len(REGRESSORS) - 1) / 2) * width
            values = errors[name][regressor]
            label = regressor if place == 0 else None
            axes[0].bar(
                x, np.mean(values), width, yerr=np.std(values), color=f"C{i}", alpha=0.7, capsize=3, label=label
            )
            if name in published:
                level = published[name][regressor][0]
                axes[0].plot([x - width / 2, x + width / 2], [level] * 2, "k--", linewidth=1)
    axes[0].set_xticks(range(len(errors)), list(errors), rotation=20, ha="right")
    axes[0].set(ylabel="RMSE" + (" (dashed: published)" if published else ""))
    figures.legend(axes[0])
    for axis, (name, latent) in zip(axes[1:], maps.items(), strict=True):
        latents.by_spec(figure, axis, latents.project(latent, "tsne"), spec, colorbar=axis is axes[-1])
        axis.set(title=name, xlabel="t-SNE 1", ylabel="t-SNE 2")
    figures.save(figure, path)
