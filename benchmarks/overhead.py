"""What the methods of offline meta-RL cost beyond FOCAL: time and memory of a train step, as ratios.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --preset=small --env=hopper_mass

All methods have the same networks, tasks and transitions; only the encoder's further loss differs. Their steps run
side by side: in each of `repeats` rounds every method runs once; the median of the rounds' ratios counts.
"""

import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path

import jax

import envs
from benchmarks import figures as published
from benchmarks.programs import offline_update, ratio, side_by_side
from benchmarks.provenance import provenance
from experiments import cli, er_trl
from metarl_jax.agents.comrl import METHODS
from metarl_jax.analysis import figures
from metarl_jax.training import compilation

BASE = "focal"


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    env: str = "cheetah_vel_grid"
    """Benchmark whose sizes are taken."""
    preset: str = "reference"
    """Settings of experiments.er_trl: reference or small."""
    steps: int = 5
    """Train steps per program."""
    repeats: int = 5
    """Rounds; the median counts."""
    out: Path = Path("benchmarks/results")
    """Folder of the JSON file."""
    figures: Path = Path("docs/figures")
    """Folder of the figure."""


def draw(path: Path, rows: dict[str, dict[str, float]]) -> None:
    """Ratios to FOCAL of every method."""
    measures = ("time", "state", "temporary")
    figure, axes = figures.new(len(measures), width=3.6)
    for axis, measure in zip(axes, measures, strict=True):
        axis.bar(range(len(rows)), [row[measure] for row in rows.values()], color="C0", width=0.6)
        axis.axhline(1.0, color="0.4", linestyle="--", linewidth=1)
        axis.set_xticks(range(len(rows)), list(rows), rotation=20, ha="right")
        axis.set(ylabel=f"{measure}, of {BASE}'s")
    figures.save(figure, path)


def publish(rows: dict[str, dict[str, float]], path: Path) -> Path:
    """Draw the figure where a page shows it."""
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder) / path.name, rows)
        return published.copy(Path(folder) / path.name, path)


def main(config: Config) -> None:
    """Measure, print a table, write JSON and a figure."""
    cli.check_counts(steps=config.steps, repeats=config.repeats)
    compilation.configure()
    agent, spec = er_trl.presets_for(config.preset, config.env).agent, envs.make(config.env).spec
    found = {
        name: offline_update(dataclasses.replace(agent, method=name), spec, config.steps)
        for name in sorted(METHODS, key=lambda name: name != BASE)
    }
    rounds = side_by_side({name: update.work.run for name, update in found.items()}, config.repeats)
    base = found[BASE]
    rows = {
        name: {
            "steps_per_s": statistics.median(config.steps / r[name] for r in rounds),
            "time": ratio(rounds, name, BASE),
            "products": update.work.flops / base.work.flops,
            "state": update.state_bytes / base.state_bytes,
            "temporary": update.temporary_bytes / base.temporary_bytes,
            "state_bytes": update.state_bytes,
            "temporary_bytes": update.temporary_bytes,
        }
        for name, update in found.items()
    }
    info = provenance("benchmarks.overhead")
    print(f"{config.env}, preset {config.preset}; load {info['load_average']}; ratios to {BASE}")
    names = ("steps_per_s", "time", "products", "state", "temporary")
    print(f"{'':16}" + "".join(f"{name:>12}" for name in names))
    for method, row in rows.items():
        print(f"{method:16}" + "".join(f"{row[name]:12.2f}" for name in names))
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / f"overhead_{config.env}_{config.preset}_{jax.default_backend()}.json"
    content = {"machine": info, "env": config.env, "preset": config.preset, "repeats": config.repeats}
    path.write_text(json.dumps(content | {"agent": dataclasses.asdict(agent), "methods": rows}, indent=1) + "\n")
    print(f"wrote {path} and {publish(rows, config.figures / f'{path.stem}.png')}")


if __name__ == "__main__":
    sys.exit(cli.command(Config, main))
