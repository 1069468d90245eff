"""Simulations with models of their own: the same on every engine, and never silently ignored."""

import copy
import importlib.util
from functools import cache

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import envs
from envs.benchmarks import _NUM_WALKER_PARAMS, _WALKER_PARAMS
from envs.physics import dynamics, mjx, models, native
from tests.helpers import float64, quick_compilation

quick = pytest.fixture(autouse=True)(quick_compilation)
VARIED = dynamics.with_derived(_WALKER_PARAMS.names)
NUM, STEPS = 4, 100


def fields(model, num=NUM):
    """Fields [num, ...] of `num` walkers."""
    spec = jax.random.uniform(jax.random.key(0), (num, _NUM_WALKER_PARAMS), minval=-3.0, maxval=3.0)
    return jax.vmap(lambda s: _WALKER_PARAMS.fields(model, s))(spec)


def own_model(model, fields, i):
    """Simulation i's model, its constants from MuJoCo's own compiler."""
    own = copy.copy(model)
    for name in _WALKER_PARAMS.names:
        getattr(own, name)[:] = fields[name][i]
    mujoco.mj_setConst(own, mujoco.MjData(own))
    return own


def start(model, physics, fields):
    """Walkers in the air above the ground, about to land: states [NUM, ...] and controls [STEPS, NUM, nu]."""
    rng = np.random.default_rng(0)
    qpos = model.qpos0 + rng.uniform(-0.05, 0.05, (NUM, model.nq))
    state = jax.vmap(physics.init)(jnp.asarray(qpos), jnp.zeros((NUM, model.nv)))
    own = {name: fields[name].astype(x.dtype) for name, x in state.model.items()}
    return state._replace(model=own), jnp.asarray(rng.uniform(-1, 1, (STEPS, NUM, model.nu)), state.qpos.dtype)


@cache
def native_run():
    """Model, fields, and native's states [STEPS, NUM, ...] with the states before them, in float64."""
    model = models.load("walker2d_v5.xml")
    with float64():
        physics, own = native.make(model, VARIED), fields(model)
        first, ctrls = start(model, physics, own)

        def step(state, ctrl):
            after = jax.vmap(physics.step, in_axes=(0, 0, None))(state, ctrl, 1)
            return after, (state, after)

        before, after = jax.block_until_ready(jax.jit(lambda s, c: jax.lax.scan(step, s, c)[1])(first, ctrls))
    return model, jax.tree.map(np.asarray, own), ctrls, before, after


@pytest.mark.parametrize("file", ["walker2d_v5.xml", "hopper.xml"])
def test_constants_are_those_of_mujoco(file):
    model, rng = models.load(file), np.random.default_rng(1)
    factors = {name: 1.5 ** rng.uniform(-3, 3, getattr(model, name).shape) for name in dynamics.INERTIAL}
    right = copy.copy(model)
    for name, factor in factors.items():
        getattr(right, name)[:] *= factor
    mujoco.mj_setConst(right, mujoco.MjData(right))
    with float64():
        ours = dynamics.scaled(model, factors)
    assert set(ours) == {*factors, *dynamics.DERIVED}
    for name, value in ours.items():
        np.testing.assert_allclose(value, getattr(right, name), rtol=1e-10, atol=1e-12, err_msg=name)
        assert np.abs(np.asarray(value) - getattr(model, name)).max() > 0.01 * np.abs(value).max(), name


def test_a_quaternion_joint_is_refused():
    with pytest.raises(envs.ConfigurationError, match="hinge and slide"):
        dynamics.scaled(models.load("ant.xml"), {"body_mass": jnp.asarray(2.0)})


def test_native_is_mujoco_with_that_model():
    model, own, ctrls, _, after = native_run()
    contacts = 0
    for i in range(NUM):
        plain = own_model(model, own, i)
        data = mujoco.MjData(plain)
        data.qpos[:] = np.asarray(native_run()[3].qpos[0, i])
        for t in range(STEPS):
            data.ctrl[:] = ctrls[t, i]
            mujoco.mj_step(plain, data)
            contacts += data.ncon
            np.testing.assert_allclose(after.qpos[t, i], data.qpos, rtol=0, atol=1e-9)
    assert contacts > 50


def test_mjx_follows_native():
    """One substep from each of native's states, in float64."""
    model, _, ctrls, before, after = native_run()
    with float64():
        physics = mjx.make(model, VARIED)
        step = jax.jit(jax.vmap(jax.vmap(lambda s, c: physics.step(s, c, 1))))
        ours = step(before, ctrls)
    np.testing.assert_allclose(ours.qpos, after.qpos, rtol=0, atol=1e-8)
    np.testing.assert_allclose(ours.qvel, after.qvel, rtol=0, atol=1e-8)


