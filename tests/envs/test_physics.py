"""The engines against plain MuJoCo and against each other; divergence; batching."""

import copy
import os
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import envs
from envs import ConfigurationError
from envs.physics import capsules, mjx, models, native
from envs.physics.base import is_finite
from tests.helpers import float64, quick_compilation

quick = pytest.fixture(quick_compilation)
BODIES = ("half_cheetah", "ant")


def random_starts(model, num, seed=0):
    """qpos [num, nq], qvel [num, nv] and 200 random controls [200, num, nu]."""
    rng = np.random.default_rng(seed)
    qpos = model.qpos0 + rng.uniform(-0.1, 0.1, (num, model.nq))
    if model.nq > model.nv:  # a free joint: a unit quaternion, as any state that an engine returns has
        qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=-1, keepdims=True)
    qvel = 0.1 * rng.standard_normal((num, model.nv))
    return qpos, qvel, rng.uniform(-1.0, 1.0, (200, num, model.nu))


def trajectory(physics, qpos, qvel, ctrls, n=1):
    """PhysicsState [T, num, ...] after each of T steps of n substeps."""

    def body(state, ctrl):
        after = jax.vmap(physics.step, in_axes=(0, 0, None))(state, ctrl, n)
        return after, after

    start = jax.vmap(physics.init)(jnp.asarray(qpos), jnp.asarray(qvel))
    return jax.block_until_ready(jax.jit(lambda s, c: jax.lax.scan(body, s, c)[1])(start, jnp.asarray(ctrls)))


@cache
def native_float64(body):
    """Model, starts, controls and native's trajectory of 8 simulations over 200 physics steps."""
    model = models.load(f"{body}.xml")
    qpos, qvel, ctrls = random_starts(model, 8)
    with float64():
        return model, qpos, qvel, ctrls, trajectory(native.make(model), qpos, qvel, ctrls)


@pytest.mark.parametrize("body", BODIES)
def test_native_is_plain_mujoco_to_the_bit(body):
    model, qpos, qvel, ctrls, states = native_float64(body)
    assert states.qpos.dtype == np.float64
    contacts = 0
    for i in range(qpos.shape[0]):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = qpos[i], qvel[i]
        for t in range(ctrls.shape[0]):
            data.ctrl[:] = ctrls[t, i]
            mujoco.mj_step(model, data)
            contacts += data.ncon
            np.testing.assert_array_equal(states.qpos[t, i], data.qpos)
            np.testing.assert_array_equal(states.qvel[t, i], data.qvel)
    assert contacts > 300


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("body", BODIES)
def test_mjx_follows_native(body):
    """Every step of 200 from native's own state, and 200 steps on its own.

    Contacts are chaotic: rounding grows a millionfold in 200 steps, and in one ant of eight beyond 1e-8.
    """
    model, qpos, qvel, ctrls, states = native_float64(body)
    with float64():
        physics = mjx.make(model)
        start = jax.vmap(physics.init)(jnp.asarray(qpos), jnp.asarray(qvel))
        before = jax.tree.map(lambda x, x0: jnp.concatenate([x0[None], x[:-1]]), states, start)

        def step(own, inputs):
            given, ctrl = inputs
            both = jax.tree.map(lambda *x: jnp.concatenate(x), own, given)
            after = jax.vmap(lambda s, c: physics.step(s, c, 1))(both, jnp.concatenate([ctrl, ctrl]))
            own = jax.tree.map(lambda x: x[:8], after)
            return own, (own, jax.tree.map(lambda x: x[8:], after))

        _, (own, single) = jax.jit(lambda s, x: jax.lax.scan(step, s, x))(start, (before, jnp.asarray(ctrls)))
    np.testing.assert_allclose(single.qpos, states.qpos, rtol=0, atol=1e-12)
    np.testing.assert_allclose(single.qvel, states.qvel, rtol=0, atol=1e-10)
    np.testing.assert_allclose(single.time, states.time, rtol=0, atol=1e-12)
    drift = np.max(np.abs(own.qpos - states.qpos), -1)
    assert np.max(drift[:100]) < 1e-8
    assert np.sum(np.max(drift, 0) < 1e-8) >= 7


