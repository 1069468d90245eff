import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.analysis.curves import by_setting
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import loop
from metarl_jax.training.checkpoint import Checkpoints
from metarl_jax.types import Epoch
from tests import toy

ROOT = Path(__file__).parents[2]
TIMES = {"seconds", "compile_seconds", "env_steps_per_second", "updates_per_second"}


def run(path: Path, epochs: int | None = 3, spec=None, minutes=None, eval_every=1, **options) -> int:
    path.mkdir(exist_ok=True)
    trainer = toy.trainer(**options)
    config = loop.RunConfig(epochs, minutes, seeds=trainer.num_seeds, save_every=0.0, eval_every=eval_every)
    return loop.run(loop.Experiment(trainer, spec or toy.SPEC, toy.TASKS, {"engine": "none"}), config, path, {})


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def summary(path: Path) -> dict:
    return json.loads((path / "summary.json").read_text())


def final_state(path: Path, **options):
    store = Checkpoints(path / "checkpoints")
    state, _ = store.restore(loop.template(toy.trainer(**options)))
    store.close()
    return jax.device_get(state._replace(key=jax.random.key_data(state.key)))


def test_what_a_run_leaves_behind(tmp_path, capsys):
    assert run(tmp_path, 4, eval_every=2) == 0
    lines = records(tmp_path)
    assert [r["epoch"] for r in lines] == [1, 2, 3, 4]
    assert [r["env_steps"] for r in lines] == [100, 200, 300, 400]
    assert [r["test_return"] is None for r in lines] == [True, False, True, False]
    assert lines[0]["train_return"] == -4.0 and lines[0]["vae_loss"] == 4.0
    assert list(lines[1]["test_return_by_family"]) == ["near", "far"]
    assert lines[1]["test_cluster_purity"] == 1.0
    np.testing.assert_allclose(lines[1]["test_component_usage"], [1 / 3, 2 / 3], atol=1e-6)
    for name in ("curves.png", "latents.png", "evaluation.npz", "tensorboard"):
        assert (tmp_path / name).exists(), name
    done = summary(tmp_path)
    assert done["status"] == "completed"
    assert done["test_return"] == lines[-1]["test_return"] == done["best_test_return"] and done["best_epoch"] == 4
    weight = final_state(tmp_path).agent["weight"][0, 0]
    expected = -toy.STEPS * np.mean(np.abs(weight - toy.TASKS.spec))
    np.testing.assert_allclose(done["test_return"], expected, rtol=1e-5)
    assert "4 epochs" in capsys.readouterr().out


def test_one_compile_per_program(tmp_path):
    traces = []
    trainer = toy.trainer()

    def counted(function):
        def call(*args):
            traces.append(function)
            return function(*args)

        return call

    parts = {name: counted(part) for name, part in trainer.epoch.parts.items()}
    epoch = Epoch(parts, counted(trainer.epoch.finish))
    trainer = trainer._replace(epoch=epoch, evaluate=counted(trainer.evaluate))
    loop.run(loop.Experiment(trainer, toy.SPEC, toy.TASKS, {}), loop.RunConfig(epochs=5), tmp_path, {})
    assert len(traces) == len(set(traces)) == len(parts) + 2 == 4


def test_seeds_are_reported_one_by_one(tmp_path):
    run(tmp_path, 2, seeds=3)
    last = records(tmp_path)[-1]
    assert len(last["test_return_per_seed"]) == 3 and len(set(last["test_return_per_seed"])) == 3
    np.testing.assert_allclose(last["test_return"], np.mean(last["test_return_per_seed"]))


def test_members_are_reported_one_by_one(tmp_path):
    experiment = loop.Experiment(toy.trainer(seeds=6), toy.SPEC, toy.TASKS, {}, members=("low", "mid", "high"))
    loop.run(experiment, loop.RunConfig(epochs=2, seeds=2), tmp_path, {})
    per_seed, by_member = (records(tmp_path)[-1][f"test_return_{name}"] for name in ("per_seed", "by_member"))
    assert by_member == pytest.approx(dict(zip(experiment.members, np.reshape(per_seed, (3, 2)).mean(1), strict=True)))
    assert json.loads((tmp_path / "summary.json").read_text())["test_return_by_member"] == by_member
    curves = by_setting(records(tmp_path), "all")
    assert [curve.test_return[-1] for curve in curves["mid"]] == per_seed[2:4] and list(curves) == list(by_member)


