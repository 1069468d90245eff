"""Our bodies against Gymnasium's own environments: other people's code, the same numbers."""

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import envs
from tests.helpers import float64

# Gymnasium's name -> benchmark on the same body with the same control step.
PAIRS = {
    "HalfCheetah-v5": "cheetah_vel",
    "Ant-v5": "ant_goal",
    "Walker2d-v5": "walker_friction",
    "Hopper-v5": "hopper_friction",
    "Humanoid-v5": "humanoid_dir",
}
FRAME_SKIP = {"Walker2d-v5": 5}  # ER-TRL's walker has 5 substeps, Gymnasium's 4


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_motion_as_gymnasium(name):
    """50 control steps of random actions from the same state, `reference` variant, native engine."""
    options = {"frame_skip": FRAME_SKIP[name]} if name in FRAME_SKIP else {}
    theirs = gymnasium.make(name, **options).unwrapped
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
        env = envs.make(PAIRS[name], "native", "reference", horizon=1000)
        task = jax.tree.map(lambda x: x[0], env.train_tasks)
        if env.spec.task_size == 1 and "friction" in PAIRS[name]:
            task = task._replace(spec=jnp.zeros(1))  # factor 1.5^0
        state = env.state_from(jax.random.key(0), task, jnp.asarray(qpos), jnp.asarray(qvel))
        step = jax.jit(env.step)
        assert env.spec.dt == pytest.approx(theirs.dt)
        compared = 0
        for _ in range(50):
            action = rng.uniform(-1, 1, theirs.model.nu)
            theirs.do_simulation(action * theirs.model.actuator_ctrlrange[:, 1], theirs.frame_skip)
            state = step(state, jnp.asarray(action))
            if state.terminated:
                break
            np.testing.assert_allclose(state.physics.qpos, theirs.data.qpos, rtol=0, atol=1e-8)
            np.testing.assert_allclose(state.physics.qvel, theirs.data.qvel, rtol=0, atol=1e-8)
            compared += 1
        assert compared >= 10
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
