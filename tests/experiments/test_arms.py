import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from experiments import (
    ablations,
    arms,
    cemrl,
    cli,
    compare,
    moss,
    rundir,
    setup,
    sweep,
    timrl,
    timrl_questions,
)
from experiments.arms import Budget
from metarl_jax.agents import moss as moss_agent
from metarl_jax.analysis import evaluation as evaluations
from metarl_jax.analysis.evaluation import HeldOutTasks
from metarl_jax.errors import ConfigurationError
from metarl_jax.types import Evaluation
from tests.helpers import fails

MODULES = {"moss": moss, "timrl": timrl, "cemrl": cemrl}
COMPARISONS = {
    **timrl_questions.QUESTIONS,
    **{f"ablations of {env}": ablations.comparison(env) for env in ("cheetah_vel_ood", "cheetah_multitask")},
    "algorithms": compare.comparison("cheetah_dir_nonstat", ("moss", "timrl", "cemrl")),
    "sweep": sweep.comparison("cheetah_vel", tuple(sweep.SETTINGS)),
}


def test_stored_flags_name_no_folders():
    flags = ("--data=/somewhere/of/mine/cheetah.h5", "--data=runs/hopper.h5", "--sac.discount=0.98", "mode=drift")
    kept = ["--data=cheetah.h5", *flags[1:]]
    assert [rundir.portable(flag) for flag in flags] == kept


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_arm_is_a_valid_run(name):
    """Its flags exist, and the agent accepts them together."""
    comparison = COMPARISONS[name]
    assert len(comparison.arms) > 1
    for arm in comparison.arms.values():
        module = MODULES[arm.algorithm]
        module.build(cli.configure(module, [f"--env={comparison.env}", *arm.flags]))


def leave(run, returns, recognized, lost=()):
    """Write what a finished run leaves whose seeds reached these returns, and recognised classes that often.

    Those at the places `lost` went non-finite after the third evaluation.
    """
    run.mkdir(parents=True)
    record = {"seconds": 60.0, "test_return": 7.0, "test_return_by_family": {}}
    scores = {"test_score_per_seed": {"goal": [10.0 * x for x in returns]}}
    for i in range(5):  # the mean of the last three is what the fourth gives
        known = [None if i > 2 and place in lost else x + i - 3.0 for place, x in enumerate(returns)]
        later = {"test_return_per_seed": known}
        record |= scores | later | {"epoch": i, "env_steps": 200 * i}
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
    config = {"versions": {"jax": "1"}, "commit": "abc", "devices": ["cpu:0"]}
    config["environment"] = {"families": ["velocity", "goal"], "stationary": True}
    (run / "config.json").write_text(json.dumps(config))
    (run / "summary.json").write_text(json.dumps({"status": "budget"}))
    components = np.eye(3)[np.array([[0, 1], [0, 2]])][None, None].repeat(len(returns), 0)
    zeros = np.zeros((len(returns), 1, 2, 2))
    rewards = zeros + np.reshape(returns, (-1, 1, 1, 1)) * [1.0, 2.0]
    right = zeros[..., None] + np.reshape(recognized, (-1, 1, 1, 1, 1))
    evaluation = Evaluation(rewards, zeros[..., None], components, zeros > 0, zeros == 0, right)
    tasks = HeldOutTasks(np.array([0, 1]), np.zeros((2, 1)), np.array([0, 1]))
    evaluations.save(run / "evaluation.npz", evaluation, tasks)


