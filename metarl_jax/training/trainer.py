"""A training run as pure functions: collect and learn side by side, insert; evaluate; and the same over seeds."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from metarl_jax.agents.hyperparameters import Values
from metarl_jax.data import replay
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import rollout
from metarl_jax.types import (
    Agent,
    Changes,
    Environment,
    EnvSpec,
    Epoch,
    Evaluation,
    Metrics,
    Trainer,
    TrainState,
    Transition,
    changed,
)

COLLECTION = "collection"
"""The part of an epoch that plays episodes, beside those of the agent."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Data collection and evaluation."""

    num_envs: int = 32
    """Environments stepped in parallel; each plays one task per epoch."""
    replay_rows: int = 5000
    """Capacity of the replay, in rows of one horizon each."""
    initial_episodes: int | None = None
    """Episodes of the untrained policy before the first epoch; None: one per training task."""
    imagined_episodes: float = 0.0
    """Share of an epoch's episodes whose tasks are imagined: uniform in the range of the training tasks, gaps included,
    and `imagined_margin` around it; the agent's model of rewards pays. For tasks outside the training range."""
    imagined_margin: float = 1.0
    """How far beyond that range they reach on each side, in widths of the range."""
    head_starts: float = 0.0
    """Share of training episodes with a head start: they begin part of the way to the place, posture or speed that
    their task asks for (a reverse curriculum: Florensa et al., 2017); evaluations never do. For what is worth much and
    hard to come by."""
    eval_episodes: int = 1
    """Episodes in a row per task of an evaluation; the first is zero-shot."""
    eval_tasks: str = "test"
    """Tasks of evaluations: `test`, the held-out ones, or `train`."""
    eval_lanes: int = 16
    """Episodes side by side that an evaluation has at least: few tasks are played several times each."""


class Members(NamedTuple):
    """Agents that differ in hyper-parameters alone."""

    make: Callable[[Values], Agent]
    """(values, which may be traced) -> the agent with them."""
    values: Mapping[str, Float[np.ndarray, " M"]]
    """Of each member."""


class _Lane(NamedTuple):
    """A training run of one seed as pure functions, without the leading axis of a `Trainer`'s."""

    create: Callable[[PRNGKeyArray], TrainState]
    fill: Callable[[TrainState], TrainState]
    parts: Mapping[str, Callable[[TrainState], Any]]
    finish: Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, Metrics]]
    evaluate: Callable[[TrainState, PRNGKeyArray], Evaluation]


def make(env: Environment, agent: Agent, config: Config, num_seeds: int = 1, members: Members | None = None) -> Trainer:
    """Assemble a trainer.

    Args:
      env: one environment.
      agent: made for `env.spec`.
      config: sizes.
      num_seeds: seeds trained at once, by vmap over whole epochs.
      members: to train all of these at once instead of `agent`, which must have the shapes of each; each has the keys
        of the `num_seeds` seeds, but not their random numbers, unless the generator is Threefry (see
        `compilation.configure`). The leading axis of all results is then M x S, members first.

    Raises:
      ConfigurationError: a size is not positive, the initial data does not fit the replay, an unknown `eval_tasks`,
        tasks that cannot be imagined, or head starts that there are not.
    """
    num_initial = env.train_tasks.family.shape[0] if config.initial_episodes is None else config.initial_episodes
    sizes = {"num_envs": config.num_envs, "initial_episodes": num_initial, "seeds": num_seeds}
    for name, value in (sizes | {"eval_episodes": config.eval_episodes, "eval_lanes": config.eval_lanes}).items():
        if value < 1:
            raise ConfigurationError(f"{name} must be >= 1, got {value}")
    if config.replay_rows < max(num_initial, config.num_envs):
        need = max(num_initial, config.num_envs)
        raise ConfigurationError(f"replay_rows is {config.replay_rows}, but one block of data has {need} rows")
    _check_imagined(config, agent, env.spec)
    _check_head_starts(config, env)
    tasks_of(env, config)  # refuses what it does not know
    num_members = len(next(iter(members.values.values()))) if members else 1
    num = num_members * num_seeds

    def each(choose: Callable[[_Lane], Callable[..., Any]]) -> Callable[..., Any]:
        """One of the functions of a run, over all seeds of all members."""
        if members is None:
            return over_seeds(choose(_lane(env, agent, config, num_initial)), num)
        values = {name: np.repeat(np.asarray(x, np.float32), num_seeds) for name, x in members.values.items()}

        def member(values: Values, *args: Any) -> Any:
            return choose(_lane(env, members.make(values), config, num_initial))(*args)

        return lambda *args: over_seeds(member, num)(values, *args)

    def keys(key: PRNGKeyArray) -> PRNGKeyArray:
        return jnp.concatenate([jax.random.split(key, num_seeds)] * num_members)

    def part(name: str) -> Callable[..., Any]:
        return each(lambda lane: lane.parts[name])

    names = (*agent.parts, COLLECTION)
    return Trainer(
        num_seeds=num,
        create=lambda key: each(lambda lane: lane.create)(keys(key)),
        fill=each(lambda lane: lane.fill),
        epoch=Epoch({name: part(name) for name in names}, each(lambda lane: lane.finish)),
        evaluate=lambda state, key: each(lambda lane: lane.evaluate)(state, keys(key)),
        env_steps_per_epoch=config.num_envs * env.spec.horizon,
        replay_bytes=num * replay.num_bytes(example_transition(env), config.replay_rows, env.spec.horizon),
    )


