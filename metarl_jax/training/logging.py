"""Where a run's numbers go: `metrics.jsonl`, TensorBoard, Weights & Biases and the terminal."""

import contextlib
import hashlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.table import Table
from tensorboardX import SummaryWriter

from metarl_jax.training import interrupt

Record = dict[str, Any]
"""One epoch: names to numbers, lists, or None where a number is not known."""

PLAIN_PERIOD = 10.0
"""Seconds between lines when the output is not a terminal."""


def jsonable(value: Any) -> Any:
    """`value` with arrays as nested lists and with None for what is not finite, as JSON requires."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return jsonable(np.asarray(value).tolist())
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Replace `path` in one step: a reader, or a kill, never sees half a file."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(jsonable(value), indent=2) + "\n")
    os.replace(part, path)


def read_metrics(path: Path) -> list[Record]:
    """The records of a `metrics.jsonl`; what is none is left out, such as a last line that a kill cut short."""
    records = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict) and "epoch" in record]


def rewind(path: Path, epoch: int) -> list[Record]:
    """Drop the records of epochs after `epoch` from a file, in one step; returns the others."""
    records = [r for r in read_metrics(path) if r["epoch"] <= epoch]
    _write_metrics(path, records)
    return records


def _write_metrics(path: Path, records: Sequence[Record]) -> None:
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(r) + "\n" for r in records))
    os.replace(part, path)


class Log:
    """Appends records to `metrics.jsonl` and `tensorboard/`, and drops those of epochs that a resume repeats."""

    def __init__(self, run_dir: Path, epoch: int, wandb_project: str | None = None) -> None:
        """Open for a run whose state is at the end of `epoch`."""
        self._path = run_dir / "metrics.jsonl"
        self.records = rewind(self._path, epoch)
        self._file = self._path.open("a", buffering=1)
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=epoch + 1)
        self._wandb = _open_wandb(wandb_project, run_dir) if wandb_project else None

    def write(self, record: Record) -> None:
        """Add one epoch."""
        record = jsonable(record)
        self.records.append(record)
        self._file.write(json.dumps(record) + "\n")
        scalars = dict(_scalars(record))
        for name, value in scalars.items():
            self._board.add_scalar(name, value, record["epoch"])
        if self._wandb:
            self._wandb.log(scalars, step=record["epoch"])

    def complete(self, evaluated: Record) -> None:
        """Add an evaluation to the last record, if it has none."""
        if self.records and self.records[-1].get("test_return") is None:
            self.records[-1] |= jsonable(evaluated)
            self._file.close()
            _write_metrics(self._path, self.records)
            self._file = self._path.open("a", buffering=1)

    def close(self) -> None:
        """Flush everything."""
        self._file.close()
        self._board.close()
        if self._wandb:
            self._wandb.finish()


def _open_wandb(project: str, run_dir: Path) -> Any:
    """The run of this directory, the same one after a resume."""
    import wandb  # an optional dependency; `RunConfig.check` has seen it

    config = run_dir / "config.json"
    settings = json.loads(config.read_text()) if config.exists() else {}
    identity = hashlib.sha1(str(run_dir.absolute()).encode()).hexdigest()[:16]  # names repeat in other folders
    return wandb.init(project=project, id=identity, name=run_dir.name, dir=run_dir, config=settings, resume="allow")


def _scalars(record: Mapping[str, Any], prefix: str = ""):
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield prefix + name, value


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads on, as after `| head`: say no more, and end what runs in good order."""
        self.quiet = True
        interrupt.silence(interrupt.STDOUT)
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # otherwise nothing that could be lost is running
            signal.raise_signal(signal.SIGTERM)


class Terminal:
    """A progress bar, or plain lines where the output is no terminal."""

    def __init__(self, console: Console | None = None) -> None:
        """`console` is for tests."""
        self.console = console or _Console(highlight=False, soft_wrap=True)
        columns: tuple[ProgressColumn, ...] = (BarColumn(20), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=self.console) if self.console.is_terminal else None
        self._task = self._bar.add_task("", total=1.0) if self._bar else None
        self._last_line = -float("inf")

    def __enter__(self) -> "Terminal":
        """Show the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        """A line above the bar, as it is: brackets are no markup."""
        self.console.print(text, markup=False)

    def table(self, title: str, rows: Mapping[str, Any]) -> None:
        """Two columns: what, and its value."""
        table = Table(title=title, show_header=False, title_justify="left")
        for name, value in rows.items():
            table.add_row(name.replace("_", " "), show(value))
        self.console.print(table, markup=False)

    def progress(self, record: Record, done: float, seconds_left: float, last: bool) -> None:
        """Show an epoch; `done` is the share of the budget in [0, 1]."""
        lines = describe(record, seconds_left)
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, description="\n".join(lines))
        elif last or time.monotonic() - self._last_line >= PLAIN_PERIOD:
            self.say(" | ".join(lines))
            self._last_line = time.monotonic()


def show(value: Any) -> str:
    """A value of a table: numbers to four digits, collections in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {show(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(show, value))
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def describe(record: Record, seconds_left: float) -> tuple[str, str]:
    """An epoch in two lines: time left, counters and rates; returns and up to four losses of what was updated."""
    counters = [f"{duration(seconds_left)} left", f"epoch {record['epoch']}", f"{record['env_steps']:,} steps"]
    for name in ("env_steps", "updates"):
        counters.append(f"{record[f'{name}_per_second']:,.0f} {name.removeprefix('env_')}/s")
    losses = [name for name, value in record.items() if name.endswith("loss") and value != 0.0][:4]
    returns = ("train_return", "train_return_min", "train_return_max", "test_return", "test_score")
    values = {name.replace("_return", ""): record.get(name) for name in (*returns, *losses)}
    known = [f"{name} {value:.4g}" for name, value in values.items() if value is not None]
    return " | ".join(counters), " | ".join(known)


def duration(seconds: float) -> str:
    """h:mm:ss."""
    minutes, seconds = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
