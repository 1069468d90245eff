import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest

import envs
from experiments import collect_offline, inspect_data
from experiments.collection_settings import presets_for
from metarl_jax.data import offline, offline_file
from metarl_jax.errors import ConfigurationError
from metarl_jax.training.logging import Terminal, read_metrics
from tests import probes
from tests.experiments.test_cli import fails
from tests.helpers import quick_compilation, same

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

SMALL = ["--preset=small", "--epochs=4", "--checkpoints=2", "--episodes=3", "--agent.updates=32"]
SMALL += ["--agent.sac.hidden_sizes", "16", "--agent.sac.batch_size=16", "--agent.sac.learning_rate=0.003"]
STEPS = [(4 + 2 * 2) * probes.HORIZON, (4 + 4 * 2) * probes.HORIZON]


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """The probe `context` in place of a benchmark."""
    make = envs.make

    def replaced(name, *args, **options):
        return probes.context() if name == "context" else make(name, *args, **options)

    monkeypatch.setattr(collect_offline.envs, "make", replaced)


def collect(path, *more: str) -> int:
    out = [f"--out={path}"] if path else []
    return collect_offline.main(["--env=context", *out, *SMALL, *more])


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A data set that was collected without interruption."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect_offline.envs, "make", lambda *args, **options: probes.context())
        path = tmp_path_factory.mktemp("offline") / "straight.h5"
        assert collect(path) == 0
        return path


def test_what_is_stored(straight):
    data, metadata = offline_file.load(straight, probes.context().spec)
    assert [p.name for p in straight.parent.iterdir() if p.suffix != ".png"] == ["straight.h5"]
    np.testing.assert_array_equal(metadata.checkpoints, STEPS)
    np.testing.assert_array_equal(data.count, 2 * 3 * probes.HORIZON)
    np.testing.assert_array_equal(data.split, [0, 0, 1, 1])
    np.testing.assert_array_equal(data.task.spec[:, 0], [1, -1, 1, -1])
    assert not data.terminated.any() and data.last.sum() == 4 * 2 * 3  # a time-out is not terminal
    returns = offline.behaviour_returns(data, metadata)
    assert (returns[:, 1] > returns[:, 0]).all()
    assert (metadata.preset, metadata.env, metadata.quality) == ("small", "context", "mixed")
    assert "agent.updates=32" in metadata.settings


def test_a_collection_that_was_killed_goes_on_exactly(straight, tmp_path, monkeypatch, capsys):
    path = tmp_path / "killed.h5"
    with monkeypatch.context() as patch:

        def killed(self, index):
            store(self, index)
            raise SystemExit("killed")

        store = collect_offline._Run._store
        patch.setattr(collect_offline._Run, "_store", killed)
        with pytest.raises(SystemExit, match="killed"):
            collect(path)
    out = capsys.readouterr().out
    assert not path.exists() and (tmp_path / "killed.h5.work").is_dir()
    (record,) = read_metrics(tmp_path / "killed.h5.work" / "progress.jsonl")
    stored = offline.behaviour_returns(*offline_file.load(straight))[:, 0]
    np.testing.assert_allclose(record["returns"], stored, rtol=1e-6)
    assert (record["epoch"], record["env_steps"]) == (2, STEPS[0])
    assert "over 4 tasks: " + " ".join(f"{x:.4g}" for x in record["returns"]) in out
    assert "train_min" in out and "train_max" in out
    with (tmp_path / "killed.h5.work" / "progress.jsonl").open("a") as log:
        log.write('{"epoch": 4, "env_steps": 0, "returns": []}\n')  # of a checkpoint that was never saved
    told, report = [], collect_offline.offline_file.save

    def noting(*args):
        told.extend(read_metrics(tmp_path / "killed.h5.work" / "progress.jsonl"))
        report(*args)

    monkeypatch.setattr(collect_offline.offline_file, "save", noting)
    flags = ["--env=context", f"--out={path}", *SMALL]
    assert "with seed=0, not seed=1" in fails(capsys, collect_offline.main, *flags, "--seed=1")
    assert collect(path) == 0
    assert "epoch 2" in capsys.readouterr().out
    assert told[0] == record and len(told) > 1 and all(found["env_steps"] for found in told)
    assert same(offline_file.load(path)[0], offline_file.load(straight)[0])
    assert [p.name for p in tmp_path.iterdir()] == ["killed.h5"]


