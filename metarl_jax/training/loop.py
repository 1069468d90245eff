"""The host loop: run epochs within a budget, evaluate, log, save, and stop in good order."""

import dataclasses
import importlib.util
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from metarl_jax.analysis import evaluation as evaluations
from metarl_jax.analysis.evaluation import HeldOutTasks, Normalizer
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import compilation, epochs, guard, interrupt, report
from metarl_jax.training.checkpoint import Checkpoints
from metarl_jax.training.logging import Log, Record, Terminal, duration, write_json
from metarl_jax.training.members import Members
from metarl_jax.types import EnvSpec, Evaluation, Metrics, Task, Trainer

MAX_SEED = 2**32 - 1
"""Of training: keys are made of 32 bits."""

FAILED = 1
"""Exit code of a run whose learner went non-finite."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """How long to run, and what to keep."""

    epochs: int | None = None
    """Epochs in total, resumed ones included; None: until the minutes are spent. Given alone, the only limit."""
    minutes: float | None = None
    """Training minutes in total, compilation not counted; None: until the epochs are done. Given alone, the only
    limit."""
    seed: int = 0
    """Of everything random in training."""
    seeds: int = 1
    """Trained at once on one device, all drawn from `seed`: the others are not the runs with the numbers after it."""
    run_dir: str | None = None
    """Where to write; None: runs/<algorithm>-<env>-<time>."""
    resume: str | None = None
    """Go on with the run in this directory. Only epochs, minutes, eval_every, save_every and wandb may change, and
    the place of stored data."""
    eval_every: int = 1
    """Epochs between evaluations."""
    save_every: float = 300.0
    """Seconds between checkpoints; a kill loses at most this, and the epoch it interrupts."""
    wandb: str | None = None
    """Project of Weights & Biases that shall receive the metrics too; needs the `wandb` extra."""

    def check(self) -> None:
        """Raise `ConfigurationError` for a value out of range."""
        if self.epochs is None and self.minutes is None:
            raise ConfigurationError("one of --epochs and --minutes is needed")
        for name, low in (("epochs", 1), ("seed", 0), ("seeds", 1), ("eval_every", 1), ("save_every", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigurationError(f"--{name} must be at least {low}, got {value}")
        if self.minutes is not None and not 0.0 < self.minutes < math.inf:
            raise ConfigurationError(f"--minutes must be positive and finite, got {self.minutes}")
        if not math.isfinite(self.save_every):
            raise ConfigurationError(f"--save_every must be a number of seconds, got {self.save_every}")
        if self.seed > MAX_SEED:
            raise ConfigurationError(f"--seed must be at most {MAX_SEED}, got {self.seed}")
        if self.wandb is not None and importlib.util.find_spec("wandb") is None:
            raise ConfigurationError("--wandb needs Weights & Biases: pip install -e '.[wandb]'")


class Experiment(NamedTuple):
    """A trainer with what reports need to know of its environment."""

    trainer: Trainer
    spec: EnvSpec
    test_tasks: Task
    description: Mapping[str, Any]
    """Lines of the header, such as `engine`, `tasks` and `networks`."""
    normalizer: Normalizer | None = None
    """Turns returns on the test tasks into scores, where there are levels to compare with."""
    data_checksum: str | None = None
    """Of the stored data that is learnt from; None: a run collects its own."""
    members: tuple[str, ...] = ()
    """Names of what is trained at once, each with all seeds, where that is more than one setting."""


class Programs(NamedTuple):
    """The compiled functions of a trainer."""

    epoch: epochs.Compiled
    evaluate: Callable[..., Evaluation]


def template(trainer: Trainer) -> Any:
    """Shapes and dtypes of the state."""
    shapes = jax.eval_shape(trainer.init, jax.random.key(0))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes)


def run(
    experiment: Experiment,
    config: RunConfig,
    run_dir: Path,
    commands: Mapping[str, str],
    describe: Callable[[], None] = lambda: None,
) -> int:
    """Train until the budget is spent, a signal comes or the learner fails.

    Args:
      experiment: what to train.
      config: budget and periods.
      run_dir: an existing directory; if it holds checkpoints, the run goes on from the newest.
      commands: what to tell the user at the end, by purpose.
      describe: writes down what is run, as soon as it is certain that there is something to run.

    Returns:
      The exit code: 0, `FAILED`, or 128 + the number of the signal that stopped it.

    Raises:
      ConfigurationError: a value is out of range, or the budget is spent already.
    """
    config.check()
    with interrupt.listen() as signal, Terminal() as terminal:
        run = _Run(experiment, config, run_dir, signal, terminal, describe)
        status = run.train()
        summary = run.finish(status)
    terminal.table("Summary", {k: v for k, v in summary.items() if k not in report.CURVES})
    for purpose, command in commands.items():
        terminal.say(f"{purpose}: {command}")
    return FAILED if status == "failed_nonfinite" else 128 + signal.signum if status == "interrupted" else 0


def _first_of(bad: Sequence[str]) -> str:
    return bad[0] + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else "")


class _Run:
    """The state of one call of `run`. Everything that must outlive it is in the checkpoint."""

    def __init__(
        self,
        experiment: Experiment,
        config: RunConfig,
        run_dir: Path,
        signal: interrupt.Interrupt,
        terminal: Terminal,
        describe: Callable[[], None],
    ) -> None:
        self.trainer, self.spec, self.normalizer = experiment.trainer, experiment.spec, experiment.normalizer
        self.tasks = HeldOutTasks.of(experiment.test_tasks)
        self.config, self.run_dir, self.signal, self.terminal = config, run_dir, signal, terminal
        self.key_init, self.key_eval = jax.random.split(jax.random.key(config.seed))
        self.evaluated: Evaluation | None = None

        shapes = template(self.trainer)
        self.checkpoints = Checkpoints(run_dir / "checkpoints")
        restored = self.checkpoints.restore(shapes, discard=True)
        self.state: Any = None
        info: dict[str, Any] = {}
        if restored:
            self.state, info = restored
        elif (run_dir / "summary.json").exists():  # written whenever a checkpoint is
            raise ConfigurationError(
                f"{run_dir} has results but no checkpoint that can be read: put its checkpoints/ back, or start anew"
            )
        self.epoch, self.seconds_before = info.get("epoch", 0), info.get("seconds", 0.0)
        self.epoch_seconds: float = info.get("epoch_seconds", 0.0)
        self.members = Members(experiment.members, self.trainer.num_seeds, info.get("nonfinite_members", {}))
        self.started: float | None = None
        self.saved_epoch = self.epoch if restored else -1
        self.status = self._spent()
        if self.status and report.is_final(run_dir):
            unit = "epochs" if self.status == "completed" else "minutes"
            raise ConfigurationError(f"the {unit} of this run are done already: extend it with --{unit}")
        report.reopen(run_dir)
        describe()
        self.constants = jax.device_put(self.trainer.constants)
        terminal.table(self.spec.name, self._header(experiment.description))
        self._compile(shapes)
        self.log = Log(run_dir, self.epoch, config.wandb)

    def _compile(self, shapes: Any) -> None:
        """Compile each program once, all side by side; then start the clock, and the state if there is none yet."""
        self.terminal.say("compiling ...")
        started = time.monotonic()
        trainer, constants = self.trainer, self.constants
        lowered = epochs.lower(trainer.epoch, shapes, *constants)
        num = len(lowered)
        lowered.append(jax.jit(trainer.evaluate).lower(shapes, self.key_eval, *constants))
        if self.state is None:
            lowered.append(jax.jit(trainer.create).lower(self.key_init))
            lowered.append(jax.jit(trainer.fill, donate_argnums=0).lower(shapes))
        compiled = compilation.compile_all(lowered)
        evaluate, *start = compiled[num:]
        self.programs = Programs(epochs.assemble(trainer.epoch, compiled[:num]), evaluate)
        self.compile_seconds = time.monotonic() - started
        self.terminal.say(f"compiled in {self.compile_seconds:.1f} s")
        self.started = self.last_save = time.monotonic()
        if start:
            create, fill = start
            self.state = jax.block_until_ready(fill(create(self.key_init)))

    def _header(self, description: Mapping[str, Any]) -> dict[str, Any]:
        config = self.config
        budget = [f"{config.epochs:,} epochs"] if config.epochs else []
        budget += [f"{config.minutes:g} min"] if config.minutes else []
        return dict(description) | {
            "device": f"{jax.devices()[0]}" + (f", one of {num}" if (num := len(jax.devices())) > 1 else ""),
            "CPU cores": compilation.num_cpus(),
            "base tasks": ", ".join(self.spec.families),
            "evaluations": f"of {len(self.tasks.family)} tasks at a time",
            "replay": guard.gigabytes(self.trainer.replay_bytes),
            "seeds": f"{config.seeds}, drawn from {config.seed}" if config.seeds > 1 else config.seed,
            "budget": " or ".join(budget),
            "run directory": self.run_dir,
            "resumed from": f"epoch {self.epoch}, {duration(self.seconds_before)}" if self.state else "-",
        }

    @property
    def seconds(self) -> float:
        """Training time, without compilation, over all resumes."""
        return self.seconds_before + (time.monotonic() - self.started if self.started is not None else 0.0)

    def _spent(self) -> str:
        """The status that the budget ends the run with, if it is spent: the last epoch ends nearest to the limit."""
        if self.config.epochs is not None and self.epoch >= self.config.epochs:
            return "completed"
        if self.config.minutes is not None and self.seconds + self.epoch_seconds / 2 >= 60 * self.config.minutes:
            return "budget"
        return ""

    def train(self) -> str:
        """Run epochs until something ends the run; returns its status."""
        if self.status:  # a kill came between the last save and the report
            self.log.complete(self._evaluate())
        status = self.status or ("interrupted" if self.signal.signum else "")
        while not status:
            started = time.monotonic()
            self.state, metrics = self.programs.epoch(self.state, *self.constants)
            bad = guard.nonfinite(metrics, guard.watched(self.state))
            metrics = jax.device_get(metrics)
            self.epoch_seconds = time.monotonic() - started
            self.epoch += 1
            if bad and not self._set_aside(metrics, bad):
                self._fail(self._record(metrics), bad)
                return "failed_nonfinite"
            record = self._record(metrics)
            status = self._spent()
            if status or self.epoch % self.config.eval_every == 0:
                record |= self._evaluate()
            if self.signal.signum:
                status = "interrupted"
            self.log.write(record)
            self.terminal.progress(record, *self._remaining(), last=bool(status))
            if time.monotonic() - self.last_save >= self.config.save_every:
                self._save()
        self._save()
        return status

    def _record(self, metrics: Metrics) -> Record:
        """One line of metrics.jsonl; metrics are means over seeds, and the test returns of later evaluation None."""
        going = self.members.going()
        means = {name: np.asarray(value, float)[going].mean(0) for name, value in metrics.items()}
        updates = float(means.get("updates", 0.0)) * self.trainer.num_seeds
        steps = self.trainer.env_steps_per_epoch * self.trainer.num_seeds
        return means | {
            "epoch": self.epoch,
            "env_steps": int(np.ravel(self.state.env_steps)[0]),
            "seconds": self.seconds,
            "compile_seconds": self.compile_seconds,
            "env_steps_per_second": steps / self.epoch_seconds,
            "updates_per_second": updates / self.epoch_seconds,
            "test_return": None,
            "test_return_by_family": None,
            **self._lost(),
        }

    def _lost(self) -> Record:
        return {"nonfinite_members": self.members.lost} if self.members.lost else {}

    def _evaluate(self) -> Record:
        key = jax.random.fold_in(self.key_eval, self.epoch)
        self.evaluated = jax.device_get(self.programs.evaluate(self.state, key, *self.constants))
        going = self.members.going()
        told = jax.tree.map(lambda x: x[going], self.evaluated)
        record = evaluations.report(told, self.tasks, self.spec.families, self.spec.subtasks, self.normalizer)
        return record | evaluations.by_member(self.evaluated, self.members.names, self.members.lost)

    def _remaining(self) -> tuple[float, float]:
        """(share of the budget that is spent, seconds left)."""
        shares, left = [], []
        if self.config.epochs is not None:
            shares.append(self.epoch / self.config.epochs)
            left.append((self.config.epochs - self.epoch) * self.epoch_seconds)
        if self.config.minutes is not None:
            shares.append(self.seconds / (60 * self.config.minutes))
            left.append(60 * self.config.minutes - self.seconds)
        return min(max(shares), 1.0), min(left)

    def _save(self) -> None:
        if self.epoch > self.saved_epoch:
            info = {name: getattr(self, name) for name in ("epoch", "seconds", "epoch_seconds")}
            self.checkpoints.save(self.epoch, self.state, info | self._lost())
            self.saved_epoch = self.epoch
        write_json(self.run_dir / "summary.json", report.summarise(self.log.records, "running"))
        self.last_save = time.monotonic()

    def _set_aside(self, metrics: Metrics, bad: list[str]) -> bool:
        """Let other members go on than those that are not finite, if there are any."""
        if (outcome := self.members.set_aside(self.state, metrics, self.epoch)) is None:
            return False
        self.state, lost = outcome
        if lost:
            who = ", ".join(lost)
            self.terminal.say(f"warning: {_first_of(bad)} of {who} is not finite in epoch {self.epoch}; others go on")
        return True

    def _fail(self, record: Record, bad: list[str]) -> None:
        """Keep what went wrong beside the checkpoints, which stay good."""
        self.log.write(record | {"nonfinite": bad})
        shutil.rmtree(self.run_dir / "nonfinite", ignore_errors=True)  # of an earlier failure
        damaged = Checkpoints(self.run_dir / "nonfinite", keep=1)
        damaged.save(self.epoch, self.state, {"epoch": self.epoch, "nonfinite": bad})
        damaged.close()
        good = f"the last good checkpoint is of epoch {self.saved_epoch}" if self.saved_epoch >= 0 else "none was good"
        self.terminal.say(
            f"error: {_first_of(bad)} is not finite in epoch {self.epoch}; the state is in {damaged.directory}, {good}"
        )

    def finish(self, status: str) -> dict[str, Any]:
        """Close everything and write the report."""
        self.log.close()
        self.checkpoints.close()
        last = (self.evaluated, self.tasks) if self.evaluated is not None else None
        return report.write(self.run_dir, self.log.records, status, self.spec, last, bool(self.members.names))