def _lane(env: Environment, agent: Agent, config: Config, num_initial: int) -> _Lane:
    """A run of one seed, whose first data are `num_initial` episodes."""
    horizon, imagined_envs = env.spec.horizon, num_imagined(config)
    ahead_envs = num_ahead(config, config.num_envs)

    def create(key: PRNGKeyArray) -> TrainState:
        key, key_agent = jax.random.split(key)
        data = replay.init(example_transition(env), config.replay_rows, horizon)
        return TrainState(agent.init(key_agent), data, key, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def play(agent_state: Any, key: PRNGKeyArray, num: int, imagined: jax.Array | None = None) -> Transition:
        """`num` new episodes, of imagined tasks where told to: rows [num, T, ...]."""
        key_tasks, key_roll = jax.random.split(key)
        tasks = env.sample_tasks(key_tasks, "train", num)
        if imagined is not None:
            made_up = around(jax.random.fold_in(key, 2), tasks, env.train_tasks, config.imagined_margin)
            tasks = rollout.select(imagined, made_up, tasks)
        memory = agent.begin(agent_state, num)
        ahead = jnp.arange(num) >= num - num_ahead(config, num) if ahead_envs else None
        _, unrolled = rollout.unroll(
            env, agent, agent_state, memory, tasks, key_roll, horizon, True, imagined=imagined, ahead=ahead
        )
        return jax.tree.map(lambda x: x.swapaxes(0, 1), unrolled.transitions)

    def insert(state: TrainState, rows: Transition) -> TrainState:
        return state._replace(replay=replay.insert(state.replay, rows), env_steps=state.env_steps + rows.reward.size)

    def fill(state: TrainState) -> TrainState:
        key, key_data = jax.random.split(state.key)
        return insert(state._replace(key=key), play(state.agent, key_data, num_initial))

    def collect(state: TrainState) -> tuple[Transition, Metrics]:
        imagined = None
        if imagined_envs:  # in the first epoch the model knows nothing
            imagined = (jnp.arange(config.num_envs) < imagined_envs) & (state.epoch > 0)
        rows = play(state.agent, epoch_keys(agent, state)[COLLECTION], config.num_envs, imagined)
        usual = jax.tree.map(lambda x: x[imagined_envs : config.num_envs - ahead_envs].swapaxes(0, 1), rows)
        train_return = jnp.mean(rollout.first_episode_return(usual))
        return rows, {"train_return": train_return, "diverged": jnp.sum(~rows.valid)}

    def finish(state: TrainState, brought: Mapping[str, Any]) -> tuple[TrainState, Metrics]:
        rows, collected = brought[COLLECTION]
        state, metrics = learnt(agent, state, brought)
        state = insert(state, rows)
        return state, collected | metrics | {"replay_rows": state.replay.size}

    def evaluate(state: TrainState, key: PRNGKeyArray) -> Evaluation:
        return rollout.evaluate(env, agent, state.agent, key, config.eval_episodes, tasks_of(env, config))

    parts = learning(agent, lambda state: state.replay) | {COLLECTION: collect}
    return _Lane(create, fill, parts, finish, evaluate)


def num_imagined(config: Config) -> int:
    """Imagined episodes of an epoch: at least one is not."""
    return min(round(config.imagined_episodes * config.num_envs), config.num_envs - 1)


def num_ahead(config: Config, num: int) -> int:
    """Of `num` episodes those with a head start."""
    return round(config.head_starts * num)


def _check_head_starts(config: Config, env: Environment) -> None:
    """Raise `ConfigurationError` where there are no head starts, or nothing else."""
    share = config.head_starts
    if not 0.0 <= share < 1.0:
        raise ConfigurationError(f"head_starts must be in [0, 1), got {share}")
    num = num_ahead(config, config.num_envs)
    if share and not num:
        raise ConfigurationError(
            f"head_starts={share:g} of num_envs={config.num_envs} is no whole episode: use more of either, or "
            "--head_starts=0"
        )
    if num + num_imagined(config) >= config.num_envs:
        both = f" and imagined_episodes={config.imagined_episodes:g}" if config.imagined_episodes else ""
        raise ConfigurationError(
            f"head_starts={share:g}{both}: none of num_envs={config.num_envs} would begin as usual: use less"
        )
    if share:
        rollout.head_start_of(env)


def _check_imagined(config: Config, agent: Agent, spec: EnvSpec) -> None:
    """Raise `ConfigurationError` where tasks cannot be imagined."""
    share = config.imagined_episodes
    if not 0.0 <= share < 1.0:
        raise ConfigurationError(f"imagined_episodes must be in [0, 1), got {share}")
    if not 0.0 <= config.imagined_margin < float("inf"):
        raise ConfigurationError(f"imagined_margin must be finite and >= 0, got {config.imagined_margin}")
    if share and not num_imagined(config):
        raise ConfigurationError(
            f"imagined_episodes={share:g} of num_envs={config.num_envs} is no whole episode: use more of either"
        )
    if share and not spec.stationary:
        raise ConfigurationError(f"tasks of {spec.name} change in mid-episode: use --imagined_episodes=0")
    if share and not spec.same_dynamics:
        raise ConfigurationError(
            f"tasks of {spec.name} differ in how bodies move, which cannot be imagined: use --imagined_episodes=0"
        )
    if share and agent.gross_reward is None:
        raise ConfigurationError(
            "imagined tasks need a model of rewards: use --reward_model_updates=100 or so, or --imagined_episodes=0"
        )


def around(key: PRNGKeyArray, tasks: Any, known: Any, margin: float) -> Any:
    """Tasks [n] of the families of `tasks` [n], uniform in the box around the known ones of the family.

    The box is wider than they are by `margin` of its width on each side.
    """
    same_family = (tasks.family[:, None] == known.family)[..., None]
    low = jnp.min(jnp.where(same_family, known.spec, jnp.inf), 1)
    high = jnp.max(jnp.where(same_family, known.spec, -jnp.inf), 1)
    place = (1.0 + 2.0 * margin) * jax.random.uniform(key, low.shape) - margin
    return tasks._replace(spec=low + place * (high - low))


def tasks_of(env: Environment, config: Config) -> Any:
    """The tasks [N, ...] that evaluations play: all of a set, over and over until there are `eval_lanes`.

    Raises:
      ConfigurationError: `eval_tasks` is neither `test` nor `train`.
    """
    known = {"test": env.test_tasks, "train": env.train_tasks}
    if config.eval_tasks not in known:
        raise ConfigurationError(f"unknown eval_tasks {config.eval_tasks!r}: choose test or train")
    tasks = known[config.eval_tasks]
    times = -(-config.eval_lanes // tasks.family.shape[0])
    return jax.tree.map(lambda x: jnp.concatenate([x] * times), tasks)


def epoch_keys(agent: Agent, state: TrainState) -> dict[str, PRNGKeyArray]:
    """The keys of an epoch's parts, by name, and `next`: that of the state after it."""
    names = ("next", COLLECTION, *agent.parts)
    return dict(zip(names, jax.random.split(state.key, len(names)), strict=True))


def learning(agent: Agent, data_of: Callable[..., Any]) -> dict[str, Callable[..., tuple[Changes, Metrics]]]:
    """An agent's parts as parts of a trainer's epoch; (state, *constants) -> the data to learn from."""

    def bound(name: str) -> Callable[..., tuple[Changes, Metrics]]:
        def part(state: TrainState, *constants: Any) -> tuple[Changes, Metrics]:
            return agent.parts[name](state.agent, data_of(state, *constants), epoch_keys(agent, state)[name])

        return part

    return {name: bound(name) for name in agent.parts}


def learnt(agent: Agent, state: TrainState, brought: Mapping[str, Any]) -> tuple[TrainState, Metrics]:
    """The state after the epoch of which the agent's parts are done."""
    agent_state, metrics = changed(state.agent, [brought[name] for name in agent.parts])
    return state._replace(agent=agent_state, key=epoch_keys(agent, state)["next"], epoch=state.epoch + 1), metrics


def over_seeds(function: Callable[..., Any], num_seeds: int, shared: int = 0) -> Callable[..., Any]:
    """`jax.vmap` over the seeds, all but the last `shared` arguments.

    One seed goes without the batching: XLA runs unbatched programs faster.
    """

    def batched(*args: Any) -> Any:
        per_seed = len(args) - shared
        if num_seeds > 1:
            return jax.vmap(function, in_axes=(0,) * per_seed + (None,) * shared)(*args)
        single = jax.tree.map(lambda x: x[0], args[:per_seed])
        return jax.tree.map(lambda x: jnp.asarray(x)[None], function(*single, *args[per_seed:]))

    return batched


def example_transition(env: Environment) -> Transition:
    """A transition of zeros, without leading axes, in the dtypes of `env`."""
    spec = env.spec
    task = jax.tree.map(lambda x: jnp.zeros_like(x[0]), env.train_tasks)
    false = jnp.zeros((), bool)
    obs, action, zero = jnp.zeros(spec.obs_size), jnp.zeros(spec.action_size), jnp.zeros(())
    return Transition(obs, action, zero, obs, false, false, false, task, zero, zero, jnp.zeros(2), false)
