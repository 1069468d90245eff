"""Offline data: the episodes of many behaviour policies on N tasks, in one HDF5 file.

The file has one data set per field of `OfflineData` (those of the task under `task/`), written in rows of one task
with a checksum per block, and two attributes: `format`, and `metadata`, the `Metadata` as JSON. Episodes lie one after
the other in every task's row; what follows `count` is padding. `M` is the length of a row.
"""

import dataclasses
import json
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from metarl_jax.errors import ConfigurationError
from metarl_jax.types import EnvSpec

SPLITS = ("train", "moderate", "extreme")
"""What a task is for: training, or held out, moderately or extremely far from the training tasks."""
QUALITIES = ("expert", "medium", "mixed", "noisy")
"""Variants of a data set, see `quality`."""
FORMAT = "metarl_jax offline data, version 1"
Rows = Any
"""A jax.Array where learners sample, a np.ndarray on the host: files and tables."""


class Tasks(NamedTuple):
    """The stored tasks; see `metarl_jax.types.Task`."""

    family: Int[Rows, " N"]
    spec: Float[Rows, "N p"]
    label: Int[Rows, " N"]


class OfflineData(NamedTuple):
    """Stored behaviour of N tasks, padded to M transitions per task."""

    obs: Float[Rows, "N M O"]
    action: Float[Rows, "N M A"]
    """In [-1, 1]."""
    reward: Float[Rows, "N M"]
    next_obs: Float[Rows, "N M O"]
    """Where the action led to, also at an episode's end."""
    terminated: Bool[Rows, "N M"]
    """`next_obs` is terminal: its value is 0. A time-out is not."""
    last: Bool[Rows, "N M"]
    """The episode ended with this step, by termination or by time-out."""
    count: Int[Rows, " N"]
    """Stored transitions, 1 <= count <= M; the rest is padding."""
    checkpoint: Int[Rows, "N M"]
    """Env steps that the behaviour policy had been trained for."""
    task: Any
    """A `Task` with leading axis N: training tasks, then held-out ones."""
    split: Int[Rows, " N"]
    """Index into `SPLITS`."""


class OfflineBatch(NamedTuple):
    """Transitions of n tasks, `B` of each."""

    obs: Float[Array, "n B O"]
    action: Float[Array, "n B A"]
    reward: Float[Array, "n B"]
    next_obs: Float[Array, "n B O"]
    terminated: Bool[Array, "n B"]


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Where a data set comes from."""

    env: str
    """Benchmark."""
    env_options: tuple[str, ...]
    """Its options, as name=value."""
    engine: str
    """Physics engine."""
    variant: str
    """Model variant."""
    horizon: int
    """Control steps per episode."""
    subtasks: tuple[str, ...]
    """Names, by the task's label."""
    preset: str
    """Of the collection."""
    seed: int
    checkpoints: tuple[int, ...]
    """Env steps per task after which behaviour was stored."""
    version: str | None
    """Of this library."""
    commit: str | None
    """Of its source tree."""
    settings: tuple[str, ...] = ()
    """Of the collection, as name=value: everything that decides what is in the file."""
    quality: str = "mixed"
    """Variant of the data, one of `QUALITIES`; a file holds `mixed`."""


class Episodes(NamedTuple):
    """All stored episodes, task by task."""

    task: Int[np.ndarray, " E"]
    start: Int[np.ndarray, " E"]
    """First transition in the task's row."""
    length: Int[np.ndarray, " E"]
    checkpoint: Int[np.ndarray, " E"]
    returns: Float[np.ndarray, " E"]
    """Undiscounted."""


def sample(data: OfflineData, key: PRNGKeyArray, task: Int[Array, " n"], num: int) -> OfflineBatch:
    """Draw `num` transitions of each given task, uniformly over the stored ones, with replacement."""
    step = jax.random.randint(key, (task.shape[0], num), 0, data.count[task][:, None])
    return OfflineBatch(*(getattr(data, name)[task[:, None], step] for name in OfflineBatch._fields))


