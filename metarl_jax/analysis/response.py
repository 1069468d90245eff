"""How quickly an agent adapts to a task that changes in mid-episode."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarl_jax.analysis import figures
from metarl_jax.types import Evaluation

BEFORE, AFTER = 10, 100
"""Steps shown on either side of a change."""


class Response(NamedTuple):
    """Mean reward around a change."""

    steps: np.ndarray
    """Since the change; the first step under the new task is 0."""
    reward: np.ndarray
    """NaN where no change has that many steps around it."""
    samples: np.ndarray
    """Steps that each mean is taken over."""


def distances(changed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps since the last change and until the next one.

    Args:
      changed: [n, T]; the task changes after this step.

    Returns:
      since [n, T], 0 at a task's first step, and until [n, T], 0 at its last; very large before the first change
      and after the last one.
    """
    length = changed.shape[1]
    since = np.full(changed.shape, np.iinfo(int).max // 2)
    until = since.copy()
    for t in range(1, length):
        since[:, t] = np.where(changed[:, t - 1], 0, since[:, t - 1] + 1)
    for t in range(length - 2, -1, -1):
        until[:, t] = np.where(changed[:, t], 0, until[:, t + 1] + 1)
    return since, until


def response(evaluation: Evaluation) -> Response | None:
    """Mean reward as a function of steps since the change; `evaluation` is on the host. None if nothing changed.

    Steps after an episode's end do not count. Every other step is counted from the nearest change on either side, so
    that no other change lies in between.
    """
    length = np.shape(evaluation.rewards)[-2]
    rewards, changed, alive = (
        np.moveaxis(np.asarray(x), -2, -1).reshape(-1, length)
        for x in (evaluation.rewards, evaluation.task_changed, evaluation.alive)
    )
    if not changed[:, :-1].any():
        return None
    since, until = distances(changed)
    steps = np.arange(-BEFORE, min(AFTER, length - 1))
    chosen = [rewards[alive & (since == step if step >= 0 else until == -1 - step)] for step in steps]
    means = [x.mean() if x.size else np.nan for x in chosen]
    return Response(steps, np.array(means), np.array([x.size for x in chosen]))


def draw(path: Path, result: Response) -> None:
    """Write the figure of a response."""
    figure, (axis,) = figures.new(1)
    axis.plot(result.steps, result.reward)
    axis.axvline(0, color="0.6", linestyle="--", linewidth=1, label="task changes")
    axis.set(xlabel="control steps since the change", ylabel="mean reward per step")
    figures.legend(axis)
    figures.save(figure, path)
