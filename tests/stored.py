"""A small stored data set of `point_robot`, and flags of a small agent that learns from it."""

import jax
import numpy as np

import envs
from metarl_jax.data import offline

SMALL = ["--method=focal", "--encoder.hidden_sizes", "8", "--brac.hidden_sizes", "8", "--context_size=4"]
SMALL += [
    "--batch_size=4",
    "--steps_per_epoch=2",
    "--tasks_per_step=3",
    "--eval_repeats=1",
    "--adapt_episodes=1",
    "--eval_every=1",
]
OPTIONS = ("num_train_tasks=4", "num_test_tasks=3")
SPLIT = np.array([0, 0, 0, 0, 1, 1, 2], np.int32)


def stored(num=7, horizon=20, episodes=2) -> tuple[offline.OfflineData, offline.Metadata]:
    """Random episodes of `point_robot`; the first one of each task is paid -1 per step, the second -2."""
    env, rng = envs.make("point_robot", num_train_tasks=4, num_test_tasks=3), np.random.default_rng(0)
    shape = (num, episodes * horizon)
    normal = lambda size: rng.normal(size=(*shape, size)).astype(np.float32)  # noqa: E731
    tasks = jax.tree.map(lambda *x: np.concatenate(x), env.train_tasks, env.test_tasks)
    data = offline.OfflineData(
        obs=normal(env.spec.obs_size),
        action=np.tanh(normal(env.spec.action_size)),
        reward=np.tile(-np.repeat(np.arange(1.0, episodes + 1), horizon), (num, 1)).astype(np.float32),
        next_obs=normal(env.spec.obs_size),
        terminated=np.zeros(shape, bool),
        last=np.tile(np.arange(shape[1]) % horizon == horizon - 1, (num, 1)),
        count=np.full(num, shape[1], np.int32),
        checkpoint=np.full(shape, 100, np.int32),
        task=offline.Tasks(*tasks),
        split=SPLIT,
    )
    values = {"env": "point_robot", "env_options": OPTIONS, "horizon": horizon, "checkpoints": (100,)}
    return data, offline.Metadata(
        engine="native", variant="fast", subtasks=("goal",), preset="small", seed=0, version=None, commit=None, **values
    )
