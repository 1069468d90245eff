"""Where histories and tasks begin and end inside a window of transitions [T, N, ...], and which tasks are the same."""

from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from metarl_jax.types import Transition


class Identity(Protocol):
    """What tells a task from others."""

    @property
    def family(self) -> Int[Array, " N"]: ...
    @property
    def spec(self) -> Float[Array, "N p"]: ...


def same_task(one: Identity, other: Identity) -> Bool[Array, "N M"]:
    """Which of N tasks is which of M."""
    return (one.family[:, None] == other.family) & jnp.all(one.spec[:, None] == other.spec, -1)


def starts(last: Bool[Array, "T N"]) -> Bool[Array, "T N"]:
    """Where a window's history begins: its first step, and after each episode end."""
    return jnp.concatenate([jnp.ones_like(last[:1]), last[:-1]])


def segments(windows: Transition) -> Int[Array, "T N"]:
    """Number of each step's task segment: it grows with each new episode or task."""
    changed = [
        jnp.any((x[1:] != x[:-1]).reshape(*windows.last[1:].shape, -1), -1)
        for x in (windows.task.family, windows.task.spec)
    ]
    fresh = starts(windows.last).at[1:].max(changed[0] | changed[1])
    return jnp.cumsum(fresh, 0)


def partners(key: PRNGKeyArray, segment: Int[Array, "T N"], n: int) -> Int[Array, "M T N"]:
    """For every step, `n` uniformly drawn steps of the same segment."""
    same = segment[:, None] == segment[None]
    first = jnp.argmax(same, 0)  # segments are contiguous
    end = first + jnp.sum(same, 0)
    uniform = jax.random.uniform(key, (n, *segment.shape))
    return first + jnp.floor(uniform * (end - first)).astype(first.dtype)
