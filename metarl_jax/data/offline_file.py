"""Offline data in one HDF5 file, of which nothing is trusted when it is read.

It has one data set per field of `OfflineData` (those of the task under `task/`), whose attribute `crc32` [N] holds the
CRC-32 of each task's row; `behaviour_returns` [N, C], the mean return of each task's episodes from each checkpoint; and
three attributes: `format`, `metadata`, the `Metadata` as JSON, and its CRC-32. Files of format 1 have no such returns,
and no checksums of rows but HDF5's, which takes a block of zeros for a whole one.
"""

import dataclasses
import json
import os
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from metarl_jax.data import offline
from metarl_jax.data.offline import PER_TRANSITION, SPLITS, Metadata, OfflineData, Tasks
from metarl_jax.errors import ConfigurationError, reading
from metarl_jax.types import EnvSpec

FORMATS = ("metarl_jax offline data, version 1", "metarl_jax offline data, version 2")
"""All that can be read; the last is what is written."""


def save(path: Path | str, data: OfflineData, metadata: Metadata) -> None:
    """Write a data set of NumPy arrays in one step: a kill leaves either the whole file or none."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    text = json.dumps(dataclasses.asdict(metadata)).encode()
    # Headers of this version have checksums, and strings of fixed length lie in them: HDF5 crashes on others, or reads
    # them for ever, when they are damaged.
    with h5py.File(part, "w", libver=("v110", "v110")) as file:
        file.attrs["format"], file.attrs["metadata"] = np.bytes_(FORMATS[-1]), np.bytes_(text)
        file.attrs["metadata_crc"] = zlib.crc32(text)
        returns = offline.behaviour_returns(data, metadata).astype(np.float32)
        for name, x in (_fields(data) | {"behaviour_returns": returns}).items():
            chunks = (1, min(x.shape[1], 4096), *x.shape[2:]) if name in PER_TRANSITION else x.shape
            stored = file.create_dataset(name, data=x, chunks=chunks, fletcher32=True)
            stored.attrs["crc32"] = np.array([_crc32(row) for row in x], np.uint32)
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
    with reading(path), h5py.File(path, "r") as file:
        metadata = _read_metadata(path, file)
        data, returns = _read_data(path, file, metadata)
    _check(path, data, metadata)
    if returns is not None:
        _check_returns(path, data, metadata, returns)
    if spec is not None:
        _check_spec(path, data, metadata, spec)
    return data, metadata


def checksum(path: Path | str) -> str:
    """CRC-32 of a whole file, in hexadecimal digits; takes less time than loading it."""
    total = 0
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            total = zlib.crc32(block, total)
    return f"{total:08x}"


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
_RETURNS = {"behaviour_returns": ("f", "NC")}
"""The same of what can be told from the others, in format 2."""


def _fields(data: OfflineData) -> dict[str, np.ndarray]:
    """Fields by their names in the file, in the file's types."""
    values = data._asdict() | {f"task/{name}": getattr(data.task, name) for name in Tasks._fields}
    return {name: np.asarray(values[name], _DTYPES[kind]) for name, (kind, _) in _LAYOUT.items()}


def _crc32(row: np.ndarray) -> int:
    return zlib.crc32(row.tobytes())


def _text(file: h5py.File, name: str) -> str:
    """An attribute, which format 1 has as a string of any length; "" if it is missing."""
    value = file.attrs.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_metadata(path: Path | str, file: h5py.File) -> Metadata:
    if _text(file, "format") not in FORMATS:
        raise ConfigurationError(f"{path} is not a data set of this library (no attribute format = {FORMATS[-1]!r})")
    text = _text(file, "metadata")
    if zlib.crc32(text.encode()) != file.attrs.get("metadata_crc"):
        raise ConfigurationError(f"{path}: field metadata is damaged: its checksum does not match")
    values: dict[str, Any] = json.loads(text)
    known = {field.name for field in dataclasses.fields(Metadata)}
    if set(values) != known:
        name = sorted(set(values) ^ known)[0]
        raise ConfigurationError(f"{path}: field metadata was written by another version: it differs in {name!r}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Metadata(**values)


def _read_data(path: Path | str, file: h5py.File, metadata: Metadata) -> tuple[OfflineData, np.ndarray | None]:
    """The fields, and the behaviour's returns where there are any."""
    old = _text(file, "format") == FORMATS[0]
    sizes = {"C": len(metadata.checkpoints)}
    values: dict[str, np.ndarray] = {}
    for name, (kind, axes) in (_LAYOUT if old else _LAYOUT | _RETURNS).items():
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
        checksums = None if old else stored.attrs["crc32"]
        for n in range(sizes["N"]):
            try:
                values[name][n] = stored[n]
            except OSError as error:
                raise ConfigurationError(f"{path}: field {name} of task {n} is damaged: cannot be read") from error
            if checksums is not None and _crc32(values[name][n]) != checksums[n]:
                raise ConfigurationError(f"{path}: field {name} of task {n} is damaged: its checksum does not match")
    task = Tasks(*(values.pop(f"task/{name}") for name in Tasks._fields))
    returns = values.pop("behaviour_returns", None)
    return OfflineData(task=task, **values), returns


def _check(path: Path | str, data: OfflineData, metadata: Metadata) -> None:
    """Values that shapes do not tell."""
    num, length = data.reward.shape
    if (np.diff(metadata.checkpoints) <= 0).any():
        raise ConfigurationError(f"{path}: field metadata: the checkpoints {metadata.checkpoints} do not ascend")
    limits = {"count": (1, length), "split": (0, len(SPLITS) - 1), "task/label": (0, len(metadata.subtasks) - 1)}
    for name, (low, high) in limits.items():
        values = _fields(data)[name]
        if (wrong := np.flatnonzero((values < low) | (values > high))).size:
            n = wrong[0]
            raise ConfigurationError(f"{path}: field {name} of task {n} is {values[n]}, not in [{low}, {high}]")
    for task in range(num):
        stored = slice(0, data.count[task])
        for name, values in (("task/spec", data.task.spec), *((name, getattr(data, name)) for name in PER_TRANSITION)):
            if not np.isfinite(values[task] if name == "task/spec" else values[task, stored]).all():
                raise ConfigurationError(f"{path}: field {name} of task {task} is not finite")
        last, checkpoint = data.last[task, stored], data.checkpoint[task, stored]
        longest = np.diff(np.flatnonzero(last), prepend=-1).max(initial=0)
        problems = (
            ("action", np.abs(data.action[task, stored]).max() > 1, "is not in [-1, 1]"),
            ("last", not last[-1], "does not end with the last stored transition"),
            ("last", longest > metadata.horizon, f"has an episode of {longest} steps, more than the horizon"),
            ("terminated", (data.terminated[task, stored] & ~last).any(), "goes on after a terminal state"),
            ("checkpoint", not np.isin(checkpoint, metadata.checkpoints).all(), "is not in metadata"),
            ("checkpoint", ((np.diff(checkpoint) != 0) & ~last[:-1]).any(), "changes within an episode"),
        )
        for name, is_wrong, why in problems:
            if is_wrong:
                raise ConfigurationError(f"{path}: field {name} of task {task} {why}")


def _check_returns(path: Path | str, data: OfflineData, metadata: Metadata, returns: np.ndarray) -> None:
    """That the stored returns are those of the episodes."""
    same = np.isclose(returns, offline.behaviour_returns(data, metadata), rtol=1e-6, atol=1e-6, equal_nan=True)
    if (wrong := np.flatnonzero(~same.all(1))).size:
        raise ConfigurationError(f"{path}: field behaviour_returns of task {wrong[0]} is not what its episodes return")


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
