import contextlib
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import publish
from experiments import cli, evaluate, plot
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import guard
from tests import toy
from tests.helpers import fails


def configure(*argv: str) -> toy.Config:
    return cli.configure(toy, list(argv))


def train(argv: list[str]) -> int:
    return cli.main(toy, argv)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of two epochs and another seed of it."""
    base = tmp_path_factory.mktemp("runs")
    for seed in "01":
        assert train([f"--run_dir={base / seed}", "--epochs=2", f"--seed={seed}"]) == 0
    return base / "0"


@pytest.fixture
def as_algorithm(monkeypatch):
    monkeypatch.setitem(cli.ALGORITHMS, "toy", "tests.toy")


def test_flags_override_the_preset():
    assert configure().width == 300
    assert configure("--preset", "fast").width == 64
    assert configure("--width=7", "--preset=fast") == cli.configure(toy, ["--preset=fast", "--width=7"])
    assert configure("--width=7", "--preset=fast").width == 7
    nested = configure("--sac.batch-size=3")
    assert (nested.sac.batch_size, nested.vae.batch_size) == (3, 8)
    assert configure("--eval-every=3").run.eval_every == configure("--eval_every", "3").run.eval_every == 3


def test_help_shows_the_resolved_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        configure("--preset=fast", "--help")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "(default: 64)" in out and "--save_every" in out and "Epochs between evaluations" in out


def test_options_of_an_environment():
    assert cli.parse_options(("preset=ldm", "horizon=300", "p=0.5")) == {"preset": "ldm", "horizon": 300, "p": 0.5}
    with pytest.raises(ConfigurationError, match="'horizon' is not name=value"):
        cli.parse_options(("horizon",))
    assert cli.peek(["--env_options", "a=1", "b=2", "--seed", "3"], "env_options") == ["a=1", "b=2"]
    assert cli.peek(["--env-options=a=1"], "env_options") == ["a=1"]
    assert cli.peek(["--env_options=a=1", "b=2", "--seed=3"], "env_options") == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--evn=toy"], "unknown argument --evn: did you mean --env?"),
        (["--eval_evry", "3"], "did you mean --eval_every?"),
        (["--vea.batch_size=3"], "did you mean --vae.batch_size?"),
        (["stray"], "unknown argument stray"),
        (["--epochs=many"], "--epochs: no type matching"),
        (["--epochs"], "Missing value for argument '--epochs'"),
        (["--epochs=0"], "--epochs must be at least 1, got 0"),
        (["--env=ant"], "unknown environment 'ant'"),
        (["--resume=here", "--run_dir=there"], "--resume and --run_dir exclude each other"),
        (["--resume=nowhere"], "nowhere is not a run directory"),
    ],
)
def test_wrong_input_is_one_line(capsys, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, train, *argv)
    assert not list(tmp_path.iterdir())


def test_a_replay_that_does_not_fit_leaves_nothing_behind(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "available_memory", lambda on_host=False: 1000)
    assert "does not fit" in fails(capsys, train, f"--run_dir={tmp_path / 'run'}")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(capsys):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/checkpoints")

    assert cli.guarded(full) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: No space left on device (run/checkpoints): free some") and said.count("\n") == 1


def test_a_place_that_takes_no_file_is_one_line(capsys, tmp_path):
    assert cli.guarded(lambda: tmp_path.write_text("")) == 2
    assert capsys.readouterr().err == f"error: Is a directory ({tmp_path}): name another place\n"


def test_output_that_nobody_reads_is_no_error(capfd):
    """As after `| head`: what was written to the pipe, and what still is, vanishes."""
    ours, theirs = os.pipe()
    terminal = os.dup(1)
    try:
        with open(1, "w", buffering=1, closefd=False) as stdout, contextlib.redirect_stdout(stdout):
            os.dup2(theirs, 1)
            os.close(theirs)
            os.close(ours)
            assert cli.guarded(lambda: print("found")) == cli.UNREAD
            print("more", flush=True)
    finally:
        os.dup2(terminal, 1)
        os.close(terminal)
    assert capfd.readouterr() == ("", "")


def test_other_system_errors_are_not_hidden():
    with pytest.raises(FileNotFoundError):
        cli.guarded(lambda: Path("no such file").read_text())
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "wb", buffering=0) as pipe, pytest.raises(BrokenPipeError):  # not of the command's own output
        cli.guarded(lambda: pipe.write(b"found"))


def test_a_run_is_never_overwritten(capsys, trained):
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    assert "holds a run: use --resume=" in fails(capsys, train, f"--run_dir={trained}")
    assert "seed is 0 in" in fails(capsys, train, f"--resume={trained}", "--seed=5")
    assert "width is 300 in" in fails(capsys, train, f"--resume={trained}", "--width=5")
    assert "vae.batch_size is 8 in" in fails(capsys, train, f"--resume={trained}", "--vae.batch_size=5")
    assert "is not empty" in fails(capsys, train, f"--run_dir={trained.parent}")
    assert "extend it with --epochs" in fails(capsys, train, f"--resume={trained}")
    checked = [p for p in before if p.is_file()]
    assert {p: p.stat().st_mtime_ns for p in checked} == {p: before[p] for p in checked}


def test_resume_reads_the_configuration(tmp_path, capsys):
    run = tmp_path / "run"
    assert train([f"--run_dir={run}", "--epochs=1", "--preset=fast", "--seed=3"]) == 0
    assert train([f"--resume={run}", "--epochs=2"]) == 0
    content = json.loads((run / "config.json").read_text())
    assert content["algorithm"] == "toy"
    assert (content["config"]["width"], content["config"]["run"]["seed"]) == (64, 3)
    assert content["config"]["run"]["epochs"] == 2
    assert content["config"]["run"]["resume"] is None
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert "resume" in capsys.readouterr().out


def test_a_limit_given_alone_is_the_only_one(trained):
    both = ["--minutes=5", "--epochs=3"]
    for flags, expected in ((both[1:], (3, None)), (both[:1], (None, 5.0)), (both, (3, 5.0))):
        run = configure(*flags).run
        assert (run.epochs, run.minutes) == expected
    run = configure(f"--resume={trained}", "--minutes=5").run
    assert (run.epochs, run.minutes) == (None, 5.0)


def test_default_run_directories_do_not_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {cli.rundir.claim(None, "toy", "toy").name for _ in range(3)}
    assert len(names) == 3 and all(name.startswith("toy-toy-") for name in names)


def test_evaluate_repeats_what_training_measured(trained, as_algorithm, tmp_path, capsys):
    file = tmp_path / "result.json"
    assert evaluate.main([f"--run={trained}", "--episodes=3", f"--json={file}"]) == 0
    out = capsys.readouterr().out
    assert "far_left" in out and "ep 3" in out and "mean near" in out
    result = json.loads(file.read_text())
    summary = json.loads((trained / "summary.json").read_text())
    assert len(result["test_return_by_episode"]) == 3 and len(result["tasks"]) == len(toy.TASKS.family)
    assert result["test_return"] == pytest.approx(summary["test_return"], rel=1e-5)
    assert result["means"]["mean near"][0] == pytest.approx(summary["test_return_by_family"]["near"], rel=1e-5)


def test_plot(trained, tmp_path, capsys):
    both = ["--runs", str(trained), str(trained.parent / "1")]
    levels = ["--levels", "idle=-3", "best=0.5"]
    assert plot.main([*both, f"--out={tmp_path / 'both.png'}", *levels]) == 0
    assert plot.main(["--runs", str(trained), "--method=tsne", f"--out={tmp_path / 'one.pdf'}"]) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [str(tmp_path / n) for n in ("both.png", "one.pdf", "one_latents.pdf")]
    groups = plot.group(both[1:])
    assert [(name, len(members)) for name, members in groups.items()] == [("toy, toy", 2)]


def test_tasks_that_are_drawn_alike_count_as_often_as_they_are_drawn(tmp_path, as_algorithm, monkeypatch):
    spec, label = np.array([[1.0], [1.2], [3.0], [3.0], [3.0], [4.2]]), np.array([0, 0, 1, 1, 1, 2])
    monkeypatch.setattr(toy, "TASKS", toy.TASKS._replace(spec=spec, label=label))
    run, file = tmp_path / "run", tmp_path / "one.json"
    assert train([f"--run_dir={run}", "--epochs=2"]) == 0
    assert evaluate.main([f"--run={run}", f"--json={file}"]) == 0
    summary, result = json.loads((run / "summary.json").read_text()), json.loads(file.read_text())
    assert len(result["tasks"]) == 4 and result["test_return_by_episode"] == [result["test_return"]]
    assert result["test_return"] == pytest.approx(summary["test_return"], rel=1e-5)
    assert result["means"]["mean far"] == pytest.approx([summary["test_return_by_family"]["far"]], rel=1e-5)


def test_members_are_told_apart(tmp_path, as_algorithm, capsys):
    """By what draws, evaluates and resumes a run of several settings, each with two seeds."""
    run, file = tmp_path / "run", tmp_path / "one.json"
    assert train([f"--run_dir={run}", "--epochs=2", "--seeds=2", "--members", "low", "mid", "high"]) == 0
    record, summary = plot.evaluated(str(run))[-1], json.loads((run / "summary.json").read_text())
    returns, by_member = np.reshape(record["test_return_per_seed"], (3, 2)), summary["test_return_by_member"]
    assert list(by_member) == ["low", "mid", "high"] and "best_epoch" not in summary
    assert summary["best_member"] == list(by_member)[returns.mean(1).argmax()]
    assert (run / "curves.png").exists() and not (run / "latents.png").exists()
    groups = plot.group([str(run)])
    assert [(name, len(seeds)) for name, seeds in groups.items()] == [(f"toy, toy, {name}", 2) for name in by_member]
    assert plot.main(["--runs", str(run)]) == 0
    assert evaluate.main([f"--run={run}", "--member=1", f"--json={file}"]) == 0
    assert "toy, epoch 2, none, mid" in capsys.readouterr().out
    result = json.loads(file.read_text())
    assert (result["member"], result["test_return"]) == ("mid", pytest.approx(returns[1].mean(), rel=1e-5))
    experiment, state, info = evaluate.load(run)
    damaged = experiment, state, info | {"nonfinite_members": {"mid": 2}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "load", lambda *_, **__: damaged)
        message = fails(capsys, evaluate.main, f"--run={run}", "--member=1")
    assert "--member=1: mid went non-finite in epoch 2" in message
    assert "members is ('low', 'mid', 'high')" in fails(
        capsys, train, f"--resume={run}", "--epochs=3", "--members", "a"
    )
    assert train([f"--resume={run}", "--epochs=3"]) == 0
    assert len(plot.evaluated(str(run))[-1]["test_return_per_seed"]) == 6
    assert "trained 3 settings" in fails(capsys, lambda argv: cli.command(publish.Config, publish.main, argv), str(run))


def test_an_oracle_beside_others_is_a_line(trained, tmp_path, monkeypatch):
    told = shutil.copytree(trained, tmp_path / "told")
    content = json.loads((told / "config.json").read_text())
    content["config"]["agent"] = {"belief": "oracle"}
    (told / "config.json").write_text(json.dumps(content))
    drawn = []
    monkeypatch.setattr(plot.curves, "draw_groups", lambda _, groups, levels: drawn.append((list(groups), levels)))
    again = shutil.copytree(told, tmp_path / "again")
    for runs in ((trained, told), (told, again)):
        assert plot.main(["--runs", *map(str, runs), f"--out={tmp_path / 'both.png'}"]) == 0
    returns = [r["test_return"] for r in plot.evaluated(str(told))]
    assert drawn == [(["toy, toy"], {"oracle": pytest.approx(np.mean(returns[-3:]), rel=1e-5)}), (["toy, toy"], {})]


def test_wrong_runs_are_one_line(capsys, trained, tmp_path, as_algorithm):
    assert "is not a run directory" in fails(capsys, evaluate.main, f"--run={tmp_path}")
    assert "--episodes must be" in fails(capsys, evaluate.main, f"--run={trained}", "--episodes=0")
    assert "--member must be 0 to 0" in fails(capsys, evaluate.main, f"--run={trained}", "--member=1")
    assert "missing --run" in fails(capsys, evaluate.main)
    assert "is not a run directory" in fails(capsys, plot.main, "--runs", str(tmp_path))
    assert "must end in one of" in fails(capsys, plot.main, "--runs", str(trained), "--out=figure.xyz")
    assert "must be a finite number" in fails(capsys, plot.main, "--runs", str(trained), "--levels", "idle=low")
    assert "--levels: '-3' is not name=value" in fails(capsys, plot.main, "--runs", str(trained), "--levels", "-3")
    assert "unknown projection" in fails(capsys, plot.main, "--runs", str(trained), "--method=umap")
    assert "must be a finite number" in fails(capsys, plot.main, "--runs", str(trained), "--levels", "idle=inf")
    assert "a name must be" in fails(capsys, plot.main, "--runs", str(trained), "--levels", "=5")
    assert "is given twice" in fails(capsys, plot.main, "--runs", str(trained), f"{trained}/../{trained.name}")
    assert "--runs: none is not a run directory" in fails(capsys, plot.main, "--runs", "none")
    for content in ('{"algorithm": "none"}', "[1]", "\x80"):
        (tmp_path / "config.json").write_text(content, encoding="latin-1")
        assert "is not a run directory" in fails(capsys, evaluate.main, f"--run={tmp_path}")
    (tmp_path / "config.json").write_text('{"algorithm": "none", "config": {}, "environment": {}}')
    assert "run of 'none'" in fails(capsys, evaluate.main, f"--run={tmp_path}")
    assert "is not a file in a directory" in fails(capsys, evaluate.main, f"--run={trained}", f"--json={tmp_path}")


def test_a_run_that_was_not_saved_yet_is_left_alone(capsys, trained, tmp_path, as_algorithm):
    shutil.copy(trained / "config.json", tmp_path)
    assert "has no checkpoint yet" in fails(capsys, evaluate.main, f"--run={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_paths_are_told_apart_by_as_many_names_as_it_takes():
    assert cli.rundir.short(["a/x-0", "a/x-1"]) == ["x-0", "x-1"]
    assert cli.rundir.short(["a/x/0", "b/x/0", "b/x/1"]) == ["a/x/0", "b/x/0", "b/x/1"]
    assert cli.rundir.short(["a/x", "a/x", "b/y"]) == ["x", "x", "y"]
    assert cli.rundir.short([]) == []


def test_runs_of_the_same_name_are_all_drawn(trained, tmp_path):
    runs = [shutil.copytree(trained, tmp_path / folder / "0") for folder in "ab"]
    content = json.loads((runs[1] / "config.json").read_text())
    content["config"]["width"] += 1
    (runs[1] / "config.json").write_text(json.dumps(content))
    assert list(plot.group([str(run) for run in runs])) == ["toy, toy (a/0)", "toy, toy (b/0)"]


def test_a_start_that_was_killed_can_be_repeated(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    assert cli.rundir.check_free(str(tmp_path)) == tmp_path
    (tmp_path / "checkpoints" / "1").mkdir()
    with pytest.raises(ConfigurationError, match="is not empty"):
        cli.rundir.check_free(str(tmp_path))


@pytest.mark.parametrize(("counts", "told"), [({"steps": 0}, "0"), ({"batches": (2, 0)}, "2 0"), ({"a": ()}, "none")])
def test_counts_are_positive(counts, told):
    with pytest.raises(ConfigurationError, match=rf"--{next(iter(counts))} must be at least 1, got {told}"):
        cli.check_counts(**counts)
    cli.check_counts(steps=1, batches=(1, 2))


def test_a_config_of_another_version_is_refused():
    with pytest.raises(ConfigurationError, match="unknown field 'width_of_old'"):
        cli.rundir.fill(toy.Config(), {"width_of_old": 1}, "here")
