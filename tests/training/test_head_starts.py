"""Training episodes that begin part of the way to what their task asks for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.core import select_task
from envs.wrappers import reveal_task
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import trainer
from tests import helpers
from tests.helpers import counting_agent, quick_compilation, same

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

AGENT = counting_agent()
AHEAD = 7.0
"""Where episodes with a head start begin, in the environment whose every number is known."""


def environment():
    env = helpers.environment()

    def reset_ahead(key, task):
        state = env.reset(key, task)
        return state._replace(obs=state.obs.at[1].set(AHEAD))

    return env._replace(reset_ahead=reset_ahead)


@helpers.cached
def one_epoch():
    config = trainer.Config(num_envs=5, replay_rows=40, head_starts=0.4, initial_episodes=10)
    made = trainer.make(environment(), AGENT, config)
    state = jax.jit(made.init)(jax.random.key(0))
    return made, *jax.jit(made.epoch)(state)


def test_a_share_of_the_episodes_has_a_head_start():
    """The last 4 of the 10 first episodes, the last 2 of an epoch's 5; an episode after an automatic reset is usual."""
    _, state, metrics = one_epoch()
    data = jax.tree.map(lambda x: np.asarray(x[0, :15]), state.replay.data)
    ahead = np.array([False] * 6 + [True] * 4 + [False] * 3 + [True] * 2)
    assert (data.obs[:, 0, 1][ahead] == AHEAD).all() and (data.obs[:, 0, 1][~ahead] != AHEAD).all()
    rows, steps = np.nonzero(data.last[:, :-1])
    assert rows.size and (data.obs[rows, steps + 1, 1] != AHEAD).all()
    pay, length = data.task.spec[10:13, 0, 0], data.task.spec[10:13, 0, 1]
    np.testing.assert_allclose(metrics["train_return"], [np.mean(pay * length * (length + 1) / 2)], rtol=1e-6)


def test_evaluations_start_as_the_benchmark_has_it():
    made, state, _ = one_epoch()
    usual = trainer.make(environment(), AGENT, trainer.Config(num_envs=5, replay_rows=40))
    key = jax.random.key(1)
    for x, y in zip(*(jax.tree.leaves(jax.jit(m.evaluate)(state, key)) for m in (made, usual)), strict=True):
        np.testing.assert_array_equal(x, y)


WHERE = {
    "cheetah_vel": {"velocity": ("qvel", (0,))},
    "cheetah_eight": {
        "velocity": ("qvel", (0,)),
        "goal": ("qpos", (0,)),
        "stand": ("qpos", (2,)),
        "jump": ("qvel", (1,)),
        "flip": ("qvel", (2,)),
    },
    "ant_goal": {"goal": ("qpos", (0, 1))},
    "ant_multitask": {"velocity": ("qvel", (0, 1)), "goal": ("qpos", (0, 1)), "jump": ("qvel", (2,))},
    "sparse_point_robot": {"goal": ("qpos", (0, 1))},
    "cheetah_dir_vel_to_goal": {"direction": None, "velocity": ("qvel", (0,)), "goal": ("qpos", (0,))},
}
"""By benchmark and base task: which of the coordinates or speeds its spec tells."""


