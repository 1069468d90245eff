"""What one evaluation shows: the curves over steps that apply to it, and all figures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarl_jax.analysis import attention as attentions
from metarl_jax.analysis import latents
from metarl_jax.analysis import recognition as recognitions
from metarl_jax.analysis import response as responses
from metarl_jax.analysis.evaluation import HeldOutTasks
from metarl_jax.types import Evaluation

IMAGES = ("latents", "response", "recognition", "attention")
"""What `draw` may draw."""


class Findings(NamedTuple):
    """Each None where it does not apply."""

    response: responses.Response | None = None
    """Reward around a task change."""
    recognition: recognitions.Recognition | None = None
    """Accuracy against the steps of a task."""
    attention: attentions.Attention | None = None
    """Which transitions inform the class."""


def findings(evaluation: Evaluation, stationary: bool) -> Findings:
    """What an evaluation [S, ...] on the host shows; `stationary`: the task of an episode is fixed."""
    return Findings(
        None if stationary else responses.response(evaluation),
        recognitions.recognition(evaluation),
        attentions.attention(evaluation),
    )


def draw(
    place: Callable[[str], Path],
    found: Findings,
    evaluation: Evaluation,
    tasks: HeldOutTasks,
    subtasks: Sequence[str],
    stationary: bool,
    title: str = "",
    method: str = "pca",
) -> list[Path]:
    """Draw what applies, and say where.

    Args:
      place: one of `IMAGES` -> where that image goes.
      found: `findings` of the evaluation.
      evaluation: [S, ...] on the host; the beliefs are those of the first seed.
      tasks: the tasks [N].
      subtasks: names, in the order of `tasks.label`.
      stationary: the task of an episode is fixed; elsewhere there is no map of beliefs by task.
      title: of that map.
      method: of `latents.METHODS`.
    """
    response, recognition, attention = found
    drawn = []
    if stationary:
        drawn.append(place("latents"))
        beliefs, components = (np.asarray(x)[0, 0] for x in (evaluation.beliefs, evaluation.components))
        latents.draw(drawn[-1], beliefs, components, tasks, subtasks, title, method)
    if response:
        drawn.append(place("response"))
        responses.draw(drawn[-1], response)
    if recognition:
        drawn.append(place("recognition"))
        recognitions.draw(drawn[-1], recognition)
    if attention:
        drawn.append(place("attention"))
        attentions.draw(drawn[-1], evaluation, attention)
    return drawn
