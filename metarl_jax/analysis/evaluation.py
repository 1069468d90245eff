"""An `Evaluation` in numbers. The reported return is that of the first episode, which starts without any knowledge."""

import os
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from metarl_jax.errors import reading
from metarl_jax.types import Evaluation, Task


class HeldOutTasks(NamedTuple):
    """The held-out tasks as NumPy arrays."""

    family: np.ndarray
    spec: np.ndarray
    label: np.ndarray

    @classmethod
    def of(cls, tasks: Task) -> "HeldOutTasks":
        """Copies from the device."""
        return cls(np.asarray(tasks.family), np.asarray(tasks.spec), np.asarray(tasks.label))

    def different(self) -> tuple[np.ndarray, np.ndarray]:
        """[M] the first place of each different task, in the order they came, and [N] which of them each one is."""
        rows = np.column_stack([self.family, self.label, self.spec])
        _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)
        return first[order], np.argsort(order)[which]


class Normalizer(NamedTuple):
    """Returns of each task that count as 0 and as 100."""

    low: np.ndarray
    """[N]"""
    high: np.ndarray
    """[N]"""
    source: str
    """Whose returns they are."""

    def scores(self, returns: np.ndarray) -> np.ndarray:
        """Returns [..., N] on this scale."""
        return 100.0 * (returns - self.low) / (self.high - self.low)


