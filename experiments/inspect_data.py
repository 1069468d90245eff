"""Look into an offline data set: what is stored, how good behaviour was, and a figure."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments import cli
from experiments.plot import SUFFIXES
from metarl_jax.analysis import behaviour
from metarl_jax.data import minari_export, offline, offline_file
from metarl_jax.data.offline import Metadata, OfflineData
from metarl_jax.errors import ConfigurationError, reading
from metarl_jax.training.logging import Terminal


@dataclasses.dataclass(frozen=True)
class Config:
    """Print what an offline data set holds, draw it, and export it if asked to."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """HDF5 file that experiments.collect_offline wrote."""
    quality: str = "mixed"
    """Part of the data: expert, medium, mixed (all of it) or noisy."""
    sigma: float = 0.1
    """Noise of `noisy`, in standard deviations of observations and rewards."""
    out: str | None = None
    """Image; None: beside the file."""
    minari: str | None = None
    """Also export to Minari's local store: one data set <name>/task-NN-v0 per task."""


def inspect(config: Config) -> int:
    """Check, print, draw and export."""
    with reading(config.file):
        Path(config.file).open("rb").close()
    path = Path(config.out) if config.out else Path(config.file).with_suffix(".png")
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(f"--out: {path} must end in one of {', '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"--out: there is no directory for {path}")
    if config.minari is not None:
        minari_export.check(config.minari)
    data, metadata = offline.quality(*offline_file.load(config.file), config.quality, config.sigma)
    with Terminal() as terminal:
        terminal.table(config.file, header(data, metadata))
    Console(width=None if sys.stdout.isatty() else 120).print(table(data, metadata))
    behaviour.draw(path, data, metadata)
    print(path)
    if config.minari is not None:
        names = minari_export.export(data, metadata, config.minari)
        print(f"{len(names)} Minari data sets: {names[0]} to {names[-1]}")
    return 0


def header(data: OfflineData, metadata: Metadata) -> dict[str, str]:
    """What is known of the whole data set."""
    episodes = offline.episodes(data)
    ended = data.terminated[episodes.task, episodes.start + episodes.length - 1]
    kinds = ", ".join(f"{(data.split == i).sum()} {name}" for i, name in enumerate(offline.SPLITS))
    return {
        "benchmark": ", ".join([metadata.env, *metadata.env_options]),
        "engine": f"{metadata.engine}, {metadata.variant} models",
        "tasks": kinds,
        "transitions": f"{data.count.sum():,}; per task {data.count.min():,} to {data.count.max():,}",
        "episodes": f"{len(episodes.task):,}, {ended.sum():,} of them terminated; up to {metadata.horizon} steps",
        "observation, action": f"{data.obs.shape[-1]}, {data.action.shape[-1]}",
        "behaviour": f"{metadata.quality}; preset {metadata.preset}, seed {metadata.seed}",
        "written by": f"version {metadata.version}, commit {metadata.commit}",
    }


def table(data: OfflineData, metadata: Metadata) -> Table:
    """One line per task: mean return per checkpoint, and the lowest and highest return of an episode."""
    result = Table(title="Mean return of each checkpoint's episodes (env steps); min, max over episodes")
    for column in ("task", "sub-task", "spec", "steps", *(f"{c:,}" for c in metadata.checkpoints), "min", "max"):
        result.add_column(column, justify="left" if column == "sub-task" else "right")
    rows = np.concatenate([offline.behaviour_returns(data, metadata), offline.return_range(data)], 1)
    for n, row in enumerate(rows):
        spec = ", ".join(f"{x:.2f}" for x in data.task.spec[n])
        name = metadata.subtasks[data.task.label[n]]
        result.add_row(str(n), name, spec, f"{data.count[n]:,}", *(f"{x:.1f}" for x in row), end_section=_ends(data, n))
    return result


def _ends(data: OfflineData, n: int) -> bool:
    """Whether another split begins after task `n`."""
    return n + 1 < len(data.split) and data.split[n] != data.split[n + 1]


def main(argv: Sequence[str] | None = None) -> int:
    """Inspect as the command line says; returns the exit code."""
    return cli.command(Config, inspect, argv)


if __name__ == "__main__":
    sys.exit(main())
