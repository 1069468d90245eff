"""Task sets: sizes, splits, ranges, determinism; and wrong input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import ConfigurationError, rewards, tasks, wrappers

GRIDS = tuple(name for name in envs.names() if name.endswith(("_grid", "_mass", "_friction")))
# name -> (training tasks, test tasks) of the papers
SIZES = {
    "cheetah_vel": (100, 30),
    "cheetah_dir": (2, 2),
    "ant_dir": (2, 2),
    "ant_goal": (150, 30),
    "point_robot": (80, 20),
    "sparse_point_robot": (80, 20),
    "cheetah_multitask": (70, 35),
    "cheetah_eight": (80, 40),
    "ant_multitask": (90, 45),
    "walker_rand_params": (40, 10),
    "humanoid_dir": (100, 30),
    **dict.fromkeys(GRIDS, (20, 10 + 10)),
}
HORIZONS = {
    "point_robot": 20,
    "sparse_point_robot": 20,
    "cheetah_dir_nonstat": 500,
    "cheetah_vel_nonstat": 500,
    "ant_dir_nonstat": 600,
}
TWO_TASKS = ("cheetah_dir", "ant_dir", "cheetah_dir_nonstat", "ant_dir_nonstat")
# A sub-task without parameters, or with a sign, is in both sets.
SHARED = (*TWO_TASKS, "cheetah_2task", "cheetah_3task")


def rows(task):
    return {(f, *s) for f, s in zip(task.family.tolist(), np.asarray(task.spec).tolist(), strict=True)}


@pytest.mark.parametrize("name", envs.names())
def test_sets(name):
    env, again, other = (envs.make(name, "native", seed=s) for s in (0, 0, 1))
    train, test = env.train_tasks, env.test_tasks
    if name in SIZES:
        assert (train.label.shape[0], test.label.shape[0]) == SIZES[name]
    assert env.spec.horizon == HORIZONS.get(name, 200)
    assert train.spec.shape[-1] == test.spec.shape[-1] == env.spec.task_size
    assert bool(rows(train) & rows(test)) == (name in SHARED)
    jax.tree.map(np.testing.assert_array_equal, (train, test), (again.train_tasks, again.test_tasks))
    if name not in TWO_TASKS and name not in GRIDS:
        assert rows(train) != rows(other.train_tasks)
    for task in (train, test):
        assert np.all(np.isfinite(task.spec)) and np.max(task.label) < len(env.spec.subtasks)
        assert np.max(task.family) < len(env.spec.families)


def spec(name, split="train", subtask=None, **options):
    env = envs.make(name, "native", **options)
    task = env.train_tasks if split == "train" else env.test_tasks
    values = np.asarray(task.spec)
    return values if subtask is None else values[np.asarray(task.label) == env.spec.subtasks.index(subtask)]


def test_ranges():
    for split in ("train", "test"):
        v = spec("cheetah_vel", split)
        assert v.min() >= 0 and v.max() <= 3 and np.ptp(v) > 2
        r = np.linalg.norm(spec("ant_goal", split), axis=-1)
        assert r.max() <= 3 and r.max() > 2.5
        xy = spec("sparse_point_robot", split)
        np.testing.assert_allclose(np.linalg.norm(xy, axis=-1), 1, atol=1e-6)
        assert xy[:, 1].min() >= -1e-6
    # Uniform by area: half of the goals lie within 3 / sqrt 2.
    assert abs(np.mean(np.linalg.norm(spec("ant_goal"), axis=-1) < 3 / np.sqrt(2)) - 0.5) < 0.15
    for circle in (spec("ant_dir", angles="circle"), spec("humanoid_dir"), spec("humanoid_dir", "test")):
        np.testing.assert_allclose(np.linalg.norm(circle, axis=-1), 1, atol=1e-6)
        assert all(np.any(side) for xy in circle.T for side in (xy < -0.5, xy > 0.5))  # all round


def test_multitask_sets_cover_their_ranges():
    for subtask, low, high in (
        ("velocity_forward", 1, 5),
        ("velocity_backward", -5, -1),
        ("goal_forward", 5, 25),
        ("goal_backward", -25, -5),
        ("stand_front", np.pi / 6, np.pi / 2),
        ("stand_back", -np.pi / 2, -np.pi / 6),
        ("jump", 1.5, 3),
    ):
        train, test = (spec("cheetah_multitask", split, subtask)[:, 0] for split in ("train", "test"))
        assert (len(train), len(test)) == (10, 5)
        np.testing.assert_allclose(np.sort(np.concatenate([train, test])), np.linspace(low, high, 15), rtol=1e-5)
    for way, unit in (("left", (-1, 0)), ("right", (1, 0)), ("up", (0, 1)), ("down", (0, -1))):
        for kind, low, high in (("velocity", 1, 3), ("goal", 5, 15)):
            xy = np.concatenate([spec("ant_multitask", split, f"{kind}_{way}") for split in ("train", "test")])
            np.testing.assert_allclose(np.sort(xy @ np.array(unit)), np.linspace(low, high, 15), rtol=1e-5)
            np.testing.assert_allclose(xy @ np.array(unit[::-1]), 0, atol=1e-6)


def test_a_benchmark_can_be_restricted_to_some_of_its_subtasks():
    whole, part = envs.make("cheetah_multitask"), envs.make("cheetah_multitask", only="goal_backward,jump")
    assert part.spec.subtasks == ("goal_backward", "jump") and part.spec.families == ("goal", "jump")
    assert len(part.train_tasks.family) == 20 and len(part.test_tasks.family) == 10
    goals = np.sort(np.concatenate([part.train_tasks.spec[:10, 0], part.test_tasks.spec[:5, 0]]))
    np.testing.assert_allclose(goals, np.linspace(-25, -5, 15), rtol=1e-5)
    assert len(whole.train_tasks.family) == 70


def test_out_of_distribution_sets_are_disjoint_in_range():
    v = spec("cheetah_vel_ood", "test")
    assert np.all((v <= 2) | (v >= 4)) and np.any(v <= 2) and np.any(v >= 4)
    train = spec("cheetah_vel_ood")
    assert train.min() >= 2 and train.max() <= 4
    ldm = spec("cheetah_vel_ood", preset="ldm")
    assert np.all((ldm <= 0.5) | (ldm >= 3.0))
    assert np.all(spec("cheetah_vel_ood", "test", preset="ldm") >= 0.5)
    radius = {s: np.linalg.norm(spec("ant_goal_ood", s), axis=-1) for s in ("train", "test")}
    assert radius["train"].max() <= 2 <= radius["test"].min() and radius["test"].max() <= 3
    assert np.all(spec("cheetah_vel_ood", "test", test=((6.0, 7.0),)) >= 6)


def test_sample_tasks_is_balanced():
    env = envs.make("cheetah_multitask", "native")
    for n in (5, 70, 100):
        drawn = env.sample_tasks(jax.random.key(n), "train", n)
        counts = np.unique([tuple(r) for r in np.c_[drawn.label, drawn.spec]], axis=0, return_counts=True)[1]
        assert counts.sum() == n and counts.max() - (counts.min() if n >= 70 else 1) <= 1
    a, b = (env.sample_tasks(jax.random.key(k), "test", 20).spec for k in (0, 1))
    assert not np.array_equal(a, b)


def test_a_family_has_one_reward_and_specs_one_length():
    def pays(before, after, action, spec, dt):
        return 0.0

    one, other = (tasks.SubTask(name, "move", rewards.cheetah_vel, tasks.circle()) for name in ("a", "b"))
    assert list(tasks.families(one, other)) == ["move"]
    with pytest.raises(ConfigurationError, match="the family 'move' has two rewards: give 'a' another family"):
        tasks.families(one, other._replace(reward=pays))
    longer = other._replace(draw=lambda key, n: jnp.ones((n, 3)))
    with pytest.raises(ConfigurationError, match=r"as long, got \[2, 3\] numbers"):
        tasks.draw_sets(jax.random.key(0), (one, longer), 1, 1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: envs.make("cheetah_velo"), "did you mean cheetah_vel"),
        (lambda: envs.make("cheetah_vel", mood="good"), "it takes none"),
        (lambda: envs.make("ant_dir", angle="two"), "it takes angles"),
        (lambda: envs.make("ant_dir", angles="three"), "two, circle"),
        (lambda: envs.make("cheetah_vel_ood", preset="mos"), "did you mean moss"),
        (lambda: envs.make("cheetah_vel_ood", train=((3.0, 1.0),)), r"write \[1.0, 3.0\]"),
        (lambda: envs.make("cheetah_vel_ood", train=((1.0, 1.5),)), "overlap"),
        (lambda: envs.make("cheetah_vel", num_train_tasks=0), "must be positive"),
        (lambda: envs.make("cheetah_vel", num_test_tasks=-3), "must be positive"),
        (lambda: envs.make("cheetah_vel", horizon=0), "horizon must be >= 1"),
        (lambda: envs.make("cheetah_dir_nonstat", period=0), "period must be >= 1"),
        (lambda: envs.make("cheetah_dir_nonstat", change_probability=1.5), r"probability must be in \[0, 1\]"),
        (lambda: envs.make("cheetah_vel", "brax"), "unknown physics engine"),
        (lambda: envs.make("point_robot", variant="slow"), "fast, reference"),
        (lambda: envs.make("cheetah_multitask", only="jmp"), "did you mean jump"),
        (lambda: envs.make("cheetah_dir_vel_to_goal", only="goal"), "leaves no training task: keep one of forward"),
        (lambda: envs.make("cheetah_dir_nonstat", only="forward"), "for stationary benchmarks"),
        (lambda: envs.make("cheetah_dir_vel_to_goal", only="velocity"), "leaves no test task: keep one of goal"),
        (lambda: envs.make("cheetah_vel", horizon=300.5), "horizon must be an integer, got 300.5"),
        (lambda: envs.make("cheetah_vel", num_test_tasks="x"), "num_test_tasks must be an integer, got 'x'"),
        (lambda: envs.make("cheetah_vel_ood", preset=1), "unknown preset 1: known: moss, ldm"),
        (lambda: envs.make("cheetah_vel_ood", train="2,4"), "train must be ranges such as 0:0.5,3:3.5, got '2,4'"),
        (lambda: envs.make("cheetah_vel_ood", train=5), "train must be ranges such as 0:0.5,3:3.5, got 5"),
        (lambda: envs.make("cheetah_vel_ood", train=(2.0, 4.0)), r"train must be ranges .* got \(2.0, 4.0\)"),
        (lambda: envs.make("cheetah_vel_ood", train=""), "train must be ranges"),
        (lambda: envs.make("cheetah_vel_ood", train=()), "train must be ranges .* got none"),
        (lambda: envs.make("cheetah_vel_ood", test="5:inf"), r"range \[5.0, inf\] must have finite ends"),
        (lambda: envs.make("ant_goal_ood", train="-1:2"), r"radii cannot be negative, got \[-1.0, 2.0\]"),
        (lambda: envs.make("cheetah_dir_nonstat", period=float("nan")), "period must be a number, got nan"),
        (lambda: envs.make("cheetah_dir_nonstat", period=0.5), "period must be a whole number of steps, got 0.5"),
        (lambda: envs.make("cheetah_vel", mode="location", distance=float("inf")), "distance must be a number"),
        (lambda: envs.make("cheetah_vel", seed=-1), r"seed must be an integer in \[0, 4294967295\], got -1"),
        (lambda: envs.make("cheetah_vel", seed=2**32), r"seed must be an integer in \[0, 4294967295\]"),
        (lambda: envs.make("cheetah_vel", seed="0"), "seed must be an integer"),
        (lambda: envs.make("cheetah_vel", horizon=2**31), "horizon must be at most 2147483647, got 2147483648"),
        (lambda: envs.make("cheetah_vel", mode="drift", period=2**40), "period must be at most 2147483647"),
        (lambda: envs.make("cheetah_vel", mode="drift", amplitude=1e39), "amplitude must be a number, got 1e\\+39"),
        (lambda: envs.make("cheetah_vel_ood", test="5:1e39"), "must have finite ends"),
        (
            lambda: envs.make("cheetah_vel_ood", train="2:3,2.5:4"),
            r"and \[2.5, 4.0\] of train overlap",
        ),
        (lambda: envs.make("point_robot").sample_tasks(jax.random.key(0), "tset", 3), "unknown split 'tset'"),
        (lambda: envs.make("point_robot").sample_tasks(jax.random.key(0), "test", -1), "must be >= 1, got -1"),
        (lambda: tasks.uniform((2.0, 2.0)), "is empty"),
        (lambda: tasks.disc((2.0, 1.0)), "swapped"),
        (lambda: tasks.spread(2.0, 1.0), "swapped"),
    ],
)
def test_wrong_input_is_one_line(build, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


def test_numbers_of_numpy_are_numbers():
    env = envs.make("point_robot", seed=np.uint32(2**32 - 1), horizon=np.int64(7))
    assert env.spec.horizon == 7
    assert envs.make("ant_goal_grid", mode="drift").spec.stationary is False


def test_overlapping_sets_are_refused_unless_said_otherwise():
    subtask = tasks.SubTask("same", "same", lambda *_: 0.0, tasks.constant(1.0))
    with pytest.raises(ConfigurationError, match="in common"):
        tasks.draw_sets(jax.random.key(0), (subtask,), 2, 2)
    train, test = tasks.draw_sets(jax.random.key(0), (subtask,), 2, 3, shared=True)
    assert train.spec.shape == (2, 1) and test.spec.shape == (3, 1)
    base = envs.make("point_robot", "native")
    with pytest.raises(ConfigurationError, match="in common"):
        wrappers.multi_task(base, "same", jax.random.key(0), (subtask,), 1, 1)
    assert jnp.all(train.spec == 1.0)


@pytest.mark.parametrize("name", [name for name in GRIDS if name != "ant_goal_grid"])
def test_grids_are_split_as_published(name):
    angles = np.arange(40) * 2 * np.pi / 40
    if name.endswith("_dir_grid"):
        points = np.stack([np.cos(angles), np.sin(angles)], -1)
    else:
        low, high = (0.1, 4.0) if name == "cheetah_vel_grid" else (-2.0, 2.0)
        points = np.linspace(low, high, 40)[:, None]
    np.testing.assert_allclose(spec(name), points[10:30], atol=1e-6)
    moderate, extreme = [5, 6, 7, 8, 9, 30, 31, 32, 33, 34], [0, 1, 2, 3, 4, 35, 36, 37, 38, 39]
    np.testing.assert_allclose(spec(name, "test", "moderate"), points[moderate], atol=1e-6)
    np.testing.assert_allclose(spec(name, "test", "extreme"), points[extreme], atol=1e-6)


def test_ant_goal_grid():
    front, back = np.linspace(-np.pi / 2, np.pi / 2, 10), np.linspace(np.pi / 2, 3 * np.pi / 2, 10)
    for split, subtask, radii, angles in (
        ("train", "train", (0.8, 1.2), front),
        ("test", "moderate", (1.6,), front),
        ("test", "extreme", (1.6,), back),
    ):
        goals = [(r * np.cos(angle), r * np.sin(angle)) for r in radii for angle in angles]
        np.testing.assert_allclose(spec("ant_goal_grid", split, subtask), goals, atol=1e-6)
    with pytest.raises(ConfigurationError, match="20 tasks of a kind, not 21"):
        envs.make("ant_goal_grid", "native", num_train_tasks=21)
    some = np.asarray(envs.make("cheetah_vel_grid", "native", num_test_tasks=4).test_tasks.spec[:4, 0])
    np.testing.assert_allclose(some, np.linspace(0.1, 4.0, 40)[[5, 8, 31, 34]], atol=1e-6)