def test_capsule_contacts_are_the_c_engines():
    """At every tilt, also where MJX's own tangents differ (steeper than 60 degrees), in double precision."""
    spec = mujoco.MjSpec.from_string(
        "<mujoco><worldbody><geom type='plane' size='1 1 1'/><geom type='sphere' size='.1' pos='.12 0 .2'/>"
        "<geom type='capsule' size='.05 .2' pos='-.1 .05 .2' euler='70 10 0'/>"
        "<body><freejoint/><geom type='capsule' size='.1 .2'/></body></worldbody></mujoco>"
    )
    model = spec.compile()
    capsules.repair()
    seen = set()
    with float64():
        device_model = mjx.mjx.put_model(model, impl="jax")
        collide = jax.jit(lambda m, d: mjx.mjx.collision(m, mjx.mjx.kinematics(m, d)))
        for tilt in (0.0, 0.2, 0.5, 0.6, 1.5):
            data = mujoco.MjData(model)
            tilted = [np.cos(tilt / 2), 0.6 * np.sin(tilt / 2), 0.8 * np.sin(tilt / 2), 0]
            data.qpos[:] = [0, 0, 0.15, *tilted]
            mujoco.mj_forward(model, data)
            device_data = collide(device_model, mjx.mjx.make_data(device_model).replace(qpos=jnp.asarray(data.qpos)))
            contact = device_data._impl.contact
            for c in data.contact:
                pair = np.all(np.sort(contact.geom) == np.sort(c.geom), -1)
                nearest = np.argmin(np.abs(np.asarray(contact.dist) - c.dist) + 10.0 * ~pair)
                seen.add(tuple(model.geom_type[c.geom]))
                np.testing.assert_allclose(contact.frame[nearest].ravel(), c.frame, atol=1e-12)
                np.testing.assert_allclose(contact.pos[nearest], c.pos, atol=1e-12)
    assert len(seen) == 3


# Single precision: one control step from many states. Errors are relative to 1 + the largest speed of the state,
# because a contact that opens or closes one substep earlier changes every velocity by a share of it.


@cache
def visited(body):
    """States [64, ...] after 60 random control steps, where feet touch the ground, and controls [64, nu]."""
    model = models.load(f"{body}.xml")
    qpos, qvel, ctrls = random_starts(model, 64, seed=1)
    states = trajectory(native.make(model), qpos, qvel, ctrls[:60].astype(np.float32), n=5)
    return jax.tree.map(lambda x: x[-1], states), jnp.asarray(ctrls[60], jnp.float32)


@cache
def stepper(make, body):
    """One engine's jitted control step, shared by all tests."""
    physics = make(models.load(f"{body}.xml"))
    return jax.jit(jax.vmap(lambda s, c: physics.step(s, c, 5)))


def error(step, body):
    """[64] velocity error of one control step, relative to 1 + the state's largest speed."""
    after, right = step(*visited(body)), stepper(native.make, body)(*visited(body))
    assert after.qvel.dtype == jnp.float32
    assert bool(jnp.all(jax.vmap(is_finite)(after)))
    return np.asarray(jnp.max(jnp.abs(after.qvel - right.qvel), -1) / (1.0 + jnp.max(jnp.abs(right.qvel), -1)))


BOUND = 2e-5
"""Measured: at most 1e-5, the median 1e-7 to 1e-6, on both bodies and both engines."""


def single_precision(body, make):
    """Every state within the bound; a gain or a friction that is 1 % wrong is far outside it."""
    errors = error(stepper(make, body), body)
    assert np.max(errors) < BOUND, np.sort(errors)[-8:]
    for field in ("actuator_gear", "geom_friction"):

        def wrong(model, field=field):
            model = copy.copy(model)
            getattr(model, field)[:] *= 1.01
            return native.make(model)

        off = error(stepper(wrong, body), body)
        assert np.max(off) > 20 * BOUND, (field, np.sort(off)[-8:])


