import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import envs
from envs import rendering
from experiments import render
from metarl_jax.analysis import evaluation as evaluations
from metarl_jax.analysis.evaluation import HeldOutTasks
from metarl_jax.errors import ConfigurationError
from metarl_jax.types import Evaluation
from tests.experiments.test_cli import fails
from tests.test_house import ROOT

SPEC = envs.make("cheetah_multitask", "native").spec
TASKS = HeldOutTasks(np.array([0, 0, 0, 1]), np.array([[1.0], [3.0], [2.0], [1.5]]), np.array([0, 0, 0, 2]))
STEPS = 7


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An evaluation of four tasks that ends early on the last one, in which bodies move ahead by 0.1 m per step."""
    folder = tmp_path_factory.mktemp("run")
    environment = {name: getattr(SPEC, name) for name in ("families", "subtasks", "dt", "stationary")}
    content = {"algorithm": "moss", "config": {"env": SPEC.name, "run": {}}, "environment": environment}
    (folder / "config.json").write_text(json.dumps(content))
    rewards, alive = -np.ones((1, 1, STEPS, 4)), np.ones((1, 1, STEPS, 4), bool)
    alive[..., 5:, 3] = False
    nothing, qpos = np.zeros((*rewards.shape, 1)), np.zeros((*rewards.shape, 9))
    qpos[..., 0] = 0.1 * np.arange(STEPS)[:, None]
    evaluation = Evaluation(rewards, nothing, nothing, ~alive, alive, nothing, qpos=qpos)
    evaluations.save(folder / "evaluation.npz", evaluation, TASKS)
    return folder


def test_one_task_of_each_subtask_is_shown(run):
    first, last = render.episodes(render.Config(str(run)))
    assert (first.name, first.spec, first.place) == ("velocity_forward", [2.0], None)
    assert (last.name, last.spec, last.place, len(last.rewards)) == ("goal_forward", [1.5], [1.5], 5)
    np.testing.assert_allclose(last.qpos[:, 0], 0.1 * np.arange(5))
    assert [e.spec for e in render.episodes(render.Config(str(run), tasks=(1, 0)))] == [[3.0], [1.0]]
    assert render.caption("jump", last.spec, last.rewards[:2]) == "jump 1.50\nreturn -2.0"
    assert render.caption("dynamics", np.ones(9), last.rewards) == "dynamics\nreturn -5.0"


def test_a_task_that_is_played_several_times_is_one(run, tmp_path):
    content = json.loads((run / "config.json").read_text())
    content["environment"]["stationary"] = False
    (tmp_path / "config.json").write_text(json.dumps(content))
    evaluation, tasks = evaluations.load(run / "evaluation.npz")
    evaluations.save(tmp_path / "evaluation.npz", evaluation, HeldOutTasks(*(x[[0, 0, 0, 3]] for x in tasks)))
    first, last = render.episodes(render.Config(str(tmp_path), tasks=(0, 1)))
    assert (first.name, last.name, len(first.spec), len(last.rewards)) == ("changing task", "changing task", 0, 5)
    with pytest.raises(ConfigurationError, match="--tasks must be 0 to 1 for this run, got 2"):
        render.episodes(render.Config(str(tmp_path), tasks=(2,)))
    for field, value in (("data_checksum", "abc"), ("config", {"env": SPEC.name, "run": {}, "members": ["a"]})):
        (tmp_path / "config.json").write_text(json.dumps(content | {field: value}))
        with pytest.raises(ConfigurationError, match="these are not filmed"):
            render.episodes(render.Config(str(tmp_path)))


def test_tasks_of_one_subtask_are_spread_over_all():
    spec = np.random.default_rng(0).permutation(30.0 * np.arange(30))[:, None]
    chosen = render.choose_tasks(HeldOutTasks(np.zeros(30, int), spec, np.zeros(30, int)))
    assert spec[chosen, 0].tolist() == [0, 120, 240, 360, 510, 630, 750, 870]


def test_a_tile_that_ends_stays_as_it_was():
    red, blue = (Image.new("RGB", (32, 24), colour) for colour in ("red", "blue"))
    sheets = list(render.side_by_side([iter([red, blue, red]), iter([blue])], columns=1))
    assert [sheet.size for sheet in sheets] == [(32, 48)] * 3
    corners = [[sheet.convert("RGB").getpixel((1, y)) for y in (1, 25)] for sheet in sheets]
    assert corners == [[(255, 0, 0), (0, 0, 255)], [(0, 0, 255)] * 2, [(255, 0, 0), (0, 0, 255)]]


def test_a_run_is_filmed(run, tmp_path):
    """In a process of its own: MuJoCo chooses what to draw with when it is imported. Without OpenGL a line says so."""
    command = [sys.executable, "-m", "experiments.render", f"--run={run}", f"--out={tmp_path}/film.gif"]
    command += ["--every=3", "--width=160", "--tasks", "1", "3"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    if process.returncode == render.cli.USAGE:
        assert "error: there is no OpenGL to draw with" in process.stderr and not (tmp_path / "film.gif").exists()
        return
    assert process.returncode == 0, process.stderr
    with Image.open(tmp_path / "film.gif") as film:
        assert (film.n_frames, film.size, film.info["duration"]) == (3, (320, 120), 150)
        start = np.asarray(film.convert("RGB"), float)
        film.seek(1)
        after = np.asarray(film.convert("RGB"), float)
    assert start[:, :160].std() > 20 and np.abs(after - start).max() > 100


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--run=nowhere"], "nowhere is not a run directory"),
        (["--tasks", "4"], "--tasks must be 0 to 3 for this run, got 4"),
        (["--episode=2"], "--episode must be 1 to 1 for this run, got 2"),
        (["--every=0"], "--every must be at least 1, got 0"),
        (["--speed=10"], "--every=2 at --speed=10 is 10 ms a picture: show 20 to 600000"),
        (["--width=1000"], "--width must be 80 to 640, got 1000"),
        (["--speed=0"], "--speed must be positive and finite, got 0"),
        (["--out=film.mp4"], "--out: film.mp4 must end in one of .gif, .webp, .png"),
        (["--out=nowhere/film.gif"], "--out: there is no directory for nowhere/film.gif"),
    ],
)
def test_wrong_input_is_one_line(run, capsys, argv, message):
    assert message in fails(capsys, render.main, f"--run={run}", *argv)
    assert not list(run.glob("*.gif"))


def test_what_cannot_be_drawn_is_said(run, tmp_path, capsys):
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    assert "has no evaluation.npz yet" in fails(capsys, render.main, f"--run={tmp_path}")
    evaluation, tasks = evaluations.load(run / "evaluation.npz")
    evaluations.save(tmp_path / "evaluation.npz", evaluation._replace(qpos=None), tasks)
    assert "is of an earlier version: go on with it (--resume)" in fails(capsys, render.main, f"--run={tmp_path}")
    with pytest.raises(envs.ConfigurationError, match="point_robot has no body to draw"):
        next(rendering.film("point_robot", np.zeros((1, 2))))
