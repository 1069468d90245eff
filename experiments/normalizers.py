"""Returns that count as 0 and 100 on each task: those of the ER-TRL reference, or those of the data itself."""

import json
from pathlib import Path

import numpy as np

from metarl_jax.analysis.evaluation import Normalizer
from metarl_jax.data import offline
from metarl_jax.data.offline import Metadata, OfflineData
from metarl_jax.errors import ConfigurationError
from metarl_jax.training.offline import CONTEXTS

KINDS = ("auto", "reference", "data")
FILE = Path(__file__).with_name("er_trl_returns.json")
HORIZON = 200
"""Of the episodes that the reference's returns are of."""


def reference(data: OfflineData, metadata: Metadata) -> Normalizer | None:
    """The reference's, in the order of the benchmark's tasks; None for other benchmarks, tasks or horizons."""
    content = json.loads(FILE.read_text())
    known = content["returns"].get(metadata.env)
    same_tasks = np.array_equal(data.split, np.repeat([0, 1, 2], [20, 10, 10])) and not metadata.env_options
    if known is None or not same_tasks or metadata.horizon != HORIZON:
        return None
    return Normalizer(np.array(known["low"]), np.array(known["high"]), content["source"])


def choose(kind: str, data: OfflineData, metadata: Metadata) -> Normalizer:
    """The normaliser of the test tasks: the data's, once per context.

    Raises:
      ConfigurationError: an unknown kind, the reference has no such benchmark, or the data no range of returns.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"unknown normalizer {kind!r}: choose {', '.join(KINDS)}")
    found = reference(data, metadata) if kind != "data" else None
    if found is None and kind == "reference":
        raise ConfigurationError(
            f"the reference has no returns of these tasks of {metadata.env}: use --normalizer=data"
        )
    if found is None:
        low, high = offline.return_range(data).T
        if (same := np.flatnonzero(high <= low)).size:
            raise ConfigurationError(
                f"all episodes of task {same[0]} return {low[same[0]]:g} in the data, so it has no scale for scores: "
                f"collect more episodes, or more checkpoints"
            )
        found = Normalizer(low, high, "the data set")
    return found._replace(low=np.tile(found.low, len(CONTEXTS)), high=np.tile(found.high, len(CONTEXTS)))
