"""Seconds and environment steps that a training run needs to reach a return on held-out tasks.

    python -m benchmarks.time_to_return cheetah_vel --seeds 0 1 2
    python -m benchmarks.time_to_return cheetah_vel --preset=paper --minutes=60

Trains each seed for the row's minutes in a process of its own, and writes configuration, versions, commit, machine,
curves and the crossings to JSON. One seed after another has the whole machine; with `--jobs=2` two run side by side,
each on half of the CPU cores. A target counts as reached at the last of the first three evaluations in a row whose
mean is at least the target. Compilation is not counted. What was interrupted goes on when the command is given again.
"""

import dataclasses
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from benchmarks.provenance import provenance
from benchmarks.publish import published, seed_of, settings_of
from experiments import arms
from metarl_jax.errors import ConfigurationError

IN_A_ROW = 3
"""Evaluations whose mean must reach the target: single ones are noisy."""


class Row(NamedTuple):
    """What a benchmark shall reach."""

    targets: tuple[float, ...]
    """Returns."""
    minutes: float
    """Training time that the highest of them may take on two CPU cores."""


ROWS = {
    "cheetah_vel": Row((-40.0, -35.0, -22.0), 20.0),
    "cheetah_dir": Row((1000.0, 1600.0), 15.0),
    "cheetah_vel_ood": Row((-100.0,), 15.0),
    "cheetah_multitask": Row((-150.0, -70.0), 60.0),
    "ant_dir": Row((600.0,), 60.0),
    "ant_goal": Row((-180.0,), 60.0),
    "ant_multitask": Row((-150.0, -90.0), 150.0),
    "point_robot": Row((-9.0, -6.0), 5.0),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What to train."""

    env: Annotated[str, tyro.conf.Positional]
    """Benchmark; an unknown one lists them all."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each a run of its own."""
    jobs: int = 1
    """Runs side by side, each bound to its share of the CPU cores."""
    preset: str = "fast"
    """Of the experiment."""
    minutes: float | None = None
    """Training time per seed; None: the row's."""
    flags: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """More flags of `experiments.moss`, each as in --flags=--belief=oracle."""
    name: str = ""
    """Added to the file's name, to tell variants apart."""
    runs: Path = Path("runs/time_to_return")
    """Folder of the run directories. What is there already is not run again."""
    out: Path = Path("benchmarks/results")
    """Folder of the JSON file. Seeds that it holds and that are not given stay."""


def crossing(curve: Sequence[dict[str, Any]], target: float) -> dict[str, float] | None:
    """Seconds and env steps at which a curve of evaluations reaches `target`; None if it does not."""
    for end in range(IN_A_ROW, len(curve) + 1):
        if statistics.mean(point["test_return"] for point in curve[end - IN_A_ROW : end]) >= target:
            return {name: curve[end - 1][name] for name in ("seconds", "env_steps")}
    return None


def kept(path: Path, seeds: Sequence[int], how: Mapping[str, float]) -> list[dict[str, Any]]:
    """The runs of other seeds that a file holds.

    Raises:
      ConfigurationError: they were trained with other `minutes` or `jobs` than `how` says.
    """
    if not path.exists():
        return []
    content = json.loads(path.read_text())
    others = [run for run in content["runs"] if seed_of(run) not in seeds]
    for name, value in how.items():
        if others and content[name] != value:
            raise ConfigurationError(
                f"--{name}: {path} has seed {seed_of(others[0])} with {content[name]:g}, not {value:g}: name "
                "another --out"
            )
    return others


def main(config: Config) -> int:
    """Train what is missing, print a table, write JSON; returns the exit code."""
    if config.env not in ROWS:
        raise ConfigurationError(f"no targets for {config.env!r}: choose {', '.join(ROWS)}")
    arms.check_seeds(config.seeds)
    if config.flags and not config.name:
        raise ConfigurationError("--flags needs a --name, which tells the variant's files from the preset's")
    if config.minutes is not None and not config.minutes > 0:
        raise ConfigurationError(f"--minutes must be positive, got {config.minutes}")
    row = ROWS[config.env]
    minutes = config.minutes or row.minutes
    config.out.mkdir(parents=True, exist_ok=True)
    name = "_".join(filter(None, (config.env, config.preset, config.name)))
    path = config.out / f"time_to_return_{name}.json"
    arm, budget = arms.Arm("moss", (f"--preset={config.preset}", *config.flags)), arms.Budget("minutes", minutes)
    others = kept(path, config.seeds, {"minutes": minutes, "jobs": config.jobs})
    wanted = dataclasses.asdict(arms.configured(config.env, arm))
    if others and settings_of(others[0]) | {"run": None} != wanted | {"run": None}:
        raise ConfigurationError(f"--out: {path} has runs with other settings: name another folder")
    folders = [config.runs / f"{name}-{seed}" for seed in config.seeds]
    commands = (
        arms.command(config.env, arm, [seed], budget, folder)
        for seed, folder in zip(config.seeds, folders, strict=True)
    )
    arms.train(config.jobs, commands)
    new = [published(folder) for folder in folders]
    print(f"{'seed':>6}{'target':>10}{'seconds':>10}{'env steps':>12}")
    for seed, run in zip(config.seeds, new, strict=True):
        run["crossings"] = [{"target": target, "at": crossing(run["curve"], target)} for target in row.targets]
        for target, at in ((c["target"], c["at"]) for c in run["crossings"]):
            reached = f"{at['seconds']:10.0f}{at['env_steps']:12,}" if at else f"{'not in':>10}{minutes:>8g} min"
            print(f"{seed:6d}{target:10g}{reached}")
    runs = sorted([*new, *others], key=seed_of)
    machine = provenance("benchmarks.time_to_return") | {"device": new[0]["config"]["devices"][0]}
    content = {"machine": machine, "minutes": minutes, "jobs": config.jobs}
    path.write_text(json.dumps(content | {"runs": runs}, indent=1) + "\n")
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(arms.entry(Config, main))
