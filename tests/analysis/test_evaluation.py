import numpy as np
import pytest

from metarl_jax.analysis import evaluation as evaluations
from metarl_jax.analysis import latents
from metarl_jax.analysis.curves import Curve, band, curves, draw_groups
from metarl_jax.analysis.evaluation import HeldOutTasks, Normalizer
from metarl_jax.analysis.latents import draw, project
from metarl_jax.analysis.response import response
from metarl_jax.errors import ConfigurationError
from metarl_jax.types import Evaluation

TASKS = HeldOutTasks(np.array([0, 0, 1, 1]), np.arange(4.0)[:, None], np.array([0, 1, 2, 2]))
FAMILIES, SUBTASKS = ("run", "jump"), ("left", "right", "jump")


def evaluation(seeds=1, components=None, changed=None, rewards=None, length=12) -> Evaluation:
    shape = (seeds, 2, length, 4)
    rewards = np.ones(shape) if rewards is None else np.broadcast_to(rewards, shape)
    components = np.ones((*shape, 1)) if components is None else np.broadcast_to(components, (*shape, 2))
    changed = np.zeros(shape, bool) if changed is None else np.broadcast_to(changed, shape)
    return Evaluation(rewards, np.zeros((*shape, 3)), components, changed, np.ones(shape, bool), np.zeros((*shape, 0)))


def test_report_groups_the_first_episode():
    rewards = np.zeros((1, 2, 12, 4))
    rewards[0, 0, 0], rewards[0, 1, 0] = [1, 2, 3, 5], [10, 10, 10, 10]
    report = evaluations.report(evaluation(rewards=rewards), TASKS, FAMILIES, SUBTASKS)
    assert (report["test_return"], report["test_return_min"]) == (2.75, 1.0)
    assert report["test_return_by_family"] == {"run": 1.5, "jump": 4.0}
    assert report["test_return_by_subtask"] == {"left": 1.0, "right": 2.0, "jump": 4.0}
    assert report["test_return_by_episode"] == [2.75, 10.0]
    assert "test_component_usage" not in report and "test_return_per_seed" not in report


@pytest.mark.parametrize(
    ("probabilities", "purity", "entropy"),
    [
        ([[1, 0], [1, 0], [0, 1], [0, 1]], 1.0, 0.0),
        ([[1, 0], [1, 0], [1, 0], [1, 0]], 0.0, 0.0),
        ([[0.5, 0.5]] * 4, 0.0, np.log(2)),
    ],
)
def test_clusters_against_base_tasks(probabilities, purity, entropy):
    report = evaluations.report(evaluation(components=np.array(probabilities)), TASKS, FAMILIES, SUBTASKS)
    assert report["test_cluster_purity"] == pytest.approx(purity)
    assert report["test_responsibility_entropy"] == pytest.approx(entropy)
    np.testing.assert_allclose(report["test_component_usage"], np.mean(probabilities, 0))


def test_clusters_count_no_step_after_an_episode_s_end():
    components = np.zeros((1, 2, 2, 2))
    components[0, :, 0], components[0, :, 1] = [[1, 0], [0.5, 0.5]], [[0, 1], [0, 1]]
    alive = np.array([[[True, True], [False, True]]])
    report = evaluations.clusters(components, np.array([0, 1]), alive)
    np.testing.assert_allclose(report["test_component_usage"], [1 / 3, 2 / 3])
    assert report["test_responsibility_entropy"] == 0.0


@pytest.mark.parametrize(("places", "base_task", "subtask"), [([0, 1, 5, 5.1], 1.0, 1.0), ([0, 5, 6, 6.1], 0.0, 1.0)])
def test_beliefs_lie_in_groups_of_tasks(places, base_task, subtask):
    beliefs = np.broadcast_to(np.array(places)[:, None], (2, 2, 12, 4, 1))
    report = evaluations.report(evaluation(seeds=2)._replace(beliefs=beliefs), TASKS, FAMILIES, SUBTASKS)
    assert report["test_belief_purity"] == pytest.approx({"base_task": base_task, "subtask": subtask})


def test_no_groups_are_sought_where_tasks_change_or_are_of_one_kind_or_beliefs_are_broken():
    broken = evaluation()._replace(beliefs=np.full((1, 2, 12, 4, 3), np.nan))
    grouped_for_a_report = TASKS._replace(label=np.zeros(4, int))
    for found, tasks in ((evaluation(changed=True), TASKS), (broken, TASKS), (evaluation(), grouped_for_a_report)):
        assert "test_belief_purity" not in evaluations.report(found, tasks, FAMILIES, SUBTASKS)
    scored = Normalizer(np.zeros(4), np.ones(4), "somebody's")  # families are groups of a report then
    assert "test_belief_purity" not in evaluations.report(evaluation(), TASKS, FAMILIES, SUBTASKS, scored)


