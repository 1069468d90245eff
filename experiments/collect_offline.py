"""Collect an offline data set: behaviour policies for every task of a benchmark, and their episodes as they learn."""

import contextlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.wrappers import reveal_task
from experiments import cli, rundir
from experiments.collection_settings import Config, check, presets_for, replay_rows, settings
from experiments.setup import counts, options_of
from metarl_jax.agents import reactive
from metarl_jax.data import offline, offline_file
from metarl_jax.errors import ConfigurationError, reading
from metarl_jax.training import collection, compilation, epochs, guard, interrupt, trainer
from metarl_jax.training.checkpoint import Checkpoints
from metarl_jax.training.collection import Behaviour, Collector
from metarl_jax.training.logging import Terminal, rewind, write_json
from metarl_jax.types import Transition

FAILED = 1
"""Exit code of a collection whose agents went non-finite."""


def check_same(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise `ConfigurationError` if `path` holds data that was collected with other settings."""
    if [line.partition("=")[0] for line in found] != [line.partition("=")[0] for line in wanted]:
        raise ConfigurationError(f"--out: {path} was collected by another version: name another file")
    if changed := [(old, new) for old, new in zip(found, wanted, strict=True) if old != new]:
        old, new = changed[0]
        raise ConfigurationError(f"--out: {path} was collected with {old}, not {new}: name another file")


def splits(env: envs.Environment) -> np.ndarray:
    """[N] index into `offline.SPLITS`; a held-out task that is neither moderately nor extremely far is moderate."""
    index = {name: max(1, offline.SPLITS.index(name)) if name in offline.SPLITS else 1 for name in env.spec.subtasks}
    held_out = [index[env.spec.subtasks[label]] for label in np.asarray(env.test_tasks.label)]
    return np.array([0] * env.train_tasks.family.shape[0] + held_out, np.int32)


def build(config: Config, env: envs.Environment) -> tuple[Collector, Any]:
    """The collector, and all tasks [N, ...]: training ones first.

    Raises:
      ConfigurationError: tasks that change in mid-episode, or sizes that contradict each other.
    """
    if not env.spec.stationary:
        raise ConfigurationError(f"{config.env} changes its tasks in mid-episode: offline data needs stationary tasks")
    tasks = jax.tree.map(lambda *x: jnp.concatenate(x), env.train_tasks, env.test_tasks)
    seen = reveal_task(env) if config.conditioned else env
    per_agent = jax.tree.map(lambda x: x[None] if config.conditioned else x[:, None], tasks)
    sizes = trainer.Config(config.num_envs, replay_rows(config, env.spec.horizon), config.initial_episodes)
    agent = reactive.make(config.agent, seen.spec)
    return collection.make(seen, agent, sizes, per_agent, config.episodes, env.spec.obs_size), tasks


def collect(config: Config) -> int:
    """Collect, or go on collecting, and write the file; returns the exit code."""
    path = check(config)
    work = path.with_name(path.name + ".work")
    if path.exists():
        check_same(path, offline_file.load(path)[1].settings, settings(config))
    elif (work / "settings.json").exists():
        with reading(work / "settings.json", f": remove {work} to begin anew"):
            before = json.loads((work / "settings.json").read_text())
        check_same(work, before, settings(config))
    compilation.configure()
    env = envs.make(config.env, config.physics, config.variant, **options_of(config.env_options))
    collector, tasks = build(config, env)
    with interrupt.listen() as signal, Terminal() as terminal:
        if not path.exists():
            guard.check_memory(
                collector.replay_bytes, env.spec.horizon * replay_rows(config, env.spec.horizon), "--replay_size"
            )
            work.mkdir(parents=True, exist_ok=True)  # `data/` too, if nobody said where
            write_json(work / "settings.json", settings(config))
            run = _Run(config, env, collector, work, signal, terminal)
            if code := run.train():
                return code
            held = offline.Tasks(*(np.asarray(x) for x in tasks))
            data = collection.assemble(run.behaviours(), held, splits(env))
            offline_file.save(path, data, metadata(config, env, run.env_steps))
        report(path, terminal)
        shutil.rmtree(work, ignore_errors=True)  # not before the file has been read
    return 0


def metadata(config: Config, env: envs.Environment, checkpoints: Sequence[int]) -> offline.Metadata:
    """Where the data comes from."""
    return offline.Metadata(
        env=config.env,
        env_options=config.env_options,
        engine=env.spec.engine,
        variant=env.spec.variant,
        horizon=env.spec.horizon,
        subtasks=env.spec.subtasks,
        preset=config.preset,
        seed=config.seed,
        checkpoints=tuple(checkpoints),
        version=rundir.version("metarl-jax"),
        commit=rundir.commit(),
        settings=settings(config),
    )


def report(path: Path, terminal: Terminal) -> None:
    """What is in a finished file, and what to type next."""
    data, found = offline_file.load(path)
    returns = offline.behaviour_returns(data, found)
    rows = {
        f"return after {steps:,} steps": f"mean {r.mean():.1f}, min {r.min():.1f}, max {r.max():.1f} over tasks"
        for steps, r in zip(found.checkpoints, returns.T, strict=True)
    }
    size = {"tasks": len(data.count), "transitions": f"{data.count.sum():,}, {data.count.min():,} per task at least"}
    terminal.table("Summary", {"file": path, **size, **rows})
    where = shlex.quote(str(path))
    terminal.say(f"look at it: python -m experiments.inspect_data {where}")
    options = ["--env_options", *map(shlex.quote, found.env_options)] if found.env_options else []
    command = ["python -m experiments.er_trl", f"--env={found.env}", f"--variant={found.variant}", *options]
    terminal.say(f"learn from it: {' '.join([*command, f'--data={where}'])}")


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Any]:
    """The behaviour that a file of the working directory holds."""
    with reading(file, f": remove {file.parent} to begin anew"), np.load(file) as stored:
        yield stored


class _Run:
    """One call of the command. Everything that must outlive it is in the working directory."""

    def __init__(
        self,
        config: Config,
        env: envs.Environment,
        collector: Collector,
        work: Path,
        signal: interrupt.Interrupt,
        terminal: Terminal,
    ) -> None:
        self.config, self.collector, self.work = config, collector, work
        self.signal, self.terminal = signal, terminal
        self.stored_at = [config.epochs * (i + 1) // config.checkpoints for i in range(config.checkpoints)]
        per_epoch = collector.env_steps_per_epoch
        self.env_steps = [collector.initial_env_steps + epoch * per_epoch for epoch in self.stored_at]
        self.key_init, self.key_behave = jax.random.split(jax.random.key(config.seed))
        self.checkpoints = Checkpoints(work / "checkpoints", keep=1)
        shapes = jax.eval_shape(collector.init, self.key_init)
        restored = self.checkpoints.restore(shapes, discard=True)
        self.epoch = restored[1]["epoch"] if restored else 0
        self._check_stored()
        self.num_agents = shapes.epoch.shape[0]
        self.progress = work / "progress.jsonl"
        rewind(self.progress, self.epoch)  # a kill may have kept the last from being saved
        terminal.table(env.spec.name, self._header(env, shapes, bool(restored)))
        self._compile(shapes)
        self.state = restored[0] if restored else jax.block_until_ready(self.init(self.key_init))

    def _header(self, env: envs.Environment, shapes: Any, resumed: bool) -> dict[str, Any]:
        config, num = self.config, self.num_agents
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), shapes.agent.sac)
        stored = len(splits(env)) * config.episodes * env.spec.horizon
        return {
            "benchmark": f"{env.spec.name}, horizon {env.spec.horizon}, dt {env.spec.dt:g} s",
            "engine": f"{env.spec.engine}, {env.spec.variant} models",
            "devices": ", ".join(str(d) for d in jax.devices()),
            "tasks": ", ".join(f"{(splits(env) == i).sum()} {name}" for i, name in enumerate(offline.SPLITS)),
            "agents": f"{num}, " + ("told the task" if config.conditioned else "one per task"),
            "networks of one": counts({"policy": one.actor, "critics": one.critic}),
            "replay": guard.gigabytes(self.collector.replay_bytes),
            "env steps of one": f"{self.env_steps[-1]:,}",
            "updates of one": f"{config.epochs * config.agent.updates:,}",
            "checkpoints": ", ".join(f"{steps:,}" for steps in self.env_steps) + " env steps",
            "transitions": f"up to {stored * config.checkpoints:,}",
            "seed": config.seed,
            "working directory": self.work,
            "resumed from": f"epoch {self.epoch}" if resumed else "-",
        }

    def _compile(self, shapes: Any) -> None:
        self.terminal.say("compiling ...")
        started = time.monotonic()
        self.init = jax.jit(self.collector.init)
        behave = jax.jit(self.collector.behave).lower(shapes, self.key_behave)
        *programs, self.behave = compilation.compile_all([*epochs.lower(self.collector.epoch, shapes), behave])
        self.learn = epochs.assemble(self.collector.epoch, programs)
        self.terminal.say(f"compiled in {time.monotonic() - started:.1f} s")

    def train(self) -> int:
        """Run the epochs that are left; returns the exit code."""
        first, started = self.epoch, time.monotonic()
        while self.epoch < self.config.epochs:
            if self.signal.signum:
                return self._interrupted()
            began = time.monotonic()
            self.state, measured = self.learn(self.state)
            metrics = {name: np.asarray(x, float) for name, x in jax.device_get(measured).items()}
            means = {name: x.mean() for name, x in metrics.items()}
            seconds = time.monotonic() - began
            self.epoch += 1
            if bad := guard.nonfinite(means, self.state.agent):
                self.terminal.say(
                    f"error: {bad[0]} is not finite in epoch {self.epoch}; another --seed and --out may do"
                )
                return FAILED
            if self.epoch in self.stored_at:
                self._store(self.stored_at.index(self.epoch))
            left = (time.monotonic() - started) / (self.epoch - first) * (self.config.epochs - self.epoch)
            record = means | {
                "epoch": self.epoch,
                "env_steps": self.num_agents * int(self.state.env_steps[0]),
                "env_steps_per_second": self.num_agents * self.collector.env_steps_per_epoch / seconds,
                "updates_per_second": self.num_agents * self.config.agent.updates / seconds,
            }
            if self.num_agents > 1:
                returns = metrics["train_return"]
                record |= {"train_return_min": returns.min(), "train_return_max": returns.max()}
            done = self.epoch / self.config.epochs
            self.terminal.progress(record, done, left, last=self.epoch == self.config.epochs)
        self.checkpoints.close()
        return 0

    def _store(self, index: int) -> None:
        """Behaviour first, then the state: a kill between the two repeats the epochs, with the same result.

        What every task's policy gets is printed, and appended to `progress.jsonl`.
        """
        key = jax.random.fold_in(self.key_behave, index)
        found = jax.device_get(self.behave(self.state, key))
        part = self._file(index).with_suffix(".part")
        fields = {name: getattr(found.transitions, name) for name in offline.OfflineBatch._fields}
        with part.open("wb") as file:
            np.savez(file, length=found.length, **fields)
        os.replace(part, self._file(index))
        returns = np.asarray(found.returns).mean(1)
        record = {"epoch": self.epoch, "env_steps": self.env_steps[index], "returns": returns.tolist()}
        with self.progress.open("a") as log:
            log.write(json.dumps(record) + "\n")
        self._save()
        self.terminal.say(
            f"checkpoint {index + 1} of {self.config.checkpoints}, {self.env_steps[index]:,} env steps: return "
            f"mean {returns.mean():.1f}, min {returns.min():.1f}, max {returns.max():.1f} over {len(returns)} tasks: "
            + " ".join(f"{x:.4g}" for x in returns)
        )

    def _file(self, index: int) -> Path:
        return self.work / f"behaviour-{index}.npz"

    def _check_stored(self) -> None:
        """Raise `ConfigurationError` now rather than at the end if behaviour that was stored cannot be read."""
        for index in range(np.searchsorted(self.stored_at, self.epoch, "right")):
            with opened(self._file(index)) as stored:
                stored["length"]

    def _save(self) -> None:
        self.checkpoints.save(self.epoch, self.state, {"epoch": self.epoch})

    def _interrupted(self) -> int:
        if self.epoch and self.epoch not in self.stored_at:
            self._save()
        self.checkpoints.close()
        argv = " ".join(map(shlex.quote, sys.argv[1:]))
        self.terminal.say(f"stopped after epoch {self.epoch}; go on: python -m experiments.collect_offline {argv}")
        return 128 + self.signal.signum

    def behaviours(self) -> dict[int, Behaviour]:
        """What was stored, by the env steps of the policies."""
        found = {}
        for index, steps in enumerate(self.env_steps):
            with opened(self._file(index)) as stored:
                fields: dict[str, Any] = dict.fromkeys(Transition._fields)
                fields |= {name: stored[name] for name in offline.OfflineBatch._fields}
                found[steps] = Behaviour(Transition(**fields), stored["length"])
        return found


def main(argv: Sequence[str] | None = None) -> int:
    """Collect as the command line says; returns the exit code."""
    return cli.guarded(lambda: collect(configure(list(sys.argv[1:] if argv is None else argv))))


def configure(argv: list[str]) -> Config:
    """The configuration of a command line: flags override the preset for the environment."""
    preset, env = ((cli.peek(argv, name) or [getattr(Config, name)])[0] for name in ("preset", "env"))
    return cli.parse(Config, argv, presets_for(preset, env))


if __name__ == "__main__":
    sys.exit(main())