@pytest.mark.parametrize("body", BODIES)
def test_mjx_in_single_precision(body):
    single_precision(body, mjx.make)


@pytest.mark.parametrize("body", BODIES)
def test_warp_in_single_precision(body):
    from envs.physics import warp

    single_precision(body, warp.make)


def test_warp_overflow_is_divergence():
    from envs.physics import warp

    after = stepper(partial(warp.make, capacity=0.1), "half_cheetah")(*visited("half_cheetah"))
    assert not bool(jnp.all(jax.vmap(is_finite)(after)))


def test_a_solver_of_warp_that_stops_at_its_limit_has_not_diverged():
    """It is not as near to the solution, no more."""
    from envs.physics import warp

    def hurried(model):
        model = copy.copy(model)
        model.opt.iterations = model.opt.ls_iterations = 1
        return warp.make(model)

    states, ctrls = visited("half_cheetah")
    after = stepper(hurried, "half_cheetah")(states, ctrls)
    right = stepper(native.make, "half_cheetah")(states, ctrls)
    assert bool(jnp.all(jax.vmap(is_finite)(after)))
    assert np.abs(after.qvel - right.qvel).max() > 1e-3  # it did stop early


def test_native_under_nested_vmap_and_eager():
    model = models.load("half_cheetah.xml")
    physics = native.make(model)
    qpos, qvel, ctrls = random_starts(model, 6)
    states = jax.vmap(physics.init)(jnp.asarray(qpos), jnp.asarray(qvel))
    ctrl = jnp.asarray(ctrls[0], jnp.float32)
    flat = jax.vmap(lambda s, c: physics.step(s, c, 5))(states, ctrl)
    nested = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), (states, ctrl))
    twice = jax.jit(jax.vmap(jax.vmap(lambda s, c: physics.step(s, c, 5))))(*nested)
    one = physics.step(jax.tree.map(lambda x: x[4], states), ctrl[4], 5)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.reshape(a.shape)), flat, twice)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[4], b), flat, one)


@pytest.mark.parametrize("make", [native.make, mjx.make], ids=["native", "mjx"])
def test_divergence_is_visible(make):
    """A state that is not one comes back as none, and leaves its neighbours alone."""
    states, ctrls = visited("half_cheetah")
    qvel = states.qvel.at[3, 2].set(jnp.nan).at[5, 0].set(jnp.inf).at[7, 4].set(1e30)
    qpos = states.qpos.at[9, 1].set(jnp.nan)
    after = stepper(make, "half_cheetah")(states._replace(qpos=qpos, qvel=qvel), ctrls)
    ok = np.asarray(jax.vmap(is_finite)(after))
    np.testing.assert_array_equal(np.flatnonzero(~ok), [3, 5, 7, 9])


