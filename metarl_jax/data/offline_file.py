"""Offline data in one HDF5 file, of which nothing is trusted when it is read.

It has one data set per field of `OfflineData` (those of the task under `task/`), written in rows of one task with a
checksum per block, and three attributes: `format`, `metadata`, the `Metadata` as JSON, and its checksum.
"""

import dataclasses
import json
import os
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from metarl_jax.data.offline import PER_TRANSITION, SPLITS, Metadata, OfflineData, Tasks
from metarl_jax.errors import ConfigurationError
from metarl_jax.types import EnvSpec

FORMAT = "metarl_jax offline data, version 1"


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
            chunks = (1, min(x.shape[1], 4096), *x.shape[2:]) if name in PER_TRANSITION else x.shape
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
        for name, values in (("task/spec", data.task.spec), *((name, getattr(data, name)) for name in PER_TRANSITION)):
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
