"""Turn run directories into the JSON files that README and docs/ quote, and into their figures.

    python -m benchmarks.publish runs/moss-cheetah_vel-* --note "two runs side by side, one core each"

Writes `<algorithm>_<env>_<preset>.json`, with `_oracle` where the policy is told its task: per run its configuration,
versions, commit and devices, every evaluated point of its curve, its summary, and what each held-out task paid in the
course of the last evaluation. With `--keep=True` the file's other seeds stay in it. Draws the curves, and copies the
images of the first run, to docs/figures; then `python -m benchmarks.readme` shows them, an oracle as the upper line of
the others' figure.
"""

import dataclasses
import importlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from benchmarks import figures
from benchmarks.provenance import provenance
from experiments import cli, rundir
from metarl_jax.analysis import evaluation as evaluations
from metarl_jax.errors import ConfigurationError
from metarl_jax.training.logging import read_metrics

CURVE = (
    "epoch",
    "env_steps",
    "seconds",
    "train_return",
    "test_return",
    "test_return_per_seed",
    "test_return_min",
    "test_return_by_family",
    "test_return_by_episode",
    "test_return_by_subtask",
    "test_score_by_family",
    "test_score_per_seed",
    "recognition_accuracy",
    "test_component_usage",
    "test_responsibility_entropy",
    "test_cluster_purity",
    "test_belief_purity",
    "env_steps_per_second",
    "updates_per_second",
    "reward_error",
    "diverged",
)


PARTS = 10
"""Of an episode."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What to publish."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Finished run directories of one algorithm, benchmark and preset: one per seed."""
    note: str = ""
    """How they were run, for the reader."""
    name: str = ""
    """Added to the names of the file and its figures, to tell variants apart."""
    keep: bool = False
    """Keep what the file already holds of other seeds with the same settings."""
    out: Path = Path("benchmarks/results")
    """Folder of the JSON file."""
    figures: Path = Path("docs/figures")
    """Folder of the figures."""


