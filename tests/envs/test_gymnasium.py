"""Our bodies against Gymnasium's own environments: other people's code, the same numbers."""

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import envs
from envs.bodies import ant, half_cheetah, hopper, humanoid, walker2d
from envs.bodies.base import environment
from envs.physics import load
from tests.helpers import float64, quick_compilation

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

# Gymnasium's name -> the same body; ER-TRL's walker has 5 substeps, this one Gymnasium's 4.
PAIRS = {
    "HalfCheetah-v5": half_cheetah.body(),
    "Ant-v5": ant.body(),
    "Walker2d-v5": walker2d.body(),
    "Hopper-v5": hopper.body(),
    "Humanoid-v5": humanoid.body(),
}
FALLS = ("Walker2d-v5", "Humanoid-v5")
"""Bodies that fall within the 50 steps; they are compared on the floor too."""


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_motion_as_gymnasium(name):
    """To the bit, 50 control steps of random actions from the same state, `reference` variant, native engine."""
    theirs = gymnasium.make(name).unwrapped
    theirs.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON  # ours for all bodies: MJX has no PGS
    theirs.reset(seed=0)
    rng = np.random.default_rng(0)
    qpos = theirs.init_qpos + rng.uniform(-0.05, 0.05, theirs.model.nq)
    if theirs.model.nq > theirs.model.nv:
        qpos[3:7] /= np.linalg.norm(qpos[3:7])
    qvel = 0.1 * rng.standard_normal(theirs.model.nv)
    theirs.set_state(qpos, qvel)
    theirs.data.qacc_warmstart[:] = 0.0
    with float64():
        body = PAIRS[name]
        env = environment(body, load(body, "native", "reference"), "reference")
        state = env.state_from(jax.random.key(0), env.train_tasks, jnp.asarray(qpos), jnp.asarray(qvel))
        step = jax.jit(env.step)
        assert env.spec.dt == pytest.approx(theirs.dt)
        fallen = 0
        for _ in range(50):
            action = rng.uniform(-1, 1, theirs.model.nu)
            state = step(state, jnp.asarray(action))
            ctrl = np.asarray(state.physics.ctrl)
            np.testing.assert_allclose(ctrl, action * theirs.model.actuator_ctrlrange[:, 1], rtol=0, atol=1e-15)
            theirs.do_simulation(ctrl, theirs.frame_skip)  # rounded as ours: a fallen body is chaotic
            np.testing.assert_array_equal(state.physics.qpos, theirs.data.qpos)
            np.testing.assert_array_equal(state.physics.qvel, theirs.data.qvel)
            fallen += bool(state.terminated)
        assert (fallen > 0) == (name in FALLS)
    theirs.close()


def test_derived_quantities_of_the_humanoid():
    """Against MuJoCo's forward pass at the same state, and Gymnasium's centre of mass."""
    model = gymnasium.make("Humanoid-v5").unwrapped.model
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    with float64():
        env = envs.make("humanoid_dir", "native", "reference")
        task = jax.tree.map(lambda x: x[0], env.train_tasks)
        qpos = model.qpos0 + rng.uniform(-0.2, 0.2, model.nq)
        qpos[3:7] /= np.linalg.norm(qpos[3:7])
        qvel = rng.standard_normal(model.nv)
        state = env.state_from(jax.random.key(0), task, jnp.asarray(qpos), jnp.asarray(qvel))
        after = env.step(state, jnp.asarray(rng.uniform(-1, 1, 17)))
    for s in (state, after):
        data.qpos[:], data.qvel[:], data.ctrl[:] = s.physics.qpos, s.physics.qvel, s.physics.ctrl
        mujoco.mj_forward(model, data)
        derived = s.physics.derived
        for name in ("cinert", "cvel"):
            np.testing.assert_allclose(derived[name], getattr(data, name), rtol=0, atol=1e-9)
        np.testing.assert_allclose(s.physics.qfrc_actuator, data.qfrc_actuator, rtol=0, atol=1e-9)
        mass = model.body_mass[:, None]
        np.testing.assert_allclose(derived["subtree_com"][0], (mass * data.xipos).sum(0) / mass.sum(), atol=1e-12)
        parts = [s.physics.qpos[2:], s.physics.qvel, data.cinert.ravel(), data.cvel.ravel(), data.qfrc_actuator]
        np.testing.assert_allclose(s.obs, np.concatenate(parts), atol=1e-9)
    assert np.abs(after.physics.qfrc_actuator).max() > 1.0
    assert np.abs(after.physics.ctrl).max() <= 0.4
