"""Settings that are trained at once: one that goes non-finite is left out, and the others go on."""

from collections.abc import Mapping, Sequence

import numpy as np

from metarl_jax.training import guard
from metarl_jax.types import Metrics, TrainState


class Members:
    """Which settings still learn. Without names there is one, of which nothing can be left out."""

    def __init__(self, names: Sequence[str], num_lanes: int, lost: Mapping[str, int]) -> None:
        """`num_lanes`: seeds of all together; `lost`: who has gone non-finite before, and in which epoch."""
        self.names, self.num_lanes, self.lost = tuple(names), num_lanes, dict(lost)
        self.num_seeds = num_lanes // max(1, len(names))

    def _lanes(self, names: Sequence[str]) -> list[int]:
        """Places of their seeds in the leading axis of the state."""
        firsts = [self.names.index(name) * self.num_seeds for name in names]
        return [first + seed for first in firsts for seed in range(self.num_seeds)]

    def going(self) -> np.ndarray:
        """Places of the seeds that still learn."""
        return np.delete(np.arange(self.num_lanes), np.array(self._lanes(list(self.lost)), int))

    def set_aside(self, state: TrainState, metrics: Metrics, epoch: int) -> tuple[TrainState, list[str]] | None:
        """Put a copy of another in the place of each that is not finite.

        A copy keeps the hyper-parameters of its place, so it may have to be replaced again.

        Args:
          state: [M x S, ...] after an epoch; it is donated.
          metrics: [M x S, ...] of that epoch.
          epoch: its number.

        Returns:
          The state, and the names of those that are lost since this epoch; None if nobody is left, or nobody is known
          by name.
        """
        bad = guard.bad_lanes(metrics, guard.watched(state)) if self.names else []
        names = list(dict.fromkeys(self.names[lane // self.num_seeds] for lane in bad))
        healthy = [name for name in self.names if name not in self.lost and name not in names]
        if not names or not healthy:
            return None
        new = [name for name in names if name not in self.lost]
        self.lost |= dict.fromkeys(new, epoch)
        return guard.overwritten(state, self._lanes(names), self._lanes(healthy[:1]) * len(names)), new
