"""One look for all figures. Drawn without a display and without pyplot's global state."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MAX_WIDTH = 1800
"""Of an image, in pixels."""
MANY = 5
"""Entries from which a legend goes outside the axes."""


def new(columns: int, width: float = 5.0, height: float = 3.8) -> tuple[Figure, list[Axes]]:
    """A row of panels; sizes in inches per panel."""
    figure = Figure(figsize=(width * columns, height), layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.locator_params(nbins=6)
    return figure, axes


def colours(count: int) -> np.ndarray:
    """[count, 4] distinct colours."""
    return colormaps["tab10" if count <= 10 else "tab20"](np.arange(count) % 20)


def legend(axis: Axes) -> None:
    """A legend, beside the axes if it is long."""
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) > MANY:
        axis.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    elif labels:
        axis.legend(handles, labels, frameon=False)


def save(figure: Figure, path: Path) -> None:
    """Write an image; the suffix says which kind. Long rows of panels get fewer dots per inch: files stay small."""
    figure.savefig(path, dpi=min(150.0, MAX_WIDTH / figure.get_figwidth()))
