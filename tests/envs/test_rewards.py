"""Rewards and observations on injected states, against closed forms written here from the benchmarks' text."""

from functools import cache

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import envs
from envs.bodies import point
from envs.bodies.base import environment
from envs.core import Task
from envs.physics import models
from tests.helpers import quick_compilation

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

DT = 0.05


def control(weight, a):
    return weight * np.sum(a**2)


# benchmark -> sub-task -> reward(qpos before, qpos after, qvel after, action, spec)
CLOSED_FORMS = {
    "cheetah_vel": {"velocity": lambda q0, q1, v, a, s: -abs((q1[0] - q0[0]) / DT - s[0]) - control(0.05, a)},
    "cheetah_dir": {
        "forward": lambda q0, q1, v, a, s: (q1[0] - q0[0]) / DT - control(0.05, a),
        "backward": lambda q0, q1, v, a, s: -(q1[0] - q0[0]) / DT - control(0.05, a),
    },
    "ant_dir": {
        "forward": lambda q0, q1, v, a, s: (q1[0] - q0[0]) / DT - control(0.5, a) + 1,
        "backward": lambda q0, q1, v, a, s: -(q1[0] - q0[0]) / DT - control(0.5, a) + 1,
    },
    "ant_goal": {"goal": lambda q0, q1, v, a, s: -abs(q1[0] - s[0]) - abs(q1[1] - s[1]) - control(0.1, a)},
    "point_robot": {"goal": lambda q0, q1, v, a, s: -np.hypot(q1[0] - s[0], q1[1] - s[1])},
    "cheetah_eight": {
        **{
            name: lambda q0, q1, v, a, s: -abs(v[0] - s[0]) / abs(s[0]) - control(0.05, a)
            for name in ("velocity_forward", "velocity_backward")
        },
        **{
            name: lambda q0, q1, v, a, s: -abs(q1[0] - s[0]) / abs(s[0]) - control(0.05, a)
            for name in ("goal_forward", "goal_backward")
        },
        **{
            name: lambda q0, q1, v, a, s: -abs(q1[2] - s[0]) / abs(s[0]) - control(0.05, a)
            for name in ("stand_front", "stand_back")
        },
        "jump": lambda q0, q1, v, a, s: -abs(abs(v[1]) - s[0]) / abs(s[0]) - control(0.05, a),
        "flip_forward": lambda q0, q1, v, a, s: -abs(v[2] - s[0]) / abs(s[0]) - control(0.05, a),
    },
    "ant_multitask": {
        **{
            f"velocity_{way}": lambda q0, q1, v, a, s: (
                -((v[0] - s[0]) ** 2 + (v[1] - s[1]) ** 2) / (s[0] ** 2 + s[1] ** 2) - control(0.05, a)
            )
            for way in ("left", "right", "up", "down")
        },
        **{
            f"goal_{way}": lambda q0, q1, v, a, s: (
                -((q1[0] - s[0]) ** 2 + (q1[1] - s[1]) ** 2) / (s[0] ** 2 + s[1] ** 2) - control(0.05, a)
            )
            for way in ("left", "right", "up", "down")
        },
        "jump": lambda q0, q1, v, a, s: -abs(abs(v[2]) - s[0]) / s[0] - control(0.05, a),
    },
    "cheetah_3task": {
        "velocity": lambda q0, q1, v, a, s: -abs((q1[0] - q0[0]) / DT - s[0]) - control(0.05, a),
        "flip": lambda q0, q1, v, a, s: s[0] * (q1[2] - q0[2]) / DT - control(0.05, a),
        "jump": lambda q0, q1, v, a, s: q1[1] - control(0.05, a),
    },
    "cheetah_dir_vel_to_goal": {"goal": lambda q0, q1, v, a, s: -abs(q1[0] - s[0]) - control(0.05, a)},
}
CLOSED_FORMS["cheetah_multitask"] = {k: v for k, v in CLOSED_FORMS["cheetah_eight"].items() if k != "flip_forward"}
CLOSED_FORMS["cheetah_2task"] = {k: CLOSED_FORMS["cheetah_3task"][k] for k in ("velocity", "jump")}


def run_forward(dt):
    return lambda q0, q1, v, a, s: (q1[0] - q0[0]) / dt + 1 - control(1e-3, a)


def along(weight, bonus):
    return lambda q0, q1, v, a, s: np.dot(q1[:2] - q0[:2], s) / DT - control(weight, a) + bonus


CLOSED_FORMS["walker_rand_params"] = {"dynamics": run_forward(0.016)}
KINDS = ("train", "moderate", "extreme")
for name, form in {
    "cheetah_vel_grid": CLOSED_FORMS["cheetah_vel"]["velocity"],
    "ant_dir_grid": along(0.5, 1.0),
    "ant_goal_grid": CLOSED_FORMS["ant_goal"]["goal"],
    "hopper_mass": run_forward(0.008),
    "hopper_friction": run_forward(0.008),
    "walker_mass": run_forward(0.01),
    "walker_friction": run_forward(0.01),
}.items():
    CLOSED_FORMS[name] = dict.fromkeys(KINDS, form)
