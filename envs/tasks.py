"""Task sets: how the tasks of a benchmark are drawn, split and labelled. All randomness comes from JAX keys."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.core import Task
from envs.errors import ConfigurationError, is_finite
from envs.rewards import RewardFn

Draw = Callable[[jax.Array, int], jax.Array]
"""(key, n) -> specs [n, p]; one alone is a random draw, whatever the shape of a set."""
Range = tuple[float, float]
Ranges = tuple[Range, ...]


class SubTask(NamedTuple):
    """One kind of behaviour: a reward family and the distribution of its parameters."""

    name: str
    family: str
    reward: RewardFn
    draw: Draw


def check_range(low: float, high: float) -> Range:
    """Return (low, high), or raise `ConfigurationError` if the ends are swapped, equal or not finite."""
    if not is_finite(low) or not is_finite(high):
        raise ConfigurationError(f"range [{low}, {high}] must have finite ends")
    if low > high:
        raise ConfigurationError(f"range [{low}, {high}] has its ends swapped: write [{high}, {low}]")
    if low == high:
        raise ConfigurationError(f"range [{low}, {high}] is empty: its ends must differ")
    return low, high


def ranges_of(name: str, given: Any) -> Ranges:
    """The ranges given, as pairs of numbers or as a text such as `0:0.5,3:3.5`.

    Raises:
      ConfigurationError: it is neither, or a range is swapped, empty or not finite, or overlaps another.
    """
    try:
        pairs = [pair.split(":") for pair in given.split(",")] if isinstance(given, str) else given
        ranges = [(float(low), float(high)) for low, high in pairs]
    except (TypeError, ValueError):
        raise ConfigurationError(f"{name} must be ranges such as 0:0.5,3:3.5, got {given!r}") from None
    if not ranges:
        raise ConfigurationError(f"{name} must be ranges such as 0:0.5,3:3.5, got none")
    checked = tuple(check_range(low, high) for low, high in ranges)
    for before, after in pairwise(sorted(checked)):
        if before[1] > after[0]:
            raise ConfigurationError(f"ranges {list(before)} and {list(after)} of {name} overlap: make them one")
    return checked


def check_disjoint(train: Sequence[Range], test: Sequence[Range]) -> None:
    """Raise `ConfigurationError` if a training and a test range have more than an end in common."""
    for a in map(tuple, train):
        for b in map(tuple, test):
            if max(a[0], b[0]) < min(a[1], b[1]):
                raise ConfigurationError(
                    f"training range {list(a)} and test range {list(b)} overlap: make them disjoint"
                )


def _from_union(key: jax.Array, ranges: Sequence[Range], n: int) -> jax.Array:
    """[n] uniform over a union of disjoint intervals."""
    low, high = jnp.asarray(ranges).T
    key_pick, key_place = jax.random.split(key)
    pick = jax.random.choice(key_pick, len(ranges), (n,), p=(high - low) / jnp.sum(high - low))
    return low[pick] + jax.random.uniform(key_place, (n,)) * (high - low)[pick]


def uniform(*ranges: Range) -> Draw:
    """Scalar specs, uniform over a union of intervals."""
    checked = [check_range(*r) for r in ranges]
    return lambda key, n: _from_union(key, checked, n)[:, None]


def constant(*spec: float) -> Draw:
    """Always the same spec."""
    return lambda key, n: jnp.tile(jnp.asarray(spec, jnp.float32), (n, 1))


def listed(specs: Sequence[Sequence[float]]) -> Draw:
    """Exactly these specs, in this order: `n` of them at even distances, or any one."""

    def draw(key, n):
        if n > len(specs):
            raise ConfigurationError(f"this benchmark has {len(specs)} tasks of a kind, not {n}")
        known = jnp.asarray(specs, jnp.float32)
        return (
            jax.random.choice(key, known, (1,))
            if n == 1
            else known[jnp.linspace(0, len(specs) - 1, n).round().astype(int)]
        )

    return draw


def spread(low: float, high: float, direction: Sequence[float] = (1.0,)) -> Draw:
    """`n` points evenly spaced over [low, high] along `direction`, in random order (MoSS's multi-task sets)."""
    check_range(low, high)

    def draw(key, n):
        if n == 1:
            points = jax.random.uniform(key, (1,), minval=low, maxval=high)
        else:
            points = jax.random.permutation(key, jnp.linspace(low, high, n))
        return points[:, None] * jnp.asarray(direction, jnp.float32)

    return draw


def box(low: float, high: float, size: int) -> Draw:
    """Specs uniform over a cube."""
    check_range(low, high)
    return lambda key, n: jax.random.uniform(key, (n, size), minval=low, maxval=high)


def disc(*radii: Range) -> Draw:
    """Points [x, y] uniform by area over rings: the squared radius is uniform over a union of intervals."""
    if negative := [r for r in radii if r[0] < 0.0]:
        raise ConfigurationError(f"radii cannot be negative, got {list(negative[0])}")
    squares = [(low**2, high**2) for low, high in (check_range(*r) for r in radii)]

    def draw(key, n):
        key_radius, key_angle = jax.random.split(key)
        radius = jnp.sqrt(_from_union(key_radius, squares, n))
        angle = jax.random.uniform(key_angle, (n,), maxval=2 * jnp.pi)
        return radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)

    return draw


