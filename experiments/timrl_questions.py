"""TIMRL's open questions, each one command and one figure: python -m experiments.timrl_questions --question=labels.

Every arm of a question is a training run with its own directory under `out`; what is there already is not run again.
"""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from experiments import cli
from metarl_jax.analysis import evaluation as evaluations
from metarl_jax.analysis import figures
from metarl_jax.analysis.statistics import bootstrap_interval, iqm
from metarl_jax.errors import ConfigurationError
from metarl_jax.training.logging import read_metrics, write_json


class Question(NamedTuple):
    """A benchmark, and what is varied on it."""

    env: str
    arms: dict[str, tuple[str, ...]]
    """Name -> flags. A name that begins with `moss` is a run of MoSS, the others are TIMRL's."""
    asks: str


UNLABELLED = ("--labels=mixture", "--vae.mutual_information_weight=0.5")
QUESTIONS = {
    "labels": Question(
        "cheetah_3task",
        {"labels": (), "without labels": UNLABELLED, "moss": ()},
        "Does recognition need labels?",
    ),
    "components": Question(
        "cheetah_3task",
        {f"K = {k}": (*UNLABELLED, f"--vae.num_components={k}") for k in (1, 2, 3, 4, 6, 8)},
        "What if the number of components is not that of the classes?",
    ),
    "drift": Question(
        "cheetah_vel",
        {
            f"{form} belief": (*UNLABELLED, "--vae.num_components=4", f"--belief={form}", "--env_options", "mode=drift")
            for form in ("component", "mixture")
        },
        "Does a discrete choice harm where tasks change smoothly?",
    ),
    "accuracy": Question(
        "cheetah_3task",
        {f"{share:.2f}": (f"--forced_accuracy={share}",) for share in (1 / 3, 0.5, 0.75, 0.95, 1.0)},
        "How does the return depend on the quality of recognition?",
    ),
    "unseen": Question(
        "cheetah_dir_vel_to_goal",
        {"timrl": (), "mixture belief": ("--belief=mixture",), "moss": ()},
        "What happens in a class that was not trained?",
    ),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """TIMRL's open questions."""

    question: str = "labels"
    """labels, components, drift, accuracy or unseen."""
    minutes: float = 10.0
    """Training time of each run."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each a run of its own, one after another."""
    out: str = "runs/timrl_questions"
    """Directory of the runs, the figure and the JSON file."""


def train(question: Question, arm: str, seed: int, minutes: float, run: Path) -> None:
    """One run in a process of its own, unless it is there."""
    if (run / "summary.json").exists():
        return
    algorithm = "moss" if arm.startswith("moss") else "timrl"
    flags = [f"--env={question.env}", f"--minutes={minutes}", f"--seed={seed}", f"--run_dir={run}"]
    command = [sys.executable, "-m", f"experiments.{algorithm}", *flags, *question.arms[arm]]
    if code := subprocess.run(command, check=False).returncode:
        raise ConfigurationError(f"{arm}, seed {seed}, ended with exit code {code}")


def matched_accuracy(components: np.ndarray, classes: np.ndarray) -> float:
    """Share of steps whose most likely component is the one that stands for the task's class, under the best matching.

    Args:
      components: [T, N, c] responsibilities.
      classes: [N].
    """
    chosen = components.argmax(-1)
    names = np.unique(classes)
    table = np.array([[np.mean((chosen == k) & (classes == c)) for k in range(components.shape[-1])] for c in names])
    return float(table[linear_sum_assignment(-table)].sum())


def outcome(run: Path) -> dict[str, Any]:
    """Numbers of a finished run."""
    last = [r for r in read_metrics(run / "metrics.jsonl") if r.get("test_return") is not None][-1]
    evaluation, tasks = evaluations.load(run / "evaluation.npz")
    classes = tasks.family if len(np.unique(tasks.family)) > 1 else tasks.label
    return {
        "test_return": last["test_return"],
        "test_return_by_family": last["test_return_by_family"],
        "recognition_accuracy": last.get("recognition_accuracy"),
        "matched_accuracy": matched_accuracy(np.asarray(evaluation.components)[0, 0], classes),
        "epoch": last["epoch"],
        "env_steps": last["env_steps"],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation, interquartile mean and its 95 % bootstrap interval over seeds."""
    column = np.asarray(values, float)[:, None]
    low, high = bootstrap_interval(column)
    return {
        "mean": float(column.mean()),
        "std": float(column.std()),
        "iqm": float(iqm(column)[0]),
        "low": float(low[0]),
        "high": float(high[0]),
    }


def draw(path: Path, title: str, arms: dict[str, list[dict[str, Any]]]) -> None:
    """Return and accuracy of every arm: seeds as points, interquartile mean and interval."""
    figure, axes = figures.new(2, width=max(4.0, 1.1 * len(arms)))
    for axis, measure in zip(axes, ("test_return", "matched_accuracy"), strict=True):
        for place, runs in enumerate(arms.values()):
            values = [run[measure] for run in runs]
            over = spread(values)
            axis.plot([place] * len(values), values, "o", color="0.7", markersize=4)
            error = [[over["iqm"] - over["low"]], [over["high"] - over["iqm"]]]
            axis.errorbar([place], [over["iqm"]], yerr=error, fmt="s", capsize=4, color="C0")
        axis.set_xticks(range(len(arms)), list(arms))
        axis.set(ylabel=measure.replace("_", " "))
    axes[0].set_title(title, loc="left", fontsize=10)
    figures.save(figure, path)


def ask(config: Config) -> int:
    """Run what is missing, then write the figure and the JSON file."""
    if config.question not in QUESTIONS:
        raise ConfigurationError(f"unknown question {config.question!r}: choose {', '.join(QUESTIONS)}")
    if not config.seeds:
        raise ConfigurationError("--seeds needs at least one seed")
    question = QUESTIONS[config.question]
    folder = Path(config.out) / config.question
    arms: dict[str, list[dict[str, Any]]] = {}
    for arm in question.arms:
        runs = [folder / f"{arm.replace(' ', '_').replace('=', '')}-{seed}" for seed in config.seeds]
        for seed, run in zip(config.seeds, runs, strict=True):
            train(question, arm, seed, config.minutes, run)
        arms[arm] = [outcome(run) for run in runs]
    print(f"{question.asks} ({question.env})\n{'':20}{'return':>10}{'accuracy':>10}")
    for arm, outcomes in arms.items():
        means = [np.mean([run[name] for run in outcomes]) for name in ("test_return", "matched_accuracy")]
        print(f"{arm:20}{means[0]:10.1f}{means[1]:10.3f}")
    summary = {
        arm: {name: spread([run[name] for run in runs]) for name in ("test_return", "matched_accuracy")}
        for arm, runs in arms.items()
    }
    environment = json.loads((runs[0] / "config.json").read_text())
    content = {"question": question.asks, "env": question.env, "minutes": config.minutes, "arms": arms}
    content |= {"summary": summary, "seeds": config.seeds, "versions": environment["versions"]}
    write_json(folder / "answer.json", content | {"commit": environment["commit"], "devices": environment["devices"]})
    draw(folder / "answer.png", question.asks, arms)
    print(f"{folder / 'answer.json'}\n{folder / 'answer.png'}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Answer the question that the command line asks; returns the exit code."""
    return cli.guarded(lambda: ask(cli.parse(Config, list(sys.argv[1:] if argv is None else argv))))


if __name__ == "__main__":
    sys.exit(main())