for same, as_ in (
    ("cheetah_vel_nonstat", "cheetah_vel"),
    ("cheetah_vel_ood", "cheetah_vel"),
    ("cheetah_dir_nonstat", "cheetah_dir"),
    ("ant_dir_nonstat", "ant_dir"),
    ("ant_goal_ood", "ant_goal"),
):
    CLOSED_FORMS[same] = CLOSED_FORMS[as_]

OBS = {  # qpos, qvel -> observation
    "cheetah": lambda q, v: np.concatenate([q[1:], v, [q[0], 0.0, q[1] + 0.7]]),
    "ant_dir": lambda q, v: np.concatenate([q[2:], v]),
    "ant": lambda q, v: np.concatenate([q, v]),
    "point": lambda q, v: q,
    "walker": lambda q, v: np.concatenate([q[1:], np.clip(v, -10, 10)]),
    "hopper": lambda q, v: np.concatenate([q[1:], np.clip(v, -10, 10)]),
}


@cache
def make(name):
    env = envs.make(name, "native")
    start = jax.jit(jax.vmap(env.state_from))
    return env, start, jax.jit(jax.vmap(env.step))


def injected(env, n, seed=0):
    """n states anywhere a body can be: (qpos, qvel, actions)."""
    rng = np.random.default_rng(seed)
    files = {"chee": "half_cheetah.xml", "ant_": "ant.xml", "walk": "walker2d_v5.xml", "hopp": "hopper.xml"}
    base = files.get(env.spec.name[:4])
    if base is None:
        return rng.uniform(-1, 1, (n, 2)), np.zeros((n, 0)), rng.uniform(-1, 1, (n, 2))
    model = models.load(base)
    reach = 0.05 if base in ("walker2d_v5.xml", "hopper.xml") else 0.3  # those must not have fallen
    qpos = model.qpos0 + rng.uniform(-reach, reach, (n, model.nq))
    qpos[:, 0] += 60 * reach * rng.uniform(-1, 1, n)
    if base == "ant.xml":
        qpos[:, 2] = rng.uniform(0.6, 0.8, n)
        qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=-1, keepdims=True)
    return qpos, rng.normal(0, 1.0, (n, model.nv)), rng.uniform(-1, 1, (n, model.nu))


