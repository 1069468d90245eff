"""Base tasks without labels: two tasks are of one base task if they pay for the same coordinates of the next state.

How fast, how far, how upright: each asks for a value of its own of a number, or of two, that the observation has. Which
that is shows in a task's transitions, whatever the policy: steps that are neighbours in it are paid alike.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from metarl_jax.data.replay import Replay, sample_siblings, vectors
from metarl_jax.data.segments import same_task
from metarl_jax.types import Transition

EVERY = 10
"""Epochs from one look at the replay to the next (where seeds are vmapped, all of them look at every epoch)."""
NUM_TASKS, NUM_EPISODES, NUM_STEPS = 128, 16, 32
"""Tasks looked at, stored episodes of each (a draw may repeat one), and consecutive steps of each of these."""
NUM_ROWS = 1024
"""Stored episodes among whose tasks those are, each once before any is again."""
CLEAR = 0.5
"""A task is of a base task if that leaves less than this share of its rewards' variance."""
FLOOR = 0.01
"""Shares of the variance that are left over and below this are as good as none."""


class BaseTasks(NamedTuple):
    """Which base task each of some training tasks is found to be of."""

    coordinates: Int[Array, "K 2"]
    """What each base task pays for: a pair in order, a single one twice, -1 before the first look."""
    family: Int[Array, " A"]
    spec: Float[Array, "A p"]
    base_task: Int[Array, " A"]

    def of(self, windows: Transition) -> Int[Array, "T N"]:
        """Base tasks of windows [T, N, ...] of one task each; -1 where what a task pays for is not known."""
        same = same_task(jax.tree.map(lambda x: x[0], windows.task), self)
        found = jnp.where(jnp.any(same, -1), self.base_task[jnp.argmax(same, -1)], -1)
        return jnp.broadcast_to(found, windows.reward.shape)


def unexplained(x: Float[Array, "n F"], y: Float[Array, " n"], valid: Bool[Array, " n"]) -> Float[Array, " F"]:
    """The share of y's variance that is not a function of x alone, one x at a time: 0 a function, about 1 unrelated.

    Half the mean squared difference of neighbours in the order of x estimates what a smooth function leaves over
    (Rice, 1984). Equal x must be in random order. Where y is constant nothing is to be explained: 1.
    """
    weight = valid / jnp.maximum(jnp.sum(valid), 1.0)
    variance = jnp.sum(weight * jnp.square(y - jnp.sum(weight * y)))
    order = jnp.argsort(jnp.where(valid[:, None], x, jnp.inf), 0)  # stable
    y, valid = y[order], valid[order]
    pair = valid[1:] & valid[:-1]
    left = 0.5 * jnp.sum(pair * jnp.square(y[1:] - y[:-1]), 0) / jnp.maximum(jnp.sum(pair, 0), 1.0)
    return jnp.where(variance > 1e-8, left / jnp.maximum(variance, 1e-8), 1.0)


def ranks(x: Float[Array, "n F"], valid: Bool[Array, " n"]) -> Float[Array, "n F"]:
    """Place of each x in the order of its column, from 0 to below 1; what is not valid comes last."""
    return jnp.argsort(jnp.argsort(jnp.where(valid[:, None], x, jnp.inf), 0), 0) / x.shape[0]


def along_curve(first: Float[Array, "..."], second: Float[Array, "..."]) -> Float[Array, "..."]:
    """Places along a Z-order curve through the unit square: near on it is near in the plane (Morton, 1966)."""
    bits = jnp.arange(8)
    x, y = (jnp.right_shift((256 * z).astype(jnp.int32)[..., None], bits) & 1 for z in (first, second))
    return jnp.sum(x * 4**bits + y * 2 * 4**bits, -1).astype(jnp.float32)


def choose(cost: Float[Array, "A F"], chosen: Int[Array, " K"]) -> Int[Array, " K"]:
    """K features that leave the least cost over tasks, each of which has its best feature: exchanged one by one.

    Starts from `chosen`, whose places keep their meaning; -1 is a place not taken yet.
    """
    num = chosen.shape[0]

    def exchange(i, chosen):
        place = i % num
        others = jnp.where((jnp.arange(num) == place) | (chosen < 0), jnp.inf, cost[:, chosen])
        total = jnp.sum(jnp.minimum(jnp.min(others, -1)[:, None], cost), 0)
        best = jnp.argmin(total)
        own = jnp.where(chosen[place] < 0, jnp.inf, total[chosen[place]])
        return chosen.at[place].set(jnp.where(total[best] < own, best, chosen[place]))

    return jax.lax.fori_loop(0, 3 * num, exchange, chosen)


