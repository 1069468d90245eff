"""Comparisons: several settings of one benchmark ("arms"), each over the same seeds, in one figure and JSON file."""

import dataclasses
import functools
import hashlib
import importlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments import cli, outcomes, rundir
from metarl_jax.agents.hyperparameters import TRACEABLE
from metarl_jax.analysis import curves
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import interrupt, report
from metarl_jax.training.logging import read_metrics, write_json
from metarl_jax.training.loop import RunConfig


class Arm(NamedTuple):
    """One setting."""

    algorithm: str
    """Module of `experiments` that trains it."""
    flags: tuple[str, ...] = ()


def mixture(num_components: int) -> Arm:
    """MoSS with several Gaussians, all in use and sharp; the preset `fast` has one."""
    flags = ("--vae.mutual_information_weight=0.5", "--vae.elbo_steps=16")
    return Arm("moss", (f"--vae.num_components={num_components}", *flags))


class Comparison(NamedTuple):
    """A benchmark, and what is varied on it."""

    title: str
    env: str
    arms: dict[str, Arm]
    measures: tuple[str, ...] = ("reached_return", "matched_accuracy")
    """What is compared: names of an `outcome`."""
    curves: Mapping[str, Sequence[str]] = {}
    """Figures of learning curves: the arms in each; {}: `curves` has all."""


UNITS = ("minutes", "epochs")
"""Of budgets."""


class Budget(NamedTuple):
    """How long a run trains, in one unit."""

    unit: str
    """One of `UNITS`."""
    amount: float

    def __str__(self) -> str:
        return f"{self.amount:,g} {'min' if self.unit == 'minutes' else self.unit}"

    @classmethod
    def of(cls, limits: Mapping[str, Any]) -> "Budget":
        """Of the field `epochs`, and where it is missing or None of `minutes`."""
        unit = "minutes" if limits.get("epochs") is None else "epochs"
        return cls(unit, limits[unit])


@dataclasses.dataclass(frozen=True)
class Config:
    """How a comparison is run."""

    minutes: float = 10.0
    """Training time of each run."""
    epochs: int | None = None
    """Instead of minutes: every run makes as many train steps, whatever else the machine does meanwhile."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each a run of its own."""
    vmap: bool = False
    """The seeds of an arm are one run, a vmapped program, all drawn from the first one; each has fewer updates per
    minute."""
    together: int = 1
    """Arms that one run may train, as its `--members`, if they differ in no more than those can. Needs `--epochs`: in
    equal minutes arms that are alone have more updates. For accelerators with room for as many replays."""
    jobs: int = 1
    """Runs side by side, each bound to its share of the CPU cores."""
    out: str = "runs/comparisons"
    """Directory of the runs, the figures and the JSON file. What is there already is not run again."""


def entry(config: type, run: Callable[[Any], int | None], argv: Sequence[str] | None = None) -> int:
    """`cli.command` of what trains in other processes: an accelerator, which one process takes whole, is theirs."""
    jax.config.update("jax_platforms", "cpu")
    return cli.command(config, run, argv)


class Command(NamedTuple):
    """What trains a run."""

    run: Path
    argv: list[str]


def side_by_side(jobs: int, commands: Sequence[Command]) -> None:
    """Run all commands, `jobs` at a time, each with CPU cores that no other has meanwhile (one job: the whole machine),
    and with as large a part of an accelerator's memory.

    SIGTERM is handed on to the runs that have been started, which finish their epoch and save. After it, and after one
    that failed, no more are started.

    Raises:
      ConfigurationError: a run failed, or more jobs than cores, or a system that cannot bind processes to cores.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if jobs != 1 and not 1 <= jobs <= len(cores):
        raise ConfigurationError(f"jobs must be 1 to {max(1, len(cores))} on this machine, got {jobs}")
    free: queue.SimpleQueue[set[int]] = queue.SimpleQueue()
    for job in range(jobs):
        free.put(set(cores[job::jobs]) if jobs > 1 else set())
    memory = {} if jobs == 1 else {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / jobs:.3f}"}
    lock, stopping = threading.Lock(), threading.Event()
    started: list[subprocess.Popen] = []

    def stop() -> None:
        stopping.set()
        with lock:  # whatever is started has been noted
            for process in started:
                process.terminate()

    def make(command: Command) -> None:
        share = free.get()
        try:
            with lock:
                if stopping.is_set():
                    return
                process = subprocess.Popen(command.argv, env=memory | dict(os.environ))
                started.append(process)
                print(f"run {len(started)} of {len(commands)}: {command.run}", flush=True)
            if share:
                os.sched_setaffinity(process.pid, share)  # long before the process counts its cores
            if code := process.wait():
                stopping.set()
                raise ConfigurationError(f"{command.run} ended with exit code {code}")
        finally:
            free.put(share)

    with interrupt.terminating(stop), ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(make, commands):  # raises what one of them raised
            pass


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise `ConfigurationError` for no seeds, or one that is there twice."""
    if not seeds:
        raise ConfigurationError("--seeds needs at least one seed")
    if len(set(seeds)) < len(seeds):
        raise ConfigurationError(f"--seeds: each at most once, got {' '.join(map(str, seeds))}")


