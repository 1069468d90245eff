import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.core import Task
from metarl_jax.data import replay
from metarl_jax.learners import base_tasks
from tests.helpers import cached, quick_compilation, transitions

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

STEPS, OBS = 256, 5
PAID_FOR = ((1,), (0, 3), (4,))
"""The coordinates that each base task pays for."""
explain = jax.jit(base_tasks.explain)


def pay(next_obs, base_task, spec):
    """-|distance| of the coordinates that the base task pays for from the spec's."""
    distances = [jnp.abs(next_obs[..., jnp.array(c)] - spec[..., : len(c)]).sum(-1) for c in PAID_FOR]
    return -jnp.select([base_task == k for k in range(len(PAID_FOR))], distances)


@cached
def tasks_of(seed, num=12):
    """Transitions of `num` tasks, and their base tasks."""
    key_obs, key_spec = jax.random.split(jax.random.key(seed))
    next_obs = jax.random.normal(key_obs, (num, STEPS, OBS)).at[..., 2].set(1.0)
    base_task, spec = jnp.arange(num) % 3, jax.random.normal(key_spec, (num, 1, 2))
    return next_obs, pay(next_obs, base_task[:, None], spec), base_task


def test_what_is_a_function_leaves_nothing():
    x = jax.random.uniform(jax.random.key(0), (STEPS, 3)).at[:, 2].set(7.0)
    y = jnp.abs(x[:, 0] - 0.3)
    left = base_tasks.unexplained(x, y, jnp.ones(STEPS, bool))
    assert left[0] < 1e-3  # half of E[gap^2] = 2 / 256^2, over a variance of some 0.04
    np.testing.assert_allclose(left[1:], 1.0, atol=0.25)  # a constant explains nothing either
    np.testing.assert_array_equal(base_tasks.unexplained(x, jnp.full(STEPS, 2.0), jnp.ones(STEPS, bool)), 1.0)


def test_what_is_not_valid_does_not_count():
    x = jax.random.normal(jax.random.key(0), (STEPS, 2))
    y = jnp.abs(x[:, 0])
    valid = jnp.arange(STEPS) % 3 > 0
    spoilt = [jnp.where(v, z, 100.0) for v, z in ((valid[:, None], x), (valid, y))]
    expected = base_tasks.unexplained(x[valid], y[valid], jnp.ones(int(valid.sum()), bool))
    np.testing.assert_allclose(base_tasks.unexplained(*spoilt, valid), expected, rtol=1e-4)
    np.testing.assert_array_equal(base_tasks.unexplained(x, y, jnp.zeros(STEPS, bool)), 1.0)


def test_neighbours_on_the_curve_are_near_in_the_plane():
    place = jnp.stack(jnp.meshgrid(jnp.arange(16), jnp.arange(16), indexing="ij"), -1).reshape(-1, 2) / 16
    along = base_tasks.along_curve(place[:, 0], place[:, 1])
    assert len(np.unique(along)) == 256
    step = np.abs(np.diff(np.asarray(place)[np.argsort(along)], axis=0)).sum(-1)
    assert step.mean() < 2.1 / 16  # 1 / 16 for the shortest way of all, some 10 / 16 in random order


def test_features_cover_all_tasks():
    cost = jnp.array([[0.0, 5.0, 5.0, 3.0], [0.0, 5.0, 5.0, 3.0], [5.0, 5.0, 1.0, 3.0], [5.0, 5.0, 1.0, 3.0]])
    np.testing.assert_array_equal(base_tasks.choose(cost, jnp.array([-1, -1])), [0, 2])
    np.testing.assert_array_equal(base_tasks.choose(cost, jnp.array([2, 0])), [2, 0])  # places keep their meaning
    np.testing.assert_array_equal(base_tasks.choose(cost, jnp.array([1, 0])), [2, 0])
    assert base_tasks.choose(cost, jnp.array([-1]))[0] == 0


def test_tasks_are_told_apart_by_what_they_pay_for():
    next_obs, paid, base_task = tasks_of(0)
    coordinates, found = explain(next_obs, paid, jnp.ones(paid.shape, bool), jnp.full((3, 2), -1))
    own = [tuple(sorted(set(np.asarray(c).tolist()))) for c in coordinates]
    assert sorted(own) == sorted(PAID_FOR)
    assert [own[k] for k in found] == [PAID_FOR[k] for k in base_task]


def test_a_task_that_shows_nothing_is_of_no_base_task():
    """None of its transitions is valid, it pays the same for all, or what it pays for is not observed."""
    next_obs, paid, _ = tasks_of(0)
    valid = jnp.ones(paid.shape, bool).at[0].set(False)
    paid = paid.at[1].set(-1.0).at[2].set(jax.random.normal(jax.random.key(5), (STEPS,)))
    _, found = explain(next_obs, paid, valid, jnp.full((3, 2), -1))
    np.testing.assert_array_equal(found[:3], -1)
    assert (found[3:] >= 0).all()


def test_places_keep_their_meaning():
    next_obs, paid, base_task = tasks_of(1)
    before = jnp.array([[4, 4], [1, 1], [0, 3]])
    coordinates, found = explain(next_obs, paid, jnp.ones(paid.shape, bool), before)
    np.testing.assert_array_equal(coordinates, before)
    np.testing.assert_array_equal(found, jnp.array([1, 2, 0])[base_task])


def stored():
    """A replay of three tasks of two base tasks: the second and third pay for coordinate 1, the first for 0."""
    rows, length = 24, 16
    data = transitions(0, rows, length)
    task = jnp.broadcast_to((jnp.arange(rows) % 3)[:, None], (rows, length))
    place = jax.random.normal(jax.random.key(3), (rows, length, 2))
    wanted = jnp.array([0.3, -0.5, 0.9])[task]
    paid = -jnp.abs(jnp.where(task == 0, place[..., 0], place[..., 1]) - wanted)
    data = data._replace(
        next_obs=place,
        reward=jax.random.normal(jax.random.key(4), task.shape),
        gross_reward=paid,
        valid=jnp.ones(task.shape, bool),
        task=Task(family=jnp.full(task.shape, 5), spec=jnp.stack([wanted, wanted], -1), label=task),
    )
    example = jax.tree.map(lambda x: x[0, 0], data)
    return replay.insert(replay.init(example, rows, length), data)


def test_base_tasks_of_a_replay():
    rows = stored()
    found = jax.jit(base_tasks.find, static_argnums=3)(base_tasks.init(2, 2), rows, jax.random.key(0), True)
    windows = jax.tree.map(lambda x: x[:6].swapaxes(0, 1), rows.data)  # tasks 0, 1, 2, 0, 1, 2
    one, other = (int(np.flatnonzero(np.asarray(found.coordinates)[:, 0] == i)[0]) for i in (0, 1))
    np.testing.assert_array_equal(found.of(windows), np.tile([one, other, other, one, other, other], (16, 1)))
    unseen = windows._replace(task=windows.task._replace(spec=windows.task.spec + 1.0))
    np.testing.assert_array_equal(found.of(unseen), -1)
    np.testing.assert_array_equal(base_tasks.init(2, 2).of(windows), -1)