def published(run: Path) -> dict[str, Any]:
    """One run, without what a reader does not need; leaves with one line if it holds no evaluated run."""
    try:
        points = [r for r in read_metrics(run / "metrics.jsonl") if r.get("test_return") is not None]
        config, summary = (json.loads((run / f"{name}.json").read_text()) for name in ("config", "summary"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{run} holds no finished run (config.json, metrics.jsonl, summary.json)") from error
    if not points:
        raise ConfigurationError(f"{run} was never evaluated")
    if not isinstance(summary, dict) or summary.get("status", "running") == "running":
        raise ConfigurationError(f"{run} is running, or was killed: let it end, or go on with --resume")
    settings = config["config"]
    if settings.get("members"):
        raise ConfigurationError(f"{run} trained {len(settings['members'])} settings: publish runs of one")
    settings["run"]["run_dir"] = None  # says nothing on another machine
    if isinstance(settings["data"], str):  # a data set, of which the name says enough
        settings["data"] = Path(settings["data"]).name
    return {
        "config": config,
        "summary": summary,
        "curve": [{name: point[name] for name in CURVE if name in point} for point in points],
        "last_evaluation": last_evaluation(run, config["environment"]) if (run / "evaluation.npz").exists() else [],
    }


def last_evaluation(run: Path, environment: dict[str, Any]) -> list[dict[str, Any]]:
    """Mean reward per step in each of `PARTS` equal parts of the first episode, by held-out task; of the first seed.

    None of a part that the episode has ended before. Nothing where tasks change: a held-out task is then the first of
    several.
    """
    if not environment["stationary"]:
        return []
    evaluation, tasks = evaluations.load(run / "evaluation.npz")
    rewards, alive = (np.asarray(x)[0, 0] for x in (evaluation.rewards, evaluation.alive))
    specs = np.asarray(tasks.spec, float).round(4)
    parts = np.array_split(np.arange(len(rewards)), PARTS)

    def course(task: int) -> list[float | None]:
        paid = [rewards[part, task][alive[part, task]].astype(float) for part in parts]
        return [round(float(part.mean()), 4) if len(part) else None for part in paid]

    return [
        {"subtask": environment["subtasks"][label], "spec": spec.tolist(), "reward_per_step": course(task)}
        for task, (label, spec) in enumerate(zip(tasks.label, specs, strict=True))
    ]


def settings_of(run: dict[str, Any]) -> dict[str, Any]:
    """What a published run was trained with; fields that came later are at their defaults, which are as it was before.

    Where fields have gone since, it is what was written.
    """
    stored = run["config"]["config"]
    default = importlib.import_module(cli.ALGORITHMS[run["config"]["algorithm"]]).Config()
    try:
        return dataclasses.asdict(rundir.fill(default, stored, "a published run"))
    except ConfigurationError:
        return stored


def title(runs: Sequence[dict[str, Any]], variant_name: str = "") -> str:
    """Name of what published runs of one experiment show: algorithm, benchmark with its options, preset.

    The words of `variant_name` follow the preset.

    Raises:
      ConfigurationError: they are of several experiments, or trained with different settings, other than ER-TRL's
        methods.
    """
    names, settings = set(), set()
    for run in runs:
        config = settings_of(run)
        agent = {name: value for name, value in config["agent"].items() if name != "method"}
        variant = [config["variant"]] if config.get("variant", "fast") != "fast" else []
        oracle = ["oracle"] if agent.get("belief") == "oracle" else []
        options = [option.replace("=", "-") for option in config.get("env_options", ())]
        algorithm, told = run["config"]["algorithm"], variant_name.split()
        names.add("_".join([algorithm, config["env"], *options, *variant, config["preset"], *told, *oracle]))
        settings.add(json.dumps(config | {"agent": agent, "run": None}, sort_keys=True))
    if len(names) != 1:
        raise ConfigurationError(f"runs of different experiments: {', '.join(sorted(names))}")
    if len(settings) != 1:
        raise ConfigurationError(f"runs of {names.pop()} with different settings (see their config.json)")
    return names.pop()


def seed_of(run: dict[str, Any]) -> int:
    """The (first) seed of a published run."""
    return run["config"]["config"]["run"]["seed"]


def kind_of(run: dict[str, Any]) -> tuple[str | None, int]:
    """What there is one of in a file: a (first) seed, of ER-TRL's methods each."""
    return run["config"]["config"]["agent"].get("method"), seed_of(run)


def main(config: Config) -> None:
    """Write one file for all runs, and their figures."""
    if not config.runs:
        raise ConfigurationError("at least one run directory is needed")
    new = [published(run) for run in config.runs]
    path, note, runs = config.out / f"{title(new, config.name)}.json", config.note, new
    kinds = Counter(map(kind_of, new))
    if twice := [seed for (_, seed), count in kinds.items() if count > 1]:
        raise ConfigurationError(f"several runs of seed {twice[0]}: give one run per seed")
    if config.keep and path.exists():
        old = json.loads(path.read_text())
        runs = sorted([*new, *(run for run in old["runs"] if kind_of(run) not in kinds)], key=seed_of)
        title(runs)
        note = note or old["note"]
    config.out.mkdir(parents=True, exist_ok=True)
    machine = {k: v for k, v in provenance("benchmarks.publish").items() if k in ("cpu", "cores", "device")}
    path.write_text(json.dumps({"note": note, "name": config.name, "machine": machine, "runs": runs}, indent=1) + "\n")
    finals = ", ".join(f"{r['summary']['test_return']:.1f}" for r in runs)
    print(f"wrote {path}: final test returns {finals}")
    for image in draw(path, config.figures, first_run=config.runs[0] if runs[0] is new[0] else None):
        print(image)


def draw(result: Path, folder: Path, first_run: Path | None) -> list[Path]:
    """The figures of a result, of an oracle's that of the others, if there is one; `first_run` has drawn details."""
    others = result.with_stem(result.stem.removesuffix(figures.ORACLE))
    if others != result:
        return [figures.draw(others, folder)] if others.exists() else []
    details = figures.keep(first_run, result.stem, folder) if first_run else []
    return [figures.draw(result, folder), *figures.draw_recognition(result, folder), *details]


if __name__ == "__main__":
    sys.exit(cli.command(Config, main))
