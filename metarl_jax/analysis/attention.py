"""Which transitions inform the class: the attention of a recogniser, traced back to what it read."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from metarl_jax.analysis import figures
from metarl_jax.analysis.recognition import age
from metarl_jax.types import Evaluation

SHOWN, BEFORE = 100, 30
"""Steps of an episode that the map shows, and how many of them lie before the task changes."""
GROUPS = 10
"""Groups of equally many transitions, from the least surprising to the most."""


class Attention(NamedTuple):
    """Influence of transitions on the class, in shares that sum to 1; `S` transitions are within view."""

    lags: np.ndarray
    """[S] steps from the newest transition back."""
    influence: np.ndarray
    """[S] mean over all steps with S transitions behind them."""
    uniform: np.ndarray
    """[S] the same if all attention were uniform."""
    steps: np.ndarray
    """[S + 1] of the new task that were seen since a change."""
    since_change: np.ndarray
    """[S + 1] share that falls on them, the rest on what came before the change; NaN where nothing changed."""
    since_change_uniform: np.ndarray
    """[S + 1] the same if all attention were uniform."""
    by_surprise: np.ndarray
    """[GROUPS] influence of transitions on all classes after them, relative to uniform, by how surprising they are."""
    surprise_correlation: float
    """Spearman's, between that influence and |r_t - r_(t-1)|, within an episode; mean over episodes."""
    episodes: int


def influence(attention: np.ndarray) -> np.ndarray:
    """Attention rollout (Abnar and Zuidema, 2020): layers of attention, each half residual, multiplied.

    Args:
      attention: [n, T, L, H] weights of each layer at each step, newest last; all 0 before the first transition.

    Returns:
      [n, T, L (H - 1) + 1] influence of the newest transition, the one before it, ... on each step's class: sums to 1,
      or is 0 where there was no transition yet.
    """
    num, length, layers, size = attention.shape
    seen = attention[:, :, :1].any(-1).astype(float)
    shares = seen  # [n, T, 1]: before the first layer an item knows of itself alone
    for layer in range(layers):
        weights = 0.5 * attention[:, :, layer, ::-1]
        weights[:, :, 0] += 0.5 * seen[:, :, 0]
        width = shares.shape[-1]
        mixed = np.zeros((num, length, width + size - 1))
        for lag in range(min(size, length)):
            mixed[:, lag:, lag : lag + width] += weights[:, lag:, lag, None] * shares[:, : length - lag]
        shares = mixed
    return shares


def uniform(length: int, layers: int, size: int) -> np.ndarray:
    """Attention [1, T, L, H] to all transitions of an episode alike."""
    present = np.arange(size)[::-1] < np.arange(length)[:, None]
    rows = present / np.maximum(present.sum(-1, keepdims=True), 1)
    return np.broadcast_to(rows[None, :, None], (1, length, layers, size))


def received(shares: np.ndarray) -> np.ndarray:
    """Influence that a transition has on the S steps after it, together: 1 if all attention were uniform.

    Args:
      shares: [n, T, S] of `influence`.

    Returns:
      [n, T - 2 S] of transitions S to T - S - 1, whose followers all have S transitions behind them.
    """
    length, view = shares.shape[1:]
    parts = [shares[:, view + 1 + lag : length - view + 1 + lag, lag] for lag in range(view)]
    return np.sum(parts, 0)