def test_resume_is_exact(tmp_path):
    """6 epochs equal 3, a new process, 3; the lines of epochs after the checkpoint are not doubled."""
    straight, parts = tmp_path / "straight", tmp_path / "parts"
    run(straight, 6)
    command = [sys.executable, "-m", "tests.toy"]
    subprocess.run([*command, f"--run_dir={parts}", "--epochs=3"], cwd=ROOT, check=True, capture_output=True)
    with (parts / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "env_steps": 400}\n{"epoch": 5, "env')  # a kill after the checkpoint of epoch 3
    before = records(straight)
    run(parts, 6)
    jax.tree.map(np.testing.assert_array_equal, final_state(straight), final_state(parts))
    after = records(parts)
    assert [{k: v for k, v in r.items() if k not in TIMES} for r in after] == [
        {k: v for k, v in r.items() if k not in TIMES} for r in before
    ]
    seconds = [r["seconds"] for r in after]
    assert seconds == sorted(seconds)


def test_a_spent_budget_is_an_error(tmp_path):
    run(tmp_path, 2)
    with pytest.raises(ConfigurationError, match="extend it with --epochs"):
        run(tmp_path, 2)


def test_a_kill_before_the_report_leaves_it_to_the_resume(tmp_path):
    run(tmp_path, 2)
    for name in ("summary.json", "latents.png"):
        (tmp_path / name).unlink()
    before = (tmp_path / "metrics.jsonl").read_text()
    assert run(tmp_path, 2) == 0
    assert summary(tmp_path)["status"] == "completed" and (tmp_path / "latents.png").exists()
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_kill_before_the_first_evaluation_is_evaluated_by_the_resume(tmp_path):
    run(tmp_path, 2, eval_every=9)
    evaluated = records(tmp_path)[-1]
    rows = [{name: value for name, value in r.items() if not name.startswith("test")} for r in records(tmp_path)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "summary.json").write_text('{"status": "runni')
    assert run(tmp_path, 2, eval_every=9) == 0
    assert records(tmp_path)[-1] == evaluated and summary(tmp_path)["test_return"] == evaluated["test_return"]


def test_results_without_checkpoints_are_not_thrown_away(tmp_path):
    run(tmp_path, 2)
    before = (tmp_path / "metrics.jsonl").read_text()
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(ConfigurationError, match="no checkpoint that can be read: put its checkpoints/ back"):
        run(tmp_path, 4)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_damaged_files_beside_a_good_checkpoint_do_no_harm(tmp_path):
    run(tmp_path, 2, eval_every=2)
    for name in ("summary.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes(b"5\n\x80\n[]\n")
    (tmp_path / "evaluation.npz").write_bytes(b"PK no archive")
    assert run(tmp_path, 3, eval_every=3) == 0
    assert [r["epoch"] for r in records(tmp_path)] == [3] and summary(tmp_path)["status"] == "completed"


def test_a_run_that_goes_on_is_not_finished_until_it_says_so(tmp_path, monkeypatch):
    """Were it killed before its first save, its summary would be that of the shorter run."""
    run(tmp_path, 2)
    assert summary(tmp_path)["status"] == "completed"
    monkeypatch.setattr(loop._Run, "_compile", lambda *_: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception):
        run(tmp_path, 4)
    assert summary(tmp_path)["status"] == "running" and summary(tmp_path)["epoch"] == 2


def test_the_summary_is_final_when_all_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(loop.evaluations, "save", full)
        run(tmp_path, 2)
    assert summary(tmp_path)["status"] == "running"
    assert run(tmp_path, 2) == 0
    assert summary(tmp_path)["status"] == "completed" and (tmp_path / "evaluation.npz").exists()


def test_a_signal_in_the_last_epoch_does_not_block_the_run(tmp_path):
    """It has nothing left to train, but it may be asked to say that it is done."""
    run(tmp_path, 2)
    (tmp_path / "summary.json").write_text(json.dumps(summary(tmp_path) | {"status": "interrupted"}))
    assert run(tmp_path, 2) == 0
    assert summary(tmp_path)["status"] == "completed"


def test_minutes_end_a_run(tmp_path):
    run(tmp_path, epochs=None, minutes=0.005)
    assert summary(tmp_path)["status"] == "budget"
    assert summary(tmp_path)["seconds"] < 3.0
    with pytest.raises(ConfigurationError, match="extend it with --minutes"):
        run(tmp_path, epochs=None, minutes=0.005)  # though its last epoch may have ended before the limit


def members_of_whom_some_fail(lanes, epoch):
    """Three members with two seeds each: the weights of `lanes` are NaN from an epoch on."""
    trainer = toy.trainer(seeds=6)

    def finish(state, brought):
        state, metrics = trainer.epoch.finish(state, brought)
        weight = state.agent["weight"]
        bad = jnp.zeros(6, bool).at[jnp.array(lanes)].set(True) & (state.epoch >= epoch)
        return state._replace(agent={"weight": jnp.where(bad[:, None], jnp.nan, weight)}), metrics

    broken = trainer._replace(epoch=Epoch(trainer.epoch.parts, finish))
    return loop.Experiment(broken, toy.SPEC, toy.TASKS, {}, members=("low", "mid", "high"))


def test_a_member_that_goes_nonfinite_is_left_out_and_the_others_go_on(tmp_path, capsys):
    experiment = members_of_whom_some_fail([3], epoch=2)
    assert loop.run(experiment, loop.RunConfig(epochs=2, seeds=2), tmp_path, {}) == 0
    assert "warning: agent/weight of mid is not finite in epoch 2; others go on" in capsys.readouterr().out
    assert loop.run(experiment, loop.RunConfig(epochs=3, seeds=2), tmp_path, {}) == 0  # resumed, and bad again
    assert "warning" not in capsys.readouterr().out
    first, *_, last = records(tmp_path)
    per_seed, by_member = last["test_return_per_seed"], last["test_return_by_member"]
    assert None not in first["test_return_per_seed"] and per_seed[2:4] == [None, None] and by_member["mid"] is None
    np.testing.assert_allclose(last["test_return"], np.mean([*per_seed[:2], *per_seed[4:]]))
    assert last["critic_loss"] is not None  # the mean of the others'
    assert summary(tmp_path)["nonfinite_members"] == {"mid": 2} and summary(tmp_path)["best_member"] in ("low", "high")
    assert np.isfinite(final_state(tmp_path, seeds=6).agent["weight"]).all()
    assert np.isnan(by_setting(records(tmp_path), "all")["mid"][1].test_return[1:]).all()
    assert (tmp_path / "curves.png").exists()


def test_when_all_members_go_nonfinite_the_run_ends(tmp_path):
    experiment = members_of_whom_some_fail([0, 2, 5], epoch=1)
    assert loop.run(experiment, loop.RunConfig(epochs=2, seeds=2), tmp_path, {}) == loop.FAILED
    assert summary(tmp_path)["status"] == "failed_nonfinite"


def test_nonfinite_learner_stops_before_the_good_checkpoint_is_lost(tmp_path, capsys):
    assert run(tmp_path, 6, nan_at=4) == loop.FAILED
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]
    assert np.isfinite(final_state(tmp_path).agent["weight"]).all()
    damaged, info = Checkpoints(tmp_path / "nonfinite").restore(loop.template(toy.trainer()))
    assert np.isnan(damaged.agent["weight"]).all()
    assert info["nonfinite"] == ["critic_loss", "vae_loss", "agent/weight"] == summary(tmp_path)["nonfinite"]
    assert summary(tmp_path)["status"] == "failed_nonfinite"
    assert records(tmp_path)[-1]["vae_loss"] is None
    assert "critic_loss (and 2 more) is not finite in epoch 4" in capsys.readouterr().out


def test_a_changing_task_gives_a_response(tmp_path):
    run(tmp_path, 1, spec=toy.SPEC._replace(stationary=False), period=8)
    response = summary(tmp_path)["response"]
    assert response["steps"][0] == -10 and response["samples"][10] == 2 * len(toy.TASKS.family)
    assert (tmp_path / "response.png").exists()


def test_ctrl_c_ends_with_a_checkpoint(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(4.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    assert run(tmp_path, epochs=1_000_000) == 128 + signal.SIGINT
    assert summary(tmp_path)["status"] == "interrupted"
    assert final_state(tmp_path).epoch[0] == len(records(tmp_path))
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("epochs", 0), ("epochs", None), ("minutes", -1.0), ("minutes", float("inf")), ("eval_every", 0)],
        *[
            ("save_every", -1.0),
            ("save_every", float("nan")),
            ("save_every", float("inf")),
            ("seeds", 0),
            ("wandb", "p"),
        ],
        ("seed", 2**32),
    ],
)
def test_values_out_of_range(name, value, monkeypatch):
    monkeypatch.setattr(loop.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=f"--{name}"):
        loop.RunConfig(**{"epochs": 1} | {name: value}).check()
