"""What an offline data set holds: how good behaviour was, and which states and actions it visited."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from metarl_jax.analysis import figures, latents
from metarl_jax.data import offline
from metarl_jax.data.offline import Metadata, OfflineData

POINTS = 4_000
"""Transitions drawn, evenly spaced over the stored ones."""


def draw(path: Path, data: OfflineData, metadata: Metadata) -> None:
    """Return per task and checkpoint; states and actions in two principal components, coloured by checkpoint."""
    figure, axes = figures.new(3)
    _returns(axes[0], offline.behaviour_returns(data, metadata), metadata, data.split)
    chosen = np.argwhere(np.arange(data.reward.shape[1]) < data.count[:, None])
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(POINTS, len(chosen))).astype(int)]
    index = tuple(chosen.T)
    colour = np.searchsorted(metadata.checkpoints, data.checkpoint[index])
    for axis, name, values in ((axes[1], "states", data.obs), (axes[2], "actions", data.action)):
        points = latents.project(_standardised(values[index]))
        axis.scatter(points[:, 0], points[:, 1], c=colour, s=3, cmap="viridis", alpha=0.6, linewidths=0)
        of = "principal component" if values.shape[-1] > 2 else "entry"
        axis.set(title=f"{name} visited", xlabel=f"{of} 1", ylabel=f"{of} 2")
    figure.suptitle(f"{metadata.env}, {metadata.quality} behaviour")
    figures.save(figure, path)


def _returns(axis: Axes, returns: np.ndarray, metadata: Metadata, split: np.ndarray) -> None:
    colours = colormaps["viridis"](np.linspace(0, 1, len(metadata.checkpoints)))
    for values, steps, colour in zip(returns.T, metadata.checkpoints, colours, strict=True):
        if np.isfinite(values).any():
            axis.plot(values, "o", color=colour, markersize=3, label=f"{steps:,} steps")
    for i in range(1, len(split)):
        if split[i] != split[i - 1]:
            axis.axvline(i - 0.5, color="0.7", linewidth=1)
    names = ", ".join(name for i, name in enumerate(offline.SPLITS) if i in split)
    axis.set(title="behaviour, mean over episodes", xlabel=f"task: {names}", ylabel="return")
    axis.legend(frameon=False, fontsize=7)


def _standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)
