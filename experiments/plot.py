"""Draw runs: learning curves of several, and what a single one believes and how it responds to changes."""

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import cli, rundir
from metarl_jax.analysis import curves, gallery, latents
from metarl_jax.analysis import evaluation as evaluations
from metarl_jax.errors import ConfigurationError
from metarl_jax.training.logging import Record, read_metrics
from metarl_jax.training.loop import RunConfig

SUFFIXES = (".png", ".pdf", ".svg")
RUN_FIELDS = {field.name for field in dataclasses.fields(RunConfig)}


@dataclasses.dataclass(frozen=True)
class Config:
    """Learning curves: interquartile mean and 95 % bootstrap interval over the seeds of equally configured runs."""

    runs: tuple[str, ...]
    """Run directories. A single one is also drawn in detail: base tasks, beliefs, response to changes. Runs of an
    oracle beside others are one line: what they reached in the end."""
    out: str | None = None
    """Image of the curves, whose name those of details begin with; None: curves.png in the single run's directory, or
    here."""
    levels: tuple[str, ...] = ()
    """Reference returns, drawn as lines: name=value, such as idle=-300."""
    method: str = "pca"
    """Projection of the beliefs: pca or tsne."""


def group(runs: Sequence[str]) -> dict[str, list[curves.Curve]]:
    """Curves of all seeds by configuration; runs that differ only in seed and budget belong together.

    Raises:
      ConfigurationError: a directory is no run, or was never evaluated.
    """
    groups: dict[tuple[str, str], list[curves.Curve]] = {}
    first: dict[tuple[str, str], str] = {}
    for run in runs:
        content = rundir.read(run, "--runs")
        settings = {k: v for k, v in content["config"].items() if k not in RUN_FIELDS | {"run"}}
        label = f"{content['algorithm']}, {content['environment']['name']}"
        for name, seeds in curves.by_setting(evaluated(run), "").items():
            key = (f"{label}, {name}" if name else label, json.dumps(settings, sort_keys=True))
            groups.setdefault(key, []).extend(seeds)
            first.setdefault(key, run)
    names = [name for name, _ in groups]
    places = dict(zip(first.values(), rundir.short(list(first.values())), strict=True))
    return {
        name if names.count(name) == 1 else f"{name} ({places[first[name, settings]]})": members
        for (name, settings), members in groups.items()
    }


def is_oracle(run: str) -> bool:
    """Whether a run's policy is told its task."""
    return rundir.read(run, "--runs")["config"].get("agent", {}).get("belief") == "oracle"


def evaluated(run: str) -> list[Record]:
    """The records of a run; raises `ConfigurationError` if none has an evaluation."""
    records = read_metrics(Path(run) / "metrics.jsonl")
    if not any(r.get("test_return") is not None for r in records):
        raise ConfigurationError(f"--runs: {run} was not evaluated yet")
    return records


def plot(config: Config) -> int:
    """Draw, and print the path of each image."""
    if not config.runs:
        raise ConfigurationError("--runs needs at least one run directory")
    for run in config.runs:
        rundir.read(run, "--runs")
    if len({Path(run).resolve() for run in config.runs}) < len(config.runs):
        raise ConfigurationError("--runs: a run is given twice, which would count as two seeds")
    latents.check_method(config.method)
    single = len(config.runs) == 1
    path = Path(config.out) if config.out else (Path(config.runs[0]) if single else Path()) / "curves.png"
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"--out: there is no directory for {path}")
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(f"--out: {path} must end in one of {', '.join(SUFFIXES)}")
    levels = cli.parse_options(config.levels, "--levels")
    for name, value in levels.items():
        if not name or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigurationError(f"--levels: {name or 'a name'} must be a finite number, got {value!r}")
    if single:
        drawn = draw_single(Path(config.runs[0]), path, config.method, levels, f"{path.stem}_" if config.out else "")
    else:
        inferring = [run for run in config.runs if not is_oracle(run)]
        oracles = group([run for run in config.runs if is_oracle(run)]) if inferring else {}
        for name, members in oracles.items():
            levels.setdefault("oracle" if len(oracles) == 1 else f"oracle ({name})", curves.reached(members))
        curves.draw_groups(path, group(inferring or config.runs), levels)
        drawn = [path]
    for image in drawn:
        print(image)
    return 0


def draw_single(run: Path, path: Path, method: str, levels: Mapping[str, float], prefix: str) -> list[Path]:
    """Curves, beliefs, response, recognition and attention of one run; all but the first stand beside it, with names
    that begin with `prefix`.
    """
    content = rundir.read(run, "--runs")
    environment: dict[str, Any] = content["environment"]
    curves.draw_run(path, evaluated(str(run)), environment["name"], levels)
    if not (run / "evaluation.npz").exists() or content["config"].get("members"):
        return [path]
    evaluation, tasks = evaluations.load(run / "evaluation.npz")
    images = gallery.draw(
        lambda name: path.with_name(prefix + name + path.suffix),
        gallery.findings(evaluation, environment["stationary"]),
        evaluation,
        tasks,
        environment["subtasks"],
        environment["stationary"],
        f"beliefs, {environment['name']}",
        method,
    )
    return [path, *images]


def main(argv: Sequence[str] | None = None) -> int:
    """Draw as the command line says; returns the exit code."""
    return cli.command(Config, plot, argv)


if __name__ == "__main__":
    sys.exit(main())