def grouped(values: np.ndarray, index: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Means of `values` [..., N] per group; `index` [N] says which name each belongs to."""
    return {names[i]: float(values[..., index == i].mean()) for i in np.unique(index)}


def report(
    evaluation: Evaluation,
    tasks: HeldOutTasks,
    families: Sequence[str],
    subtasks: Sequence[str],
    normalizer: Normalizer | None = None,
) -> dict[str, Any]:
    """What is logged of an evaluation [S, ...] on the host (`jax.device_get`).

    Returns:
      `test_return` (mean over seeds and tasks, episode 1), `test_return_min` (the worst single episode; on stored data,
      whose contexts are drawn several times, the worst mean over them),
      `test_return_by_family`, `_by_subtask`, `_by_episode` [K], with several seeds `_per_seed` [S]; where
      components stand for classes, `recognition_accuracy` over all steps of episode 1; with a mixture also
      `clusters`'s; where several kinds of tasks do not change, `test_belief_purity`, `belief_purity`'s (without a
      normaliser: families of scores are groups of a report, not base tasks); with a
      normaliser `test_score`, `test_score_by_family` and `test_score_per_seed` (of each family:
      [S]), and with several seeds the standard deviation `test_score_std_by_family` over them.
    """
    values = np.asarray(evaluation.returns)
    first = values[:, 0]
    result: dict[str, Any] = {
        "test_return": float(first.mean()),
        "test_return_min": float(first.min()),
        "test_return_by_family": grouped(first, tasks.family, families),
        "test_return_by_subtask": grouped(first, tasks.label, subtasks),
        "test_return_by_episode": values.mean((0, 2)).tolist(),
    }
    if len(first) > 1:
        result["test_return_per_seed"] = first.mean(-1).tolist()
    if evaluation.recognized.shape[-1]:
        result["recognition_accuracy"] = float(np.nanmean(np.asarray(evaluation.recognized)[:, 0]))
    if evaluation.components.shape[-1] > 1:
        components, alive = (np.asarray(x)[:, 0] for x in (evaluation.components, evaluation.alive))
        result |= clusters(components, tasks.family, alive)
    if (
        normalizer is None
        and not np.any(evaluation.task_changed)
        and (purity := belief_purity(np.asarray(evaluation.beliefs)[:, 0, -1], tasks))
    ):
        result["test_belief_purity"] = purity
    if normalizer:
        scores = normalizer.scores(first)
        result["test_score"] = float(scores.mean())
        result["test_score_by_family"] = grouped(scores, tasks.family, families)
        seeds = [grouped(seed, tasks.family, families) for seed in scores]
        per_seed = {name: [seed[name] for seed in seeds] for name in seeds[0]}
        result["test_score_per_seed"] = per_seed
        if len(first) > 1:
            result["test_score_std_by_family"] = {name: float(np.std(x, ddof=1)) for name, x in per_seed.items()}
    return result


def by_member(evaluation: Evaluation, members: Sequence[str], lost: Container[str] = ()) -> dict[str, Any]:
    """What is logged of each of several settings in an evaluation [M x S, ...]; {} without `members`.

    Returns:
      `test_return_by_member`, means over each one's seeds, and `test_return_per_seed` [M x S]; None of the `lost` ones.
    """
    if not members:
        return {}
    seeds = np.asarray(evaluation.returns)[:, 0].mean(-1).reshape(len(members), -1)
    told = {name: None if name in lost else own.tolist() for name, own in zip(members, seeds, strict=True)}
    return {
        "test_return_by_member": {name: None if own is None else float(np.mean(own)) for name, own in told.items()},
        "test_return_per_seed": [x for own in told.values() for x in own or [None] * seeds.shape[1]],
    }


def clusters(components: np.ndarray, family: np.ndarray, alive: np.ndarray) -> dict[str, Any]:
    """How the mixture divides the tasks.

    Args:
      components: responsibilities [S, T, N, c] of one episode.
      family: base task [N].
      alive: [S, T, N] whether a step belongs to the episode.

    Returns:
      `test_component_usage` [c], or [S, c] with several seeds, whose components are not the same;
      `test_responsibility_entropy` in nats per step, at most log c;
      `test_cluster_purity`, the adjusted Rand index of the most likely component at the episode's end against the
      base task: 1 is a perfect match, 0 is chance, None where there is one base task.
    """
    weight = alive / alive.sum((1, 2), keepdims=True)
    usage = (weight[..., None] * components).sum((1, 2))
    entropy = -(components * np.log(np.clip(components, 1e-12, None))).sum(-1)
    final = components[:, -1].argmax(-1)
    several = len(np.unique(family)) > 1
    return {
        "test_component_usage": (usage if len(usage) > 1 else usage[0]).tolist(),
        "test_responsibility_entropy": float((weight * entropy).sum((1, 2)).mean()),
        "test_cluster_purity": float(np.mean([adjusted_rand_score(family, f) for f in final])) if several else None,
    }


def belief_purity(beliefs: np.ndarray, tasks: HeldOutTasks) -> dict[str, float]:
    """Whether beliefs lie in as many groups as there are kinds of tasks, with or without a mixture.

    Args:
      beliefs: [S, N, b] at one step of each task.
      tasks: the tasks.

    Returns:
      By `base_task` and `subtask`: the adjusted Rand index, mean over seeds, of as many Ward clusters of the beliefs
      against them. Left out where there is one kind, or one task of each; {} if beliefs are of size 0, or not finite,
      and where there is one sub-task.
    """
    if not beliefs.shape[-1] or not np.isfinite(beliefs).all() or len(np.unique(tasks.label)) < 2:
        return {}
    result = {}
    for name, kind in {"base_task": tasks.family, "subtask": tasks.label}.items():
        if 1 < (num := len(np.unique(kind))) < len(kind):
            found = [AgglomerativeClustering(num).fit_predict(seed) for seed in beliefs]
            result[name] = float(np.mean([adjusted_rand_score(kind, groups) for groups in found]))
    return result


def save(path: Path, evaluation: Evaluation, tasks: HeldOutTasks) -> None:
    """Write an evaluation [S, ...] on the host, so that figures can be drawn without the environment."""
    arrays = {name: x for name, x in evaluation._asdict().items() if x is not None}
    part = path.with_name(f"{path.stem}.part.npz")
    np.savez_compressed(part, **arrays, **tasks._asdict())
    os.replace(part, path)  # in one step: a reader, or a kill, never sees half a file


def load(path: Path) -> tuple[Evaluation, HeldOutTasks]:
    """What `save` wrote; raises `ConfigurationError` if it cannot be read."""
    with reading(path, "; remove it, and go on with --resume"), np.load(path) as data:
        found = dict(data)
        found.setdefault("recognized", np.zeros((*found["rewards"].shape, 0)))  # older runs had no classes
        found.setdefault("alive", np.ones(found["rewards"].shape, bool))  # nor did they say where episodes ended
        arrays = ({name: found[name] for name in kind._fields if name in found} for kind in (Evaluation, HeldOutTasks))
        return Evaluation(**next(arrays)), HeldOutTasks(**next(arrays))
