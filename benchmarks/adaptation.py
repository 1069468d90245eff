"""How well a trained policy follows changes of its task, and tasks outside the training range.

    python -m benchmarks.adaptation runs/moss-cheetah_dir_nonstat-*
    python -m benchmarks.adaptation runs/moss-cheetah_vel_ood-*
    python -m benchmarks.adaptation runs/moss-cheetah_vel_nonstat-3 --keep=True

Where tasks change, the reward per step from `settle` steps after a change on, beside that of the same policy on the
held-out tasks when nothing changes. Changes draw new tasks, so where they are not one of two directions the two
conditions see different ones; beside the rewards long after the same changes it is therefore told too
(`ratio_same_changes`). Elsewhere, the cost (negative reward) per step from `settle` steps after the start on,
on held-out tasks beside training tasks, and the same had actions been free: on `cheetah_vel_ood` the speed error.
First episodes, deterministic policy: means over tasks and repeats, and their mean and spread over runs.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from benchmarks.provenance import provenance
from benchmarks.publish import published, seed_of, title
from experiments import cli, outcomes, rundir
from experiments.evaluate import load
from metarl_jax.errors import ConfigurationError
from metarl_jax.types import Evaluation

STATIONARY = {"training tasks": "train", "held-out tasks": "test"}
"""Conditions where tasks do not change: the tasks that are played."""
FREE = ", actions free"
"""Ends the names of conditions whose rewards are counted as if actions were free."""

RESPONSE = 80
"""Steps after a change whose mean rewards are stored one by one: the last of them are long after it."""


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
    keep: bool = False
    """Keep what the file already holds of other seeds, measured in the same way."""
    out: Path = Path("benchmarks/results")
    """Folder of the JSON file."""


def after_changes(evaluation: Evaluation, length: int) -> np.ndarray:
    """[changes, length] rewards of the steps after each change that no other one follows within `length`, nor the
    episode's end.
    """
    rewards, changed, alive = (
        np.asarray(x).reshape(-1, *x.shape[-2:])
        for x in (evaluation.rewards, evaluation.task_changed, evaluation.alive)
    )
    found = []
    for episode, step, task in np.argwhere(changed):
        first, end = step + 1, step + 1 + length
        if end > rewards.shape[1] or not alive[episode, end - 1, task]:
            continue
        if not changed[episode, first : end - 1, task].any():
            found.append(rewards[episode, first:end, task])
    return np.array(found).reshape(-1, length)


def settled(evaluation: Evaluation, settle: int, field: str = "rewards") -> np.ndarray:
    """Mean reward from step `settle` on, of each episode [n] that lasts so long; `field` may be `gross_rewards`."""
    rewards, alive = (np.asarray(x)[..., settle:, :] for x in (getattr(evaluation, field), evaluation.alive))
    lasted = alive.sum(-2)
    return (rewards.sum(-2)[lasted > 0] / lasted[lasted > 0]).ravel()


def ratio_to_long_after(responses: Sequence[Sequence[float]], settle: int, span: int) -> float | None:
    """Mean reward of the `span` steps from `settle` on after a change, over that of the last `span` steps of the same
    responses [runs, steps], in which the task has long been known. None: the two overlap.
    """
    rewards = np.mean(responses, 0)
    first, last = slice(settle, settle + span), slice(len(rewards) - span, None)
    return float(rewards[first].mean() / rewards[last].mean()) if first.stop <= last.start else None


def played(run: Path, repeats: int, **changes: Any) -> list[Evaluation]:
    """First episodes of a run's policy on all tasks, `repeats` times; `changes` as `experiments.evaluate.load`'s."""
    experiment, state, _ = load(run, 1, **changes)
    evaluate = jax.jit(experiment.trainer.evaluate)
    return [jax.device_get(evaluate(state, jax.random.key(i))) for i in range(repeats)]


def gather(run: Path, repeats: int, settle: int, span: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """[n] rewards per step of a run's policy by condition, and the rewards after each change [changes, RESPONSE].

    Raises:
      ConfigurationError: tasks change in a way that cannot be switched off.
    """
    about = rundir.read(run, "runs")
    if about["environment"]["stationary"]:
        seen = {name: played(run, repeats, tasks=tasks) for name, tasks in STATIONARY.items()}
        found = {name: [settled(e, settle) for e in each] for name, each in seen.items()}
        found |= {name + FREE: [settled(e, settle, "gross_rewards") for e in each] for name, each in seen.items()}
        return {name: np.concatenate(values) for name, values in found.items()}, np.zeros((0, RESPONSE))
    options = tuple(about["config"]["env_options"])
    if any(option.startswith("mode=") and option != "mode=time" for option in options):
        raise ConfigurationError(f"{run} changes its tasks by {options}: only mode=time can be compared with no change")
    still = played(run, repeats, env_options=(*options, "change_probability=0"))
    moving = played(run, repeats)
    after = [after_changes(e, settle + span)[:, settle:].mean(-1) for e in moving]
    found = {"nothing changes": [settled(e, settle) for e in still], "after a change": after}
    responses = np.concatenate([after_changes(e, RESPONSE) for e in moving])
    return {name: np.concatenate(values) for name, values in found.items()}, responses


def kept(path: Path, runs: list[dict[str, Any]], how: dict[str, Any]) -> dict[str, Any]:
    """What a file holds of other seeds than those of `runs`, as `publish --keep=True` keeps them.

    Raises:
      ConfigurationError: it was measured in another way or from other settings, or has no response of each run.
    """
    old = json.loads(path.read_text())
    others = [{"config": about} for about in old["runs"]]
    title([*runs, *others])
    if differs := [f"{name} {old.get(name)}" for name in how if old.get(name) != how[name]]:
        raise ConfigurationError(f"--keep: {path.name} was measured with {', '.join(differs)}: measure in the same way")
    if any(name in old["rows"] and name + FREE not in old["rows"] for name in STATIONARY):
        raise ConfigurationError(f"--keep: {path.name} tells nothing of free actions: measure all seeds together")
    if "response" in old and "response_per_run" not in old:
        raise ConfigurationError(f"--keep: {path.name} has no response of each run: measure all seeds together")
    seeds = set(map(seed_of, runs))
    stay = [i for i, run in enumerate(others) if seed_of(run) not in seeds]

    def of(values: list[Any]) -> list[Any]:
        return [values[i] for i in stay]

    rows = {
        condition: {name: of(row[name]) for name in ("per_run", "samples")} for condition, row in old["rows"].items()
    }
    responses = of(old["response_per_run"]) if "response" in old else []
    return {"runs": of(old["runs"]), "rows": rows, "response_per_run": responses}


def main(config: Config) -> None:
    """Measure, print a table, write JSON."""
    cli.check_counts(repeats=config.repeats, span=config.span)
    if not config.runs:
        raise ConfigurationError("at least one run directory is needed")
    if config.settle is not None and config.settle < 0:
        raise ConfigurationError(f"--settle must be at least 0, got {config.settle}")
    runs = [published(run) for run in config.runs]
    name, env = title(runs), runs[0]["config"]["config"]["env"]
    stationary = runs[0]["config"]["environment"]["stationary"]
    settle = config.settle if config.settle is not None else 30 if stationary else 20
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / f"adaptation_{name}.json"
    how = {"env": env, "settle": settle, "span": config.span, "repeats": config.repeats}
    old = kept(path, runs, how) if config.keep and path.exists() else None
    rows: dict[str, dict[str, Any]] = {}
    found, responses = zip(*(gather(run, config.repeats, settle, config.span) for run in config.runs), strict=True)
    for condition in found[0]:
        samples = [len(one[condition]) for one in found]
        if not all(samples):
            raise ConfigurationError(f"{condition} was never seen: more --repeats, or smaller --settle and --span")
        means = [float(one[condition].mean()) for one in found]
        if old:
            means, samples = old["rows"][condition]["per_run"] + means, old["rows"][condition]["samples"] + samples
        rows[condition] = {"per_run": means, "samples": samples, **(outcomes.spread(means) or {})}
        over = rows[condition]
        std = f" ± {over['std']:.3f}" if len(means) > 1 else ""
        print(f"{env:22}{condition:32}{over['mean']:9.3f}{std}  n = {sum(samples)}")
    level = [row["mean"] for row in rows.values()]
    ratios = [other / base for base, other in zip(level[::2], level[1::2], strict=True)]
    print(f"{'':22}{'ratio':32}{', '.join(f'{ratio:.3f}' for ratio in ratios):>9}")
    content = {"machine": provenance("benchmarks.adaptation")} | how
    if all(map(len, responses)):
        each = [*(old["response_per_run"] if old else ()), *(seen.mean(0).tolist() for seen in responses)]
        content |= {"response": np.mean(each, 0).tolist(), "response_per_run": each}
        content |= {"ratio_same_changes": ratio_to_long_after(each, settle, config.span)}
    content |= {"runs": [*(old["runs"] if old else ()), *(run["config"] for run in runs)]}
    content |= {"rows": rows, "ratio": ratios[0], "ratio_actions_free": ratios[1] if ratios[1:] else None}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(cli.command(Config, main))
