"""Learning curves, of one run and of groups of runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from metarl_jax.analysis import figures
from metarl_jax.analysis.statistics import FEW, bootstrap_interval, iqm

GRID = 200
"""Points at which runs that were evaluated at different times are compared."""
LAST = 3
"""Evaluations whose mean is what a run reached in the end."""

Level = float | Sequence[float]
"""A reference return, or both ends of a range of them."""


Line = tuple[np.ndarray, np.ndarray]
"""x and y [P] of one seed."""


class Curve(NamedTuple):
    """Test return of one seed at each evaluation [P]; NaN from where its setting went non-finite."""

    env_steps: np.ndarray
    minutes: np.ndarray
    test_return: np.ndarray
    unit: str = "environment steps"
    """Of `env_steps`, which are epochs where data is stored rather than collected."""

    def against(self, x: str) -> Line:
        """The return over `env_steps` or `minutes`, as far as there is one."""
        known = ~np.isnan(self.test_return)
        return getattr(self, x)[known], self.test_return[known]


def steps(records: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, str]:
    """How far a run was at each record, and in which unit."""
    if records and not any(r["env_steps"] for r in records):
        return np.array([r["epoch"] for r in records], float), "epochs"
    return np.array([r["env_steps"] for r in records], float), "environment steps"


def curves(records: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """One curve per seed of a run, from the records of its `metrics.jsonl`."""
    evaluated = [r for r in records if r.get("test_return") is not None]
    if not evaluated:
        return []
    env_steps, unit = steps(evaluated)
    minutes = np.array([r["seconds"] for r in evaluated]) / 60
    seeds = np.array([r.get("test_return_per_seed", [r["test_return"]]) for r in evaluated], float)
    return [Curve(env_steps, minutes, seed, unit) for seed in seeds.T]


def by_setting(records: Sequence[Mapping[str, Any]], label: str) -> dict[str, list[Curve]]:
    """The curves of a run by setting, where several were trained at once, or all of them under the `label`."""
    evaluated = [r for r in records if r.get("test_return") is not None]
    names = list(evaluated[-1].get("test_return_by_member", [label])) if evaluated else [label]
    found = curves(evaluated)
    num = len(found) // len(names)
    return {name: found[i * num : (i + 1) * num] for i, name in enumerate(names)}


def reached(seeds: Sequence[Curve]) -> float:
    """Mean over the seeds of what each reached in the end."""
    return float(np.mean([seed.test_return[-LAST:].mean() for seed in seeds]))


def band(seeds: Sequence[Line]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """IQM and 95 % bootstrap interval of several lines.

    Returns:
      (x, iqm, low, high) [G] over the range that all seeds cover; a single curve keeps its own points.
    """
    if len(seeds) == 1:
        x, y = seeds[0]
        return x, y, y, y
    low, high = max(x[0] for x, _ in seeds), min(x[-1] for x, _ in seeds)
    grid = np.linspace(low, max(low, high), GRID)
    values = np.stack([np.interp(grid, x, y) for x, y in seeds])
    return (grid, iqm(values), *bootstrap_interval(values))


def draw_band(axis: Axes, seeds: Sequence[Line], label: str, colour: np.ndarray) -> None:
    """Seeds as thin lines, where there are several, with their interquartile mean and its interval, if they overlap.

    Nothing of a setting that went non-finite before it was evaluated.
    """
    if not all(len(x) for x, _ in seeds):
        return
    num = len(seeds)
    over = f" (mean and range of {num})" if num < FEW else f" (IQM of {num}, 95 %)"
    name = label + over * (num > 1)
    for seed in seeds if num > 1 else ():
        axis.plot(*seed, color=colour, alpha=0.4, linewidth=0.7)
    if max(x[0] for x, _ in seeds) > min(x[-1] for x, _ in seeds):  # no place where all of them are
        axis.plot([], [], color=colour, label=label)
        return
    grid, centre, low, high = band(seeds)
    marker = "o" if len(np.unique(grid)) < 20 else None
    axis.plot(grid, centre, color=colour, label=name, marker=marker, markersize=3)
    axis.fill_between(grid, low, high, color=colour, alpha=0.2, linewidth=0)


def _draw_levels(axis: Axes, levels: Mapping[str, Level]) -> None:
    """Dashed lines with their names above them, or below where another one is close above."""
    tops = [np.max(level) for level in levels.values()]
    for i, level in enumerate(levels.values()):
        grey, ends = str(0.3 + 0.15 * (i % 4)), np.atleast_1d(level)
        axis.axhspan(ends.min(), ends.max(), color=grey, alpha=0.15, linewidth=0)
        for end in ends:
            axis.axhline(end, color=grey, linestyle="--", linewidth=1)
    close = 0.08 * np.ptp(axis.get_ylim())
    for name, level in levels.items():
        crowded = any(0.0 < top - np.max(level) < close for top in tops)
        end, side = (np.min(level), "top") if crowded else (np.max(level), "bottom")
        axis.annotate(name, (1.0, end), xycoords=("axes fraction", "data"), ha="right", va=side, fontsize=8)


def _label(axis: Axes, y: str, unit: str | None = None) -> None:
    """Name the axes; x is minutes, or counts something: 200k, 1.5M."""
    axis.set(xlabel=unit or "training time [min]", ylabel=y)
    if unit:
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def draw_groups(
    path: Path,
    groups: Mapping[str, Sequence[Curve]],
    levels: Mapping[str, Level] | None = None,
    against: Sequence[str] = ("env_steps", "minutes"),
    **size: float,
) -> None:
    """Compare groups of seeds, which are thin lines where there are several; reference returns as dashed lines.

    Args:
      path: of the image.
      groups: the curves by label, which is the title where there is one group.
      levels: reference returns by name.
      against: fields of `Curve`, a panel for each.
      **size: of a panel, see `figures.new`.
    """
    figure, axes = figures.new(len(against), **size)
    units = sorted({seed.unit for seeds in groups.values() for seed in seeds})
    for axis, x in zip(axes, against, strict=True):
        for (label, seeds), colour in zip(groups.items(), figures.colours(len(groups)), strict=True):
            draw_band(axis, [seed.against(x) for seed in seeds], label, colour)
        _draw_levels(axis, levels or {})
        _label(axis, "test return", " or ".join(units) if x == "env_steps" else None)
        axis.set_xlim(left=0)
    if len(groups) > 1:
        figures.legend(axes[-1])
    else:
        names = [name.replace(" (", "\n(") for name in axes[-1].get_legend_handles_labels()[1]]
        figure.suptitle(*names, fontsize="medium", wrap=True)
    figures.save(figure, path)


def draw_run(
    path: Path, records: Sequence[Mapping[str, Any]], label: str, levels: Mapping[str, Level] | None = None
) -> None:
    """One run: test and train return against steps and time; where there are several base tasks, each one's too.

    Of several settings that were trained at once, the test returns of each.
    """
    evaluated = [r for r in records if r.get("test_return") is not None]
    groups = by_setting(evaluated, f"test, {label}")
    if len(groups) > 1:
        draw_groups(path, groups, levels)
        return
    several = bool(evaluated) and len(evaluated[-1]["test_return_by_family"]) > 1
    figure, axes = figures.new(3 if several else 2)
    for name, seeds in groups.items() if evaluated else ():
        for axis, x in zip(axes, ("env_steps", "minutes"), strict=False):
            draw_band(axis, [seed.against(x) for seed in seeds], name, figures.colours(1)[0])
    trained = [r for r in records if r.get("train_return") is not None]
    axes[0].plot(
        steps(trained)[0],
        [r["train_return"] for r in trained],
        color="0.5",
        linewidth=0.8,
        label="train",
        zorder=0,
    )
    if several:
        _draw_families(axes[2], evaluated)
        _label(axes[2], "test return by base task", steps(records)[1])
    _label(axes[0], "return", steps(records)[1])
    _label(axes[1], "return")
    for axis in axes[:2]:
        _draw_levels(axis, levels or {})
    for axis in axes:
        figures.legend(axis)
    figures.save(figure, path)


def _draw_families(axis: Axes, evaluated: Sequence[Mapping[str, Any]]) -> None:
    names = list(evaluated[-1]["test_return_by_family"])
    env_steps, _ = steps(evaluated)
    for name, colour in zip(names, figures.colours(len(names)), strict=True):
        values = [r["test_return_by_family"][name] for r in evaluated]
        axis.plot(env_steps, values, color=colour, label=name, marker="o" if len(values) < 20 else None, markersize=3)