@pytest.mark.parametrize("name", [n for n in envs.names() if n in CLOSED_FORMS])
def test_reward_and_observation(name):
    env, start, step = make(name)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), env.train_tasks, env.test_tasks)
    names = np.array(env.spec.subtasks)[np.asarray(both.label)]
    n = len(names)
    qpos, qvel, actions = injected(env, n)
    state = start(jax.random.split(jax.random.key(0), n), both, jnp.asarray(qpos), jnp.asarray(qvel))
    after = step(state, jnp.asarray(actions, jnp.float32))
    assert not np.any(after.terminated | after.truncated)
    kind = name if name.startswith("ant_dir") else name.split("_")[0]
    obs = OBS["ant_dir" if kind.startswith("ant_dir") else kind]
    checked = set()
    q0, q1, v1 = (np.asarray(x, np.float64) for x in (state.physics.qpos, after.physics.qpos, after.physics.qvel))
    for i in range(n):
        np.testing.assert_allclose(state.obs[i], obs(q0[i], np.asarray(state.physics.qvel[i])), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(after.obs[i], obs(q1[i], v1[i]), rtol=1e-6, atol=1e-6)
        closed = CLOSED_FORMS[name].get(names[i])
        if closed is None:
            continue
        expected = closed(q0[i], q1[i], v1[i], actions[i], np.asarray(both.spec[i], np.float64))
        # Finite differences of a position of 20 m in single precision: 20 * 6e-8 / 0.05.
        np.testing.assert_allclose(after.reward[i], expected, rtol=2e-5, atol=2e-4)
        still = [closed(q, q, 0 * v1[i], 0 * actions[i], np.asarray(both.spec[i], np.float64)) for q in (q0[i], q1[i])]
        np.testing.assert_allclose(after.metrics["resting"][i], still, rtol=2e-5, atol=2e-5)
        free = closed(q0[i], q1[i], v1[i], 0 * actions[i], np.asarray(both.spec[i], np.float64))
        np.testing.assert_allclose(after.metrics["gross_reward"][i], free, rtol=2e-5, atol=2e-4)
        straining = closed(q1[i], q1[i], 0 * v1[i], actions[i], np.asarray(both.spec[i], np.float64))
        np.testing.assert_allclose(env.spec.action_cost * np.sum(actions[i] ** 2), still[1] - straining, atol=1e-9)
        checked.add(names[i])
    assert checked == set(CLOSED_FORMS[name])
    assert after.obs.shape[-1] == env.spec.obs_size


def test_every_benchmark_is_checked():
    assert set(envs.names()) == set(CLOSED_FORMS) | {"sparse_point_robot", "humanoid_dir", "humanoid_dir_grid"}


def test_humanoid_reward():
    """Displacement of the centre of mass (test_gymnasium.py checks it) over one substep; the mapped action costs."""
    env = envs.make("humanoid_dir", "native")
    task = jax.tree.map(lambda x: x[4], env.train_tasks)
    state = env.reset(jax.random.key(0), task)
    action = jnp.linspace(-1.5, 1.0, 17)
    after = env.step(state, action)
    moved = (after.physics.derived["subtree_com"] - state.physics.derived["subtree_com"])[0, :2]
    applied = 0.4 * np.clip(action, -1, 1)
    expected = 0.25 * np.dot(moved, task.spec) / 0.003 - control(0.1, applied) + 5
    np.testing.assert_allclose(after.reward, expected, rtol=1e-4)
    assert abs(np.dot(moved, task.spec)) > 1e-5
    np.testing.assert_allclose(after.metrics["gross_reward"], expected + control(0.1, applied), rtol=1e-4)
    assert env.spec.action_cost == pytest.approx(0.1 * 0.4**2)


@pytest.mark.parametrize(("ranges", "limit"), [(((-2, 2), (-2, 2)), 2), (((-1, 1), (-2, 2)), 0), (((0, 1), (0, 1)), 0)])
def test_a_cost_of_actions_is_stated_only_where_actuators_are_alike(ranges, limit):
    spec = environment(point.body(), point.physics()._replace(ctrl_range=ranges), "fast").spec
    assert spec.max_control == limit


def test_sparse_reward():
    _env, start, step = make("sparse_point_robot")
    goal = jnp.array([[0.6, 0.8]] * 3)
    task = Task(jnp.zeros(3, jnp.int32), goal, jnp.zeros(3, jnp.int32))
    at = goal + jnp.array([[0.05, 0.0], [0.19, 0.0], [0.21, 0.0]])
    after = step(start(jax.random.split(jax.random.key(0), 3), task, at, jnp.zeros((3, 0))), jnp.zeros((3, 2)))
    np.testing.assert_allclose(after.reward, [0.95, 0.81, 0.0], atol=1e-6)


def test_point_moves_by_a_tenth_of_the_clipped_action():
    _env, start, step = make("point_robot")
    task = Task(jnp.zeros(1, jnp.int32), jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32))
    state = start(jax.random.split(jax.random.key(0), 1), task, jnp.array([[0.5, -0.5]]), jnp.zeros((1, 0)))
    np.testing.assert_allclose(step(state, jnp.array([[1.0, -3.0]])).obs, [[0.6, -0.6]], atol=1e-6)


def test_torso_position_is_mujocos():
    env, start, _step = make("cheetah_vel")
    model = models.load("half_cheetah.xml")
    qpos, qvel, _ = injected(env, 8)
    tasks = env.sample_tasks(jax.random.key(0), "train", 8)
    obs = start(jax.random.split(jax.random.key(0), 8), tasks, jnp.asarray(qpos), jnp.asarray(qvel)).obs
    data = mujoco.MjData(model)
    for i in range(8):
        data.qpos[:] = qpos[i]
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(obs[i, -3:], data.body("torso").xpos, rtol=1e-6, atol=1e-6)


def idle_returns(name):
    """Return of one episode of zero actions on every training task, and the tasks."""
    env = envs.make(name, "native")
    n = env.train_tasks.label.shape[0]
    state = jax.vmap(env.reset)(jax.random.split(jax.random.key(3), n), env.train_tasks)

    def body(state, _):
        state = jax.vmap(env.step)(state, jnp.zeros((n, env.spec.action_size)))
        return state, state.reward

    return env, np.asarray(jax.jit(lambda s: jax.lax.scan(body, s, None, 200)[1])(state).sum(0))


def test_idle_costs_one_per_step_on_every_subtask():
    """-200 within 5; standing within 13: the body settles pitched by 0.05 rad, a share of its goal."""
    env, returns = idle_returns("cheetah_multitask")
    label = np.asarray(env.train_tasks.label)
    means = {name: returns[label == i].mean() for i, name in enumerate(env.spec.subtasks)}
    for name, mean in means.items():
        assert abs(mean + 200) < (13 if name.startswith("stand") else 5), means
    assert abs(0.5 * (means["stand_front"] + means["stand_back"]) + 200) < 5, means


def test_idle_return_of_cheetah_vel():
    env, returns = idle_returns("cheetah_vel")
    np.testing.assert_allclose(returns, -200 * np.asarray(env.train_tasks.spec[:, 0]), atol=5.0)
