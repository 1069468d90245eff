"""What a run leaves behind for people: summary.json and the figures."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl_jax.analysis import curves, gallery
from metarl_jax.analysis import evaluation as evaluations
from metarl_jax.errors import ConfigurationError
from metarl_jax.training.logging import Record, write_json
from metarl_jax.types import EnvSpec, Evaluation

FINAL = (
    "epoch",
    "env_steps",
    "seconds",
    "compile_seconds",
    "test_return_min",
    "test_return_by_member",
    "test_return_by_family",
    "test_return_by_episode",
    "test_score",
    "test_score_by_family",
    "test_score_std_by_family",
    "recognition_accuracy",
    "test_component_usage",
    "test_responsibility_entropy",
    "test_cluster_purity",
    "test_belief_purity",
    "nonfinite",
    "nonfinite_members",
)
"""What the summary repeats of the last records, besides `test_return`."""

FINISHED = ("completed", "budget")
"""Status of a run that has spent its epochs, or its minutes."""

RECENT = 5
"""Evaluations that a reported score is the mean of (ER-TRL)."""

CURVES = gallery.Findings._fields
"""Entries of the summary that are drawn rather than printed."""


def summarise(records: Sequence[Record], status: str) -> dict[str, Any]:
    """The content of summary.json.

    Args:
      records: of metrics.jsonl.
      status: `running`, `completed`, `budget`, `interrupted` or `failed_nonfinite`.

    Returns:
      `status`, final `test_return` and `best_test_return` with `best_epoch` (None before the first evaluation), or of
      several settings that were trained at once the `best_member` in the last evaluation, and the latest value of each
      of `FINAL` that was recorded; where there are scores, `recent_score_by_family`: the mean over the last `RECENT`
      evaluations, and with several seeds `recent_score_std_by_family`: the standard deviation over seeds of each one's
      mean over them.
    """
    evaluated = [r for r in records if r.get("test_return") is not None]
    summary: dict[str, Any] = {"status": status, "test_return": evaluated[-1]["test_return"] if evaluated else None}
    if members := evaluated and evaluated[-1].get("test_return_by_member"):
        known = {name: value for name, value in members.items() if value is not None}
        summary["best_member"] = max(known, key=known.__getitem__)
    else:
        best = max(evaluated, key=lambda r: r["test_return"], default={})
        summary |= {"best_test_return": best.get("test_return"), "best_epoch": best.get("epoch")}
    latest: Record = {}
    for record in records:
        latest |= {name: value for name, value in record.items() if value is not None}
    scores = [r["test_score_by_family"] for r in evaluated if "test_score_by_family" in r][-RECENT:]
    if scores:
        summary["recent_score_by_family"] = {name: float(np.mean([s[name] for s in scores])) for name in scores[-1]}
    over_seeds = {name: float(np.std(x, ddof=1)) for name, x in recent_scores(evaluated).items() if len(x) > 1}
    if over_seeds:
        summary["recent_score_std_by_family"] = over_seeds
    return summary | {name: latest[name] for name in FINAL if name in latest}


def recent_scores(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """By family, each seed's mean score over the last `RECENT` evaluations [S]; {} where none recorded them."""
    scores = [r["test_score_per_seed"] for r in records if "test_score_per_seed" in r][-RECENT:]
    return {name: np.mean([s[name] for s in scores], 0) for name in scores[-1]} if scores else {}


def is_final(run_dir: Path) -> bool:
    """Whether the run in this directory ended by itself, rather than by a signal or a kill, and all is written."""
    return read_summary(run_dir).get("status") in FINISHED


def read_summary(run_dir: Path) -> dict[str, Any]:
    """The summary.json of a run; {} if there is none that can be read."""
    try:
        content = json.loads((run_dir / "summary.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def reopen(run_dir: Path) -> None:
    """Take back the status of a run that goes on: whatever ends it now, it is not finished before it says so again."""
    if (run_dir / "summary.json").exists():
        write_json(run_dir / "summary.json", read_summary(run_dir) | {"status": "running"})


def write(
    run_dir: Path,
    records: Sequence[Record],
    status: str,
    spec: EnvSpec,
    last: tuple[Evaluation, evaluations.HeldOutTasks] | None,
    several: bool = False,
) -> dict[str, Any]:
    """Write evaluation.npz, the figures and summary.json; `last` is the last evaluation [S, ...] on the host.

    Without one what was written before is told of: a run that was resumed may have ended before its next evaluation.
    Of `several` settings that were trained at once only the curves are drawn: what they believe is not the same.

    The summary comes last: a run whose status is final has everything.

    Returns:
      The summary.
    """
    summary = summarise(records, status)
    if last is None and (run_dir / "evaluation.npz").exists():
        with contextlib.suppress(ConfigurationError):  # damaged: as if there were none
            last = evaluations.load(run_dir / "evaluation.npz")
    found = gallery.findings(last[0], spec.stationary) if last and not several else gallery.Findings()
    summary |= {name: x._asdict() for name, x in found._asdict().items() if x}
    curves.draw_run(run_dir / "curves.png", records, spec.name)
    if last:
        evaluations.save(run_dir / "evaluation.npz", *last)
    if last and not several:
        place = lambda name: run_dir / f"{name}.png"  # noqa: E731
        gallery.draw(place, found, *last, spec.subtasks, spec.stationary, f"beliefs, {spec.name}")
    write_json(run_dir / "summary.json", summary)
    return summary
