"""The shapes that travel through the library, and the protocols of what it is given.

Axes: `T` time, `E` environment (lane), `N` window or test task, `B` batch, `K` mixture component,
`D` latent, `S` seed.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Params = Any
"""A pytree of network parameters."""
Metrics = dict[str, jax.Array]
"""Scalars, or arrays whose meaning their name states."""
Changes = dict[str, Any]
"""New values of some fields of an agent's state."""


class Task(Protocol):
    """What an environment says of a task: for privileged baselines, negatives of contrastive losses and reports."""

    @property
    def family(self) -> Int[Array, "..."]: ...
    @property
    def spec(self) -> Float[Array, "... p"]: ...
    @property
    def label(self) -> Int[Array, "..."]: ...
    def vector(self, num_families: int) -> Float[Array, "... v"]: ...


class Transition(NamedTuple):
    """One step of one episode; leading axes are documented where it is used.

    What has a default is needed by those settings alone that look at it; rollouts know all of it.
    """

    obs: Float[Array, "... obs"]
    action: Float[Array, "... act"]
    reward: Float[Array, "..."]
    next_obs: Float[Array, "... obs"]
    """The observation the action led to, also where the episode ended there."""
    terminated: Bool[Array, "..."]
    """`next_obs` is terminal: its value is 0."""
    last: Bool[Array, "..."]
    """The episode ended with this step, by termination or truncation; what follows is another episode."""
    valid: Bool[Array, "..."]
    """False where the simulation diverged; such a step is never learnt from."""
    task: Any = None
    """The `Task` that the reward belongs to."""
    gross_reward: Float[Array, "..."] = None  # type: ignore[assignment]
    """What the step would have paid had its action been free; None: as much."""
    gross_reward_change: Float[Array, "..."] = None  # type: ignore[assignment]
    """That, less what it was in the last step; 0 at an episode's first step."""
    resting: Float[Array, "... 2"] = None  # type: ignore[assignment]
    """What that task pays per step for standing still where the step began, and where it ended; 0 if imagined."""
    imagined: Bool[Array, "..."] = None  # type: ignore[assignment]
    """The agent made the task up, and paid the reward itself, by its model of rewards."""


class EnvSpec(Protocol):
    """What the library reads of an environment's spec (see `envs.core.EnvSpec`)."""

    @property
    def name(self) -> str: ...
    @property
    def obs_size(self) -> int: ...
    @property
    def action_size(self) -> int: ...
    @property
    def task_size(self) -> int: ...
    @property
    def horizon(self) -> int: ...
    @property
    def families(self) -> tuple[str, ...]: ...
    @property
    def subtasks(self) -> tuple[str, ...]: ...
    @property
    def stationary(self) -> bool: ...
    @property
    def same_dynamics(self) -> bool: ...


class EnvState(Protocol):
    """What the library reads of an environment's state (see `envs.core.State`).

    It may also have `physics.qpos`, which pictures are drawn from.
    """

    @property
    def obs(self) -> jax.Array: ...
    @property
    def reward(self) -> jax.Array: ...
    @property
    def terminated(self) -> jax.Array: ...
    @property
    def truncated(self) -> jax.Array: ...
    @property
    def final_obs(self) -> jax.Array: ...
    @property
    def task(self) -> Any: ...
    @property
    def metrics(self) -> dict[str, jax.Array]: ...


class Environment(Protocol):
    """A NamedTuple of pure functions over one environment; the library vmaps them.

    It may also have `reset_ahead`: as `reset`, part of the way to what the task asks for; or None.
    """

    @property
    def spec(self) -> EnvSpec: ...
    @property
    def train_tasks(self) -> Any: ...
    @property
    def test_tasks(self) -> Any: ...

    def sample_tasks(self, key: PRNGKeyArray, split: str, n: int) -> Any: ...

    @property
    def reset(self) -> Callable[[PRNGKeyArray, Any], EnvState]: ...
    @property
    def step(self) -> Callable[[Any, jax.Array], EnvState]: ...


class Agent(NamedTuple):
    """An algorithm as pure functions. Rollout and evaluation need only `begin`, `act`, `observe` and `describe`."""

    init: Callable[[PRNGKeyArray], Any]
    """(key) -> the agent's learning state (parameters, optimisers, statistics)."""
    begin: Callable[[Any, int], Any]
    """(state, n) -> the memories [n, ...] of n agents that know nothing of their task yet."""
    act: Callable[..., jax.Array]
    """(state, obs [n, obs], memory, key, explore: bool) -> action [n, act] in [-1, 1]."""
    observe: Callable[[Any, Any, Transition], Any]
    """(state, memory, transition [n]) -> the memories after it."""
    parts: Mapping[str, Callable[[Any, Any, PRNGKeyArray], tuple[Changes, Metrics]]]
    """By name, the longest first: (state, replay, key) -> the fields that an epoch of this part's learning changes, and
    metrics: `updates` counts its gradient steps, and one that is not finite ends the run, unless its name ends in
    `_return`. All parts read the state as it was before the epoch, and no two change the same field, so they may run
    side by side."""
    describe: Callable[[Any, Any], dict[str, jax.Array]]
    """(state, memory) -> what the memory believes, for reports: `belief` [n, b] and `component` [n, K]; where
    attention formed it, also `attention` [n, L, H]: how much each of L layers looked at the last H transitions."""
    component_of: Callable[[Any], jax.Array] | None = None
    """(task) -> the component that stands for a task's class, where that is learnt from labels; None elsewhere."""
    gross_reward: Callable[[Any, Transition], jax.Array] | None = None
    """(state, transition [n]) -> what it would pay in its task, were its action free, by a model that is learnt; None
    where there is none."""
    recall: Callable[[Any, Any], Any] | None = None
    """(state, stored transitions [n, N]) -> memories [n, ...] that have seen them; None where only `observe` can."""

    def update(self, state: Any, replay: Any, key: PRNGKeyArray) -> tuple[Any, Metrics]:
        """One epoch of learning: all parts."""
        keys = jax.random.split(key, len(self.parts))
        return changed(state, [part(state, replay, k) for part, k in zip(self.parts.values(), keys, strict=True)])


