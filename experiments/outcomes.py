"""What runs of a comparison came to: numbers of a run, their spread over seeds, and the figure of all arms."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from metarl_jax.analysis import curves, figures
from metarl_jax.analysis import evaluation as evaluations
from metarl_jax.analysis.statistics import bootstrap_interval, iqm
from metarl_jax.training.logging import read_metrics
from metarl_jax.training.report import recent_scores


def matched_accuracy(components: np.ndarray, classes: np.ndarray, alive: np.ndarray) -> float | None:
    """Share of steps whose most likely component is the one that stands for the task's class, under the best matching.

    None where there is one class, or one component: nothing is told apart.

    Args:
      components: [T, N, c] responsibilities.
      classes: [N].
      alive: [T, N] whether a step belongs to the episode.
    """
    chosen = components.argmax(-1)
    names = np.unique(classes)
    if len(names) < 2 or components.shape[-1] < 2:
        return None
    chosen, classes = chosen[alive], np.broadcast_to(classes, chosen.shape)[alive]
    table = np.array([[np.mean((chosen == k) & (classes == c)) for k in range(components.shape[-1])] for c in names])
    return float(table[linear_sum_assignment(-table)].sum())


def component_shares(
    components: np.ndarray, family: np.ndarray, alive: np.ndarray, names: Sequence[str]
) -> dict[str, float]:
    """Share of each base task's steps in which each component is the most likely one: `goal as component 0`, ...

    Args:
      components: [T, N, c] responsibilities.
      family: base task [N].
      alive: [T, N] whether a step belongs to the episode.
      names: of base tasks.
    """
    chosen, family = components.argmax(-1)[alive], np.broadcast_to(family, alive.shape)[alive]
    return {
        f"{names[i]} as component {k}": float(np.mean(chosen[family == i] == k))
        for i in np.unique(family)
        for k in range(components.shape[-1])
    }


def outcome(run: Path, place: int = 0) -> dict[str, Any]:
    """Numbers of a finished run, of the seed at a `place` among its vmapped ones.

    `reached_return` is the mean of the last `curves.LAST` evaluations; the curve's `unit` is that of its `env_steps`.
    With scores, `score <family>` is the mean over its last evaluations; with several components and tasks that do not
    change there are `component_shares`. `belief_purity` is that of sub-tasks at the episode's end, None where tasks
    change or there is one. All of these are None of a setting that went non-finite where others went on.
    """
    evaluated = [r for r in read_metrics(run / "metrics.jsonl") if r.get("test_return") is not None]
    last, scores = evaluated[-1], recent_scores(evaluated)
    curve = curves.curves(evaluated)[place]
    evaluation, tasks = evaluations.load(run / "evaluation.npz")
    classes = tasks.family if len(np.unique(tasks.family)) > 1 else tasks.label
    about = json.loads((run / "config.json").read_text())
    stationary = about["environment"]["stationary"]  # otherwise the tasks are those of the first steps alone
    components, recognized = np.asarray(evaluation.components)[place, 0], np.asarray(evaluation.recognized)[place, 0]
    alive = np.asarray(evaluation.alive)[place, 0]
    matched = matched_accuracy(components, classes, alive) if stationary else None
    groups = evaluations.belief_purity(np.asarray(evaluation.beliefs)[[place], 0, -1], tasks) if stationary else {}
    several = stationary and components.shape[-1] > 1
    families = about["environment"]["families"]
    shares = component_shares(components, tasks.family, alive, families) if several else {}
    purity = evaluations.clusters(components[None], tasks.family, alive[None])["test_cluster_purity"]
    measured = {
        "test_return": float(curve.test_return[-1]),
        "reached_return": curves.reached([curve]),
        "test_return_by_family": evaluations.grouped(np.asarray(evaluation.returns)[place, 0], tasks.family, families),
        "recognition_accuracy": float(np.nanmean(recognized)) if recognized.size else None,
        "cluster_purity": purity if components.shape[-1] > 1 else None,
        "matched_accuracy": matched,
        "belief_purity": groups.get("subtask"),
        **shares,
        **{f"score {name}": float(seeds[place]) for name, seeds in scores.items()},
    }
    if np.isnan(curve.test_return[-1]):  # what was evaluated last is another setting in its place
        measured = dict.fromkeys(measured)
    about_run = {name: last[name] for name in ("epoch", "env_steps", "seconds")} | {"commit": about["commit"]}
    learnt = {name: getattr(curve, name).tolist() for name in ("env_steps", "minutes", "test_return")}
    return measured | about_run | {"curve": learnt | {"unit": curve.unit}}


def spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Mean, sample standard deviation, interquartile mean and its 95 % bootstrap interval over seeds.

    None without values.
    """
    if any(value is None for value in values):
        return None
    column = np.asarray(values, float)[:, None]
    low, high = bootstrap_interval(column)
    return {
        "mean": float(column.mean()),
        "std": float(column.std(ddof=1)) if len(column) > 1 else 0.0,
        "iqm": float(iqm(column)[0]),
        "low": float(low[0]),
        "high": float(high[0]),
    }


def summarise(
    outcomes: Mapping[str, Sequence[Mapping[str, Any]]], measures: Sequence[str]
) -> dict[str, dict[str, dict[str, float] | None]]:
    """The `spread` of every measure over the seeds of every arm."""
    return {
        name: {measure: spread([run[measure] for run in runs]) for measure in measures}
        for name, runs in outcomes.items()
    }


def draw(path: Path, title: str, outcomes: Mapping[str, Sequence[Mapping[str, Any]]], measures: Sequence[str]) -> None:
    """Measures of every arm, one below the other: seeds as points, interquartile mean and interval."""
    figure, axes = figures.new(len(measures), height=1.2 + 0.3 * len(outcomes))
    for axis, measure in zip(axes, measures, strict=True):
        for place, runs in enumerate(outcomes.values()):
            values = [run[measure] for run in runs]
            over = spread(values)
            if over is None:
                continue
            axis.plot(values, [place] * len(values), "o", color="0.7", markersize=4)
            error = [[over["iqm"] - over["low"]], [over["high"] - over["iqm"]]]
            axis.errorbar([over["iqm"]], [place], xerr=error, fmt="s", capsize=4, color="C0")
        axis.set_yticks(range(len(outcomes)), list(outcomes) if axis is axes[0] else [])
        axis.set(xlabel=measure.replace("_", " "), ylim=(len(outcomes) - 0.5, -0.5))
    figure.suptitle(title, fontsize=10)
    figures.save(figure, path)