def _lanes(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Attention [n, T, L, H], task changes, rewards, and whether the episode went on [n, T], of episodes 1."""

    def lanes(x) -> np.ndarray:
        first = np.moveaxis(np.asarray(x)[:, 0], 1, 2)  # [S, N, T, ...]
        return np.concatenate(first)  # [S N, T, ...]; axes may be of size 0

    weights, changed = lanes(evaluation.attention), lanes(evaluation.task_changed)
    return weights, changed, lanes(evaluation.rewards), lanes(evaluation.alive)


def _mean(rows: np.ndarray) -> np.ndarray:
    """Over the first axis; NaN where it is empty."""
    return rows.mean(0) if len(rows) else np.full(rows.shape[1:], np.nan)


def attention(evaluation: Evaluation) -> Attention | None:
    """Which transitions inform the class, in episode 1; `evaluation` [S, ...] is on the host.

    None where agents have no attention.
    """
    if evaluation.attention is None:
        return None
    weights, changed, rewards, alive = _lanes(evaluation)
    num, length, *sizes = weights.shape
    shares, even = influence(weights), influence(uniform(length, *sizes))
    lags = np.arange(shares.shape[-1])
    full = alive & (np.arange(length) >= len(lags))
    ages = age(changed)
    after_change = full & (np.cumsum(changed, 1) - changed > 0)
    steps = np.arange(len(lags) + 1)
    own = lags < ages[..., None]  # of the current task
    since, since_even = np.sum(shares * own, -1), np.sum(even * own, -1)
    chosen = [after_change & (ages == step) for step in steps]
    by_surprise, correlation = _surprise(received(shares), rewards, alive, len(lags))
    return Attention(
        lags=lags,
        influence=_mean(shares[full]),
        uniform=_mean(np.broadcast_to(even, shares.shape)[full]),
        steps=steps,
        since_change=np.array([_mean(since[c]) for c in chosen]),
        since_change_uniform=np.array([_mean(since_even[c]) for c in chosen]),
        by_surprise=by_surprise,
        surprise_correlation=correlation,
        episodes=num,
    )


def _surprise(found: np.ndarray, rewards: np.ndarray, alive: np.ndarray, view: int) -> tuple[np.ndarray, float]:
    """`found` [n, T - 2 S] in groups of growing |r_t - r_(t-1)| [GROUPS], and their rank correlation, over episodes."""
    length = rewards.shape[1]
    jumps = np.abs(np.diff(rewards, axis=1))[:, view - 1 : length - view - 1]
    groups, correlations = [], []
    for got, jump, counted in zip(found, jumps, alive[:, 2 * view :], strict=True):
        got, jump = got[counted], jump[counted]
        if len(jump) < GROUPS or np.ptp(jump) == 0 or np.ptp(got) == 0:
            continue
        groups.append([got[part].mean() for part in np.array_split(np.argsort(jump), GROUPS)])
        correlations.append(float(stats.spearmanr(got, jump).statistic))
    return _mean(np.reshape(groups, (-1, GROUPS))), float(_mean(np.array(correlations)))


def draw(path: Path, evaluation: Evaluation, result: Attention) -> None:
    """Write the figure: an episode's map, the share of a new task's transitions, and influence by surprise."""
    weights, changed, _, _ = _lanes(evaluation)
    lane = int(np.argmax(changed.sum(-1)))
    changes = np.flatnonzero(changed[lane]) + 1
    first = max(0, changes[0] - BEFORE) if len(changes) else 0
    shown = influence(weights[lane : lane + 1])[0, first : first + SHOWN]
    figure, axes = figures.new(3)
    image = axes[0].imshow(
        shown.T, origin="lower", aspect="auto", cmap="magma", extent=(first, first + len(shown), 0, shown.shape[1])
    )
    figure.colorbar(image, ax=axes[0], label="influence on the class")
    for change in changes[(changes >= first) & (changes < first + len(shown))]:
        axes[0].axvline(change, color="w", linestyle="--", linewidth=1)
        axes[0].plot([change, change + shown.shape[1]], [0, shown.shape[1]], color="w", linewidth=0.8)
    if len(changes):
        axes[0].set_title("dashed: the task changes; right of the solid line: what follows", fontsize=9)
    axes[0].set(xlabel="control step", ylabel="steps back", xlim=(first, first + len(shown)))
    if np.isfinite(result.since_change).any():
        axes[1].plot(result.steps, result.since_change, label="recogniser")
        axes[1].plot(result.steps, result.since_change_uniform, color="0.6", linestyle="--", label="uniform attention")
        axes[1].set(xlabel="control steps since the change", ylabel="influence of the new task's transitions")
    else:
        axes[1].plot(result.lags, result.influence, label="recogniser")
        axes[1].plot(result.lags, result.uniform, color="0.6", linestyle="--", label="uniform attention")
        axes[1].set(xlabel="steps back", ylabel="influence on the class")
    figures.legend(axes[1])
    axes[2].plot(np.arange(GROUPS) + 1, result.by_surprise, marker="o", label="recogniser")
    axes[2].axhline(1.0, color="0.6", linestyle="--", linewidth=1, label="uniform attention")
    axes[2].ticklabel_format(useOffset=False)
    axes[2].set(
        xlabel="tenth of transitions by |reward change|, last: largest", ylabel="influence, relative to uniform"
    )
    figures.legend(axes[2])
    figures.save(figure, path)