def test_warp_follows_native():
    """One substep from each of native's states, in float32; errors relative to 1 + the state's largest speed."""
    from envs.physics import warp

    model, _, ctrls, before, after = native_run()
    single = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float32), (before, ctrls))
    flat = jax.tree.map(lambda x: x.reshape(STEPS * NUM, *x.shape[2:]), single)
    physics = warp.make(model, VARIED)
    ours = jax.jit(jax.vmap(lambda s, c: physics.step(s, c, 1)))(*flat)
    right = np.asarray(after.qvel).reshape(STEPS * NUM, -1)
    error = np.max(np.abs(ours.qvel - right), -1) / (1 + np.max(np.abs(right), -1))
    assert np.max(error) < 1e-3 and np.median(error) < 1e-5, np.sort(error)[-5:]


@pytest.mark.parametrize("engine", ["native", "mjx", "warp"])
def test_no_field_is_silently_ignored(engine):
    """Each varied field alone changes the motion, one simulation at a time."""
    model = models.load("walker2d_v5.xml")
    module = importlib.import_module(f"envs.physics.{engine}")
    physics = module.make(model, VARIED)
    names = _WALKER_PARAMS.names
    first = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[40], jnp.float32)[:1], native_run()[3])  # on the ground
    state = jax.tree.map(lambda x: jnp.repeat(x, len(names) + 1, 0), first)
    normal = {name: jnp.asarray(getattr(model, name), jnp.float32) for name in VARIED}
    rows = [normal | dynamics.scaled(model, {name: jnp.asarray(1.5)}) for name in names]
    own = {name: jnp.stack([normal[name], *(row[name].astype(jnp.float32) for row in rows)]) for name in VARIED}
    after = jax.jit(jax.vmap(lambda s: physics.step(s, jnp.ones(model.nu), 4)))(state._replace(model=own))
    moved = np.abs(np.asarray(after.qvel[1:] - after.qvel[0])).max(-1)
    assert (moved > 1e-3).all(), dict(zip(names, moved, strict=True))


def test_tasks_set_the_model_and_episodes_keep_it():
    env = envs.make("walker_mass", "native", horizon=3)
    model = models.load("walker2d_v5.xml")
    tasks = env.sample_tasks(jax.random.key(0), "train", 8)
    state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), 8), tasks)
    step, seen = jax.jit(jax.vmap(env.step)), []
    for _ in range(5):
        seen.append(state)
        state = step(state, jnp.full((8, 6), 0.3))
    assert any(np.any(s.truncated) for s in seen), "no episode ended"
    factor = 1.5 ** np.asarray(tasks.spec)
    for s in seen:
        np.testing.assert_allclose(s.physics.model["body_mass"], factor * model.body_mass, rtol=1e-5)
        np.testing.assert_allclose(s.physics.model["body_inertia"], factor[..., None] * model.body_inertia, rtol=1e-5)
    assert len(np.unique(np.asarray(seen[2].physics.qvel[:, -1]))) == 8
    one = jax.tree.map(lambda x: x[0], tasks)
    injected = env.state_from(jax.random.key(0), one, jnp.asarray(model.qpos0), jnp.zeros(9))
    np.testing.assert_allclose(injected.physics.model["body_mass"], factor[0] * model.body_mass, rtol=1e-5)


def test_friction_is_scaled_and_nothing_else():
    env, model = envs.make("hopper_friction", "native"), models.load("hopper.xml")
    for task in (env.train_tasks, env.test_tasks):
        state = env.reset(jax.random.key(0), jax.tree.map(lambda x: x[7], task))
        assert set(state.physics.model) == {"geom_friction"}
        factor = 1.5 ** float(task.spec[7, 0])
        np.testing.assert_allclose(state.physics.model["geom_friction"], factor * model.geom_friction, rtol=1e-5)


def test_every_walker_entry_has_its_own_factor():
    env = envs.make("walker_rand_params", "native")
    model = models.load("walker2d_v5.xml", timestep=0.004)
    task = jax.tree.map(lambda x: x[3], env.train_tasks)
    state = env.reset(jax.random.key(0), task)
    parts = np.split(np.asarray(task.spec), [8, 32, 56])
    for name, base, part in zip(_WALKER_PARAMS.names, (1.5, 1.5, 1.5, 1.3), parts, strict=True):
        expected = getattr(model, name) * base ** part.reshape(getattr(model, name).shape)
        np.testing.assert_allclose(state.physics.model[name], expected, rtol=1e-5)
    assert np.abs(env.train_tasks.spec).max() <= 3 and env.spec.dt == pytest.approx(0.016)
