"""What README shows runs."""

import importlib
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from benchmarks import readme
from envs import benchmarks, registry
from experiments import cli
from metarl_jax.agents import control
from metarl_jax.training import trainer
from tests import helpers, toy
from tests.agents import small_moss

ROOT = Path(__file__).parent.parent
README, CONTRIBUTING = ((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
EXAMPLES, ADDITIONS = (re.findall(r"```python\n(.*?)```", text, re.DOTALL) for text in (README, CONTRIBUTING))


def test_there_are_examples():
    assert len(EXAMPLES) >= 3 and len(ADDITIONS) == 4


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.splitlines()[-1][:30])
def test_example_runs(code, tmp_path, monkeypatch):
    assert len(code.splitlines()) <= 15
    if '"runs/RUN"' in code:
        monkeypatch.setitem(cli.ALGORITHMS, "toy", "tests.toy")
        assert cli.main(toy, [f"--run_dir={tmp_path / 'RUN'}", "--epochs=1"]) == 0
        code = code.replace("runs/RUN", str(tmp_path / "RUN"))
    names: dict = {}
    exec(code, names)
    if "returns" in names:
        num = len(names["tasks"].family)
        assert names["returns"].shape == (1, 1, num) and names["about"]["epoch"] == 1
        assert names["beliefs"].shape[:2] == (1, 1) and names["beliefs"].shape[3] == num
    elif "belief" in names:
        assert names["belief"].logits.shape == (20, 16, 2) and names["belief"].mean.shape == (20, 16, 2, 3)
    elif "metrics" in names:
        assert names["metrics"]["critic_loss"].shape == (8,)
    elif "vector_env" in names:
        assert names["obs"].shape == (64, 17) and names["brax_env"].observation_size == 17
    else:
        assert names["state"].obs.shape == (256, 20)


def test_additions_run(monkeypatch):
    """A new task on a known body and a new body: registered, stepped, and rewarded as their text says."""
    known = dict(benchmarks.BENCHMARKS)
    monkeypatch.setattr(benchmarks, "BENCHMARKS", known)
    monkeypatch.setattr(registry, "BENCHMARKS", known)
    names: dict = {}
    for code in ADDITIONS[:2]:
        assert len(code.splitlines()) < 50
        exec(code, names)
    for name, obs_size in (("cheetah_lean", 20), ("swimmer_dir", 8)):
        env = envs.make(name, "native")
        assert env.train_tasks.family.shape == (40,) and env.spec.obs_size == obs_size
        task = jax.tree.map(lambda x: x[3], env.train_tasks)
        before = env.reset(jax.random.key(0), task)
        after = env.step(before, jnp.full(env.spec.action_size, 0.5))
        q0, q1, a, s = (np.asarray(x) for x in (before.physics.qpos, after.physics.qpos, after.physics.ctrl, task.spec))
        lean = -abs(q1[2] - s[0]) - 0.05 * np.sum(a**2)
        swim = (q1[:2] - q0[:2]) / env.spec.dt @ s[:2] - 1e-4 * np.sum(a**2) if name == "swimmer_dir" else None
        np.testing.assert_allclose(after.reward, lean if swim is None else swim, rtol=1e-4)


def test_an_added_algorithm_learns(monkeypatch, tmp_path):
    """The agent and its experiment, in under 100 lines: built from a command line, and an epoch of it on the toy."""
    code = "".join(ADDITIONS[2:])
    assert len(code.splitlines()) < 100
    (tmp_path / "recent.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("recent")
    config = cli.configure(module, ["--env=point_robot", "--sac.discount=0.9"])
    assert config.agent.sac.discount == 0.9 and module.build(config).description["belief"] == "recent rewards"
    small = {name: getattr(small_moss.CONFIG, name) for name in ("sac", "window", "pool_windows", "sac_updates")}
    agent = module.make(control.Config(**small), helpers.SPEC)
    made = trainer.make(helpers.environment(), agent, trainer.Config(num_envs=3, replay_rows=8))
    before = jax.jit(made.init)(jax.random.key(0))
    after, metrics = jax.jit(made.epoch)(before)
    assert metrics["updates"] == small["sac_updates"] and helpers.finite((after.agent, metrics))
    assert not helpers.same(after.agent.sac.actor, before.agent.sac.actor)
    returns = jax.jit(made.evaluate)(after, jax.random.key(1)).returns
    assert returns.shape[-1] >= len(helpers.TEST.family)


def test_every_benchmark_is_named():
    assert [name for name in envs.names() if f"`{name}`" not in README] == []


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_tables_are_the_files(page):
    assert readme.rewritten(page) == page.read_text(), "run python -m benchmarks.readme"


def test_throughputs_of_a_gpu_are_shown_once_they_are_stored(tmp_path, monkeypatch):
    row = {"body": "ant", "variant": "fast", "engine": "mjx", "batch": 64, "env_steps_per_s": 1234.5, "setup_s": 9.6}
    bare = row | {"engine": "bare", "ratio_to_bare": 1.0, "setup_s": 0.0}
    unknown = row | {"batch": 128, "ratio_to_bare": None, "diverged": 3}
    content = {"machine": {"device": "H1", "cores": 4}, "results": [bare, row | {"ratio_to_bare": 0.5}, unknown]}
    (tmp_path / "physics_gpu_ant.json").write_text(json.dumps(content))
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    shown = readme.physics()
    assert shown.startswith("On H1:\n") and "CPU" not in shown
    assert (
        "| ant | fast | 64 | 1,234 | 1,234 (0.5, 10 s) |\n| ant | fast | 128 | - | 1,234 (10 s, 3 diverged) |" in shown
    )
    assert readme.callback() == ""
    stages = dict.fromkeys(("engine", "rows", "float32", "callback", "physics"), 0.5) | {"stack": 2.0}
    content = {"results": [{"body": "ant", "batch": 64, "threads": 2, "milliseconds": stages}]}
    (tmp_path / "callback_cpu.json").write_text(json.dumps(content))
    assert readme.callback().endswith("| ant | 64 | 2 | 0.50 | 0.50 | 0.50 | 0.50 | 0.50 | 2.00 | 0.25 |\n")
