"""Refuse what cannot fit before it starts; stop, or set aside, what has gone non-finite before it is saved."""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.typing import ArrayLike

from metarl_jax.errors import ConfigurationError
from metarl_jax.types import TrainState

SHARE = 0.8
"""Of the free memory that a replay may take: learners, environments and XLA's scratch need the rest."""


def _inexact(tree: Any) -> dict[str, jax.Array]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }


@jax.jit
def _is_bad(leaves: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return jax.tree.map(lambda x: ~jnp.isfinite(x).all(), leaves)


def watched(state: TrainState) -> dict[str, Any]:
    """What of a state must be finite: the learner, and the moments of its replay, which tell what that holds."""
    return {"agent": state.agent, "replay": getattr(state.replay, "moments", ())}


def _checked(metrics: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
    return {name: value for name, value in metrics.items() if not name.endswith("_return")}


def nonfinite(metrics: Mapping[str, ArrayLike], learner: Any) -> list[str]:
    """Names of the metrics, then of the learner's leaves, that hold a NaN or an infinity.

    Metrics that end in `_return` are exempt: they are NaN where nobody knows them, as with stored data.
    """
    checked = _checked(metrics)
    bad = jax.device_get(_is_bad(_inexact(checked) | _inexact(learner)))
    order = list(checked) + sorted(bad)
    return sorted((name for name, flag in bad.items() if flag), key=order.index)


def bad_lanes(metrics: Mapping[str, ArrayLike], learner: Any) -> list[int]:
    """Places in the leading axis of what `nonfinite` looks at that hold a NaN or an infinity."""
    checked = [*_inexact(_checked(metrics)).values(), *_inexact(learner).values()]
    return np.flatnonzero(np.any([~np.isfinite(np.asarray(x)).reshape(len(x), -1).all(1) for x in checked], 0)).tolist()


@functools.partial(jax.jit, donate_argnums=0)
def overwritten(state: Any, lanes: Sequence[int], by: Sequence[int]) -> Any:
    """`state` [S, ...], which is donated, where each of the `lanes` is a copy of the one in its place in `by`."""
    return jax.tree.map(lambda x: x.at[jnp.asarray(lanes)].set(x[jnp.asarray(by)]), state)


def available_memory(on_host: bool = False) -> float:
    """Free bytes on the device that JAX computes on (on the CPU, or `on_host`: of the machine, or of the container)."""
    stats = None if on_host or jax.default_backend() == "cpu" else jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return min(psutil.virtual_memory().available, _left_in_container())


def _left_in_container(group: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that the limit of a container leaves to this process; infinite where there is none."""
    try:
        limit = int((group / "memory.max").read_text())  # the word `max` without one
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return limit - int(stat["anon"])
    except (OSError, ValueError, KeyError):
        return math.inf


def check_memory(
    needed: int, size: int | None = None, flag: str = "", what: str = "a replay", on_host: bool = False
) -> None:
    """Refuse data that do not fit.

    Args:
      needed: bytes of them.
      size: the number that the user chose for them, with its `flag`, to say which one would fit.
      what: they are.
      on_host: and not on the device that computes.

    Raises:
      ConfigurationError: `needed` is above `SHARE` of the free memory.
    """
    allowed = int(SHARE * available_memory(on_host))
    if needed <= allowed:
        return
    fits = f": at most {flag}={int(size * allowed / needed)} fits" if size else ""
    raise ConfigurationError(f"{what} of {gigabytes(needed)} does not fit in {gigabytes(allowed)} of memory{fits}")


def gigabytes(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.2f} GB" if count > 1e8 else f"{count / 1e6:.1f} MB"