def test_damaged_behaviour_is_named(tmp_path):
    file = tmp_path / "behaviour-0.npz"
    fields = dict.fromkeys(offline.OfflineBatch._fields, np.ones((2, 3, 4)))
    np.savez(file, length=np.full((2, 3), 4), **fields)
    whole = file.read_bytes()
    run = SimpleNamespace(env_steps=[7], stored_at=[1], epoch=1, _file=lambda index: file)
    assert same(collect_offline._Run.behaviours(run)[7].transitions.reward, fields["reward"])
    for damaged in (whole[:-400], whole[: len(whole) // 2], whole[:300] + bytes(50) + whole[350:], None):
        file.unlink() if damaged is None else file.write_bytes(damaged)
        with pytest.raises(ConfigurationError, match=f"behaviour-0.npz cannot be read: .*: remove {tmp_path} to begin"):
            collect_offline._Run.behaviours(run)
    with pytest.raises(ConfigurationError, match="there is no such file: remove"):
        collect_offline._Run._check_stored(run)  # as soon as the collection goes on
    run.epoch = 0
    collect_offline._Run._check_stored(run)  # nothing should be there yet


def test_ctrl_c_ends_in_good_order(straight, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data" / "context.h5"  # where nobody says where
    progress = Terminal.progress

    def interrupted(self, record, *args, **options):
        progress(self, record, *args, **options)
        if record["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Terminal, "progress", interrupted)
        assert collect(None) == 128 + signal.SIGINT
    out = capsys.readouterr().out
    assert "stopped after epoch 3; go on: python -m experiments.collect_offline" in out and not path.exists()
    assert collect(None) == 0
    assert "epoch 3" in capsys.readouterr().out
    assert same(offline_file.load(path)[0], offline_file.load(straight)[0])


def test_seeds_differ(straight, tmp_path):
    path = tmp_path / "other.h5"
    assert collect(path, "--seed=1") == 0
    assert not same(offline_file.load(path)[0].action, offline_file.load(straight)[0].action)


def test_a_file_is_never_overwritten(straight, capsys):
    before = straight.read_bytes()
    assert collect(straight) == 0  # it is all there: only the summary is printed
    assert "Summary" in capsys.readouterr().out
    wrong = ["--env=context", f"--out={straight}", *SMALL]
    assert "with epochs=4, not epochs=5: name another file" in fails(capsys, collect_offline.main, *wrong, "--epochs=5")
    assert straight.read_bytes() == before


def test_nonfinite_agents_stop_the_collection(tmp_path, capsys):
    path = tmp_path / "bad.h5"
    assert collect(path, "--agent.sac.learning_rate=1e30") == collect_offline.FAILED
    assert "is not finite in epoch" in capsys.readouterr().out and not path.exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--env=cheeta_vel_grid"], "unknown environment 'cheeta_vel_grid': did you mean cheetah_vel_grid"),
        (["--preset=large"], "unknown preset 'large': choose conditioned, small, reference"),
        (["--epoch=3"], "unknown argument --epoch: did you mean --epochs?"),
        (["--epochs=0"], "--epochs must be at least 1, got 0"),
        (["--checkpoints=9"], r"--checkpoints (9) must not exceed --epochs (4)"),
        (["--env=cheetah_dir_nonstat"], "changes its tasks in mid-episode"),
        (["--agent.updates=33"], "updates must be a multiple of 16 x policy_every, got 33"),
        (["--replay_size=8"], "--replay_size must be at least"),
        (["--out=nowhere/data.h5"], "--out: there is no directory for"),
        (["--out=."], "is a directory"),
    ],
)
def test_wrong_input_is_one_line(capsys, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, collect_offline.main, "--env=context", *SMALL, *argv)
    assert not list(tmp_path.glob("*"))


def test_the_file_of_something_else_is_refused(capsys, tmp_path):
    path = tmp_path / "notes.h5"
    path.write_text("notes")
    assert "cannot be read" in fails(capsys, collect_offline.main, "--env=context", f"--out={path}", *SMALL)
    assert path.read_text() == "notes"


def test_presets():
    reference = presets_for("reference", "hopper_mass")
    distance = reference.epochs // reference.checkpoints * reference.num_envs * 200
    assert reference.initial_episodes * 200 + distance * np.arange(1, 19)[[0, -1]] == pytest.approx([100_000, 950_000])
    assert reference.episodes == 50 and reference.checkpoints == 18
    assert presets_for("small", "cheetah_vel_grid").agent.sac.automatic_entropy_tuning is False
    assert presets_for("small", "hopper_mass").agent.sac.automatic_entropy_tuning is True


def test_order_and_splits_of_a_grid():
    env = envs.make("cheetah_vel_grid")
    split = collect_offline.splits(env)
    speeds = np.concatenate([env.train_tasks.spec, env.test_tasks.spec])[:, 0]
    np.testing.assert_array_equal(split, np.repeat([0, 1, 2], [20, 10, 10]))
    middle = [np.abs(speeds[split == i] - 2.05) for i in range(3)]
    assert middle[0].max() < middle[1].min() and middle[1].max() < middle[2].min()


def test_inspect(straight, tmp_path, capsys):
    image = tmp_path / "figure.png"
    assert inspect_data.main([str(straight), f"--out={image}"]) == 0
    out = capsys.readouterr().out
    assert image.stat().st_size > 10_000 and str(image) in out
    assert "2 train, 2 moderate, 0 extreme" in out and "192; per task 48 to 48" in out and "minus" in out
    data, metadata = offline_file.load(straight)
    best = offline.behaviour_returns(data, metadata)[1, 1]
    assert f"{best:.1f}" in out
    assert inspect_data.main([str(straight), f"--out={image}", "--quality=expert"]) == 0
    assert "per task 24 to 24" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nothing.h5"], "nothing.h5 cannot be read: there is no such file"),
        (["FILE", "--quality=best"], "unknown quality 'best'"),
        (["FILE", "--out=a.xyz"], "must end in one of"),
        (["FILE", "--out=nowhere/a.png"], "there is no directory"),
        ([], "missing FILE"),
    ],
)
def test_wrong_inspection_is_one_line(straight, capsys, argv, message):
    argv = [str(straight) if a == "FILE" else a for a in argv]
    assert message in fails(capsys, inspect_data.main, *argv)