@pytest.mark.parametrize("flags", [[], ["--vmap=True", "--epochs=30"]])
def test_an_answer_from_finished_runs(flags, tmp_path, monkeypatch, capsys):
    """Seeds and arms end up in the table, the file and the figure, whether seeds are runs or vmapped in one."""
    names = list(timrl_questions.QUESTIONS["unseen"].arms)

    def train(env, arm, seeds, budget, run):
        assert env == "cheetah_dir_vel_to_goal" and str(budget) == ("30 epochs" if flags else "10 min")
        leave(run, [-10.0 * seed - (100.0 if arm.algorithm == "moss" else 0.0) for seed in seeds], recognized=seeds)

    monkeypatch.setattr(arms, "command", train)
    assert timrl_questions.main(["--question=unseen", "--seeds", "0", "1", f"--out={tmp_path}", *flags]) == 0
    folder = tmp_path / "timrl_unseen"
    answer = json.loads((folder / "comparison.json").read_text())
    assert answer["summary"]["MoSS"]["reached_return"]["mean"] == -105.0 and answer["seeds"] == [0, 1]
    assert [run["test_return"] for run in answer["arms"]["MoSS"]] == [-99.0, -109.0]
    curve = {
        "env_steps": [0, 200, 400, 600, 800],
        "minutes": [1.0] * 5,
        "test_return": [-13.0, -12.0, -11.0, -10.0, -9.0],
    }
    assert answer["arms"]["TIMRL"][1]["curve"] == curve | {"unit": "environment steps"}
    assert list(answer["arms"]) == names and answer["arms"]["MoSS"][0]["commit"] == "abc"
    assert answer["arms"]["TIMRL"][1]["matched_accuracy"] == 0.75
    assert answer["arms"]["TIMRL"][1]["belief_purity"] is None
    shares = [answer["summary"]["TIMRL"][f"goal as component {k}"]["mean"] for k in range(3)]
    assert shares == [0.0, 0.5, 0.5] and answer["arms"]["TIMRL"][1]["velocity as component 0"] == 1.0
    assert [run["score goal"] for run in answer["arms"]["TIMRL"]] == [0.0, -100.0]
    assert [run["recognition_accuracy"] for run in answer["arms"]["TIMRL"]] == [0.0, 1.0]
    assert all((folder / name).stat().st_size > 1000 for name in ("comparison.png", "curves.png"))
    assert (answer.get("epochs"), answer.get("minutes")) == ((30, None) if flags else (None, 10.0))
    told = capsys.readouterr().out
    assert "What happens in a class" in told and ("30 epochs)" if flags else "10 min)") in told


def test_arms_that_differ_in_traceable_values_may_be_one_run(tmp_path):
    comparison = sweep.comparison("cheetah_vel", ("temperature", "width", "discount"))
    plan = arms.plan(comparison, arms.Config(seeds=(3, 4), vmap=True, together=9), tmp_path)
    assert sorted(name for run in plan for name in run.names) == sorted(comparison.arms)
    together = next(run for run in plan if len(run.names) > 1)
    wide = {name for name in comparison.arms if name.startswith("width")}
    assert set(together.names) == set(comparison.arms) - wide and len(plan) == 1 + len(wide) == 3
    settings = arms.configured(comparison.env, together.arm)
    made = setup.members_of(settings, moss_agent.make, setup.spec_of("fast", comparison.env, ()))
    for place, name in enumerate(together.names):
        own = rundir.flatten(arms.configured(comparison.env, comparison.arms[name]))
        assert {key: values[place] for key, values in made.values.items()} == {key: own[key] for key in made.values}
    assert list(made.values) == ["sac.alpha", "sac.discount"] and together.seeds == (3, 4)
    pairs = arms.plan(comparison, arms.Config(seeds=(3, 4), together=2), tmp_path)
    apart = arms.plan(comparison, arms.Config(seeds=(3, 4)), tmp_path)
    assert [len(run.names) for run in pairs[::2]] == [2, 2, 2, 1, 1, 1][: len(pairs) // 2]
    assert len(apart) == 2 * len(comparison.arms)
    assert len({run.path for run in (*plan, *pairs, *apart) if len(run.names) > 1}) == 1 + 2 * 3


def test_arms_of_one_run_are_told_apart(tmp_path, monkeypatch, capsys):
    def train(env, arm, seeds, budget, run):
        members = arm.flags[arm.flags.index("--members") + 1 :] if "--members" in arm.flags else ("alone",)
        leave(run, [-100.0 * i - 10.0 * seed for i in range(len(members)) for seed in seeds], [0.0] * 2 * len(members))

    monkeypatch.setattr(arms, "command", train)
    flags = ["--settings", "discount", "--seeds", "0", "1", "--vmap=True", f"--out={tmp_path}"]
    assert "--together needs --epochs" in fails(capsys, sweep.main, *flags, "--together=3")
    assert "--together must be" in fails(capsys, sweep.main, *flags, "--together=0")
    assert sweep.main([*flags, "--together=3", "--epochs=30"]) == 0
    answer = json.loads((tmp_path / "sweep_cheetah_vel" / "comparison.json").read_text())
    names = list(sweep.comparison("cheetah_vel", ("discount",)).arms)
    assert answer["together"] == [names[:3]] and list(answer["arms"]) == names
    for name, first in zip(names, (0.0, -100.0, -200.0, 0.0), strict=True):
        assert [run["reached_return"] for run in answer["arms"][name]] == [first, first - 10.0]
        goals = [run["test_return_by_family"]["goal"] for run in answer["arms"][name]]
        assert goals == [4.0 * first, 4.0 * first - 40.0]  # two steps of twice the number


def test_an_arm_that_went_nonfinite_has_no_result_and_harms_no_other(tmp_path, monkeypatch, capsys):
    def train(env, arm, seeds, budget, run):
        num = 3 if "--members" in arm.flags else 1
        leave(run, [-100.0] * num, [0.0] * num, lost=[1] if num == 3 else [])

    monkeypatch.setattr(arms, "command", train)
    flags = ["--settings", "discount", "--seeds", "0", "--together=3", "--epochs=30", f"--out={tmp_path}"]
    assert sweep.main(flags) == 0
    folder = tmp_path / "sweep_cheetah_vel"
    answer = json.loads((folder / "comparison.json").read_text())
    first, lost, *others = answer["arms"]
    assert answer["summary"][lost]["reached_return"] is None and answer["arms"][lost][0]["test_return"] is None
    assert answer["arms"][lost][0]["curve"]["test_return"] == [-103.0, -102.0, -101.0, None, None]
    assert {answer["summary"][name]["reached_return"]["mean"] for name in (first, *others)} == {-100.0}
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(lost))
    assert line.split()[-1] == "-" and (folder / "curves_discount.png").exists()


