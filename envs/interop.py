"""The same environments for other people's code: as a Brax environment, and as a Gymnasium vector environment."""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from brax.envs.base import Env as BraxEnv
from brax.envs.base import State as BraxState
from gymnasium.vector import AutoresetMode, VectorEnv

from envs.core import Environment, Task
from envs.errors import ConfigurationError, check_integers, choose

SPLITS = ("train", "test")


class _Brax(BraxEnv):
    def __init__(self, env: Environment, split: str):
        self.env, self.split = env, choose("split", split, SPLITS)

    def reset(self, rng: jax.Array) -> BraxState:
        if not jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):  # Brax's wrappers work with keys of the old kind only
            rng = jax.random.wrap_key_data(rng)
        key_task, key_reset = jax.random.split(rng)
        task = jax.tree.map(lambda x: x[0], self.env.sample_tasks(key_task, self.split, 1))
        state = self.env.reset(key_reset, task)
        zero = jnp.zeros_like(state.reward)
        return BraxState(pipeline_state=state, obs=state.obs, reward=zero, done=zero, metrics={"diverged": zero})

    def step(self, state: BraxState, action: jax.Array) -> BraxState:
        after = self.env.step(state.pipeline_state, action)
        diverged = after.metrics["diverged"]
        over = state.done > 0  # with an action repeat, Brax steps on: that is no part of the episode
        return state.replace(
            pipeline_state=after,
            obs=jnp.where(over, state.obs, after.final_obs),
            reward=jnp.where(over, 0.0, after.reward),
            done=jnp.maximum(state.done, (after.terminated | diverged).astype(state.done.dtype)),
            metrics={"diverged": jnp.where(over, state.metrics["diverged"], diverged.astype(state.done.dtype))},
        )

    @property
    def observation_size(self) -> int:
        return self.env.spec.obs_size

    @property
    def action_size(self) -> int:
        return self.env.spec.action_size

    @property
    def backend(self) -> str:
        return self.env.spec.engine


def to_brax(env: Environment, split: str = "train") -> BraxEnv:
    """A `brax.envs.Env` of one lane, for `brax.envs.training.wrap(env, episode_length=env.spec.horizon)`.

    Reset it with keys of the old kind (`jax.random.PRNGKey`), whose shape Brax's wrappers rely on. Every reset draws a
    task of the `split`; Brax's automatic reset, though, returns each lane to its first state and task. Episodes end by
    termination or divergence; the time limit is left to Brax's wrapper, whose `episode_length` must not exceed this
    environment's horizon, and whose `action_repeat` must divide that. `obs` is the observation that a step led to,
    never that of a new episode.
    """
    return _Brax(env, split)


class _Gymnasium(VectorEnv):
    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 (Gymnasium's own attribute)

    def __init__(self, env: Environment, num_envs: int, split: str):
        self.env, self.num_envs, self.split = env, num_envs, choose("split", split, SPLITS)
        spec = env.spec
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (spec.obs_size,), np.float32)
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (spec.action_size,), np.float32)
        batch = gymnasium.vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, num_envs)
        self.action_space = batch(self.single_action_space, num_envs)
        self._reset = jax.jit(jax.vmap(env.reset))
        self._step = jax.jit(jax.vmap(env.step))
        self._state: Any = None

    @property
    def tasks(self) -> Task:
        """[num_envs, ...] the current task of each lane."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset before asking for tasks")
        return self._state.task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        key_task, key_reset = jax.random.split(jax.random.key(int(self.np_random.integers(2**31))))
        for option in options or {}:
            choose("option of reset", option, ("tasks",))
        tasks = (options or {}).get("tasks")
        if tasks is None:
            tasks = self.env.sample_tasks(key_task, self.split, self.num_envs)
        else:
            self._check(tasks)
        self._state = self._reset(jax.random.split(key_reset, self.num_envs), tasks)
        return np.array(self._state.obs, np.float32), {}

    def _check(self, tasks: Any) -> None:
        """Raise `ConfigurationError` for tasks that are not this environment's, one for each lane."""
        if not isinstance(tasks, Task):
            raise ConfigurationError(f"options['tasks'] must be an envs.Task, got a {type(tasks).__name__}")
        spec, shapes = self.env.spec, (jnp.shape(tasks.family), jnp.shape(tasks.spec))
        if shapes[0] != (self.num_envs,):
            raise ConfigurationError(f"options['tasks'] holds tasks of shape {shapes[0]} for {self.num_envs} lanes")
        if shapes[1] != (self.num_envs, spec.task_size):
            raise ConfigurationError(
                f"options['tasks'] has specs of shape {shapes[1]}: here they are {(self.num_envs, spec.task_size)}"
            )
        if not np.isin(tasks.family, np.arange(len(spec.families))).all():
            raise ConfigurationError(f"options['tasks'] has families beyond the {len(spec.families)} of {spec.name}")

    def step(self, actions):
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        self._state = state = self._step(self._state, jnp.asarray(actions, jnp.float32))
        done = np.asarray(state.terminated | state.truncated)
        info: dict[str, Any] = {}
        if done.any():
            info = {"final_obs": np.array(state.final_obs, np.float32), "_final_obs": done}
        if np.any(state.metrics["diverged"]):
            info["diverged"] = np.array(state.metrics["diverged"])
        flags = np.array(state.terminated), np.array(state.truncated)
        return np.array(state.obs, np.float32), np.array(state.reward, np.float64), *flags, info


def to_gymnasium(env: Environment, num_envs: int, split: str = "train") -> VectorEnv:
    """A `gymnasium.vector.VectorEnv` of `num_envs` lanes, which reset themselves in the step that ends an episode.

    Every call of `reset` draws each lane's task from the `split`, or takes them from `options={"tasks": Task
    [num_envs, ...]}`; a lane that resets itself keeps its task, so call `reset` for others. An ended lane's last
    observation is in `info["final_obs"]`, where `info["_final_obs"]` says so. A lane whose simulation blew up is
    truncated and marked in `info["diverged"]`: do not learn from that step.

    Raises:
      ConfigurationError: num_envs is no integer or < 1, or an unknown split.
    """
    check_integers(num_envs=num_envs)
    if num_envs < 1:
        raise ConfigurationError(f"num_envs must be >= 1, got {num_envs}")
    return _Gymnasium(env, num_envs, split)
