"""Training episodes that start in any posture."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.core import select_task
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import trainer
from tests import helpers
from tests.helpers import counting_agent, quick_compilation

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

AGENT = counting_agent()
ANYWHERE = 7.0
"""Where the exploring episodes of the environment whose every number is known start."""


def environment():
    env = helpers.environment()

    def reset_anywhere(key, task):
        state = env.reset(key, task)
        return state._replace(obs=state.obs.at[1].set(ANYWHERE))

    return env._replace(reset_anywhere=reset_anywhere)


@functools.cache
def one_epoch():
    config = trainer.Config(num_envs=5, replay_rows=40, exploring_starts=0.4, initial_episodes=10)
    made = trainer.make(environment(), AGENT, config)
    state = jax.jit(made.init)(jax.random.key(0))
    return made, *jax.jit(made.epoch)(state)


def test_a_share_of_the_episodes_starts_in_any_posture():
    """The last 4 of the 10 first episodes, the last 2 of an epoch's 5; an episode after an automatic reset is usual."""
    _, state, metrics = one_epoch()
    data = jax.tree.map(lambda x: np.asarray(x[0, :15]), state.replay.data)
    exploring = np.array([False] * 6 + [True] * 4 + [False] * 3 + [True] * 2)
    assert (data.obs[:, 0, 1][exploring] == ANYWHERE).all() and (data.obs[:, 0, 1][~exploring] != ANYWHERE).all()
    rows, steps = np.nonzero(data.last[:, :-1])
    assert rows.size and (data.obs[rows, steps + 1, 1] != ANYWHERE).all()
    pay, length = data.task.spec[10:13, 0, 0], data.task.spec[10:13, 0, 1]
    np.testing.assert_allclose(metrics["train_return"], [np.mean(pay * length * (length + 1) / 2)], rtol=1e-6)


def test_evaluations_start_as_the_benchmark_has_it():
    made, state, _ = one_epoch()
    usual = trainer.make(environment(), AGENT, trainer.Config(num_envs=5, replay_rows=40))
    key = jax.random.key(1)
    for x, y in zip(*(jax.tree.leaves(jax.jit(m.evaluate)(state, key)) for m in (made, usual)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_postures_of_a_half_cheetah():
    """Any pitch, nothing in the ground, and otherwise as an episode starts; wrappers see these starts too."""
    env = envs.make("cheetah_multitask", "native")
    keys = jax.random.split(jax.random.key(0), 256)
    tasks = env.sample_tasks(jax.random.key(1), "train", 256)
    state = jax.jit(jax.vmap(env.reset_anywhere))(keys, tasks)
    usual = jax.jit(jax.vmap(env.reset))(keys, tasks)
    pitch = np.asarray(state.physics.qpos[:, 2])
    assert (np.abs(pitch) <= np.pi / 2).all()
    np.testing.assert_allclose(np.quantile(pitch, [0.25, 0.5, 0.75]), np.pi / 4 * np.array([-1, 0, 1]), atol=0.25)
    others = np.delete(np.asarray(state.physics.qpos), (1, 2), 1)
    assert (np.abs(others) <= 0.1).all() and others.std(0).min() > 0.05
    assert (state.time == 0).all() and (state.physics.time == 0).all()
    for x, y in zip(jax.tree.leaves(state.task), jax.tree.leaves(usual.task), strict=True):
        np.testing.assert_array_equal(x, y)
    after = jax.jit(jax.vmap(env.step))(state, jnp.zeros((256, 6)))
    fallen = np.asarray(after.physics.qpos[:, 1] - state.physics.qpos[:, 1])
    dt = env.spec.dt
    np.testing.assert_allclose(fallen, -9.81 * dt**2 / 2 + np.asarray(state.physics.qvel[:, 1]) * dt, atol=0.02)
    changing = envs.make("cheetah_vel_nonstat", "native", mode="location")
    begun = changing.reset_anywhere(keys[0], select_task(changing.train_tasks, 0))
    assert begun.schedule["gap"] >= 10.0


@pytest.mark.parametrize(
    ("changes", "env", "message"),
    [
        ({"exploring_starts": 1.0}, environment(), r"exploring_starts must be in \[0, 1\), got 1.0"),
        ({"exploring_starts": float("nan")}, environment(), r"exploring_starts must be in \[0, 1\), got nan"),
        ({"exploring_starts": 0.1}, environment(), "exploring_starts=0.1 of num_envs=3 is no whole episode"),
        ({"exploring_starts": 0.9}, environment(), "exploring_starts=0.9 .* leave none of num_envs=3"),
        (
            {"exploring_starts": 0.4},
            helpers.environment(),
            "no postures to choose a start from: use --exploring_starts=0",
        ),
    ],
)
def test_starts_that_cannot_be(changes, env, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        trainer.make(env, AGENT, trainer.Config(**({"num_envs": 3, "replay_rows": 8} | changes)))
    assert "\n" not in str(caught.value)