def test_response_is_aligned_with_the_change():
    """Reward t - c after a change at c (the first new step is c + 1), -7 before it."""
    step = np.arange(30)[:, None]
    changed = np.isin(step, [9, 19])
    rewards = np.where(step <= 9, -7.0, (step - 10) % 10)
    result = response(evaluation(changed=changed, rewards=rewards, length=30))
    by_step = dict(zip(result.steps.tolist(), result.reward.tolist(), strict=True))
    assert [by_step[i] for i in range(10)] == list(range(10))
    assert by_step[-1] == pytest.approx((-7 + 9) / 2)
    assert np.isnan(by_step[10])
    assert response(evaluation()) is None
    fell = evaluation(changed=changed, rewards=rewards, length=30)
    fell = response(fell._replace(alive=np.broadcast_to(step < 13, fell.rewards.shape)))
    assert fell.samples[np.searchsorted(fell.steps, [0, 2, 3])].tolist() == [8, 8, 0]


def test_evaluation_survives_the_disk(tmp_path):
    evaluations.save(tmp_path / "e.npz", evaluation(seeds=2), TASKS)
    loaded, tasks = evaluations.load(tmp_path / "e.npz")
    np.testing.assert_array_equal(loaded.rewards, evaluation(seeds=2).rewards)
    np.testing.assert_array_equal(tasks.label, TASKS.label)


def test_band_interpolates_to_the_common_range():
    one = Curve(np.array([0.0, 10.0]), np.array([0.0, 1.0]), np.array([0.0, 10.0]))
    two = Curve(np.array([5.0, 20.0]), np.array([0.5, 2.0]), np.array([15.0, 30.0]))
    x, centre, low, high = band([one.against("env_steps"), two.against("env_steps")])
    assert (x[0], x[-1]) == (5.0, 10.0)
    np.testing.assert_allclose(centre, x + 5.0)
    assert (low <= centre).all() and (centre <= high).all() and (low < high).all()


def test_curves_skip_epochs_without_evaluation(tmp_path):
    records = [
        {"env_steps": 1, "seconds": 60.0, "test_return": None},
        {"env_steps": 2, "seconds": 120.0, "test_return": 3.0, "test_return_per_seed": [2.0, 4.0]},
    ]
    first, second = curves(records)
    assert (first.test_return.tolist(), second.test_return.tolist(), first.minutes.tolist()) == ([2.0], [4.0], [2.0])
    draw_groups(tmp_path / "groups.png", {str(i): [first, second] for i in range(7)})
    assert (tmp_path / "groups.png").stat().st_size > 10_000


def test_projection_keeps_the_directions_that_vary():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(40, 2)) * [10, 5]
    points = project(plane @ np.linalg.qr(rng.normal(size=(6, 6)))[0][:2] + 3.0)
    np.testing.assert_allclose(
        np.linalg.norm(points[:, None] - points, axis=-1), np.linalg.norm(plane[:, None] - plane, axis=-1), atol=1e-6
    )
    with pytest.raises(ConfigurationError, match="unknown projection 'umap'"):
        project(plane, "umap")


@pytest.mark.parametrize("width", [1, 2])
def test_one_subtask_is_coloured_by_its_spec(tmp_path, width):
    rng = np.random.default_rng(0)
    tasks = HeldOutTasks(np.zeros(9, int), rng.normal(size=(9, width)), np.zeros(9, int))
    draw(tmp_path / "l.png", rng.normal(size=(20, 9, 5)), np.ones((20, 9, 1)), tasks, ["goal"])
    assert (tmp_path / "l.png").stat().st_size > 10_000


def test_a_belief_has_the_colour_of_its_subtask_and_the_marker_of_its_component(tmp_path, monkeypatch):
    """Four tasks of two sub-tasks; at the episode's end the last one is taken for the other component."""
    drawn = []
    monkeypatch.setattr(latents.figures, "save", lambda figure, _: drawn.append(figure))
    components = np.tile(np.eye(2)[[0, 0, 1, 1]], (4, 1, 1))
    components[-1, 3] = [0.6, 0.4]
    beliefs = np.tile(np.arange(8.0).reshape(4, 2), (4, 1, 1))
    tasks = HeldOutTasks(np.array([0, 0, 1, 1]), np.zeros((4, 1)), np.array([0, 0, 1, 1]))
    draw(tmp_path / "l.png", beliefs, components, tasks, ["ahead", "jump"])
    mid, end = drawn[0].axes
    assert [points.get_offsets().tolist() for points in mid.collections] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert [points.get_offsets().tolist() for points in end.collections] == [[[0, 1], [2, 3]], [[6, 7]], [[4, 5]]]
    markers, colours = ([of(points) for points in end.collections] for of in (shape, colour))
    assert markers[0] == markers[1] != markers[2] and colours[0] != colours[1] == colours[2]
    assert [text.get_text() for text in end.get_legend().texts] == ["ahead", "jump", "component 1", "component 2"]


def shape(points):
    return points.get_paths()[0].vertices.tolist()


def colour(points):
    return points.get_facecolor()[0].tolist()
