"""The entry point of an algorithm that collects its own data, whole: `python -m experiments.timrl`."""

import json
import shutil

import pytest

from envs.benchmarks import BENCHMARKS
from envs.bodies import point
from experiments import cli, evaluate, timrl
from metarl_jax.training import report
from metarl_jax.training.logging import read_metrics
from tests.helpers import fails, quick_compilation, same

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

SMALL = ["--env=point_dir_nonstat", "--env_options", "period=5", "--num_envs=2", "--replay_rows=6"]
SMALL += [f"--vae.{name}=2" for name in ("hidden_size", "latent_size", "batch_size")]
SMALL += [f"--vae.{name}_decoder_sizes=2" for name in ("state", "reward")]
SMALL += [f"--recognizer.{name}=2" for name in ("context", "feed_forward_size", "batch_size")]
SMALL += ["--recognizer.model_size=4", "--recognizer.num_layers=1", "--recognizer.num_heads=1", "--initial_episodes=2"]
SMALL += ["--sac.hidden_sizes=2", "--sac.batch_size=4", "--sac_updates=4", "--pool_windows=2", "--updates_per_pool=2"]
SMALL += ["--vae_updates=2", "--pretrain_updates=0", "--recognizer_updates=2", "--eval_every=1", "--save_every=0"]


@pytest.fixture(autouse=True)
def two_directions(monkeypatch):
    """A benchmark of two classes without an engine, whose programs can all be cached."""
    row = BENCHMARKS["cheetah_dir_nonstat"]()._replace(body=point.body(), horizon=12)
    monkeypatch.setitem(BENCHMARKS, "point_dir_nonstat", lambda: row)


def train(*argv: str) -> int:
    return cli.main(timrl, list(argv))


def records(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: x for name, x in line.items() if "second" not in name} for line in lines]


def test_a_run(tmp_path):
    """Trains, recognises and draws; two epochs are, to the bit, one that was killed and another."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(*SMALL, "--epochs=2", f"--run_dir={whole}") == 0
    shutil.copytree(whole, killed, ignore=shutil.ignore_patterns("summary.json", "*.png"))
    shutil.rmtree(killed / "checkpoints" / "2")
    assert train(f"--resume={killed}") == 0
    assert same(*(evaluate.load(run)[1] for run in (whole, killed)))
    assert records(whole) == records(killed) and len(records(whole)) == 2
    last, summary = records(whole)[-1], json.loads((whole / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert 0.0 <= summary["recognition_accuracy"] == last["recognition_accuracy"] <= 1.0
    assert all((killed / f"{name}.png").stat().st_size > 1000 for name in ("curves", "recognition", "attention"))
    spec = evaluate.load(killed)[0].spec  # one that goes on and is stopped before its next evaluation:
    stopped = report.write(killed, read_metrics(killed / "metrics.jsonl"), "interrupted", spec, last=None)
    assert stopped["recognition"]["accuracy"] == pytest.approx(summary["recognition"]["accuracy"], nan_ok=True)


def test_wrong_input_is_one_line(capsys, tmp_path):
    def message(*flags):
        return fails(capsys, lambda argv: train(*argv), f"--run_dir={tmp_path / 'run'}", *flags)

    assert "point_robot has one class of tasks: there is nothing to recognise" in message("--env=point_robot")
    assert "all training tasks of cheetah_vel_grid are of one class" in message("--env=cheetah_vel_grid")
    assert "2 classes (forward, backward) need --vae.num_components >= 2" in message(*SMALL, "--vae.num_components=1")
    assert not (tmp_path / "run").exists()


def test_the_publication_s_policy_acts_on_a_sample():
    presets = [timrl.presets_for(preset, "cheetah_2task") for preset in ("paper", "fast")]
    assert [preset.agent.belief for preset in presets] == ["sample", "component"]
