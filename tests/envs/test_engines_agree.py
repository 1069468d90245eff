"""Hoppers and humanoids: one step of each engine from each of native's own states, so that chaos adds nothing.

Half cheetah and ant are in test_physics.py, walkers, each with a model of its own, in test_dynamics.py.
"""

import importlib
from functools import cache

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import envs
from envs.bodies import humanoid
from envs.physics import models, native
from tests.envs.rolling import random_actions, roll, start
from tests.helpers import float64, quick_compilation

quick = pytest.fixture(autouse=True)(quick_compilation)
NUM, STEPS = 4, 40


def stepped(step, *inputs):
    """`step` at [time, lane], one time after the other: XLA's Cholesky can hang in large batches on a CPU."""
    return jax.block_until_ready(jax.jit(lambda x: jax.lax.map(lambda row: jax.vmap(step)(*row), x))(inputs))


def assert_same_motion(ours, right, engine):
    """To 1e-8; Warp, in float32, to 2e-5 of 1 + the state's largest speed."""
    scale = 1.0 + np.abs(right.qvel).max(-1, keepdims=True) if engine == "warp" else 1.0
    bound = 2e-5 if engine == "warp" else 1e-8
    assert np.max(np.abs(ours.qpos - right.qpos)) < bound
    assert np.max(np.abs(ours.qvel - right.qvel) / scale) < bound


def num_contacts(model, physics):
    data, total = mujoco.MjData(model), 0
    for qpos in np.asarray(physics.qpos).reshape(-1, model.nq):
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
        total += data.ncon
    return total


@cache
def hoppers():
    """States [STEPS, NUM, ...] before and after the steps of native hoppers, each with masses of its own."""
    env = envs.make("hopper_mass", "native", horizon=15)
    first = start(env, NUM)
    after = roll(env, first, STEPS)
    return jax.tree.map(lambda x, x0: jnp.concatenate([x0[None], x[:-1]]), after, first), after


@pytest.mark.parametrize("engine", ["mjx", "warp"])
@pytest.mark.filterwarnings("ignore:mjx is several times slower")
def test_an_environment_is_the_same_on_every_engine(engine):
    """Motion, rewards, ends, resets and the model that a task sets and every episode of it keeps."""
    with float64():
        before, right = hoppers()
        env = envs.make("hopper_mass", engine, horizon=15)
        ours = stepped(env.step, before, random_actions(env, NUM, STEPS))
    assert_same_motion(ours.physics, right.physics, engine)
    model = models.load("hopper.xml")
    assert num_contacts(model, right.physics) > 50 and np.any(right.truncated)
    for name in ("terminated", "truncated", "time"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(right, name))
    for name in ("reward", "final_obs"):
        np.testing.assert_allclose(getattr(ours, name), getattr(right, name), atol=2e-4 if engine == "warp" else 1e-8)
    factor = 1.5 ** np.asarray(right.task.spec)
    assert len(np.unique(factor)) == NUM
    for state in (ours, right):
        np.testing.assert_allclose(state.physics.model["body_mass"], factor * model.body_mass, rtol=1e-6)
        inertia = factor[..., None] * model.body_inertia
        np.testing.assert_allclose(state.physics.model["body_inertia"], inertia, rtol=1e-6)


@cache
def humanoids():
    """States [STEPS, NUM, ...] before and after every fourth substep of native humanoids that fall on themselves."""
    body = humanoid.body()
    model, rng = models.load(body.file), np.random.default_rng(0)
    physics = native.make(model, derived=body.derived)
    qpos = model.qpos0 + rng.uniform(-0.1, 0.1, (NUM, model.nq))
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=-1, keepdims=True)
    first = jax.vmap(physics.init)(jnp.asarray(qpos), jnp.asarray(0.1 * rng.standard_normal((NUM, model.nv))))
    ctrls = jnp.asarray(rng.uniform(-0.4, 0.4, (STEPS, NUM, model.nu)))

    def body_fn(state, ctrl):
        before = jax.vmap(lambda s, c: physics.step(s, c, 4))(state, ctrl)
        after = jax.vmap(lambda s, c: physics.step(s, c, 1))(before, ctrl)
        return after, (before, after)

    return jax.block_until_ready(jax.jit(lambda s, c: jax.lax.scan(body_fn, s, c)[1])(first, ctrls))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["mjx", "warp"])
def test_humanoids_and_what_is_derived_from_them_are_the_same(engine):
    """Falls and self-contacts included; inertias and velocities of all bodies about the centre of mass."""
    body = humanoid.body()
    with float64():
        before, right = humanoids()
        model = models.load(body.file)
        physics = importlib.import_module(f"envs.physics.{engine}").make(model, derived=body.derived)
        ours = stepped(lambda s, c: physics.step(s, c, 1), before, right.ctrl)
    assert num_contacts(model, right) > 100
    assert_same_motion(ours, right, engine)
    for name in body.derived:
        atol = 1e-4 if engine == "warp" else 1e-8
        np.testing.assert_allclose(ours.derived[name], right.derived[name], rtol=0, atol=atol, err_msg=name)
    np.testing.assert_allclose(ours.qfrc_actuator, right.qfrc_actuator, rtol=1e-6)