def changed(state: Any, learnt: Iterable[tuple[Changes, Metrics]]) -> tuple[Any, Metrics]:
    """An agent's state after an epoch of each of its parts, and their metrics; `updates` add up."""
    updates = jnp.zeros((), jnp.int32)
    merged: Metrics = {}
    for changes, metrics in learnt:
        state = state._replace(**changes)
        merged |= metrics
        updates += metrics["updates"]
    return state, merged | {"updates": updates}


class Evaluation(NamedTuple):
    """Deterministic episodes on the held-out tasks. `K` episodes in a row with one memory, `N` tasks, `T` steps."""

    rewards: Float[Array, "K T N"]
    """Zero after the episode's end."""
    beliefs: Float[Array, "K T N b"]
    """The belief each action was chosen with (its mean, where the agent acts on samples; of an oracle, which has none
    before its first observation, zeros at first)."""
    components: Float[Array, "K T N c"]
    """Responsibilities q(y) of the mixture's components at each action; c = 1 where there is no mixture."""
    task_changed: Bool[Array, "K T N"]
    """The task changed after this step."""
    alive: Bool[Array, "K T N"]
    """The step belongs to the episode: False after its end."""
    recognized: Float[Array, "K T N r"]
    """1 where the most likely component was the one that stands for the task's class, else 0; NaN after the episode's
    end. r = 0 where components stand for nothing, else 1."""
    attention: Float[Array, "K T N L H"] | None = None
    """How much each layer looked at the last H transitions, newest last, to form the belief of each action; zeros
    where there was none yet. None where agents have no attention."""
    gross_rewards: Float[Array, "K T N"] | None = None
    """Rewards had actions been free; None in evaluations of earlier versions."""
    qpos: Float[Array, "K T N q"] | None = None
    """The body's generalised coordinates at each action, to draw it with; q = 0 where there is no body. None in
    evaluations of earlier versions."""

    @property
    def returns(self) -> jax.Array:
        """[K, N] undiscounted return of each episode."""
        return self.rewards.sum(-2)


class TrainState(NamedTuple):
    """Everything training depends on: one pytree, and it is the checkpoint."""

    agent: Any
    replay: Any
    key: PRNGKeyArray
    epoch: Int[Array, ""]
    env_steps: Int[Array, ""]


@dataclasses.dataclass(frozen=True, eq=False)
class Epoch:
    """An epoch of training as pure functions of the state before it."""

    parts: Mapping[str, Callable[..., Any]]
    """By name, the longest first: (state, *constants) -> what the part brings. None needs what another brings, so they
    run in any order, or side by side; none gives the replay back, so it must not be donated to them."""
    finish: Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, Metrics]]
    """(state, what each part brings) -> the state after the epoch, and metrics: scalars, of which `updates` counts
    gradient steps. Short. Donate the state to it, or the replay is copied."""

    def __call__(self, state: TrainState, *constants: Any) -> tuple[TrainState, Metrics]:
        """All of it, one after another. As one program XLA copies the replay: `training.epochs` compiles several."""
        return self.finish(state, {name: part(state, *constants) for name, part in self.parts.items()})


class Trainer(NamedTuple):
    """A training run as pure functions. With `num_seeds` S, every leaf of every result has a leading axis S: of seeds,
    or of all seeds of all settings that are trained at once.

    `init` is whole; `create` and `fill` are what it consists of, for whoever compiles them one by one: JAX keeps no
    compiled program that calls back into the host, as simulations on a CPU do.
    """

    num_seeds: int
    create: Callable[[PRNGKeyArray], TrainState]
    """(key) -> a state that has seen nothing."""
    fill: Callable[[TrainState], TrainState]
    """(state) -> the state with the first random data, if the algorithm wants any."""
    epoch: Epoch
    """(state, *constants) -> the state after an epoch, and metrics (per seed)."""
    evaluate: Callable[..., Evaluation]
    """(state, key, *constants) -> K consecutive episodes on every task of evaluations, deterministic policy."""
    env_steps_per_epoch: int
    replay_bytes: int
    """Device memory of the replay and of `constants`, all seeds together."""
    constants: tuple[Any, ...] = ()
    """Arrays that training and evaluation read and never change, such as a data set: shared by all seeds, and no part
    of the checkpoint."""

    def init(self, key: PRNGKeyArray) -> TrainState:
        """The initial state."""
        return self.fill(self.create(key))
