"""Does a policy that was trained on `fast` models score the same on the models as shipped?

    python -m benchmarks.fidelity runs/moss-cheetah_vel-... runs/moss-ant_goal-...

Each run's policy plays the same episodes (same tasks, same initial states) on both variants. A row is one run: mean
returns, and the mean difference with its 95 % bootstrap interval over held-out tasks.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from scipy import stats

from benchmarks.provenance import provenance
from envs.benchmarks import BENCHMARKS
from envs.physics.models import VARIANTS
from experiments import cli
from experiments.evaluate import each_task, load
from metarl_jax.analysis.evaluation import HeldOutTasks
from metarl_jax.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class Config:
    """What to compare."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories, one body each."""
    repeats: int = 10
    """Episodes per held-out task."""
    out: Path = Path("benchmarks/results/fidelity.json")
    """The JSON file."""


def returns(run: Path, variant: str, repeats: int) -> np.ndarray:
    """[tasks] first-episode returns of a run's policy: means over seeds and `repeats` starts, the same on both."""
    experiment, state, _ = load(run, 1, variant=variant)
    if experiment.members:
        raise ConfigurationError(f"{run} trained {len(experiment.members)} settings: compare runs of one")
    evaluate = jax.jit(experiment.trainer.evaluate)
    constants = experiment.trainer.constants
    values = [np.asarray(evaluate(state, jax.random.key(i), *constants).returns)[:, 0] for i in range(repeats)]
    return each_task(np.mean(values, (0, 1))[None], HeldOutTasks.of(experiment.test_tasks))[0][0]


def row(run: Path, repeats: int) -> dict[str, Any]:
    """One run on both variants."""
    fast, reference = (returns(run, variant, repeats) for variant in VARIANTS)
    difference = reference - fast
    # Percentiles: where both variants are one and the same model, all differences are 0 and BCa has no interval.
    result = stats.bootstrap((difference,), np.mean, method="percentile", rng=np.random.default_rng(0))
    interval = result.confidence_interval
    config = json.loads((run / "config.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    return {
        "env": config["environment"]["name"],
        "body": BENCHMARKS[config["environment"]["name"]]().body.name,
        "config": config["config"],
        "trained_env_steps": summary["env_steps"],
        "test_return": summary["test_return"],
        "episodes": len(fast) * repeats,
        "fast": float(fast.mean()),
        "reference": float(reference.mean()),
        "difference": float(difference.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
        "percent": float(100 * difference.mean() / abs(fast.mean())),
    }


def main(config: Config) -> None:
    """Compare, print a table, write JSON."""
    cli.check_counts(repeats=config.repeats)
    if not config.runs:
        raise ConfigurationError("at least one run directory is needed")
    config.out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    print(f"{'benchmark':22}{'fast':>10}{'reference':>11}{'difference':>12}{'95 % interval':>20}{'percent':>9}")
    for run in config.runs:
        rows.append(one := row(run, config.repeats))
        print(
            f"{one['env']:22}{one['fast']:10.1f}{one['reference']:11.1f}{one['difference']:12.2f}"
            f"{one['low']:10.2f}, {one['high']:8.2f}{one['percent']:9.2f}",
            flush=True,
        )
    config.out.write_text(json.dumps({"machine": provenance("benchmarks.fidelity"), "rows": rows}, indent=1) + "\n")
    print(f"wrote {config.out}")


if __name__ == "__main__":
    sys.exit(cli.command(Config, main))