def init(num: int, task_size: int) -> BaseTasks:
    """Nothing is known of any task."""
    unknown = jnp.full((NUM_TASKS,), -1, jnp.int32)
    return BaseTasks(jnp.full((num, 2), -1, jnp.int32), unknown, jnp.zeros((NUM_TASKS, task_size)), jnp.copy(unknown))


def explain(
    next_obs: Float[Array, "A n O"],
    pay: Float[Array, "A n"],
    valid: Bool[Array, "A n"],
    coordinates: Int[Array, "K 2"],
) -> tuple[Int[Array, "K 2"], Int[Array, " A"]]:
    """K coordinates, or pairs, that tasks [A] pay for, each pair in order and a single one twice; and each task's.

    A task's is -1 if none explains what it pays.

    Args:
      next_obs: of transitions in random order.
      pay: theirs.
      valid: which transitions there are.
      coordinates: chosen before, or -1: places keep their meaning.
    """
    num, size = coordinates.shape[0], next_obs.shape[-1]

    def costs(features):
        return jnp.log(jax.vmap(unexplained)(features, pay, valid) + FLOOR)

    place = jax.vmap(ranks)(next_obs, valid)
    single = costs(place)
    likely = choose(single, jnp.full((min(2 * num, size),), -1))
    first, second = jnp.triu_indices(likely.shape[0], 1)
    pairs = jnp.concatenate([jnp.stack([likely[first], likely[second]], -1), jnp.maximum(coordinates, 0)])
    paired = costs(along_curve(place[..., pairs[:, 0]], place[..., pairs[:, 1]]))
    paired = jnp.where(pairs[:, 0] == pairs[:, 1], single[:, pairs[:, 0]], paired)
    cost = jnp.concatenate([single, paired], -1)
    features = jnp.concatenate([jnp.tile(jnp.arange(size)[:, None], (1, 2)), pairs])
    before = jnp.where(coordinates[:, 0] < 0, -1, size + first.shape[0] + jnp.arange(num))
    chosen = choose(cost, before)
    cost = cost[:, chosen]
    clear = jnp.min(cost, -1) < jnp.log(CLEAR + FLOOR)
    return jnp.sort(features[chosen], -1), jnp.where(clear, jnp.argmin(cost, -1), -1)


def _some_tasks(replay: Replay, key: PRNGKeyArray, steps: int) -> Transition:
    """The first `steps` of stored episodes [T, A, ...] of as many tasks as there are, or as are looked at."""
    row = jax.random.randint(key, (NUM_ROWS,), 0, replay.size)
    task = jax.tree.map(lambda x: x[row, 0], replay.data.task)
    again = jnp.any(jnp.tril(same_task(task, task), -1), -1)
    row = row[jnp.argsort(again)[:NUM_TASKS]]  # stable: False first
    return jax.tree.map(lambda x: x[row, :steps].swapaxes(0, 1), replay.data)


def find(known: BaseTasks, replay: Replay, key: PRNGKeyArray, gross_reward: bool) -> BaseTasks:
    """What stored tasks pay for, starting from what was `known`.

    Args:
      known: found before, or `init`.
      replay: of a stationary benchmark; not empty.
      key: of the tasks and transitions looked at.
      gross_reward: look at what steps would have paid had their actions been free.
    """
    key_task, key_episode, key_order = jax.random.split(key, 3)
    steps = min(NUM_STEPS, replay.data.reward.shape[1])
    tasks = _some_tasks(replay, key_task, steps)
    rows = jax.vmap(lambda k: sample_siblings(replay, k, tasks))(jax.random.split(key_episode, NUM_EPISODES))
    order = jax.random.permutation(key_order, NUM_EPISODES * steps)

    def mixed(x):
        """[A, n, ...] in random order, the same for every task."""
        return x.reshape(-1, *x.shape[2:])[order].swapaxes(0, 1)

    pay = vectors(rows).gross_reward if gross_reward else rows.reward
    coordinates, base_task = explain(mixed(rows.next_obs), mixed(pay), mixed(rows.valid), known.coordinates)
    return BaseTasks(coordinates, tasks.task.family[0], tasks.task.spec[0], base_task)