def python(code):
    return arms.Command(Path("a run"), [sys.executable, "-c", code])


def test_runs_side_by_side_have_cores_of_their_own(monkeypatch, tmp_path):
    bound, start = {}, subprocess.Popen
    monkeypatch.setattr(arms.os, "sched_getaffinity", lambda _: {2, 3, 5, 7}, raising=False)
    monkeypatch.setattr(arms.os, "sched_setaffinity", bound.__setitem__, raising=False)
    here, there = tmp_path / "here", tmp_path / "there"
    meet = "import pathlib, time; a, b = map(pathlib.Path, {}); a.touch()\nwhile not b.exists(): time.sleep(0.01)"
    commands = [python(meet.format([str(a), str(b)])) for a, b in ((here, there), (there, here))]  # not passed alone
    arms.side_by_side(2, commands)
    assert sorted(map(sorted, bound.values())) == [[2, 5], [3, 7]]
    share = "import os; raise SystemExit(os.environ.get('XLA_PYTHON_CLIENT_MEM_FRACTION') != '0.450')"
    arms.side_by_side(2, [python(share)])
    arms.side_by_side(1, [python(share.replace("!= '0.450'", "is not None"))])
    assert len(bound) == 3
    monkeypatch.setattr(arms.subprocess, "Popen", lambda *_: start(["false"]))
    for jobs in (0, 5):
        with pytest.raises(ConfigurationError, match=f"jobs must be 1 to 4 on this machine, got {jobs}"):
            arms.side_by_side(jobs, [python("")])


def test_a_run_that_fails_is_named(capsys):
    with pytest.raises(ConfigurationError, match="a run ended with exit code 3"):
        arms.side_by_side(1, [python(""), python("raise SystemExit(3)"), python("")])
    assert capsys.readouterr().out == "run 1 of 3: a run\nrun 2 of 3: a run\n"  # how far it is; the third never starts


