"""The environment contract: a NamedTuple of pure functions over one environment, vmapped by the caller."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from envs.errors import ConfigurationError, choose
from envs.physics.base import PhysicsState


class Task(NamedTuple):
    """A task is data. Leading axes, if any, are task axes."""

    family: Int[Array, ""]
    """Base task: index into `EnvSpec.families`."""
    spec: Float[Array, " p"]
    """Parameters of the family's reward, in the units of its docstring."""
    label: Int[Array, ""]
    """Sub-task: index into `EnvSpec.subtasks`. Rewards do not depend on it; it is for reports, and what recognisers
    learn where there is one base task."""

    def vector(self, num_families: int) -> Float[Array, "... v"]:
        """The task as a network's input, v = num_families x (1 + p).

        Each family has places of its own: 1 and the spec, or zeros where the task is of another. Specs of different
        units (25 m, 1 rad) in one place would be scaled together, and a learner could hardly tell the small ones apart.
        """
        family = jax.nn.one_hot(self.family, num_families)
        spec = family[..., :, None] * self.spec[..., None, :]
        return jnp.concatenate([family, spec.reshape(*family.shape[:-1], -1)], -1)


class State(NamedTuple):
    """Everything about one environment between two steps."""

    obs: Float[Array, " obs"]
    """What the agent sees next: after an automatic reset, the new episode's first observation."""
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    """The episode ended in a terminal state: its value is 0."""
    truncated: Bool[Array, ""]
    """The episode was cut off by the time limit (or diverged): bootstrap from `final_obs`."""
    final_obs: Float[Array, " obs"]
    """The observation this step led to: `obs`, except after an automatic reset, where it is the old episode's last."""
    task: Task
    """The task of the next step."""
    physics: PhysicsState
    time: Int[Array, ""]
    """Control steps since the episode began."""
    key: PRNGKeyArray
    metrics: dict[str, Array]
    """`diverged` (bool []): the simulation blew up in this step, and the step must not be learnt from;
    `task_changed` (bool []): the next step's task differs from this one's; where tasks drift, False;
    `resting` ([2]): what this step's task pays per step for standing still, without torque, where the step began and
    where it ended; `gross_reward` ([]): what this step would have paid had its action been free, as that task's reward
    function without torque says of the same motion."""
    schedule: dict[str, Array]
    """What a non-stationary wrapper remembers of the episode; empty elsewhere."""


class EnvSpec(NamedTuple):
    """What an agent, a report or a figure needs to know of an environment."""

    name: str
    obs_size: int
    action_size: int
    """Actions are in [-1, 1]."""
    task_size: int
    """Length p of `Task.spec`."""
    horizon: int
    """Control steps per episode."""
    dt: float
    """Seconds per control step."""
    families: tuple[str, ...]
    """Names of the base tasks."""
    subtasks: tuple[str, ...]
    """Names of the sub-tasks, in the order of `Task.label`."""
    engine: str
    variant: str
    stationary: bool = True
    """Whether the task of an episode is fixed."""
    same_dynamics: bool = True
    """Whether tasks differ in what they pay alone."""
    max_control: float = 0.0
    """The control that an action of 1 means, and -1 its opposite; 0 if actuators differ."""
    action_cost: float = 0.0
    """What the reward takes per squared action and step, the same in all tasks; 0 if it is not of this form."""