def command(env: str, arm: Arm, seeds: Sequence[int], budget: Budget, run: Path) -> Command | None:
    """What trains `run` until its budget is spent, from where it is if it is there; None if it is spent.

    Raises:
      ConfigurationError: it has had more already, or a budget in another unit, or was trained with other settings.
    """
    module = [sys.executable, "-m", f"experiments.{arm.algorithm}"]
    limits = [f"--{unit}={budget.amount if unit == budget.unit else None}" for unit in UNITS]
    if not (run / "config.json").exists():
        about = [f"--env={env}", *limits, f"--seed={seeds[0]}", f"--seeds={len(seeds)}", f"--run_dir={run}"]
        return Command(run, [*module, *about, *arm.flags])
    stored = rundir.read(run, "--out")["config"]
    check_same(run, arm, env, stored)
    before = Budget.of(stored["run"])
    if before.unit != budget.unit:
        raise ConfigurationError(f"{run} was trained for {before}, not for {budget}: name another --out")
    if before.amount > budget.amount:
        wanted = f"--{before.unit}={before.amount:g}"
        raise ConfigurationError(f"{run} was trained for {before} already: give {wanted} or more")
    return None if before == budget and report.is_final(run) else Command(run, [*module, f"--resume={run}", *limits])


def train(jobs: int, commands: Iterable[Command | None]) -> None:
    """Run what is left to do, `jobs` at a time (`side_by_side`), once all of it is known to be possible."""
    side_by_side(jobs, [command for command in commands if command])


def _module(arm: Arm) -> Any:
    return importlib.import_module(cli.ALGORITHMS[arm.algorithm])


@functools.cache
def configured(env: str, arm: Arm) -> Any:
    """The configuration of an arm's runs."""
    return cli.configure(_module(arm), [f"--env={env}", *arm.flags])


@functools.cache
def check_possible(env: str, arm: Arm) -> None:
    """Raise `ConfigurationError` for an arm whose algorithm or settings the benchmark does not suit."""
    _module(arm).build(configured(env, arm))


def is_possible(env: str, arm: Arm) -> bool:
    """Whether `check_possible` has nothing against it."""
    try:
        check_possible(env, arm)
    except ConfigurationError:
        return False
    return True


def check_same(run: Path, arm: Arm, env: str, stored: dict[str, Any]) -> None:
    """Raise `ConfigurationError` if a run that is there was trained with other settings than the arm's."""
    wanted = configured(env, arm)
    found = rundir.flatten(rundir.fill(type(wanted)(), stored, run))
    budget = {field.name for field in dataclasses.fields(RunConfig)}
    for name, value in rundir.flatten(wanted).items():
        if name not in budget and found[name] != value:
            raise ConfigurationError(f"{run} was trained with --{name}={found[name]}, not {value}: name another --out")


class Run(NamedTuple):
    """What one process trains."""

    path: Path
    arm: Arm
    seeds: Sequence[int]
    names: Sequence[str]
    """Of the arms that it is, each with all seeds: more than one are its members."""


def plan(comparison: Comparison, config: Config, folder: Path) -> list[Run]:
    """The runs of a comparison: one per arm and seed, or fewer with `vmap` and `together`."""
    groups = [config.seeds] if config.vmap else [(seed,) for seed in config.seeds]
    kinds = alike(comparison) if config.together > 1 else [[name] for name in comparison.arms]
    runs = []
    for names in (kind[i : i + config.together] for kind in kinds for i in range(0, len(kind), config.together)):
        arm = comparison.arms[names[0]]
        place = "".join(c if c.isalnum() or c == "." else "_" for c in names[0])
        if len(names) > 1:
            members = as_members(comparison, names)
            arm = arm._replace(flags=(*arm.flags, "--members", *members))
            digest = hashlib.sha1(" ".join(members).encode()).hexdigest()[:8]  # another sweep has others
            place = f"{place}-and_{len(names) - 1}_more_{digest}"
        runs += [Run(folder / "-".join(map(str, (place, *seeds))), arm, seeds, names) for seeds in groups]
    return runs