@pytest.mark.parametrize("jobs", [1, 2])
def test_sigterm_is_handed_on_to_runs_and_no_others_start(monkeypatch, jobs):
    """Even after one of them has failed, while the others are waited for."""
    start, started = subprocess.Popen, []
    monkeypatch.setattr(arms.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(arms.os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr(
        arms.subprocess, "Popen", lambda argv, **more: started.append(start(argv, **more)) or started[-1]
    )
    before = signal.getsignal(signal.SIGTERM)
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    commands = [python("raise SystemExit(3)")] * (jobs - 1) + [python("import time; time.sleep(60)")] * 2
    with pytest.raises(SystemExit) as ended:
        arms.side_by_side(jobs, commands)
    assert ended.value.code == 128 + signal.SIGTERM
    assert [process.wait() for process in started] == [3, -signal.SIGTERM][-jobs:]
    assert signal.getsignal(signal.SIGTERM) is before


MINUTE, EPOCHS = Budget("minutes", 1.0), Budget("epochs", 4)


@pytest.mark.parametrize(
    ("status", "before", "budget"),
    [
        ("budget", MINUTE, MINUTE),
        ("interrupted", MINUTE, MINUTE),
        ("budget", Budget("minutes", 0.5), MINUTE),
        ("completed", EPOCHS, EPOCHS),
        ("interrupted", EPOCHS, EPOCHS),
        ("completed", Budget("epochs", 3), EPOCHS),
    ],
)
def test_runs_go_on_until_their_budget_is_spent(trained_for, tmp_path, status, before, budget):
    trained_for(status, before)
    found = arms.command("cheetah_vel", arms.Arm("moss"), (0,), budget, tmp_path)
    limits = {"minutes": ["--minutes=1.0", "--epochs=None"], "epochs": ["--minutes=None", "--epochs=4"]}[budget.unit]
    finished = before == budget and status != "interrupted"
    assert (found is None) == finished
    assert finished or found.argv[-3:] == [f"--resume={tmp_path}", *limits]


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (Budget("minutes", 2.0), "for 2 min already: give --minutes=2 or more"),
        (Budget("epochs", 1), "trained for 1 epochs, not for 1 min: name another --out"),
    ],
)
def test_other_budgets_are_not_passed_off_as_the_one_that_was_asked(trained_for, tmp_path, before, message):
    trained_for("budget", before)
    with pytest.raises(ConfigurationError, match=message):
        arms.command("cheetah_vel", arms.Arm("moss"), (0,), MINUTE, tmp_path)


def test_runs_of_other_settings_are_not_passed_off_as_the_arms(trained_for, tmp_path):
    trained_for("budget", MINUTE)
    content = json.loads((tmp_path / "config.json").read_text())
    content["config"]["agent"]["sac"]["discount"] = 0.5
    (tmp_path / "config.json").write_text(json.dumps(content))
    arms.command("cheetah_vel", arms.Arm("moss", ("--sac.discount=0.5",)), (0,), MINUTE, tmp_path)
    with pytest.raises(ConfigurationError, match=r"trained with --sac.discount=0.5, not 0.9: name another --out"):
        arms.command("cheetah_vel", arms.Arm("moss", ("--sac.discount=0.9",)), (0,), MINUTE, tmp_path)


@pytest.fixture
def trained_for(tmp_path):
    """A run directory as it lies after some training."""

    def leave(status, budget):
        (tmp_path / "summary.json").write_text(json.dumps({"status": status}))
        config = dataclasses.asdict(cli.configure(moss, ["--env=cheetah_vel"]))
        content = {"algorithm": "moss", "config": config | {"run": {budget.unit: budget.amount}}, "environment": {}}
        (tmp_path / "config.json").write_text(json.dumps(content))

    return leave


@pytest.mark.parametrize(
    ("main", "argv", "message"),
    [
        (timrl_questions.main, ["--question=why"], "choose labels, components"),
        (timrl_questions.main, ["--seeds"], "at least one"),
        (sweep.main, ["--settings", "luck"], "choose updates, batch"),
        (sweep.main, ["--settings"], "at least one setting"),
        (compare.main, ["--algorithms", "moss", "pearl"], "unknown algorithm 'pearl': choose moss, timrl, cemrl"),
        (compare.main, ["--algorithms"], "at least one algorithm"),
        (compare.main, ["--env=cheetah_vel"], "cheetah_vel has one class of tasks"),
        (ablations.main, ["--env=cheetah_velo"], "did you mean cheetah_vel"),
        (sweep.main, ["--env=point_robot", "--settings", "discount", "vae_window"], "vae_window must be in [2, 20]"),
    ],
)
def test_wrong_input(main, argv, message, capsys, tmp_path, monkeypatch):
    """Before anything is trained, though but one arm be wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(arms, "side_by_side", lambda *_: pytest.fail("something was trained"))
    assert message in fails(capsys, main, *argv)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "1", "1"], "each at most once, got 1 1"),
        (["--seeds", "5", "8", "--vmap=True"], "seeds that follow each other, such as --seeds 5 6"),
    ],
)
def test_seeds_that_are_not_what_they_say(capsys, tmp_path, flags, message):
    assert message in fails(capsys, timrl_questions.main, "--question=unseen", f"--out={tmp_path}", *flags)
    assert not list(tmp_path.iterdir())
