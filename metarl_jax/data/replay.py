"""A replay of trajectory rows on the device.

A row is `T` consecutive transitions of one lane and always begins with an episode's first step. Rows are
written in blocks, as a ring; sampling is index arithmetic. The cost of both is independent of the fill level.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from metarl_jax.data import statistics
from metarl_jax.data.segments import same_task
from metarl_jax.types import Transition


class Vectors(NamedTuple):
    """The part of a transition that is standardised for the encoder and the decoder."""

    obs: jax.Array
    action: jax.Array
    reward: jax.Array
    next_obs: jax.Array
    gross_reward: jax.Array


class Replay(NamedTuple):
    data: Transition
    """[R, T, ...]"""
    size: Int[Array, ""]
    """Rows that hold data: 0 <= row < size."""
    position: Int[Array, ""]
    """Row the next block begins at."""
    moments: statistics.Moments
    """Of all valid transitions ever inserted, as `Vectors`."""


def vectors(transition: Transition) -> Vectors:
    """The vectors of a transition."""
    found = Vectors(*(getattr(transition, name) for name in Vectors._fields))
    return found._replace(gross_reward=found.reward) if found.gross_reward is None else found


def unscaled(obs_size: int, action_size: int) -> statistics.Scale:
    """The standardisation of `Vectors` before there is any data: none."""
    obs, action, number = jnp.zeros(obs_size), jnp.zeros(action_size), jnp.zeros(())
    return statistics.identity(Vectors(obs, action, number, obs, number))


def num_bytes(example: Transition, num_rows: int, length: int) -> int:
    """Bytes of a replay of `num_rows` rows of `length` transitions shaped like `example`."""
    return num_rows * length * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(example))


def init(example: Transition, num_rows: int, length: int) -> Replay:
    """An empty replay for transitions shaped like `example` (no leading axes)."""
    data = jax.tree.map(lambda x: jnp.zeros((num_rows, length, *x.shape), x.dtype), example)
    # Two zeros, not one twice: a donated buffer may have only one owner.
    return Replay(data, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), statistics.init(vectors(example)))


def insert(replay: Replay, rows: Transition) -> Replay:
    """Write a block of rows [E, T, ...], E <= R; a block that does not fit before the end goes to the start.

    The rows behind the last one that fits are then out of the ring: nothing would ever replace them.
    """
    num_rows = replay.data.reward.shape[0]
    block, length = rows.reward.shape
    wraps = replay.position + block > num_rows
    start = jnp.where(wraps, 0, replay.position)
    data = jax.tree.map(
        lambda buffer, new: jax.lax.dynamic_update_slice_in_dim(buffer, new.astype(buffer.dtype), start, 0),
        replay.data,
        rows,
    )
    flat = jax.tree.map(lambda x: x.reshape(block * length, *x.shape[2:]), (vectors(rows), rows.valid))
    moments = statistics.merge(replay.moments, flat[0], flat[1].astype(jnp.float32))
    end = start + block
    size = jnp.maximum(jnp.where(wraps, replay.position, replay.size), end)
    return Replay(data, size, end, moments)


def sample_windows(replay: Replay, key: PRNGKeyArray, n: int, length: int, any_last_step: bool = False) -> Transition:
    """Draw `n` windows of `length` consecutive transitions, uniformly over rows and starts.

    Args:
      replay: not empty.
      key: of the draw.
      n: number of windows.
      length: of each; at most that of a row.
      any_last_step: draw the last step uniformly over the whole row instead. A window that would begin before its
        row then starts with invalid steps, and repeats the row's first transition in them.

    Returns:
      Transition [length, n, ...]: time first, as unrolls want it.
    """
    key_row, key_start = jax.random.split(key)
    row = jax.random.randint(key_row, (n,), 0, replay.size)
    earliest = 1 - length if any_last_step else 0
    start = jax.random.randint(key_start, (n,), earliest, replay.data.reward.shape[1] - length + 1)
    time = start + jnp.arange(length)[:, None]
    windows = jax.tree.map(lambda x: x[row, jnp.maximum(time, 0)], replay.data)
    return windows._replace(valid=windows.valid & (time >= 0), last=windows.last & (time >= 0))


def sample_siblings(replay: Replay, key: PRNGKeyArray, windows: Transition, num_candidates: int = 1024) -> Transition:
    """For each window, a window of a random stored episode of the same task, which may be its own.

    Args:
      replay: not empty.
      key: of the draw.
      windows: [T, N, ...] whose tasks are compared at their first step.
      num_candidates: consecutive rows, from a random one on, among which siblings are looked for.

    Returns:
      Transition [T, N, ...] of the drawn rows, from a random start; all steps invalid where no candidate has the task.
    """
    key_first, key_pick, key_start = jax.random.split(key, 3)
    length, n = windows.reward.shape
    capacity, horizon = replay.data.reward.shape
    rows = jax.random.randint(key_first, (), 0, replay.size) + jnp.arange(min(num_candidates, capacity))
    rows = rows % replay.size
    task, candidate = (
        jax.tree.map(lambda x, r=r: x[r], t) for t, r in ((windows.task, 0), (replay.data.task, (rows, 0)))
    )
    same = same_task(task, candidate)
    pick = jnp.argmax(same * jax.random.uniform(key_pick, same.shape), -1)
    time = jax.random.randint(key_start, (n,), 0, horizon - length + 1) + jnp.arange(length)[:, None]
    siblings = jax.tree.map(lambda x: x[rows[pick], time], replay.data)
    return siblings._replace(valid=siblings.valid & jnp.any(same, -1))
