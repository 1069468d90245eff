import json

import jax
import numpy as np
import pytest

import envs
from experiments import cli, er_trl, evaluate, normalizers
from metarl_jax.data import offline_file
from metarl_jax.errors import ConfigurationError
from tests.helpers import fails, quick_compilation
from tests.stored import OPTIONS, SMALL, stored

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "point.h5"
    offline_file.save(file, *stored())
    return [f"--data={file}", "--env=point_robot", "--env_options", *OPTIONS, *SMALL]


def train(argv: list[str]) -> int:
    return cli.main(er_trl, argv)


def state_of(run) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(evaluate.load(run)[1].agent)]


def test_a_run(flags, tmp_path, capsys):
    """Trains, resumes to the bit, evaluates; the data stays out of the checkpoints."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train([*flags, "--epochs=2", f"--run_dir={whole}"]) == 0
    assert train([*flags, "--epochs=1", f"--run_dir={halves}"]) == 0
    assert train([f"--resume={halves}", "--epochs=2"]) == 0
    for a, b in zip(state_of(whole), state_of(halves), strict=True):
        np.testing.assert_array_equal(a, b)
    records = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    last = records[-1]
    names = {f"{c}/{s}" for c in ("offline", "prior", "non_prior") for s in ("iid", "moderate", "extreme")}
    assert set(last["test_return_by_family"]) == set(last["test_score_by_family"]) == names
    assert (last["epoch"], last["env_steps"], last["train_return"]) == (2, 0, pytest.approx(-30.0))
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["status"] == "completed" and summary["test_score"] == last["test_score"]
    both = np.mean([r["test_score_by_family"]["prior/iid"] for r in records])
    assert summary["recent_score_by_family"]["prior/iid"] == pytest.approx(both)
    assert all((whole / name).exists() for name in ("curves.png", "latents.png", "evaluation.npz"))
    capsys.readouterr()
    assert evaluate.main([f"--run={whole}", "--episodes=2"]) == 0
    assert "mean non_prior/extreme" in capsys.readouterr().out
    assert "play all tasks of its data" in fails(capsys, evaluate.main, f"--run={whole}", "--tasks=train")


def test_a_run_notices_that_its_data_was_replaced(flags, tmp_path, capsys):
    file, run = tmp_path / "point.h5", tmp_path / "run"
    data, metadata = stored()
    offline_file.save(file, data, metadata)
    assert train([f"--data={file}", *flags[1:], "--epochs=1", f"--run_dir={run}"]) == 0
    offline_file.save(file, data._replace(reward=data.reward + 1), metadata)
    for command, flag in ((train, "--resume"), (evaluate.main, "--run")):
        assert "has learnt from other data than is in its file now" in fails(capsys, command, f"{flag}={run}")
    offline_file.save(file, data, metadata)
    assert evaluate.main([f"--run={run}"]) == 0
    moved = file.rename(tmp_path / "moved.h5")
    assert "there is no such file" in fails(capsys, evaluate.main, f"--run={run}")
    assert train([f"--resume={run}", f"--data={moved}"]) == 0  # it has ended: nothing else is done
    assert f"finds its data in {moved} from now on" in capsys.readouterr().out
    assert evaluate.main([f"--run={run}"]) == 0
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"data_checksum": None}))  # as in earlier versions
    assert "data is" in fails(capsys, train, f"--resume={run}", f"--data={file}")


def test_wrong_input_is_one_line(flags, tmp_path, capsys):
    file = flags[0].removeprefix("--data=")
    runs = [f"--run_dir={tmp_path / 'run'}"]
    assert "--data is needed: collect it by" in fails(capsys, train, *flags[1:], *runs)
    assert "there is no such file" in fails(capsys, train, *flags, "--data=none.h5", *runs)
    assert f"{file} is of benchmark point_robot" in fails(capsys, train, f"--data={file}", *runs)
    assert "unknown method 'pearl'" in fails(capsys, train, *flags, "--method=pearl", *runs)
    assert "unknown preset 'fast': choose small or reference" in fails(capsys, train, *flags, "--preset=fast", *runs)
    assert "unknown quality 'best'" in fails(capsys, train, *flags, "--quality=best", *runs)
    assert "the reference has no returns of these" in fails(capsys, train, *flags, "--normalizer=reference", *runs)
    assert "--train_tasks must be in [2, 4]" in fails(capsys, train, *flags, "--train_tasks=5", *runs)
    assert "tasks_per_step must be in [2, 2]" in fails(capsys, train, *flags, "--train_tasks=2", *runs)
    assert "adapt_episodes must be >= 1" in fails(capsys, train, *flags, "--adapt_episodes=0", *runs)
    assert not (tmp_path / "run").exists()


def test_normalizers():
    """Scores of the data's own lowest and highest returns are 0 and 100; the reference's idle cheetah is near 0."""
    data, metadata = stored()
    own = normalizers.choose("auto", data, metadata)
    np.testing.assert_allclose(own.scores(np.tile([-40.0], 21)), 0.0)
    np.testing.assert_allclose(own.scores(np.tile([-20.0], 21)), 100.0)
    with pytest.raises(ConfigurationError, match="all episodes of task 0 return -20 in the data"):
        normalizers.choose("data", data._replace(reward=np.full_like(data.reward, -1.0)), metadata)
    with pytest.raises(ConfigurationError, match="unknown normalizer 'mine'"):
        normalizers.choose("mine", data, metadata)
    grid = metadata.__class__(**(vars(metadata) | {"env": "cheetah_vel_grid", "env_options": (), "horizon": 200}))
    reference = normalizers.reference(data._replace(split=np.repeat([0, 1, 2], [20, 10, 10])), grid)
    env = envs.make("cheetah_vel_grid")
    speeds = np.concatenate([env.train_tasks.spec[:, 0], env.test_tasks.spec[:, 0]])
    idle = reference.scores(-200.0 * speeds)
    assert np.abs(np.delete(idle, np.isclose(speeds, 0.4).argmax())).max() < 12 and "ER-TRL" in reference.source


def test_the_extreme_tasks_of_the_reference_have_the_wrong_data():
    data, _ = stored()
    right, wrong = (er_trl.context_sources(er_trl.Config(wrong_extreme_contexts=x), data) for x in (False, True))
    assert right.tolist() == [0, 1, 2, 3, 4, 5, 6] and wrong.tolist() == [0, 1, 2, 3, 4, 5, 4]


def test_the_quirks_of_the_reference_are_on_by_name():
    """And corrected elsewhere."""
    reference, small = (er_trl.presets_for(preset, "cheetah_vel_grid") for preset in ("reference", "small"))

    def quirks(config):
        agent = config.agent
        return (
            agent.contexts_per_task,
            agent.brac.penalty,
            agent.timeouts_terminate,
            config.wrong_extreme_contexts,
            agent.gan.momentum,
        )

    assert quirks(reference) == (1, "output", True, True, 0.9) and quirks(small) == (2, "gradient", False, False, 0.0)
    assert reference.agent.entropy_weight == 2.5 and reference.run.epochs * reference.agent.steps_per_epoch == 100_000
