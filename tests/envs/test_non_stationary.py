"""Tasks that change in mid-episode: when, how, and unseen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import ConfigurationError
from tests.envs.rolling import roll, start
from tests.helpers import quick_compilation

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)


def test_task_changes():
    """Only at multiples of the period, with the stated probability, and unseen by the agent."""
    n, period, steps = 64, 4, 40
    # A change at an episode's end would not be one of the episode's steps.
    options = {"period": period, "horizon": 20}
    env = envs.make("cheetah_dir_nonstat", "native", **options)
    still = envs.make("cheetah_dir_nonstat", "native", change_probability=0.0, **options)
    assert not env.spec.stationary and envs.make("cheetah_dir", "native").spec.stationary
    first = start(env, n)
    states, same = roll(env, first, steps), roll(still, first, steps)
    changed = np.asarray(states.metrics["task_changed"])
    time = np.arange(1, steps + 1) % 20
    assert not changed[(time % period != 0) | (time == 0)].any()
    due = changed[(time % period == 0) & (time != 0)]
    assert abs(due.mean() - 0.5) < 4 * 0.5 / np.sqrt(due.size)
    assert len(np.unique(due, axis=1).T) > 10  # lanes toss their own coins
    direction = np.asarray(states.task.spec[..., 0])
    before = np.concatenate([np.asarray(first.task.spec)[None, :, 0], direction[:-1]])
    np.testing.assert_array_equal(direction, np.where(changed, -before, before))
    np.testing.assert_array_equal(states.task.label, (1 - direction) / 2)
    assert not np.any(same.metrics["task_changed"])
    # Up to the first reset, whose noise continues the coin's key, the agent sees the same.
    np.testing.assert_array_equal(states.final_obs[:20], same.final_obs[:20])
    # The reward belongs to the task before the change.
    velocity = np.sign(states.reward[period - 1]) * np.sign(same.reward[period - 1])
    np.testing.assert_array_equal(velocity, 1.0)


def test_velocity_is_redrawn_in_range():
    env = envs.make("cheetah_vel_nonstat", "native", period=1, change_probability=1)
    speeds = np.asarray(roll(env, start(env), 50).task.spec)
    assert speeds.min() >= 0 and speeds.max() <= 3 and np.ptp(speeds) > 2.5
    assert len(np.unique(speeds)) == speeds.size


def test_period_changes_for_certain():
    env = envs.make("cheetah_dir", "native", mode="period", period=3, horizon=10)
    first = start(env, 4)
    direction = np.asarray(roll(env, first, 9).task.spec[..., 0]) * np.asarray(first.task.spec[:, 0])
    np.testing.assert_array_equal(direction[:, 0], [1, 1, -1, -1, -1, 1, 1, 1, -1])
    np.testing.assert_array_equal(direction, direction[:, :1].repeat(4, 1))


def test_location_changes_where_the_torso_has_moved_far_enough():
    """Gaps of 0.2 + U(0, 1) m, either way, counted anew from each change."""
    env = envs.make("cheetah_dir", "native", mode="location", distance=0.2, horizon=150)
    first = start(env, 8)
    states = roll(env, first, 149)
    x = np.concatenate([np.asarray(first.physics.qpos)[None, :, 0], np.asarray(states.physics.qpos[..., 0])])
    changed, gaps = np.asarray(states.metrics["task_changed"]), []
    for lane in range(8):
        origin = x[0, lane]
        for t in np.flatnonzero(changed[:, lane]):
            since = np.abs(x[: t + 2, lane] - origin)
            gaps.append(since[-1])
            origin = x[t + 1, lane]
    assert len(gaps) >= 8 and min(gaps) >= 0.2 and max(gaps) < 1.6 and np.ptp(gaps) > 0.2
    still = np.abs(x - x[0]).max(0) < 0.2
    assert not changed[:, still].any()
    task = np.concatenate([np.asarray(first.task.spec)[None, :, 0], np.asarray(states.task.spec[..., 0])])
    np.testing.assert_array_equal(task[1:] != task[:-1], changed)


def test_location_counts_both_ways_along_the_ground():
    """Ants that only move along y."""
    env = envs.make("ant_dir", "native", mode="location", distance=2.0)
    first = jax.tree.map(lambda x: jnp.repeat(x[:1], 5, 0), start(env, 1))
    qpos = first.physics.qpos.at[:, 1].add(jnp.array([-3.2, -1.8, 0.0, 1.8, 3.2]))
    after = jax.jit(jax.vmap(env.step))(first._replace(physics=first.physics._replace(qpos=qpos)), jnp.zeros((5, 8)))
    assert not np.any(after.terminated)
    np.testing.assert_array_equal(after.metrics["task_changed"], [True, False, False, False, True])


def test_location_redraws_although_another_lane_stands_still():
    """With generators, such as that of the entry points, that draw for all lanes by the first one's key."""
    env = envs.make("cheetah_vel", "native", mode="location", distance=1.0)
    keys = jax.random.split(jax.random.key(0, impl="rbg"), 2)
    state = jax.vmap(env.reset)(keys, env.sample_tasks(jax.random.key(1), "train", 2))
    step, speeds = jax.jit(jax.vmap(env.step)), []
    for _ in range(5):
        qpos = state.physics.qpos.at[1, 0].add(3.0)
        state = step(state._replace(physics=state.physics._replace(qpos=qpos)), jnp.zeros((2, 6)))
        assert state.metrics["task_changed"].tolist() == [False, True]
        speeds.append(float(state.task.spec[1, 0]))
    assert len(set(speeds)) == 5


