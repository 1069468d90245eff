"""How quickly an agent that was taught classes of tasks recognises one."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarl_jax.analysis import curves, figures
from metarl_jax.types import Evaluation

STEPS = 100
"""Steps shown after an episode's start or a change."""


class Recognition(NamedTuple):
    """Share of steps whose class was recognised."""

    steps: np.ndarray
    """Of the current task that were seen before."""
    accuracy: np.ndarray
    """NaN where no task lasted that long."""
    samples: np.ndarray
    """Steps that each mean is taken over."""


def age(changed: np.ndarray) -> np.ndarray:
    """Steps [n, T] since the current task began, with the episode or with a change; `changed[t]`: it ends after t."""
    result = np.zeros(changed.shape, int)
    for t in range(1, changed.shape[1]):
        result[:, t] = np.where(changed[:, t - 1], 0, result[:, t - 1] + 1)
    return result


def recognition(evaluation: Evaluation) -> Recognition | None:
    """Accuracy against the steps of the current task seen so far, episode 1; `evaluation` [S, ...] is on the host.

    None where components stand for no classes.
    """
    if not np.shape(evaluation.recognized)[-1]:
        return None
    length = np.shape(evaluation.rewards)[-2]
    changed, right = (
        np.moveaxis(np.asarray(x)[:, 0], -2, -1).reshape(-1, length)
        for x in (evaluation.task_changed, np.asarray(evaluation.recognized)[..., 0])
    )
    ages, steps = age(changed), np.arange(min(STEPS, length))
    chosen = [right[(ages == step) & np.isfinite(right)] for step in steps]
    means = [x.mean() if x.size else np.nan for x in chosen]
    return Recognition(steps, np.array(means), np.array([x.size for x in chosen]))


def draw(path: Path, result: Recognition) -> None:
    """Write the figure of a recognition."""
    figure, (axis,) = figures.new(1)
    axis.plot(result.steps, result.accuracy)
    axis.set(xlabel="control steps since the task began", ylabel="recognition accuracy", ylim=(0, 1.02))
    figures.save(figure, path)


def draw_seeds(path: Path, label: str, epochs: Sequence[curves.Line], steps: Sequence[curves.Line]) -> None:
    """Write the accuracy of several seeds over epochs, and at the end against the steps of a task."""
    figure, axes = figures.new(2, width=3.4, height=2.7)
    for axis, members, x in zip(axes, (epochs, steps), ("epoch", "control steps since the task began"), strict=True):
        curves.draw_band(axis, members, label, figures.colours(1)[0])
        axis.set(xlabel=x, ylabel="recognition accuracy", ylim=(0, 1.02))
    figure.suptitle(*axes[0].get_legend_handles_labels()[1], fontsize="medium", wrap=True)
    figures.save(figure, path)