def circle(radius: float = 1.0, angles: Range = (0.0, 2 * jnp.pi)) -> Draw:
    """Points [x, y] uniform over an arc."""

    def draw(key, n):
        angle = jax.random.uniform(key, (n,), minval=angles[0], maxval=angles[1])
        return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)

    return draw


def families(*subtasks: SubTask) -> dict[str, RewardFn]:
    """The distinct families of `subtasks`, in order of appearance.

    Raises:
      ConfigurationError: one family is paid by two functions.
    """
    found = {subtask.family: subtask.reward for subtask in subtasks}
    if wrong := [subtask for subtask in subtasks if found[subtask.family] is not subtask.reward]:
        raise ConfigurationError(
            f"the family {wrong[0].family!r} has two rewards: give {wrong[0].name!r} another family"
        )
    return found


def draw_sets(
    key: jax.Array,
    train: tuple[SubTask, ...],
    num_train: int,
    num_test: int,
    test: tuple[SubTask, ...] | None = None,
    shared: bool = False,
) -> tuple[Task, Task]:
    """Draw fixed training and test sets.

    Args:
      key: the sets are a function of it.
      train: sub-tasks of the training set.
      num_train: training tasks per sub-task.
      num_test: test tasks per sub-task.
      test: sub-tasks of the test set where they differ from the training ones (out of distribution); None
        draws both sets together and splits them, so that evenly spread specs interleave.
      shared: whether the two sets may have tasks in common, as where there are only two directions.

    Returns:
      Task [num_train * len(train), ...] and Task [num_test * len(test), ...]; families and labels count over
      train, then test.

    Raises:
      ConfigurationError: a count is not positive, or the sets have a task in common and `shared` is not set.
    """
    if num_train < 1 or num_test < 1:
        raise ConfigurationError(
            f"task counts must be positive, got {num_train} train and {num_test} test per sub-task"
        )
    everything = train + (test or ())

    def tasks(subtask: SubTask, specs: jax.Array) -> Task:
        return _tasks(subtask, specs, everything)

    def stack(sets: list[Task]) -> Task:
        if len(sizes := {task.spec.shape[-1] for task in sets}) > 1:
            raise ConfigurationError(f"the specs of all sub-tasks must be as long, got {sorted(sizes)} numbers")
        return jax.tree.map(lambda *x: jnp.concatenate(x), *sets)

    key_train, key_test = jax.random.split(key)
    extra = num_test if test is None else 0
    drawn = [
        (s, s.draw(k, num_train + extra)) for s, k in zip(train, jax.random.split(key_train, len(train)), strict=True)
    ]
    train_set = stack([tasks(s, specs[:num_train]) for s, specs in drawn])
    if test is None:
        test_set = stack([tasks(s, specs[num_train:]) for s, specs in drawn])
    else:
        keys = jax.random.split(key_test, len(test))
        test_set = stack([tasks(s, s.draw(k, num_test)) for s, k in zip(test, keys, strict=True)])
    common = _rows(train_set) & _rows(test_set)
    if common and not shared:
        raise ConfigurationError(
            f"training and test set have {len(common)} task(s) in common, such as {sorted(common)[0][1:]}: "
            "make the ranges disjoint, or take another seed"
        )
    return train_set, test_set


def _tasks(subtask: SubTask, specs: jax.Array, everything: tuple[SubTask, ...]) -> Task:
    """Tasks [n, ...] of one sub-task; families and labels count over `everything`, in order of appearance."""
    names = list(dict.fromkeys(s.name for s in everything))
    family, label = list(families(*everything)).index(subtask.family), names.index(subtask.name)
    n = specs.shape[0]
    return Task(jnp.full(n, family, jnp.int32), specs.astype(jnp.float32), jnp.full(n, label, jnp.int32))


def redraw(train: tuple[SubTask, ...], test: tuple[SubTask, ...] = ()) -> Callable[[jax.Array, Task], Task]:
    """(key, task) -> a new task of the training distribution: any sub-task with equal probability, its spec redrawn."""
    draws = [lambda key, s=s: _tasks(s, s.draw(key, 1), train + test) for s in train]

    def change(key: jax.Array, task: Task) -> Task:
        del task
        key_pick, key_draw = jax.random.split(key)
        drawn = jax.lax.switch(jax.random.randint(key_pick, (), 0, len(draws)), draws, key_draw)
        return jax.tree.map(lambda x: x[0], drawn)

    return change


def _rows(tasks: Task) -> set[tuple[float, ...]]:
    """Each task as (family, spec...)."""
    return set(zip(tasks.family.tolist(), *tasks.spec.T.tolist(), strict=True))