def test_multi_redraws_any_sub_task():
    env = envs.make("cheetah_multitask", "native", mode="multi", period=2, horizon=200)
    states = roll(env, start(env, 16), 60)
    label, family = np.asarray(states.task.label), np.asarray(states.task.family)
    counts = np.bincount(label[1::2].ravel(), minlength=7) / label[1::2].size
    np.testing.assert_allclose(counts, 1 / 7, atol=0.06)
    names = np.asarray(env.spec.subtasks)[label]
    assert (np.char.find(names, np.asarray(env.spec.families)[family]) == 0).all()
    speeds = np.asarray(states.task.spec)[names == "velocity_backward"]
    assert speeds.min() >= -5 and speeds.max() <= -1 and np.ptp(speeds) > 2


def test_drift_is_a_sine_about_the_first_spec():
    env = envs.make("cheetah_vel", "native", mode="drift", amplitude=0.5, period=8, horizon=12)
    first = start(env, 3)
    states = roll(env, first, 30)
    base = np.asarray(first.task.spec[:, 0])
    time = np.arange(1, 31) % 12
    expected = base + 0.5 * np.sin(2 * np.pi * time / 8)[:, None]
    np.testing.assert_allclose(states.task.spec[..., 0], expected, atol=1e-5)
    assert not env.spec.stationary and not np.any(states.metrics["task_changed"])
    x = np.concatenate([np.asarray(first.physics.qpos)[None, :, 0], np.asarray(states.physics.qpos[..., 0])])[:12]
    cost = 0.05 * np.sum(np.square(states.physics.ctrl), -1)[:11]
    speed = np.diff(x, axis=0) / env.spec.dt
    target = np.concatenate([base[None], expected])[:11]  # the task a step is rewarded for is that before it
    np.testing.assert_allclose(states.reward[:11], -np.abs(speed - target) - cost, atol=1e-3)


def test_default_period_of_a_mode():
    assert envs.make("cheetah_vel", "native").spec.stationary
    for options, message in (
        ({"mode": "sometimes"}, "unknown mode 'sometimes'"),
        ({"mode": "period", "period": 0}, "period must be >= 1"),
        ({"mode": "drift", "period": 0}, "period must be >= 1"),
        ({"mode": "location", "distance": 0.0}, "distance must be positive"),
        ({"mode": "time", "change_probability": 1.5}, "probability must be in"),
        ({"mode": "time", "period": 200}, "period 200 is not below the horizon of 200"),
        ({"mode": "drift", "amplitude": float("nan")}, "amplitude must be a number"),
        ({"mode": "drift", "distance": 3.0}, "distance is an option of mode location, not of drift"),
        ({"period": 50}, "period is an option of mode time, period, multi, drift, not of a stationary benchmark"),
        ({"mode": "location", "distance": "far"}, "distance must be a number, got 'far'"),
    ):
        with pytest.raises(ConfigurationError, match=message) as error:
            envs.make("cheetah_vel", "native", **options)
        assert "\n" not in str(error.value)
    for name in ("cheetah_multitask", "ant_dir", "hopper_mass"):  # rewards divide by the spec, or do not depend on it
        with pytest.raises(ConfigurationError, match=f"tasks of {name} cannot drift"):
            envs.make(name, "native", mode="drift")
    assert envs.make("cheetah_dir", "native", mode="location").spec.horizon == 800
