"""Offline data: the episodes of many behaviour policies on N tasks; what is drawn from it, and variants of it.

Episodes lie one after the other in every task's row; what follows `count` is padding. `M` is the length of a row.
`offline_file` stores it.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from metarl_jax.errors import ConfigurationError

SPLITS = ("train", "moderate", "extreme")
"""What a task is for: training, or held out, moderately or extremely far from the training tasks."""
QUALITIES = ("expert", "medium", "mixed", "noisy")
"""Variants of a data set, see `quality`."""
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


PER_TRANSITION = (*OfflineBatch._fields, "last", "checkpoint")
"""Fields of `OfflineData` with one entry per transition."""


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
    """Env steps of a behaviour policy, over all tasks that are its own, after which behaviour was stored."""
    version: str | None
    """Of this library."""
    commit: str | None
    """Of its source tree."""
    settings: tuple[str, ...] = ()
    """Of the collection, as name=value: everything that decides what is in the file."""
    quality: str = "mixed"
    """Variant of the data: one of `QUALITIES`, of `noisy` with its sigma; a file holds `mixed`."""


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

    return data._replace(count=count, **{name: packed(getattr(data, name)) for name in PER_TRANSITION})


def quality(
    data: OfflineData, metadata: Metadata, name: str, sigma: float = 0.1, seed: int = 0
) -> tuple[OfflineData, Metadata]:
    """A variant of a loaded data set.

    Args:
      data: on the host, as stored.
      metadata: its own.
      name: `expert`: every task's best checkpoint; `medium`: the one nearest to halfway between its worst and its
        best, the earliest of several; `mixed`: everything; `noisy`: everything, seen through noise.
      sigma: of `noisy`: normal noise on observations and rewards, in their standard deviations over the data set. The
        noise of a step's `next_obs` is that of the next step's `obs`.
      seed: of the noise.

    Raises:
      ConfigurationError: an unknown name, a negative sigma, or fewer checkpoints than are compared.
    """
    if name not in QUALITIES:
        raise ConfigurationError(f"unknown quality {name!r}: choose {', '.join(QUALITIES)}")
    if name == "noisy":
        data = _noisy(data, sigma, seed)
    elif name != "mixed":
        need = {"expert": 2, "medium": 3}[name]
        if (num := len(metadata.checkpoints)) < need:
            raise ConfigurationError(f"quality {name} needs data of {need} checkpoints, this has {num}: use mixed")
        returns = behaviour_returns(data, metadata)
        best, worst = np.nanmax(returns, 1), np.nanmin(returns, 1)
        goal = best if name == "expert" else (best + worst) / 2
        distance = np.abs(returns - goal[:, None])
        near = np.nanmin(distance, 1) + 1e-6 * (best - worst)  # rounding does not decide between two as near
        chosen = np.argmax(distance <= near[:, None], 1)
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
