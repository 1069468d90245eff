"""README's figures: drawn from result files, copied from runs, and shown where they are."""

import json

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from benchmarks import figures, publish, references
from metarl_jax.analysis import curves
from metarl_jax.analysis import evaluation as evaluations
from metarl_jax.errors import ConfigurationError
from metarl_jax.types import Evaluation


def run(folder, env="cheetah_vel", returns=(-200.0, -30.0), seed=0, **agent):
    """A run directory whose last seed gets 10 more."""
    folder.mkdir()
    about = {"run_dir": str(folder), "seed": seed}
    settings = {"env": env, "preset": "fast", "data": {}, "agent": agent, "run": about}
    content = {"algorithm": "moss", "config": settings, "environment": {"stationary": False}}
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "summary.json").write_text(
        json.dumps({"status": "budget", "test_return": returns[-1] if returns else None})
    )
    records = [{"epoch": 1, "env_steps": 5, "seconds": 6.0, "train_return": 0.0, "test_return": None}]
    for i, value in enumerate(returns):
        seeds = [value, value + 10]
        point = {"epoch": i + 2, "env_steps": 10 * i + 10, "seconds": 60.0 * i + 12, "test_return": value + 5}
        records.append(point | {"test_return_per_seed": seeds})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Two runs of two seeds each, of which the first drew what it believes."""
    first, second = run(tmp_path / "0"), run(tmp_path / "1", seed=2)
    Image.new("RGB", (8, 6)).save(first / "latents.png")
    Image.new("RGB", (4, 4)).save(second / "response.png")
    monkeypatch.setattr(figures, "FIGURES", tmp_path / "docs")
    publish.main(publish.Config((first, second), out=tmp_path, figures=tmp_path / "docs"))
    return tmp_path


def test_a_published_run_is_drawn_from_its_file_alone(published, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures.curves, "draw_groups", lambda path, *args, **_: drawn.update({path.name: args}))
    figures.draw(published / "moss_cheetah_vel_fast.json", published)
    groups, levels = drawn["moss_cheetah_vel_fast.png"]
    assert [curve.test_return.tolist() for curve in groups["moss, cheetah_vel"]] == [[-200, -30], [-190, -20]] * 2
    assert groups["moss, cheetah_vel"][0].minutes.tolist() == [0.2, 1.2]
    assert levels == {"idle": (-294,), "CEMRL": (-25, -17)}


def test_other_seeds_of_a_file_are_kept_if_asked_for(published):
    def returns():
        stored = json.loads((published / "moss_cheetah_vel_fast.json").read_text())
        return stored["note"], [r["summary"]["test_return"] for r in stored["runs"]]

    def publish_as(folder, **changes):
        publish.main(publish.Config((folder,), out=published, figures=published / "docs", **changes))

    later = run(published / "later", returns=(-50.0, -20.0), seed=1)
    Image.new("RGB", (2, 2)).save(later / "latents.png")
    publish_as(later, note="later", keep=True)
    publish_as(run(published / "again", returns=(-50.0, -10.0), seed=2), keep=True)
    assert returns() == ("later", [-30.0, -20.0, -10.0])
    assert Image.open(published / "docs" / "moss_cheetah_vel_fast_latents.png").size == (8, 6)  # the first seed's
    publish_as(later, name="with labels")
    assert (published / "moss_cheetah_vel_fast_with_labels.json").exists()
    with pytest.raises(ConfigurationError, match="different settings"):
        publish_as(run(published / "other", seed=3, batch_size=64), keep=True)
    with pytest.raises(ConfigurationError, match="several runs of seed 1: give one run per seed"):
        publish.main(publish.Config((later, later), out=published, figures=published / "docs"))
    (unfinished := run(published / "unfinished", seed=4)).joinpath("summary.json").write_text('{"status": "running"}')
    with pytest.raises(ConfigurationError, match="is running, or was killed"):
        publish_as(unfinished)
    publish_as(later)
    assert returns() == ("", [-20.0])


def test_other_methods_of_a_seed_are_kept(published):
    for method, returns in (("focal", (-3.0,)), ("csro", (-2.0,)), ("focal", (-1.0,))):
        folder = run(published / f"{method}{returns[0]}", "point_robot", returns, method=method)
        publish.main(publish.Config((folder,), keep=True, out=published, figures=published / "docs"))
    runs = json.loads((published / "moss_point_robot_fast.json").read_text())["runs"]
    assert {r["config"]["config"]["agent"]["method"]: r["summary"]["test_return"] for r in runs} == {
        "focal": -1.0,
        "csro": -2.0,
    }


def test_an_oracle_is_a_line_in_the_figure_of_the_others(published, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures.curves, "draw_groups", lambda path, _, levels, **__: drawn.update({path.name: levels}))
    for env in ("cheetah_vel", "ant_dir"):
        told = run(published / f"told_{env}", env, returns=(-90.0, -50.0, -30.0, -10.0), belief="oracle")
        publish.main(publish.Config((told,), out=published, figures=published / "docs"))
    assert list(drawn) == ["moss_cheetah_vel_fast.png"]  # there are no others of ant_dir
    oracle = drawn["moss_cheetah_vel_fast.png"]["oracle, 0.0 M steps"]
    assert oracle == pytest.approx(-25)  # last three evaluations, both seeds
    taught = publish.Config((published / "0",), name="with labels", out=published, figures=published / "docs")
    publish.main(taught)
    assert drawn["moss_cheetah_vel_fast_with_labels.png"]["oracle, 0.0 M steps"] == oracle  # it has none of its own


def dark_grey_rows(path):
    """Rows of pixels of which a quarter or more is dark grey, as dashed lines of levels are and nothing else."""
    image = matplotlib.image.imread(path)[..., :3]
    grey = (np.ptp(image, axis=-1) == 0) & (image[..., 0] > 0.2) & (image[..., 0] < 0.6)
    return int((grey.mean(1) > 0.25).sum())


def test_a_figure_is_small_and_shows_its_levels(published, monkeypatch):
    path = published / "docs" / "moss_cheetah_vel_fast.png"
    assert matplotlib.image.imread(path).shape[:2] == (405, 510) and path.stat().st_size < 120_000
    monkeypatch.setattr(references, "levels", lambda env: ())
    bare = figures.draw(published / "moss_cheetah_vel_fast.json", published)
    assert dark_grey_rows(bare) == 0 and dark_grey_rows(path) >= 3


def test_a_gallery_shows_what_there_is(published):
    shown = figures.gallery(["moss_cheetah_vel_fast", "moss_ant_dir_fast"])
    assert shown.count("<img") == 1 and 'src="docs/moss_cheetah_vel_fast.png"' in shown
    assert "held-out tasks: [`moss_cheetah_vel_fast`](docs/moss_cheetah_vel_fast_latents.png)." in shown
    assert Image.open(published / "docs" / "moss_cheetah_vel_fast_latents.png").size == (8, 6)
    assert "response" not in shown and "ant_dir" not in shown
    assert figures.gallery(["moss_ant_dir_fast"]) == ""


def test_recognition_is_drawn_of_every_seed(published, monkeypatch):
    assert figures.draw_recognition(published / "moss_cheetah_vel_fast.json", published) == []
    curve = [{"epoch": 5 * i, "recognition_accuracy": 0.25 * i} for i in (2, 4)]
    summary = {"recognition": {"steps": [0, 1, 2], "accuracy": [0.5, 1.0, None]}}  # no task lasted for two steps
    runs = [{"config": {"config": {"env": "toy"}}, "summary": summary, "curve": curve}] * 2
    (published / "timrl_toy_fast.json").write_text(json.dumps({"runs": runs}))
    drawn, draw_band = [], curves.draw_band
    monkeypatch.setattr(
        curves, "draw_band", lambda axis, lines, *how: drawn.append(lines) or draw_band(axis, lines, *how)
    )
    (path,) = figures.draw_recognition(published / "timrl_toy_fast.json", published / "docs")
    expected = [[[[10, 20], [0.5, 1.0]]] * 2, [[[0, 1], [0.5, 1.0]]] * 2]
    assert [[[x.tolist() for x in line] for line in lines] for lines in drawn] == expected
    assert matplotlib.image.imread(path).shape[:2] == (405, 1020)
    assert 'docs/timrl_toy_fast_recognition.png" width="49%"' in figures.gallery(["timrl_toy_fast"])


def test_references_are_told_as_they_are_drawn():
    assert "; ".join(map(str, references.levels("cheetah_vel"))) == "idle -294; CEMRL -25 to -17, 13-22 h on a GPU"
    assert references.levels("no_benchmark") == ()


def test_a_published_run_tells_what_each_task_paid(tmp_path):
    """Task 0 pays 1 per step, task 1 the number of the step; of two seeds and episodes the first counts."""
    rewards = np.zeros((2, 2, 20, 2))
    rewards[0, 0] = np.stack([np.ones(20), np.arange(20)], 1)
    nothing = np.zeros((*rewards.shape, 1))
    evaluation = Evaluation(rewards, nothing, nothing, rewards > 99, rewards < 99, nothing)
    tasks = evaluations.HeldOutTasks(np.array([0, 0]), np.array([[0.5], [2.0]]), np.array([1, 0]))
    evaluations.save(tmp_path / "evaluation.npz", evaluation, tasks)
    first, second = publish.last_evaluation(tmp_path, {"stationary": True, "subtasks": ["back", "ahead"]})
    assert first == {"subtask": "ahead", "spec": [0.5], "reward_per_step": [1.0] * 10}
    assert second == {"subtask": "back", "spec": [2.0], "reward_per_step": [2 * i + 0.5 for i in range(10)]}
    assert publish.last_evaluation(tmp_path, {"stationary": False}) == []


def test_what_is_no_run_is_not_published(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere holds no finished run"):
        publish.main(publish.Config((tmp_path / "nowhere",), out=tmp_path))
    with pytest.raises(ConfigurationError, match="was never evaluated"):
        publish.main(publish.Config((run(tmp_path / "new", returns=()),), out=tmp_path))
    with pytest.raises(ConfigurationError, match="different experiments: moss_a_fast, moss_b_fast"):
        publish.main(publish.Config((run(tmp_path / "a", "a"), run(tmp_path / "b", "b")), out=tmp_path))


def test_settings_that_came_later_are_no_difference(published):
    """An older run says nothing of a field that a newer one has at its default."""
    newer = run(published / "newer", seed=5)
    about = json.loads((newer / "config.json").read_text())
    about["config"]["data"] = {"imagined_episodes": 0.0}
    (newer / "config.json").write_text(json.dumps(about))
    publish.main(publish.Config((newer,), keep=True, out=published, figures=published / "docs"))
    stored = json.loads((published / "moss_cheetah_vel_fast.json").read_text())
    assert [publish.seed_of(r) for r in stored["runs"]] == [0, 2, 5]
    about["config"]["data"] = {"imagined_episodes": 0.5}
    (newer / "config.json").write_text(json.dumps(about))
    with pytest.raises(ConfigurationError, match="different settings"):
        publish.main(publish.Config((newer,), keep=True, out=published, figures=published / "docs"))
