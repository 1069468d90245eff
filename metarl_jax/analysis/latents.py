"""Maps of what the agent believes on held-out tasks: does the belief tell the tasks apart?"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from metarl_jax.analysis import figures
from metarl_jax.analysis.evaluation import HeldOutTasks
from metarl_jax.errors import ConfigurationError

METHODS = ("pca", "tsne")
MARKERS = "os^DvPX*<>"
"""Of components, in their order; more than these begin anew."""


def check_method(method: str) -> None:
    """Raise `ConfigurationError` for an unknown projection."""
    if method not in METHODS:
        raise ConfigurationError(f"unknown projection {method!r}: known: {', '.join(METHODS)}")


def project(beliefs: np.ndarray, method: str = "pca") -> np.ndarray:
    """[n, b] -> [n, 2]. Beliefs of one or two dimensions stay as they are."""
    check_method(method)
    size = beliefs.shape[1]
    if size <= 2:
        return np.pad(beliefs, ((0, 0), (0, 2 - size)))
    if method == "pca":
        return PCA(2).fit_transform(beliefs)
    # A few hundred points: the exact method is quick, and does not start threads beside a training run.
    return TSNE(2, perplexity=min(30.0, (len(beliefs) - 1) / 3), method="exact", random_state=0).fit_transform(beliefs)


def draw(
    path: Path,
    beliefs: np.ndarray,
    components: np.ndarray,
    tasks: HeldOutTasks,
    subtasks: Sequence[str],
    title: str = "",
    method: str = "pca",
) -> None:
    """Beliefs at mid and end of an episode, in one projection: colours are sub-tasks, markers components.

    Args:
      path: of the image.
      beliefs: [T, N, b] of one episode on every held-out task.
      components: [T, N, c] responsibilities then; where c is more than 1 and there are several sub-tasks, the most
        likely one has a marker of its own.
      tasks: the tasks [N]. Where all are of one sub-task, the colour is their spec: a value, or an angle in the plane.
      subtasks: names, in the order of `tasks.label`.
      title: of the figure.
      method: one of `METHODS`.
    """
    length, count, _ = beliefs.shape
    points = project(np.concatenate([beliefs[length // 2], beliefs[-1]]), method)
    axis_name = {"pca": "principal component", "tsne": "t-SNE"}[method] if beliefs.shape[-1] > 2 else "belief"
    figure, axes = figures.new(2)
    axes[1].sharex(axes[0])
    axes[1].sharey(axes[0])
    for axis, step, part, when in zip(
        axes, (length // 2, -1), (points[:count], points[count:]), ("mid", "end"), strict=True
    ):
        axis.set(title=f"{when} of the episode", xlabel=f"{axis_name} 1", ylabel=f"{axis_name} 2")
        if len(np.unique(tasks.label)) > 1:
            _by_subtask(axis, part, tasks.label, components[step].argmax(-1), subtasks)
        else:
            by_spec(figure, axis, part, tasks.spec, colorbar=when == "end")
    if len(np.unique(tasks.label)) > 1:
        _name_markers(axes[-1], components.shape[-1])
    figures.legend(axes[-1])
    figure.suptitle(title)
    figures.save(figure, path)


def _marker(component: int) -> str:
    return MARKERS[component % len(MARKERS)]


def _by_subtask(
    axis: Axes, points: np.ndarray, label: np.ndarray, component: np.ndarray, subtasks: Sequence[str]
) -> None:
    present = np.unique(label)
    for i, colour in zip(present, figures.colours(len(present)), strict=True):
        axis.plot([], [], "o", color=colour, markersize=4, label=subtasks[i])
        for k in np.unique(component[label == i]):
            own = points[(label == i) & (component == k)]
            axis.scatter(own[:, 0], own[:, 1], color=colour, s=18, marker=_marker(k))


def _name_markers(axis: Axes, num_components: int) -> None:
    for k in range(num_components if num_components > 1 else 0):
        axis.plot([], [], _marker(k), color="none", markeredgecolor="grey", markersize=4, label=f"component {k + 1}")


def by_spec(figure: Figure, axis: Axes, points: np.ndarray, spec: np.ndarray, colorbar: bool) -> None:
    varying = spec[:, spec.std(0) > 0]
    value = varying[:, 0] if varying.size else spec[:, 0]
    norm, cmap, label = None, "viridis", "task parameter"
    if varying.shape[1] == 2:
        norm, cmap, label = Normalize(-180, 180), "twilight", "angle of the goal [deg]"
        value = np.degrees(np.arctan2(varying[:, 1], varying[:, 0]))
    scatter = axis.scatter(points[:, 0], points[:, 1], c=value, s=18, cmap=cmap, norm=norm)
    if colorbar:
        figure.colorbar(scatter, ax=axis, label=label)
