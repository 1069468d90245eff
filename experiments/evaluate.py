"""Evaluate a trained agent: the returns of episodes 1 to K on every held-out task."""

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import cli, rundir
from metarl_jax.analysis.evaluation import HeldOutTasks, grouped
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import compilation, loop
from metarl_jax.training.checkpoint import Checkpoints
from metarl_jax.training.logging import write_json
from metarl_jax.training.trainer import Config as DataConfig
from metarl_jax.types import EnvSpec


@dataclasses.dataclass(frozen=True)
class Config:
    """Returns of episodes 1..K on every held-out (or training) task, from the last good checkpoint of a run."""

    run: str
    """Run directory."""
    episodes: int = 1
    """Episodes in a row on each task, with one memory; the first begins without knowledge, but of a run on stored data
    after its episodes of adaptation."""
    seed: int = 0
    """Of the episodes' initial states."""
    physics: str | None = None
    """Engine to evaluate on; None: as the run was configured."""
    variant: str | None = None
    """Model variant to evaluate on, fast or reference; None: the run's."""
    tasks: str | None = None
    """`test`, the held-out tasks, or `train`; None: the run's (`test`, unless it was told otherwise)."""
    member: int = 0
    """Which of the run's `members`, from 0."""
    json: str | None = None
    """Also write the numbers to this file."""


def load(
    run: str | Path, episodes: int | None = None, tasks: str | None = None, **changes: Any
) -> tuple[loop.Experiment, Any, dict[str, Any]]:
    """Rebuild a run from its directory, in a process set up as training's was (`compilation.configure`).

    Args:
      run: its directory.
      episodes: in a row, per evaluation; None for the run's own number.
      tasks: of evaluations, `test` or `train`; None for the run's own.
      **changes: fields of its configuration to replace, such as `variant`; None leaves one as it is.

    Returns:
      The experiment, its `TrainState`, and the checkpoint's `epoch` and `seconds`.

    Raises:
      ConfigurationError: not a run directory, an unknown algorithm, other data than it learnt from, no checkpoint, or
        `tasks` of a run on stored data, whose evaluation plays all of the data's.
    """
    compilation.configure()
    content = rundir.read(run, "--run")
    name = content["algorithm"]
    if name not in cli.ALGORITHMS:
        raise ConfigurationError(f"{run} holds a run of {name!r}: known: {', '.join(cli.ALGORITHMS)}")
    module = importlib.import_module(cli.ALGORITHMS[name])
    config = rundir.fill(module.Config(), content["config"], run)
    config = dataclasses.replace(config, **{k: v for k, v in changes.items() if v is not None})
    if tasks is not None:
        if not isinstance(config.data, DataConfig):
            raise ConfigurationError(f"--tasks: evaluations of {name} play all tasks of its data: leave the flag out")
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, eval_tasks=tasks))
    experiment = module.build(config, episodes=episodes)
    rundir.check_data(run, experiment.data_checksum)
    restored = None
    if (folder := Path(run) / "checkpoints").is_dir():
        checkpoints = Checkpoints(folder, read_only=True)
        restored = checkpoints.restore(loop.template(experiment.trainer))
        checkpoints.close()
    if restored is None:
        raise ConfigurationError(f"{run} has no checkpoint yet")
    return experiment, *restored


def evaluate(config: Config) -> int:
    """Print the table, and write the JSON file if one is asked for."""
    if config.episodes < 1:
        raise ConfigurationError(f"--episodes must be at least 1, got {config.episodes}")
    if not 0 <= config.seed <= loop.MAX_SEED:
        raise ConfigurationError(f"--seed must be in [0, {loop.MAX_SEED}], got {config.seed}")
    if config.json and (not Path(config.json).absolute().parent.is_dir() or Path(config.json).is_dir()):
        raise ConfigurationError(f"--json: {config.json} is not a file in a directory that exists")
    experiment, state, info = load(
        config.run, config.episodes, config.tasks, physics=config.physics, variant=config.variant
    )
    num_members = len(experiment.members) or 1
    if not 0 <= config.member < num_members:
        raise ConfigurationError(f"--member must be 0 to {num_members - 1} for this run, got {config.member}")
    name = experiment.members[config.member] if experiment.members else None
    if epoch := info.get("nonfinite_members", {}).get(name):
        raise ConfigurationError(f"--member={config.member}: {name} went non-finite in epoch {epoch}: choose another")
    trainer = experiment.trainer
    evaluation = jax.device_get(jax.jit(trainer.evaluate)(state, jax.random.key(config.seed), *trainer.constants))
    seeds = np.asarray(evaluation.returns).reshape(num_members, -1, *evaluation.returns.shape[1:])[config.member]
    played, spec = HeldOutTasks.of(experiment.test_tasks), experiment.spec
    of_all = seeds.mean(0)  # as training reports them: tasks that are drawn alike count as often as they are drawn
    by_family = [grouped(episode, played.family, spec.families) for episode in of_all]
    families = {f"mean {family}": [means[family] for means in by_family] for family in by_family[0]}
    mean = of_all.mean(1).tolist()
    returns, tasks = each_task(of_all, played)
    title = f"{spec.name}, epoch {info['epoch']}, {experiment.description['engine']}"
    title += f", {name}" if name else ""
    show(title, returns, tasks, spec, families | {"mean": mean})
    if config.json:
        write_json(
            Path(config.json),
            {
                "run": config.run,
                "epoch": info["epoch"],
                "engine": experiment.description["engine"],
                "member": name,
                "test_return": mean[0],
                "test_return_by_episode": mean,
                "means": families,
                "tasks": [
                    {
                        "family": spec.families[tasks.family[n]],
                        "subtask": spec.subtasks[tasks.label[n]],
                        "spec": tasks.spec[n],
                        "returns": returns[:, n],
                    }
                    for n in range(returns.shape[1])
                ],
            },
        )
    return 0


def each_task(returns: np.ndarray, tasks: HeldOutTasks) -> tuple[np.ndarray, HeldOutTasks]:
    """Returns [K, N] of tasks [N], some played several times, as means [K, M] of the M different ones."""
    first, which = tasks.different()
    means = np.stack([returns[:, which == m].mean(1) for m in range(len(first))], 1)
    return means, HeldOutTasks(*(x[first] for x in tasks))


def show(title: str, returns: np.ndarray, tasks: HeldOutTasks, spec: EnvSpec, means: dict[str, list[float]]) -> None:
    """Print returns [K, N] as a table of tasks, then of means."""
    table = Table(title=title, title_justify="left")
    for column in ("family", "sub-task", "spec", *(f"ep {k + 1}" for k in range(len(returns)))):
        table.add_column(column, justify="left" if column in ("family", "sub-task") else "right")
    for n, (family, label) in enumerate(zip(tasks.family, tasks.label, strict=True)):
        values = ", ".join(f"{x:.2f}" for x in tasks.spec[n])
        table.add_row(spec.families[family], spec.subtasks[label], values, *(f"{x:.1f}" for x in returns[:, n]))
    table.add_section()
    for name, over in means.items():
        table.add_row(name, "", "", *(f"{x:.1f}" for x in over))
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate as the command line says; returns the exit code."""
    return cli.command(Config, evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
