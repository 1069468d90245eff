"""Turn run directories into the JSON files that README quotes, and into its figures.

    python -m benchmarks.publish runs/moss-cheetah_vel-* --note "two runs side by side, one core each"

Writes `<algorithm>_<env>_<preset>.json`, with `_oracle` where the policy is told its task: per run its configuration,
versions, commit and devices, every evaluated point of its curve, and its summary. Draws the curves, and copies the
images of the first run, to docs/figures; then `python -m benchmarks.readme` shows them, an oracle as the upper line of
the others' figure.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks import figures
from benchmarks.provenance import provenance
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
    "test_return_by_subtask",
    "test_score_by_family",
    "test_score_per_seed",
    "recognition_accuracy",
    "test_component_usage",
    "test_responsibility_entropy",
    "test_cluster_purity",
    "env_steps_per_second",
    "updates_per_second",
    "reward_error",
    "diverged",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """What to publish."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Finished run directories of one algorithm, benchmark and preset: one per seed."""
    note: str = ""
    """How they were run, for the reader."""
    out: Path = Path("benchmarks/results")
    """Folder of the JSON file."""
    figures: Path = Path("docs/figures")
    """Folder of the figures."""


def published(run: Path) -> dict[str, Any]:
    """One run, without what a reader does not need; leaves with one line if it holds no evaluated run."""
    try:
        points = [r for r in read_metrics(run / "metrics.jsonl") if r.get("test_return") is not None]
        config, summary = (json.loads((run / f"{name}.json").read_text()) for name in ("config", "summary"))
    except (OSError, json.JSONDecodeError) as error:
        raise SystemExit(f"error: {run} holds no finished run (config.json, metrics.jsonl, summary.json)") from error
    if not points:
        raise SystemExit(f"error: {run} was never evaluated")
    settings = config["config"]
    settings["run"]["run_dir"] = None  # says nothing on another machine
    if isinstance(settings["data"], str):  # a data set, of which the name says enough
        settings["data"] = Path(settings["data"]).name
    return {
        "config": config,
        "summary": summary,
        "curve": [{name: point[name] for name in CURVE if name in point} for point in points],
    }


def title(run: dict[str, Any]) -> str:
    """Name of the file that a published run belongs to."""
    settings = run["config"]["config"]
    oracle = ["oracle"] if settings["agent"].get("belief") == "oracle" else []
    return "_".join([run["config"]["algorithm"], settings["env"], settings["preset"], *oracle])


def main(config: Config) -> None:
    """Write one file for all runs, and their figures."""
    runs = [published(run) for run in config.runs]
    names = {title(run) for run in runs}
    if len(names) != 1:
        raise SystemExit(f"error: runs of different experiments: {', '.join(sorted(names))}")
    path = config.out / f"{names.pop()}.json"
    machine = {k: v for k, v in provenance("benchmarks.publish").items() if k in ("cpu", "cores", "device")}
    path.write_text(json.dumps({"note": config.note, "machine": machine, "runs": runs}, indent=1) + "\n")
    finals = ", ".join(f"{r['summary']['test_return']:.1f}" for r in runs)
    print(f"wrote {path}: final test returns {finals}")
    drawn = [figures.draw(path, config.figures), *figures.draw_recognition(path, config.figures)]
    for image in (*drawn, *figures.keep(config.runs[0], path.stem, config.figures)):
        print(image)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
