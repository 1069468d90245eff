"""Seconds and environment steps that a training run needs to reach a return on held-out tasks.

    python -m benchmarks.time_to_return cheetah_vel --seeds 0 1 2
    python -m benchmarks.time_to_return cheetah_vel --preset=paper --minutes=60

Trains one seed after another for the row's minutes, each in a process of its own with the whole machine, and writes
configuration, versions, commit, machine, curves and the crossings to JSON. A target counts as reached at the last of
the first three evaluations in a row whose mean is at least the target. Compilation is not counted.
"""

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from benchmarks.provenance import provenance
from benchmarks.publish import published

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
    """Trained one after another."""
    preset: str = "fast"
    """Of the experiment."""
    minutes: float | None = None
    """Training time per seed; None: the row's."""
    flags: tuple[str, ...] = ()
    """More flags of `experiments.moss`, such as --flags=--belief=oracle."""
    name: str = ""
    """Added to the file's name, to tell variants apart."""
    out: Path = Path("benchmarks/results")
    """Folder of the JSON file."""


def crossing(curve: Sequence[dict[str, Any]], target: float) -> dict[str, float] | None:
    """Seconds and env steps at which a curve of evaluations reaches `target`; None if it does not."""
    for end in range(IN_A_ROW, len(curve) + 1):
        if statistics.mean(point["test_return"] for point in curve[end - IN_A_ROW : end]) >= target:
            return {name: curve[end - 1][name] for name in ("seconds", "env_steps")}
    return None


def train(config: Config, seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """One run in a process of its own, as `published`."""
    run = folder / f"seed{seed}"
    flags = [f"--env={config.env}", f"--preset={config.preset}", f"--minutes={minutes}", f"--seed={seed}"]
    command = [sys.executable, "-m", "experiments.moss", *flags, f"--run_dir={run}", *config.flags]
    if code := subprocess.run(command, check=False).returncode:
        raise SystemExit(f"error: seed {seed} ended with exit code {code}")
    return published(run)


def main(config: Config) -> None:
    """Train, print a table, write JSON."""
    if config.env not in ROWS:
        raise SystemExit(f"error: no targets for {config.env!r}: choose {', '.join(ROWS)}")
    row = ROWS[config.env]
    minutes = config.minutes or row.minutes
    config.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        runs = [train(config, seed, minutes, Path(folder)) for seed in config.seeds]
    print(f"{'seed':>6}{'target':>10}{'seconds':>10}{'env steps':>12}")
    for seed, run in zip(config.seeds, runs, strict=True):
        run["crossings"] = [{"target": target, "at": crossing(run["curve"], target)} for target in row.targets]
        for target, at in ((c["target"], c["at"]) for c in run["crossings"]):
            reached = f"{at['seconds']:10.0f}{at['env_steps']:12,}" if at else f"{'not in':>10}{minutes:>8g} min"
            print(f"{seed:6d}{target:10g}{reached}")
    path = config.out / ("_".join(filter(None, ("time_to_return", config.env, config.preset, config.name))) + ".json")
    content = {"machine": provenance("benchmarks.time_to_return"), "minutes": minutes, "runs": runs}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    try:
        parsed = tyro.cli(Config, description=__doc__)
    except SystemExit as stop:
        raise SystemExit(stop.code and 2) from None
    main(parsed)