def episodes(data: OfflineData) -> Episodes:
    """The table of episodes of a data set on the host."""
    parts = []
    for n, count in enumerate(data.count):
        ends = np.flatnonzero(data.last[n, :count]) + 1
        start = np.r_[0, ends[:-1]]
        returns = np.add.reduceat(data.reward[n, :count].astype(np.float64), start)
        parts.append(Episodes(np.full(len(start), n), start, ends - start, data.checkpoint[n, start], returns))
    return Episodes(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def behaviour_returns(data: OfflineData, metadata: Metadata) -> Float[np.ndarray, "N C"]:
    """Mean return of each task's episodes from each checkpoint; NaN where there are none."""
    table = episodes(data)
    cell = table.task * len(metadata.checkpoints) + np.searchsorted(metadata.checkpoints, table.checkpoint)
    shape = (len(data.count), len(metadata.checkpoints))
    total, num = (np.bincount(cell, weights, np.prod(shape)).reshape(shape) for weights in (table.returns, None))
    return np.divide(total, num, out=np.full(shape, np.nan), where=num > 0)


def return_range(data: OfflineData) -> Float[np.ndarray, "N 2"]:
    """Lowest and highest return of each task's episodes: the data's own normaliser."""
    table = episodes(data)
    first = np.searchsorted(table.task, np.arange(len(data.count)))
    return np.stack([f.reduceat(table.returns, first) for f in (np.minimum, np.maximum)], -1)


def select(data: OfflineData, keep: Bool[np.ndarray, "N M"]) -> OfflineData:
    """The transitions to `keep`, which must be whole episodes, in their order; at least one of each task."""
    keep = keep & (np.arange(keep.shape[1]) < data.count[:, None])
    count = keep.sum(1).astype(data.count.dtype)
    order = np.argsort(~keep, axis=1, kind="stable")[:, : count.max()]
    padding = np.arange(count.max()) >= count[:, None]

    def packed(x: np.ndarray) -> np.ndarray:
        rows = np.take_along_axis(x, order.reshape(*order.shape, *(1,) * (x.ndim - 2)), 1)
        rows[padding] = 0
        return rows

    return data._replace(count=count, **{name: packed(getattr(data, name)) for name in _ROWS})


def quality(
    data: OfflineData, metadata: Metadata, name: str, sigma: float = 0.1, seed: int = 0
) -> tuple[OfflineData, Metadata]:
    """A variant of a loaded data set.

    Args:
      data: on the host, as stored.
      metadata: its own.
      name: `expert`: every task's best checkpoint; `medium`: the one nearest to halfway between its worst and its
        best; `mixed`: everything; `noisy`: everything, seen through noise.
      sigma: of `noisy`: normal noise on observations and rewards, in their standard deviations over the data set. The
        noise of a step's `next_obs` is that of the next step's `obs`.
      seed: of the noise.

    Raises:
      ConfigurationError: an unknown name, a negative sigma, or one checkpoint where several are compared.
    """
    if name not in QUALITIES:
        raise ConfigurationError(f"unknown quality {name!r}: choose {', '.join(QUALITIES)}")
    if name == "noisy":
        data = _noisy(data, sigma, seed)
    elif name != "mixed":
        if len(metadata.checkpoints) < 2:
            raise ConfigurationError(f"quality {name} needs data of several checkpoints, this is of one: use mixed")
        returns = behaviour_returns(data, metadata)
        best, worst = np.nanmax(returns, 1), np.nanmin(returns, 1)
        goal = best if name == "expert" else (best + worst) / 2
        chosen = np.nanargmin(np.abs(returns - goal[:, None]), 1)
        data = select(data, data.checkpoint == np.asarray(metadata.checkpoints)[chosen][:, None])
    return data, dataclasses.replace(metadata, quality=f"noisy({sigma:g})" if name == "noisy" else name)


def _noisy(data: OfflineData, sigma: float, seed: int) -> OfflineData:
    if not 0.0 <= sigma < np.inf:
        raise ConfigurationError(f"sigma must be >= 0, got {sigma}")
    stored = np.arange(data.reward.shape[1]) < data.count[:, None]
    keys = jax.random.split(jax.random.key(seed, impl="threefry2x32"), 3)
    shapes = (data.obs.shape, data.obs.shape, data.reward.shape)
    before, fresh, reward = (np.asarray(jax.random.normal(k, s)) for k, s in zip(keys, shapes, strict=True))
    after = np.where(data.last[..., None], fresh, np.roll(before, -1, axis=1))

    mask = np.float32(sigma) * stored[..., None]
    scale = data.obs[stored].std(0)  # for both, so that a step's end remains the next one's beginning
    return data._replace(
        obs=data.obs + mask * scale * before,
        next_obs=data.next_obs + mask * scale * after,
        reward=data.reward + mask[..., 0] * data.reward[stored].std() * reward,
    )


def save(path: Path | str, data: OfflineData, metadata: Metadata) -> None:
    """Write a data set of NumPy arrays in one step: a kill leaves either the whole file or none."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    text = json.dumps(dataclasses.asdict(metadata))
    with h5py.File(part, "w") as file:
        file.attrs["format"], file.attrs["metadata"], file.attrs["metadata_crc"] = (
            FORMAT,
            text,
            zlib.crc32(text.encode()),
        )
        for name, x in _fields(data).items():
            chunks = (1, min(x.shape[1], 4096), *x.shape[2:]) if name in _ROWS else x.shape
            file.create_dataset(name, data=x, chunks=chunks, fletcher32=True)
    os.replace(part, path)


def load(path: Path | str, spec: EnvSpec | None = None) -> tuple[OfflineData, Metadata]:
    """Read a data set into NumPy arrays, and trust nothing in it.

    Args:
      path: of the file.
      spec: of the environment that the data must be of; None: any.

    Raises:
      ConfigurationError: no such file, cut short, damaged, of another format or benchmark, a field that is missing,
        of another shape or type, or not finite. The message names file, field and task.
    """
    try:
        with h5py.File(path, "r") as file:
            metadata = _read_metadata(path, file)
            data = _read_data(path, file)
    except OSError as error:
        reason = "there is no such file" if not Path(path).exists() else str(error).splitlines()[0]
        raise ConfigurationError(f"{path} cannot be read: {reason}") from error
    _check(path, data, metadata)
    if spec is not None:
        _check_spec(path, data, metadata, spec)
    return data, metadata


_DTYPES = {"f": np.float32, "i": np.int32, "b": np.bool_}
_LAYOUT = {
    "count": ("i", "N"),
    "split": ("i", "N"),
    "task/family": ("i", "N"),
    "task/spec": ("f", "Np"),
    "task/label": ("i", "N"),
    "reward": ("f", "NM"),
    "obs": ("f", "NMO"),
    "action": ("f", "NMA"),
    "next_obs": ("f", "NMO"),
    "terminated": ("b", "NM"),
    "last": ("b", "NM"),
    "checkpoint": ("i", "NM"),
}
"""Type and axes of every field; sizes come from the first field that has an axis."""
_ROWS = tuple(name for name, (_, axes) in _LAYOUT.items() if axes.startswith("NM"))
"""Fields with one entry per transition."""


def _fields(data: OfflineData) -> dict[str, np.ndarray]:
    """Fields by their names in the file, in the file's types."""
    values = data._asdict() | {f"task/{name}": getattr(data.task, name) for name in Tasks._fields}
    return {name: np.asarray(values[name], _DTYPES[kind]) for name, (kind, _) in _LAYOUT.items()}


def _read_metadata(path: Path | str, file: h5py.File) -> Metadata:
    if file.attrs.get("format") != FORMAT:
        raise ConfigurationError(f"{path} is not a data set of this library (no attribute format = {FORMAT!r})")
    text = str(file.attrs.get("metadata", ""))
    if zlib.crc32(text.encode()) != file.attrs.get("metadata_crc"):
        raise ConfigurationError(f"{path}: field metadata is damaged: its checksum does not match")
    values: dict[str, Any] = json.loads(text)
    known = {field.name for field in dataclasses.fields(Metadata)}
    if set(values) != known:
        name = sorted(set(values) ^ known)[0]
        raise ConfigurationError(f"{path}: field metadata was written by another version: it differs in {name!r}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Metadata(**values)


def _read_data(path: Path | str, file: h5py.File) -> OfflineData:
    sizes: dict[str, int] = {}
    values: dict[str, np.ndarray] = {}
    for name, (kind, axes) in _LAYOUT.items():
        if name not in file:
            raise ConfigurationError(f"{path}: field {name} is missing")
        stored = file[name]
        expected = tuple(sizes.get(axis, size) for axis, size in zip(axes, stored.shape, strict=False))
        if stored.ndim != len(axes) or stored.shape != expected or stored.dtype != _DTYPES[kind]:
            shape = ", ".join(f"{axis}={sizes[axis]}" if axis in sizes else axis for axis in axes)
            wanted = f"{np.dtype(_DTYPES[kind])} [{shape}]"
            raise ConfigurationError(f"{path}: field {name} is {stored.dtype} {list(stored.shape)}, not {wanted}")
        sizes |= dict(zip(axes, stored.shape, strict=True))
        values[name] = np.empty(stored.shape, stored.dtype)
        for n in range(sizes["N"]):
            try:
                values[name][n] = stored[n]
            except OSError as error:
                raise ConfigurationError(f"{path}: field {name} of task {n} is damaged: cannot be read") from error
    task = Tasks(*(values.pop(f"task/{name}") for name in Tasks._fields))
    return OfflineData(task=task, **values)


def _check(path: Path | str, data: OfflineData, metadata: Metadata) -> None:
    """Values that shapes do not tell."""
    num, length = data.reward.shape
    limits = {"count": (1, length), "split": (0, len(SPLITS) - 1), "task/label": (0, len(metadata.subtasks) - 1)}
    for name, (low, high) in limits.items():
        values = _fields(data)[name]
        if (wrong := np.flatnonzero((values < low) | (values > high))).size:
            n = wrong[0]
            raise ConfigurationError(f"{path}: field {name} of task {n} is {values[n]}, not in [{low}, {high}]")
    for task in range(num):
        stored = slice(0, data.count[task])
        for name, values in (("task/spec", data.task.spec), *((name, getattr(data, name)) for name in _ROWS)):
            if not np.isfinite(values[task] if name == "task/spec" else values[task, stored]).all():
                raise ConfigurationError(f"{path}: field {name} of task {task} is not finite")
        problems = {
            "action": (np.abs(data.action[task, stored]).max() > 1, "is not in [-1, 1]"),
            "last": (not data.last[task, data.count[task] - 1], "does not end with the last stored transition"),
            "terminated": ((data.terminated[task] & ~data.last[task])[stored].any(), "goes on after a terminal state"),
            "checkpoint": (
                not np.isin(data.checkpoint[task, stored], metadata.checkpoints).all(),
                "is not in metadata",
            ),
        }
        for name, (is_wrong, why) in problems.items():
            if is_wrong:
                raise ConfigurationError(f"{path}: field {name} of task {task} {why}")


def _check_spec(path: Path | str, data: OfflineData, metadata: Metadata, spec: EnvSpec) -> None:
    """That the data is of this benchmark."""
    pairs = {
        "benchmark": (metadata.env, spec.name),
        "observation size": (data.obs.shape[-1], spec.obs_size),
        "action size": (data.action.shape[-1], spec.action_size),
        "task size": (data.task.spec.shape[-1], spec.task_size),
        "horizon": (metadata.horizon, spec.horizon),
        "sub-tasks": (", ".join(metadata.subtasks), ", ".join(spec.subtasks)),
    }
    for name, (found, wanted) in pairs.items():
        if found != wanted:
            raise ConfigurationError(f"{path} is of {name} {found}, not {wanted}")
    if (wrong := np.flatnonzero((data.task.family < 0) | (data.task.family >= len(spec.families)))).size:
        raise ConfigurationError(f"{path}: field task/family of task {wrong[0]} is none of {', '.join(spec.families)}")