def alike(comparison: Comparison) -> list[list[str]]:
    """Names of the arms, those in one list that differ in hyper-parameters alone that may be traced."""
    kinds: dict[Any, list[str]] = {}
    for name, arm in comparison.arms.items():
        settings = rundir.flatten(configured(comparison.env, arm))
        fixed = tuple((key, value) for key, value in settings.items() if key not in TRACEABLE)
        kinds.setdefault((arm.algorithm, fixed if "members" in settings else name), []).append(name)
    return list(kinds.values())


def as_members(comparison: Comparison, names: Sequence[str]) -> list[str]:
    """Arms that are `alike` as values of `--members`."""
    settings = [rundir.flatten(configured(comparison.env, comparison.arms[name])) for name in names]
    varied = [name for name in TRACEABLE if len({own[name] for own in settings}) > 1]
    return [",".join(f"{name}={own[name]}" for name in varied) for own in settings]


def compare(comparison: Comparison, config: Config, folder: Path) -> None:
    """Run what is missing, print a table, write comparison.json, comparison.png and the learning curves.

    Raises:
      ConfigurationError: no seeds, the same twice, vmapped ones that do not follow each other, arms together for
        minutes, or a run failed.
    """
    check_seeds(config.seeds)
    if config.together < 1:
        raise ConfigurationError(f"--together must be at least 1, got {config.together}")
    if config.together > 1 and config.epochs is None:
        raise ConfigurationError("--together needs --epochs: in equal minutes arms that are alone have more updates")
    if config.vmap and config.seeds != (wanted := tuple(range(config.seeds[0], config.seeds[0] + len(config.seeds)))):
        such = " ".join(map(str, wanted))
        raise ConfigurationError(f"--vmap=True trains seeds that follow each other, such as --seeds {such}")
    budget = Budget.of(dataclasses.asdict(config))
    print(f"checking {len(comparison.arms)} settings ...", flush=True)
    planned = plan(comparison, config, folder)
    commands = [command(comparison.env, run.arm, run.seeds, budget, run.path) for run in planned]
    if any(commands):  # no arm has run yet when one is refused
        for arm in comparison.arms.values():
            check_possible(comparison.env, arm)
    train(config.jobs, commands)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in comparison.arms}
    learning: dict[str, list[curves.Curve]] = {name: [] for name in comparison.arms}
    for run in planned:
        learnt = curves.curves(read_metrics(run.path / "metrics.jsonl"))
        trained = [name for name in run.names for _ in run.seeds]
        for place, (name, curve) in enumerate(zip(trained, learnt, strict=True)):
            found[name].append(outcomes.outcome(run.path, place))
            learning[name].append(curve)
    summary = outcomes.summarise(found, comparison.measures)
    heads = "".join(f"{measure.replace('_', ' '):>26}" for measure in comparison.measures)
    heading = f"{comparison.title} ({comparison.env}, {budget})"
    print(f"{heading}\n{'':28}{heads}")
    for name, over in summary.items():
        means = ((spread["mean"] if spread else None) for spread in over.values())
        print(f"{name:28}" + "".join(f"{'-':>26}" if mean is None else f"{mean:26.3f}" for mean in means))
    about = json.loads((planned[0].path / "config.json").read_text())
    content = {name: about[name] for name in ("versions", "devices", "machine") if name in about}
    content |= {"title": comparison.title, "env": comparison.env, budget.unit: budget.amount}
    content |= {"seeds": config.seeds, "vmap": config.vmap, "jobs": config.jobs}
    content |= {"together": [run.names for run in planned if len(run.names) > 1]}
    content |= {"flags": {name: [rundir.portable(flag) for flag in arm.flags] for name, arm in comparison.arms.items()}}
    write_json(folder / "comparison.json", content | {"summary": summary, "arms": found})
    told = [m for m in comparison.measures if any(over[m] for over in summary.values())]
    outcomes.draw(folder / "comparison.png", heading, found, told)
    drawn = comparison.curves or {"curves": tuple(learning)}
    for name, shown in drawn.items():
        curves.draw_groups(folder / f"{name}.png", {arm: learning[arm] for arm in shown})
    written = ("comparison.json", "comparison.png", *(f"{name}.png" for name in drawn))
    print("\n".join(str(folder / name) for name in written))
