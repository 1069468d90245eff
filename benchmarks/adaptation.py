"""How well a trained policy follows changes of its task, and tasks outside the training range.

    python -m benchmarks.adaptation runs/moss-cheetah_dir_nonstat-*
    python -m benchmarks.adaptation runs/moss-cheetah_vel_ood-*

Where tasks change, the reward per step from `settle` steps after a change on, beside that of the same policy on the
same tasks when nothing changes. Elsewhere, the cost (negative reward) per step from `settle` steps after the start on,
on held-out tasks beside training tasks: on `cheetah_vel_ood` the speed error and the little that control costs.
First episodes, deterministic policy, mean and 95 % bootstrap interval over runs, tasks and repeats.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from scipy import stats

from benchmarks.provenance import provenance
from benchmarks.publish import published
from experiments import rundir
from experiments.evaluate import load
from metarl_jax.training import compilation
from metarl_jax.types import Evaluation

RESPONSE = 80
"""Steps after a change whose mean rewards are stored one by one."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories of one algorithm and benchmark, one per seed."""
    repeats: int = 20
    """Episodes per task and run."""
    settle: int | None = None
    """Steps that do not count after a change or the start; None: 20 where tasks change, 30 elsewhere."""
    span: int = 20
    """Steps that count after a change."""
    out: Path = Path("benchmarks/results")
    """Folder of the JSON file."""


def after_changes(evaluation: Evaluation, length: int) -> np.ndarray:
    """[changes, length] rewards of the steps after each change that no other one follows within `length`."""
    rewards, changed = (np.asarray(x).reshape(-1, *x.shape[-2:]) for x in (evaluation.rewards, evaluation.task_changed))
    found = []
    for episode, step, task in np.argwhere(changed):
        first, end = step + 1, step + 1 + length
        if end <= rewards.shape[1] and not changed[episode, first : end - 1, task].any():
            found.append(rewards[episode, first:end, task])
    return np.array(found).reshape(-1, length)


def settled(evaluation: Evaluation, settle: int) -> np.ndarray:
    """[episodes x tasks] mean reward from step `settle` on."""
    return np.asarray(evaluation.rewards)[..., settle:, :].mean(-2).ravel()


def played(run: Path, repeats: int, **changes: Any) -> list[Evaluation]:
    """First episodes of a run's policy on all tasks, `repeats` times; `changes` as `experiments.evaluate.load`'s."""
    experiment, state, _ = load(run, 1, **changes)
    evaluate = jax.jit(experiment.trainer.evaluate)
    return [jax.device_get(evaluate(state, jax.random.key(i))) for i in range(repeats)]


def gather(config: Config, stationary: bool, settle: int) -> tuple[dict[str, np.ndarray], list[float]]:
    """[n] rewards per step by condition, and the mean reward of each step after a change, all runs together."""
    found: dict[str, list[np.ndarray]] = {}
    responses: list[np.ndarray] = []
    for run in config.runs:
        if stationary:
            for tasks, name in (("train", "training tasks"), ("test", "held-out tasks")):
                found.setdefault(name, []).extend(settled(e, settle) for e in played(run, config.repeats, tasks=tasks))
            continue
        options = tuple(rundir.read(run, "runs")["config"]["env_options"])
        still = played(run, config.repeats, env_options=(*options, "change_probability=0"))
        found.setdefault("nothing changes", []).extend(settled(e, settle) for e in still)
        moving = played(run, config.repeats)
        found.setdefault("after a change", []).extend(
            after_changes(e, settle + config.span)[:, settle:].mean(-1) for e in moving
        )
        responses += [after_changes(e, RESPONSE) for e in moving]
    seen = np.concatenate(responses) if responses else np.zeros((0, RESPONSE))
    response = seen.mean(0).tolist() if len(seen) else []
    return {name: np.concatenate(values) for name, values in found.items()}, response


def main(config: Config) -> None:
    """Measure, print a table, write JSON."""
    if config.repeats < 1 or not config.runs:
        raise SystemExit("error: --repeats must be at least 1, and at least one run directory is needed")
    compilation.configure()
    abouts = [rundir.read(run, "runs") for run in config.runs]
    names = {(about["algorithm"], about["config"]["env"]) for about in abouts}
    if len(names) != 1:
        raise SystemExit(f"error: runs of different experiments: {sorted(names)}")
    algorithm, env = names.pop()
    stationary = abouts[0]["environment"]["stationary"]
    settle = config.settle if config.settle is not None else 30 if stationary else 20
    rows: dict[str, dict[str, float]] = {}
    found, response = gather(config, stationary, settle)
    for name, values in found.items():
        if len(values) < 2:
            raise SystemExit(
                f"error: {name} was seen {len(values)} times: more --repeats, or smaller --settle and --span"
            )
        interval = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(0))
        low, high = map(float, interval.confidence_interval)
        rows[name] = {"reward_per_step": float(values.mean()), "low": low, "high": high, "samples": len(values)}
        print(f"{env:22}{name:18}{values.mean():9.3f}  [{low:.3f}, {high:.3f}]  n = {len(values)}")
    base, other = (row["reward_per_step"] for row in rows.values())
    print(f"{'':22}{'ratio':18}{other / base:9.3f}")
    content = {"machine": provenance("benchmarks.adaptation"), "env": env, "settle": settle, "span": config.span}
    content |= {"response": response} if response else {}
    content |= {"runs": [published(run)["config"] for run in config.runs]}
    path = config.out / f"adaptation_{algorithm}_{env}.json"
    path.write_text(json.dumps(content | {"rows": rows, "ratio": other / base}, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