def test_divergence_is_silent(tmp_path):
    """No warning on the terminal and no MUJOCO_LOG.TXT, also for the model file's own deprecation."""
    code = (
        "import numpy as np, jax, jax.numpy as jnp\n"
        "from envs.physics import models, native\n"
        "physics = native.make(models.load('half_cheetah.xml'))\n"
        "jax.block_until_ready(physics.step(physics.init(jnp.full(9, np.nan), jnp.zeros(9)), jnp.zeros(6), 5))\n"
    )
    root = str(Path(envs.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_many_threads_are_silent_together():
    """The last of them restores what the first one found."""
    found = mujoco.MjLogConfig.get().logto_console
    with models.quiet(), models.quiet():
        assert not mujoco.MjLogConfig.get().logto_console
    first, second = models.quiet(), models.quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not mujoco.MjLogConfig.get().logto_console
    second.__exit__(None, None, None)
    assert mujoco.MjLogConfig.get().logto_console == found


@pytest.mark.parametrize(
    ("actuator", "message"),
    [
        ('<motor joint="hinge" name="knee"/>', """actuator 'knee' needs a range of its control"""),
        ('<position joint="hinge" ctrlrange="-1 1"/>', "actuator 0 must be a motor"),
        ('<motor site="tip" ctrlrange="-1 1"/>', "must drive a joint"),
        ('<general joint="hinge" ctrlrange="-1 1" dyntype="integrator"/>', "activation state"),
        ('<motor joint="hinge" ctrlrange="-1 1" forcerange="-.5 .5"/>', "limited control, not a limited force"),
        ('<motor joint="ball" ctrlrange="-1 1" gear="0 3 0"/>', "must drive a hinge or a slide"),
        ('<motor knee="hinge"/>', "is no model that MuJoCo reads: XML Error"),
        ('<motor joint="hinge" ctrlrange="-1 1" gear="3"/>', ""),
    ],
)
def test_actuators_that_a_state_does_not_describe_are_refused(tmp_path, actuator, message):
    parts = '<geom size="0.1"/><body><joint name="ball" type="ball"/><geom size="0.1"/></body><site name="tip"/>'
    body = f'<body name="leg"><joint name="hinge"/>{parts}</body>'
    file = tmp_path / "own.xml"
    file.write_text(f"<mujoco><worldbody>{body}</worldbody><actuator>{actuator}</actuator></mujoco>")
    if not message:
        assert native.make(models.load(str(file))).ctrl_range == ((-1.0, 1.0),)
        return
    with pytest.raises(ConfigurationError, match=message) as error:
        native.make(models.load(str(file)))
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigurationError, match=f"there is no model file {file}x"):
        models.load(f"{file}x")


def test_reference_variant_is_the_file_as_shipped():
    ant = models.load("ant.xml", "reference")
    assert ant.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    assert (ant.opt.iterations, ant.opt.ls_iterations) == (100, 50)
    assert models.load("ant.xml").opt.integrator == mujoco.mjtIntegrator.mjINT_EULER


@pytest.mark.parametrize("file", ["half_cheetah.xml", "ant.xml", "walker2d_v5.xml", "hopper.xml", "humanoid.xml"])
def test_fast_iterations_change_no_trajectory(file):
    """With those of the file, every step leads from the same state to the same; a humanoid's to rounding."""
    fast = models.load(file)
    shipped = copy.copy(fast)
    shipped.opt.iterations, shipped.opt.ls_iterations = 100, 50
    qpos, _, ctrls = random_starts(fast, 4)
    iterations, contacts = 0, 0
    for i in range(4):
        ours, theirs = mujoco.MjData(fast), mujoco.MjData(shipped)
        ours.qpos[:] = qpos[i]
        for ctrl in ctrls[:, i] * fast.actuator_ctrlrange[:, 1]:
            for name in ("qpos", "qvel", "qacc_warmstart"):
                getattr(theirs, name)[:] = getattr(ours, name)
            ours.ctrl[:] = theirs.ctrl[:] = ctrl
            mujoco.mj_step(fast, ours)
            mujoco.mj_step(shipped, theirs)
            iterations, contacts = max(iterations, *theirs.solver_niter), contacts + theirs.ncon
            np.testing.assert_allclose(ours.qvel, theirs.qvel, rtol=0, atol=1e-13 if file == "humanoid.xml" else 0)
    assert iterations < models.FAST_ITERATIONS and contacts > 50


def test_state_is_the_whole_truth():
    """Continuing from a copied state, in another engine object, gives the same trajectory."""
    model = models.load("ant.xml")
    qpos, qvel, ctrls = random_starts(model, 4)
    whole = trajectory(native.make(model), qpos, qvel, ctrls[:20].astype(np.float32))
    middle = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[9]), whole)
    physics = native.make(model)
    for t in range(10, 20):
        middle = jax.vmap(lambda s, c: physics.step(s, c, 1))(middle, jnp.asarray(ctrls[t], jnp.float32))
    np.testing.assert_array_equal(middle.qpos, whole.qpos[-1])
