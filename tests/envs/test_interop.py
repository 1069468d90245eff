"""Our environments in Brax's and Gymnasium's hands."""

import brax.envs
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from envs import ConfigurationError
from envs.interop import to_brax, to_gymnasium
from tests.helpers import quick_compilation

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)


def test_brax_rollout_through_its_own_wrappers():
    """Same rewards as ours; the time limit is a truncation, falling is not; episodes begin anew."""
    horizon, lanes = 8, 3
    env = envs.make("walker_friction", "native", horizon=horizon)
    theirs = brax.envs.training.wrap(to_brax(env), episode_length=horizon)
    assert (theirs.observation_size, theirs.action_size, theirs.backend) == (17, 6, "native")
    actions = jax.random.uniform(jax.random.key(1), (20, lanes, 6), minval=-1, maxval=1)
    first = jax.jit(theirs.reset)(jax.random.split(jax.random.PRNGKey(0), lanes))

    def step(state, action):
        after = theirs.step(state, action)
        return after, (after.obs, after.reward, after.done, after.info["truncation"], after.info["steps"])

    obs, reward, done, truncation, steps = jax.jit(lambda s, a: jax.lax.scan(step, s, a)[1])(first, actions)
    np.testing.assert_array_equal(steps[:, 0], 1 + np.arange(20) % horizon)
    np.testing.assert_array_equal(done, (1 + np.arange(20)[:, None] % horizon == horizon) * np.ones(lanes))
    np.testing.assert_array_equal(truncation, done)
    np.testing.assert_array_equal(obs[horizon - 1], first.obs)  # Brax returns to the first state
    state, ours = first.pipeline_state, []
    for action in actions[:horizon]:
        state = jax.jit(jax.vmap(env.step))(state, action)
        ours.append(state.reward)
    np.testing.assert_allclose(reward[:horizon], np.stack(ours), rtol=1e-5)


def test_brax_done_is_termination():
    env = to_brax(envs.make("ant_dir", "native"))
    state = env.reset(jax.random.key(0))
    fallen = state.pipeline_state.physics._replace(qpos=state.pipeline_state.physics.qpos.at[2].set(5.0))
    after = env.step(state.replace(pipeline_state=state.pipeline_state._replace(physics=fallen)), jnp.zeros(8))
    assert after.done == 1.0
    np.testing.assert_array_equal(after.obs, after.pipeline_state.final_obs)
    assert after.obs[0] > 4.0  # where it ended, not where the next episode begins
    broken = state.pipeline_state.physics._replace(qvel=jnp.full(14, jnp.nan))
    after = env.step(state.replace(pipeline_state=state.pipeline_state._replace(physics=broken)), jnp.zeros(8))
    assert after.done == 1.0 and after.metrics["diverged"] == 1.0 and np.all(np.isfinite(after.obs))
    repeated = env.step(after, jnp.zeros(8))  # as an action repeat does
    assert repeated.done == 1.0 and repeated.metrics["diverged"] == 1.0 and repeated.reward == 0.0


class OneLane(gymnasium.Env):
    """The view of a vector environment of one lane that Gymnasium's checker knows."""

    def __init__(self, vector):
        self.vector = vector
        self.observation_space, self.action_space = vector.single_observation_space, vector.single_action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        obs, info = self.vector.reset(seed=seed, options=options)
        return obs[0], info

    def step(self, action):
        obs, reward, terminated, truncated, info = self.vector.step(np.asarray(action)[None])
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info


@pytest.mark.filterwarnings("ignore:.*Box observation space m.* value is .*infinity.*")
def test_gymnasium_checks():
    check_env(OneLane(to_gymnasium(envs.make("cheetah_vel", "native"), 1)), skip_render_check=True)


def test_gymnasium_vector_environment():
    env = envs.make("cheetah_dir", "native", horizon=4)
    vector = to_gymnasium(env, 5)
    obs, info = vector.reset(seed=3)
    assert obs in vector.observation_space and info == {} and obs.dtype == np.float32
    again, _ = to_gymnasium(env, 5).reset(seed=3)
    np.testing.assert_array_equal(obs, again)
    assert not np.array_equal(obs, vector.reset()[0])
    vector.action_space.seed(0)
    for t in range(1, 10):
        obs, reward, terminated, truncated, info = vector.step(vector.action_space.sample())
        assert obs in vector.observation_space and reward.shape == (5,) and reward.dtype == np.float64
        assert not terminated.any() and (truncated == (t % 4 == 0)).all()
        assert ("final_obs" in info) == (t % 4 == 0)
        if info:
            assert info["_final_obs"].all() and np.abs(info["final_obs"] - obs).max() > 0.1
            assert np.abs(obs[:, :8]).max() < 0.2  # a new episode
    tasks = jax.tree.map(lambda x: x[jnp.array([1, 1, 0, 1, 0])], env.test_tasks)
    vector.reset(options={"tasks": tasks})
    np.testing.assert_array_equal(vector.tasks.spec, tasks.spec)
    statistics = gymnasium.wrappers.vector.RecordEpisodeStatistics(vector)
    statistics.reset(seed=0)
    for _ in range(4):
        *_, info = statistics.step(np.zeros((5, 6), np.float32))
    np.testing.assert_array_equal(info["episode"]["l"], 4)
    vector.close()


def test_wrong_sizes():
    env = envs.make("cheetah_dir", "native")
    with pytest.raises(ConfigurationError, match="num_envs must be >= 1, got 0"):
        to_gymnasium(env, 0)
    with pytest.raises(ConfigurationError, match="of shape \\(2,\\) for 3 lanes"):
        to_gymnasium(env, 3).reset(options={"tasks": env.test_tasks})
    for wrong, message in (
        (env.sample_tasks(jax.random.key(0), "train", 3)._replace(family=np.full(3, 7)), "families beyond the 1"),
        (env.sample_tasks(jax.random.key(0), "train", 3)._replace(spec=np.ones((3, 2))), "specs of shape"),
        ({"family": 0}, "must be an envs.Task, got a dict"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            to_gymnasium(env, 3).reset(options={"tasks": wrong})
    with pytest.raises(ConfigurationError, match="unknown option of reset 'reset_mask'"):
        to_gymnasium(env, 3).reset(options={"reset_mask": np.ones(3, bool)})
    with pytest.raises(ConfigurationError, match=r"an action here has shape \(6,\), got \(1,\)"):
        (vector := to_gymnasium(env, 3)).reset(seed=0)
        vector.step(np.zeros((3, 1)))
    for num_envs in ("3", 2.5, True):
        with pytest.raises(ConfigurationError, match="num_envs must be an integer"):
            to_gymnasium(env, num_envs)
    with pytest.raises(gymnasium.error.ResetNeeded):
        to_gymnasium(env, 3).step(np.zeros((3, 6)))
    with pytest.raises(gymnasium.error.ResetNeeded):
        _ = to_gymnasium(env, 3).tasks
    for build in (to_brax, lambda env, split: to_gymnasium(env, 3, split)):
        with pytest.raises(ConfigurationError, match="unknown split 'tset': did you mean test"):
            build(env, "tset")


def test_a_lane_that_diverges_is_marked():
    vector = to_gymnasium(envs.make("cheetah_vel", "native"), 3)
    vector.reset(seed=0)
    assert "diverged" not in vector.step(np.zeros((3, 6)))[-1]
    actions = np.zeros((3, 6))
    actions[1] = np.nan
    obs, _, _, truncated, info = vector.step(actions)
    np.testing.assert_array_equal(info["diverged"], [False, True, False])
    np.testing.assert_array_equal(truncated, [False, True, False])
    assert np.isfinite(obs).all()
