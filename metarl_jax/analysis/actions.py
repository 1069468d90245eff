"""Are a generator's actions those of the data? Histograms, and how well a discriminator told them apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from metarl_jax.analysis import figures

BINS = 40


def histograms(actions: Float[np.ndarray, "n A"]) -> Float[np.ndarray, "A b"]:
    """Share of the actions in each of `BINS` equal bins of [-1, 1], per dimension."""
    edges = np.linspace(-1.0, 1.0, BINS + 1)
    return np.stack([np.histogram(np.clip(x, -1, 1), edges)[0] / len(x) for x in np.asarray(actions).T])


def total_variation(real: Float[np.ndarray, "A b"], generated: Float[np.ndarray, "A b"]) -> Float[np.ndarray, " A"]:
    """Half the summed difference of histograms: 0 is the same, 1 nothing in common."""
    return 0.5 * np.abs(real - generated).sum(-1)


def draw(
    path: Path,
    real: Float[np.ndarray, "A b"],
    generated: Float[np.ndarray, "A b"],
    records: Sequence[Mapping[str, Any]],
    title: str,
) -> None:
    """One panel per action, and the discriminator's accuracy in the records of a run's metrics.jsonl."""
    figure, axes = figures.new(len(real) + 1, width=2.8, height=3.0)
    centres = (np.arange(BINS) + 0.5) * 2 / BINS - 1
    for i, axis in enumerate(axes[:-1]):
        axis.fill_between(centres, real[i], step="mid", color="0.7", label="data")
        axis.step(centres, generated[i], where="mid", color="C1", label="generated")
        axis.set(xlabel=f"action {i + 1}", ylim=(0, 1.3 * max(real[i].max(), generated[i].max())))
    axes[0].set_ylabel("share")
    figures.legend(axes[0])
    axes[-1].plot([r["epoch"] for r in records], [r["discriminator_accuracy"] for r in records], color="C0")
    axes[-1].axhline(0.5, color="0.4", linestyle="--", linewidth=1)
    axes[-1].set(xlabel="epoch", ylabel="discriminator accuracy", ylim=(0.4, 1.02))
    figure.suptitle(title)
    figures.save(figure, path)