class Environment(NamedTuple):
    """Pure functions for one environment. `jax.vmap` them over keys, tasks, states and actions."""

    spec: EnvSpec
    train_tasks: Task
    """[num_train, ...] the fixed training set."""
    test_tasks: Task
    """[num_test, ...] the fixed held-out set."""
    reset: Callable[[PRNGKeyArray, Task], State]
    step: Callable[[State, jax.Array], State]
    """(state, action) -> the next state. Its key is new whether or not anything was drawn: under `vmap` generators such
    as rbg draw for all lanes by the key of the first."""
    state_from: Callable[[PRNGKeyArray, Task, jax.Array, jax.Array], State]
    """(key, task, qpos [nq], qvel [nv]) -> the state of an episode that starts there."""
    head_start: Callable[[PRNGKeyArray, Task], tuple[jax.Array, jax.Array]] | None = None
    """(key, task) -> qpos [nq], qvel [nv] of a body part of the way to what the task asks for; None if no task asks for
    a place, a posture or a speed."""

    @property
    def reset_ahead(self) -> Callable[[PRNGKeyArray, Task], State] | None:
        """As `reset`, with a head start; None if there is none."""
        if self.head_start is None:
            return None
        start = self.head_start

        def reset(key: PRNGKeyArray, task: Task) -> State:
            key, key_start = jax.random.split(key)
            return self.state_from(key, task, *start(key_start, task))

        return reset

    def sample_tasks(self, key: PRNGKeyArray, split: str, n: int) -> Task:
        """Draw `n` tasks of the `train` or `test` set, without replacement until the set is exhausted.

        Returns:
          Task [n, ...]; every task occurs floor(n / size) or ceil(n / size) times.

        Raises:
          ConfigurationError: an unknown split, or n < 1.
        """
        sets = {"train": self.train_tasks, "test": self.test_tasks}
        tasks = sets[choose("split", split, sets)]
        if n < 1:
            raise ConfigurationError(f"tasks to sample must be >= 1, got {n}")
        size = tasks.family.shape[0]
        keys = jax.random.split(key, -(-n // size))
        index = jax.vmap(lambda k: jax.random.permutation(k, size))(keys).reshape(-1)[:n]
        return select_task(tasks, index)


def select_task(tasks: Task, index: jax.Array) -> Task:
    """The tasks at `index` along the leading axis of `tasks`."""
    return jax.tree.map(lambda x: x[index], tasks)


@custom_vmap
def _any_lane(condition: Bool[Array, ""]) -> Bool[Array, ""]:
    """Whether `condition` holds in any lane of all enclosing vmaps: one value for all, so it can steer a `cond`."""
    return condition


@_any_lane.def_vmap
def _(axis_size, batched, condition):
    del axis_size
    return _any_lane(jnp.any(condition, axis=0) if batched[0] else condition), False


def update_where(condition: Bool[Array, ""], update: Callable[[PyTree], PyTree], state: PyTree) -> PyTree:
    """`update(state)` where `condition` holds, else `state`; no work is done when it holds in no lane.

    Under `vmap` a plain `lax.cond` becomes a `select` that computes both sides in every step.
    """
    return jax.lax.cond(_any_lane(condition), lambda s: where(condition, update(s), s), lambda s: s, state)


CHUNKS = 8
"""Parts of a batch that `update_few` goes through."""


def update_few(condition: Bool[Array, ""], update: Callable[[PyTree], PyTree], state: PyTree) -> PyTree:
    """`update_where` for an update that costs much and that few lanes need at a time, such as a reset.

    Under `vmap` the lanes where the condition holds are updated an eighth of the batch at a time, until none is left.
    """

    @custom_vmap
    def apply(condition: Bool[Array, ""], state: PyTree) -> PyTree:
        return jax.lax.cond(condition, update, lambda s: s, state)

    @apply.def_vmap
    def _(axis_size: int, batched: PyTree, condition: jax.Array, state: PyTree) -> tuple[PyTree, PyTree]:
        def lanes(x: jax.Array, is_batched: bool) -> jax.Array:
            return x if is_batched else jnp.broadcast_to(x, (axis_size, *x.shape))

        def update_some(carry: tuple[jax.Array, PyTree]) -> tuple[jax.Array, PyTree]:
            pending, states = carry
            index = jnp.nonzero(pending, size=-(-axis_size // CHUNKS), fill_value=axis_size)[0]
            some = jax.vmap(update)(jax.tree.map(lambda x: x.at[index].get(mode="clip"), states))
            states = jax.tree.map(lambda x, y: x.at[index].set(y, mode="drop"), states, some)
            return pending.at[index].set(False, mode="drop"), states

        carry = jax.tree.map(lanes, (condition, state), tuple(batched))
        state = jax.lax.while_loop(lambda carry: jnp.any(carry[0]), update_some, carry)[1]
        return state, jax.tree.map(lambda _: True, state)

    return apply(condition, state)


def where(condition: Bool[Array, "..."], new: PyTree, old: PyTree) -> PyTree:
    """Per-leaf `jnp.where` for pytrees whose leaves share the leading axes of `condition`."""

    def pick(x, y):
        mask = condition.reshape(condition.shape + (1,) * (x.ndim - condition.ndim))
        return jnp.where(mask, x, y)

    return jax.tree.map(pick, new, old)