@pytest.mark.parametrize("name", WHERE)
def test_a_head_start_is_part_of_the_way(name):
    """From none to a quarter too far, of each base task in what it asks for; all else is as an episode starts."""
    env = envs.make(name, "native")
    tasks = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), env.train_tasks, env.test_tasks)
    tasks = jax.tree.map(lambda x: jnp.tile(x, (400 // len(x) + 1, *(1,) * (x.ndim - 1))), tasks)
    keys = jax.random.split(jax.random.key(0), len(tasks.family))
    state, usual = (jax.jit(jax.vmap(reset))(keys, tasks) for reset in (env.reset_ahead, env.reset))
    assert same(state.task, usual.task) and not state.time.any()
    parts = []
    for family, of_family in enumerate(env.spec.families):
        rows = np.asarray(tasks.family) == family
        now, then = ({n: np.array(getattr(s.physics, n))[rows] for n in ("qpos", "qvel")} for s in (state, usual))
        if where := WHERE[name][of_family]:
            field, index = where[0], list(where[1])
            spec = np.asarray(tasks.spec)[rows, : len(index)]
            part = now[field][:, index] / np.where(spec, spec, 1.0)
            parts.append(part[spec != 0.0])
            now[field][:, index] = then[field][:, index]
        if of_family in ("stand", "flip"):
            angle = np.asarray(state.physics.qpos)[rows, 2]
            lifted = now["qpos"][:, 1] - (0.3 * np.abs(np.sin(angle)) if of_family == "stand" else 0.5)
            assert (np.abs(lifted) <= 0.1 + 1e-6).all()  # the noise of a start
            now["qpos"][:, 1] = 0.0
        for field in now:
            assert np.abs(now[field]).max(initial=0.0) < 1.2
    found = np.concatenate(parts)
    assert (found >= 0.0).all() and (found <= 1.25 + 1e-6).all()
    np.testing.assert_allclose(np.quantile(found, [0.25, 0.5, 0.75]), 1.25 * np.array([0.25, 0.5, 0.75]), atol=0.1)


@pytest.mark.parametrize("name", ["cheetah_eight", "ant_multitask"])
def test_nobody_is_thrown_out_of_the_ground(name):
    """No simulation diverges, and after a step no body rises faster than it was told to, but by 1 m/s."""
    env = envs.make(name, "native")
    tasks = env.sample_tasks(jax.random.key(1), "train", 320)
    state = jax.jit(jax.vmap(env.reset_ahead))(jax.random.split(jax.random.key(0), 320), tasks)
    after = jax.jit(jax.vmap(env.step))(state, jnp.zeros((320, env.spec.action_size)))
    up = 1 if name.startswith("cheetah") else 2
    assert not after.metrics["diverged"].any()
    assert (after.physics.qvel[:, up] < np.maximum(state.physics.qvel[:, up], 0.0) + 1.0).all()


def test_wrappers_see_head_starts():
    moved = envs.make("cheetah_vel_nonstat", "native", mode="location")
    keys = jax.random.split(jax.random.key(0), 8)
    state = jax.vmap(moved.reset_ahead)(keys, moved.sample_tasks(jax.random.key(1), "train", 8))
    assert state.physics.qvel[:, 0].max() > 0.6 and set(state.schedule) == {"from", "gap"}
    told = reveal_task(envs.make("cheetah_multitask", "native"))
    task = select_task(told.train_tasks, 0)
    obs = told.reset_ahead(jax.random.key(0), task).obs
    assert obs.shape == (told.spec.obs_size,) and same(obs[-8:], task.vector(4))


@pytest.mark.parametrize("name", ["cheetah_dir", "walker_rand_params", "humanoid_dir"])
def test_directions_and_bodies_have_no_head_start(name):
    assert envs.make(name, "native").reset_ahead is None


@pytest.mark.parametrize(
    ("changes", "env", "message"),
    [
        ({"head_starts": 1.0}, environment(), r"head_starts must be in \[0, 1\), got 1.0"),
        ({"head_starts": float("nan")}, environment(), r"head_starts must be in \[0, 1\), got nan"),
        ({"head_starts": 0.1}, environment(), "head_starts=0.1 of num_envs=3 is no whole episode"),
        ({"head_starts": 0.9}, environment(), "head_starts=0.9: none of num_envs=3 would begin as usual"),
        (
            {"head_starts": 0.4},
            helpers.environment(),
            "asks for a place, a posture or a speed: use --head_starts=0",
        ),
    ],
)
def test_starts_that_cannot_be(changes, env, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        trainer.make(env, AGENT, trainer.Config(**({"num_envs": 3, "replay_rows": 8} | changes)))
    assert "\n" not in str(caught.value)
