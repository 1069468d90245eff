"""How much embeddings tell of the behaviour that made the data: mutual information in nats, by MINE."""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metarl_jax.analysis import figures
from metarl_jax.learners import mine

STEPS = 3_000
"""Updates of the estimator."""
BATCH_SIZE = 512
HELD_OUT = 0.2
"""Share of the pairs that the estimate is made on, and that the estimator does not learn from."""


def estimate(
    x: Float[Array, "n X"], y: Float[Array, "n Y"], key: PRNGKeyArray, config: mine.Config | None = None
) -> Float[Array, ""]:
    """I(x; y) from n pairs, which are standardised first: that does not change it."""
    config = config or mine.Config()
    key_split, key_init, key_train, key_last = jax.random.split(key, 4)
    x, y = ((v - jnp.mean(v, 0)) / jnp.maximum(jnp.std(v, 0), 1e-6) for v in (x, y))
    order = jax.random.permutation(key_split, x.shape[0])
    num = round(HELD_OUT * x.shape[0])
    held_out, rest = order[:num], order[num:]

    def body(state, key):
        key_rows, key_shuffle = jax.random.split(key)
        rows = rest[jax.random.randint(key_rows, (BATCH_SIZE,), 0, rest.shape[0])]
        return mine.train_step(state, mine.Batch(x[rows], y[rows]), key_shuffle, config)[0], None

    state = mine.init(key_init, config, mine.Spec(x.shape[1], y.shape[1]))
    state, _ = jax.lax.scan(body, state, jax.random.split(key_train, STEPS))
    batch = mine.Batch(x[held_out], y[held_out])
    bounds = [mine.information(state.params, batch, k, config) for k in jax.random.split(key_last, 8)]
    return jnp.mean(jnp.stack(bounds))


def draw(path: Path, found: Mapping[str, Mapping[str, np.ndarray]], limits: Mapping[str, float]) -> None:
    """Bars of every method, one panel per kind of pair.

    Args:
      path: of the image.
      found: method -> kind of pair -> estimates [S] over seeds.
      limits: kind of pair -> estimate with the task itself in place of its embedding; not for every kind.
    """
    kinds = list(next(iter(found.values())))
    figure, axes = figures.new(len(kinds), width=max(3.5, 0.9 * len(found)))
    for axis, kind in zip(axes, kinds, strict=True):
        for place, values in enumerate(kind_of[kind] for kind_of in found.values()):
            axis.bar(place, np.mean(values), width=0.6, color=f"C{place}", alpha=0.6)
            axis.plot([place] * len(values), values, "o", color="0.2", markersize=3)
        axis.set_xticks(range(len(found)), list(found), rotation=20, ha="right")
        axis.set_title(kind, fontsize=9)
        if kind in limits:
            axis.axhline(limits[kind], color="0.4", linestyle="--", label="the task itself")
        figures.legend(axis)
    axes[0].set_ylabel("mutual information [nats]")
    figures.save(figure, path)
