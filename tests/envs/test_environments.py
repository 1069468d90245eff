"""Episodes: ends, resets, time, task changes, divergence, dtypes, batching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.bodies import ant, half_cheetah, hopper, humanoid, walker2d
from envs.bodies.base import Body
from envs.core import CHUNKS, update_few, update_where
from envs.physics import load
from envs.physics.base import cold_start
from envs.wrappers import reveal_task
from tests.envs.rolling import N, roll, start
from tests.helpers import quick_compilation

quick = pytest.fixture(quick_compilation)


@pytest.mark.usefixtures("quick")
def test_horizon_truncates_and_resets():
    env = envs.make("cheetah_vel", "native", horizon=5)
    first = start(env)
    states = roll(env, first, 12)
    np.testing.assert_array_equal(np.asarray(states.time[:, 0]), [1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2])
    np.testing.assert_array_equal(states.truncated[:, 0], np.arange(1, 13) % 5 == 0)
    assert not np.any(states.terminated)
    # The same episodes without a limit: final_obs is the observation that the reset hides.
    free = roll(envs.make("cheetah_vel", "native", horizon=100), first, 5)
    np.testing.assert_array_equal(free.obs[:5], states.final_obs[:5])
    np.testing.assert_array_equal(free.reward, states.reward[:5])
    done = np.asarray(states.truncated)
    np.testing.assert_array_equal(states.obs[~done], states.final_obs[~done])
    new = np.asarray(states.obs[4])
    assert np.all(np.any(new != np.asarray(states.final_obs[4]), -1))
    assert np.abs(new[:, :8]).max() <= 0.1 + 1e-6 and np.abs(new[:, 17]).max() <= 0.1 + 1e-6
    # Different lanes and different episodes begin differently; the task stays.
    assert len({tuple(x) for x in np.concatenate([new, states.obs[9], first.obs])}) == 3 * N
    np.testing.assert_array_equal(states.task.spec[-1], first.task.spec)


@pytest.mark.usefixtures("quick")
def test_a_fallen_ant_terminates_and_is_not_truncated():
    env = envs.make("ant_dir", "native", horizon=1)  # the limit is reached in the same step
    qpos = jnp.tile(jnp.zeros(15).at[2].set(0.75).at[3].set(1.0), (3, 1)).at[1, 2].set(1.5)
    keys = jax.random.split(jax.random.key(0), 3)
    tasks = env.sample_tasks(jax.random.key(1), "train", 3)
    state = jax.vmap(env.state_from)(keys, tasks, qpos, jnp.zeros((3, 14)))
    after = jax.jit(jax.vmap(env.step))(state, jnp.zeros((3, 8)))
    np.testing.assert_array_equal(after.terminated, [False, True, False])
    np.testing.assert_array_equal(after.truncated, [True, False, True])
    assert not np.any(after.metrics["diverged"])
    goal = envs.make("ant_goal", "native")
    state = jax.vmap(goal.state_from)(keys, goal.sample_tasks(jax.random.key(1), "train", 3), qpos, jnp.zeros((3, 14)))
    assert not np.any(jax.jit(jax.vmap(goal.step))(state, jnp.zeros((3, 8))).terminated)


@pytest.mark.parametrize(
    ("body", "size", "index", "alive", "dead"),
    [
        (ant.body(terminates=True), 15, 2, (0.2, 1.0), (0.19, 1.01)),
        (humanoid.body(), 24, 2, (1.0, 2.0), (0.99, 2.01)),
        (walker2d.body(), 9, 1, (0.81, 1.99), (0.8, 2.0)),
        (walker2d.body(), 9, 2, (-0.99, 0.99), (-1.0, 1.0)),
        (hopper.body(), 6, 1, (0.71, 5.0), (0.7,)),
        (hopper.body(), 6, 2, (-0.19, 0.19), (-0.2, 0.2)),
        (hopper.body(), 6, 4, (-99.0, 99.0), (-100.0, 100.0)),  # a joint angle, rad
        (hopper.body(), 6, 6 + 3, (-99.0, 99.0), (-100.0, 100.0)),  # a joint's speed, rad/s
    ],
    ids=lambda value: value.name if isinstance(value, Body) else "",
)
def test_where_an_episode_terminates(body, size, index, alive, dead):
    """One coordinate, of qpos and then qvel, at and beyond its bounds; all others as when the body stands."""
    standing = np.zeros(2 * size)
    standing[2 if size > 9 else 1] = {"ant": 0.75}.get(body.name, 1.25)
    for value in alive + dead:
        state = standing.copy()
        state[index] = value
        healthy = body.healthy(cold_start(*jnp.split(jnp.asarray(state), 2)))
        assert bool(healthy) is (value in alive), value


@pytest.mark.parametrize(
    ("body", "position", "speed"),
    [
        (half_cheetah.body(), 0.1, None),
        (ant.body(), 0.1, None),
        (walker2d.body(), 0.005, 0.005),
        (hopper.body(), 0.005, 0.005),
        (humanoid.body(), 0.01, 0.01),
    ],
    ids=lambda value: value.name if isinstance(value, Body) else "",
)
def test_noise_at_an_episodes_start(body, position, speed):
    """Uniform within the bounds, in every coordinate; the speeds of cheetah and ant are 0.1 N(0, 1)."""
    physics = load(body, "native")
    qpos, qvel = jax.vmap(lambda key: body.initial(physics, key))(jax.random.split(jax.random.key(0), 500))
    noise = np.asarray(qpos - physics.qpos0)
    for values, bound in ((noise, position), (np.asarray(qvel), speed)):
        if bound is None:
            np.testing.assert_allclose(values.std(0), 0.1, rtol=0.15)
            assert np.abs(values).max() > 0.3
        else:
            assert np.abs(values).max() <= bound * 1.001
            np.testing.assert_allclose(values.std(0), bound / np.sqrt(3), rtol=0.15)
        assert np.abs(np.corrcoef(values.T) - np.eye(values.shape[1])).max() < 0.25


def test_nothing_not_finite_leaves():
    """A NaN state, an exploding one and a NaN action: truncated, counted, worth nothing; neighbours are untouched."""
    env = envs.make("cheetah_vel", "native")
    state = start(env, 4)
    physics = state.physics._replace(qvel=state.physics.qvel.at[0, 0].set(jnp.nan).at[1, 1].set(1e30))
    actions = jnp.zeros((4, 6)).at[2, 3].set(jnp.nan)
    step = jax.jit(jax.vmap(env.step))
    after, plain = step(state._replace(physics=physics), actions), step(state, jnp.zeros((4, 6)))
    np.testing.assert_array_equal(after.metrics["diverged"], [True, True, True, False])
    np.testing.assert_array_equal(after.truncated, [True, True, True, False])
    assert not np.any(after.terminated)
    np.testing.assert_array_equal(after.reward[:3], 0.0)
    for leaf in jax.tree.leaves((after.obs, after.final_obs, after.reward, after.physics)):
        assert np.all(np.isfinite(leaf))
    np.testing.assert_array_equal(after.obs[3], plain.obs[3])
    np.testing.assert_array_equal(after.time, [0, 0, 0, 1])
    assert np.all(np.isfinite(step(after, jnp.zeros((4, 6))).obs))


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("name", ["cheetah_vel_nonstat", "ant_multitask", "point_robot"])
def test_state_keeps_its_types(name, x64):
    with jax.enable_x64(x64):
        env = envs.make(name, "native")
        task = env.sample_tasks(jax.random.key(0), "train", 1)
        state = jax.eval_shape(jax.vmap(env.reset), jax.random.split(jax.random.key(0), 1), task)
        after = jax.eval_shape(jax.vmap(env.step), state, jax.ShapeDtypeStruct((1, env.spec.action_size), jnp.float32))
        assert state == after
        assert state.obs.dtype == (jnp.float64 if x64 else jnp.float32)
        assert state.reward.dtype == state.obs.dtype and state.time.dtype == jnp.int32


def test_seeds_times_lanes_is_one_batch():
    env = envs.make("cheetah_vel", "native", horizon=3)
    flat = start(env, 6)
    nested = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), flat)
    actions = jax.random.uniform(jax.random.key(4), (5, 6, 6), minval=-1.0, maxval=1.0)
    one = jax.jit(jax.vmap(env.step))
    two = jax.jit(jax.vmap(jax.vmap(env.step)))
    for action in actions:
        flat, nested = one(flat, action), two(nested, action.reshape(2, 3, 6))
    for a, b in zip(jax.tree.leaves(flat._replace(key=None)), jax.tree.leaves(nested._replace(key=None)), strict=True):
        np.testing.assert_allclose(a, b.reshape(a.shape), rtol=1e-6, atol=1e-6)
    single = env.step(jax.tree.map(lambda x: x[0], flat), actions[0, 0])
    np.testing.assert_allclose(single.obs, one(flat, actions[0]).obs[0], rtol=1e-6, atol=1e-6)


def test_the_same_seed_is_the_same_episode():
    env = envs.make("ant_dir", "native", horizon=4)
    a, b, c = (roll(env, start(env, 2, seed), 6, seed=7) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.obs, b.obs)
    assert np.any(np.asarray(a.obs) != np.asarray(c.obs))


@pytest.mark.parametrize("apply", (update_where, update_few))
def test_update_where_does_no_work_in_vain(apply):
    calls = []

    def update(x):
        jax.debug.callback(lambda: calls.append(1))
        return x + 1.0

    step = jax.jit(jax.vmap(jax.vmap(lambda c, x: apply(c, update, x))))
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(step(jnp.zeros((2, 3), bool), x), x)
    jax.effects_barrier()
    assert not calls
    mask = jnp.zeros((2, 3), bool).at[1, 2].set(True)
    np.testing.assert_array_equal(step(mask, x), x + mask)
    jax.effects_barrier()
    assert calls


@pytest.mark.parametrize("num", (0, 1, 7, 20))
def test_update_few_updates_a_part_of_the_batch_at_a_time(num):
    size, calls = 20, []

    def update(state):
        jax.debug.callback(lambda: calls.append(1))
        x, key, shared = state
        return x + jax.random.normal(key), jax.random.split(key)[0], shared + 1.0

    mask = jnp.zeros(size, bool).at[jax.random.permutation(jax.random.key(1), size)[:num]].set(True)
    states = jnp.arange(size, dtype=float), jax.random.split(jax.random.key(0), size), jnp.zeros(())
    in_axes = (0, (0, 0, None))
    few = jax.jit(jax.vmap(lambda c, s: update_few(c, update, s), in_axes=in_axes))(mask, states)
    jax.effects_barrier()
    part = -(-size // CHUNKS)
    assert len(calls) == -(-num // part)
    where = jax.vmap(lambda c, s: update_where(c, update, s), in_axes=in_axes)(mask, states)
    for ours, expected in zip(jax.tree.leaves(few), jax.tree.leaves(where), strict=True):
        if jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
            ours, expected = jax.random.key_data(ours), jax.random.key_data(expected)
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.usefixtures("quick")
def test_a_revealed_task_is_that_of_the_next_step_and_changes_nothing_else():
    plain = envs.make("cheetah_dir_nonstat", "native", horizon=7, period=2)
    told = reveal_task(plain)
    assert told.spec.obs_size == plain.spec.obs_size + 1 + 1
    first, size = start(told), plain.spec.obs_size
    states, expected = roll(told, first, 9), roll(plain, start(plain), 9)
    np.testing.assert_array_equal(states.obs[..., :size], expected.obs)
    np.testing.assert_array_equal(states.final_obs[..., :size], expected.final_obs)
    np.testing.assert_array_equal(states.reward, expected.reward)
    for obs in (states.obs, states.final_obs):
        np.testing.assert_array_equal(obs[..., size], 1.0)  # the one family
        np.testing.assert_array_equal(obs[..., size + 1 :], states.task.spec)
    np.testing.assert_array_equal(first.obs[..., size + 1 :], first.task.spec)
    assert len(np.unique(states.task.spec[:, 0])) == 2, "no task changed: nothing was tested"
    one = jax.tree.map(lambda x: x[0], first)
    injected = told.state_from(one.key, one.task, one.physics.qpos, one.physics.qvel)
    assert injected.obs.shape[-1] == told.spec.obs_size


def test_each_family_is_revealed_in_places_of_its_own():
    plain = envs.make("cheetah_multitask", "native")
    told, size = reveal_task(plain), plain.spec.obs_size
    tasks = jax.tree.map(lambda x: x[::6], plain.test_tasks)
    obs = np.asarray(jax.vmap(told.reset)(jax.random.split(jax.random.key(0), len(tasks.family)), tasks).obs)
    assert obs.shape[-1] == size + 4 * 2
    assert set(np.asarray(tasks.family)) == {0, 1, 2, 3}
    for row, family, spec in zip(obs, tasks.family, tasks.spec[:, 0], strict=True):
        expected = np.zeros((2, 4), np.float32)
        expected[:, family] = 1.0, spec
        np.testing.assert_array_equal(row[size:], expected.ravel())
