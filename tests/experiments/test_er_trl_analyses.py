import json

import numpy as np
import pytest

from experiments import cli, er_trl, er_trl_analyses, er_trl_questions
from metarl_jax.data import offline_file
from metarl_jax.errors import ConfigurationError
from tests.helpers import fails, quick_compilation
from tests.stored import OPTIONS, SMALL, stored

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

SIZES = ["--gan.generator_sizes", "8", "--gan.discriminator_sizes", "8", "--epochs=1", "--contexts_per_task=2"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "point.h5"
    offline_file.save(path, *stored())
    return path


@pytest.fixture(scope="module")
def flags(file):
    return [f"--data={file}", "--env=point_robot", "--env_options", *OPTIONS, *SMALL, *SIZES]


@pytest.fixture(scope="module")
def runs(flags, tmp_path_factory):
    """A run of er_trl with two seeds, and one of focal."""
    folder = tmp_path_factory.mktemp("runs")
    for method, seeds in (("er_trl", 2), ("focal", 1)):
        argv = [*flags, f"--method={method}", f"--seeds={seeds}", f"--run_dir={folder / method}"]
        assert cli.main(er_trl, argv) == 0
    return [str(folder / method) for method in ("er_trl", "focal")]


def analyse(*argv: str) -> int:
    return er_trl_analyses.main([*argv, "--contexts=5", "--samples=20"])


def test_analyses_of_runs(runs, tmp_path, capsys, monkeypatch):
    """Each writes a figure and a JSON file, with a value for every seed."""
    monkeypatch.setattr(er_trl_analyses.informations, "STEPS", 3)
    out = f"--out={tmp_path}"
    assert analyse("--analysis=representation", "--splits", "train", "moderate", "extreme", "--runs", *runs, out) == 0
    assert analyse("--analysis=information", "--runs", runs[0], out) == 0
    assert analyse("--analysis=diversity", "--runs", *runs, out) == 0
    assert analyse("--analysis=actions", "--runs", runs[0], out) == 0
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in er_trl_analyses.ANALYSES}
    assert all((tmp_path / f"{name}.png").exists() for name in found)
    assert np.shape(found["representation"]["rmse"]["er_trl"]["svr"]) == (2, 5)
    assert np.shape(found["information"]["information"]["er_trl"]["I(z; a), z of another context"]) == (2,)
    assert found["diversity"]["pearson_r"] is None and found["diversity"]["distance"]["point_robot"] > 0
    assert np.shape(found["actions"]["total_variation"]) == (2,)
    assert "focal" in capsys.readouterr().out


def test_wrong_runs_are_one_line(runs, flags, tmp_path, capsys):
    out = f"--out={tmp_path / 'out'}"
    main = er_trl_analyses.main
    assert "unknown analysis 'maps'" in fails(capsys, main, "--analysis=maps", "--runs", *runs, out)
    assert "--runs needs at least one" in fails(capsys, main, out)
    assert "is not a run directory" in fails(capsys, main, "--runs", str(tmp_path), out)
    assert "unknown split 'test'" in fails(capsys, main, "--splits", "test", "--runs", runs[0], out)
    assert "--held_out must be" in fails(capsys, main, "--held_out=seeds", "--runs", runs[0], out)
    assert "has no generator" in fails(capsys, main, "--analysis=actions", "--runs", runs[1], out)
    assert "er_trl and focal are both" in fails(capsys, main, "--analysis=diversity", "--runs", runs[1], out)
    assert cli.main(er_trl, [*flags, "--method=focal", "--train_tasks=3", f"--run_dir={tmp_path / 'other'}"]) == 0
    other = ["--analysis=diversity", "--runs", runs[0], str(tmp_path / "other"), out]
    assert "differ in data, quality, tasks or scores" in fails(capsys, main, *other)
    assert "--contexts must be at least 1" in fails(capsys, main, "--contexts=0", "--runs", runs[0], out)


def test_units_of_the_reference():
    """Offline PEARL's embedding is a constant on humanoid_dir: its error is that of a constant angle."""
    angles = np.linspace(0.0, 2 * np.pi, 41)[5:35]
    specs = np.stack([np.cos(angles), np.sin(angles)], -1)
    spread = er_trl_analyses.parameter("humanoid_dir_grid", specs).std()
    published = json.loads(er_trl_analyses.PUBLISHED.read_text())["rmse"]["humanoid_dir_grid"]["offline_pearl"]
    np.testing.assert_allclose(published["linear"][0], spread, atol=2e-4)
    np.testing.assert_allclose(er_trl_analyses.parameter("hopper_mass", np.array([[2.0]])), [[2.25]])


@pytest.mark.parametrize("question", er_trl_questions.QUESTIONS)
def test_every_arm_is_a_valid_run(question, file):
    """Its flags exist, and the agent accepts them together."""
    qualities = ("mixed", "noisy")  # the others compare checkpoints
    config = er_trl_questions.Config(question=question, data=str(file), counts=(2, 4), qualities=qualities)
    found = er_trl_questions.comparison(config)
    assert found.env == "point_robot" and len(found.arms) == 4
    for arm in found.arms.values():
        flags = [f"--env={found.env}", *SMALL, *arm.flags]
        er_trl.build(cli.configure(er_trl, flags))


def test_wrong_questions_are_one_line(file, capsys):
    ask = er_trl_questions.main
    assert "--data is needed" in fails(capsys, ask, "--question=tasks")
    assert "unknown question 'seeds'" in fails(capsys, ask, f"--data={file}", "--question=seeds")
    assert "--counts must be in [2, 4], got 5" in fails(capsys, ask, f"--data={file}", "--counts", "5")
    assert "unknown method 'pearl'" in fails(capsys, ask, f"--data={file}", "--methods", "pearl")
    negative = ["--question=entropy", "--weights", "0", "-1"]
    assert "--weights must be at least 0, got -1" in fails(capsys, ask, f"--data={file}", *negative)
    assert "needs data of 2 checkpoints" in fails(capsys, ask, f"--data={file}", "--question=quality")
    assert "unknown quality 'best'" in fails(capsys, ask, f"--data={file}", "--question=quality", "--qualities", "best")
    with pytest.raises(ConfigurationError, match="needs at least one"):
        er_trl_questions.comparison(er_trl_questions.Config(data=str(file), counts=()))
