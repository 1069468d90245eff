import json

import numpy as np
import pytest

from experiments import cli, timrl, timrl_questions
from metarl_jax.analysis import evaluation as evaluations
from metarl_jax.analysis.evaluation import HeldOutTasks
from metarl_jax.types import Evaluation


def test_matched_accuracy_finds_the_best_matching():
    classes = np.array([0, 1, 1, 2])
    chosen = np.array([[2, 0, 0, 1], [2, 0, 1, 1]])  # 2 stands for 0, 0 for 1, 1 for 2: one step of eight is wrong
    assert timrl_questions.matched_accuracy(np.eye(3)[chosen], classes) == pytest.approx(7 / 8)
    assert timrl_questions.matched_accuracy(np.ones((2, 4, 1)), classes) == pytest.approx(1 / 2)  # one for two classes
    assert timrl_questions.matched_accuracy(np.eye(5)[chosen + 2], classes) == pytest.approx(7 / 8)


def test_spread_of_seeds():
    over = timrl_questions.spread([1.0, 2.0, 3.0, 10.0])
    assert (over["mean"], over["iqm"]) == (4.0, 2.5) and 1.0 <= over["low"] <= 2.5 <= over["high"] <= 10.0


@pytest.mark.parametrize("name", timrl_questions.QUESTIONS)
def test_every_arm_is_a_valid_run(name):
    question = timrl_questions.QUESTIONS[name]
    for arm, flags in question.arms.items():
        if not arm.startswith("moss"):
            timrl.build(cli.configure(timrl, [f"--env={question.env}", *flags]))


def test_an_answer_from_finished_runs(tmp_path, monkeypatch, capsys):
    """Runs that are there are not run again; seeds and arms end up in the file and the figure."""

    def train(question, arm, seed, minutes, run):
        run.mkdir(parents=True)
        value = -10.0 * seed - 100.0 * list(question.arms).index(arm)
        record = {"epoch": 3, "env_steps": 600, "test_return": value, "test_return_by_family": {}}
        (run / "metrics.jsonl").write_text(json.dumps(record) + "\n")
        config = {"versions": {"jax": "1"}, "commit": "abc", "devices": ["cpu:0"]}
        (run / "config.json").write_text(json.dumps(config))
        components = np.eye(2)[np.array([[0, 1], [0, 1]])][None, None]
        zeros = np.zeros((1, 1, 2, 2))
        evaluation = Evaluation(zeros, zeros[..., None], components, zeros > 0, zeros[..., None][..., :0] > 0)
        tasks = HeldOutTasks(np.array([0, 1]), np.zeros((2, 1)), np.array([0, 1]))
        evaluations.save(run / "evaluation.npz", evaluation, tasks)

    monkeypatch.setattr(timrl_questions, "train", train)
    assert timrl_questions.main(["--question=unseen", "--seeds", "0", "2", f"--out={tmp_path}"]) == 0
    answer = json.loads((tmp_path / "unseen" / "answer.json").read_text())
    assert answer["summary"]["moss"]["test_return"]["mean"] == -210.0 and answer["seeds"] == [0, 2]
    assert answer["arms"]["timrl"][1]["matched_accuracy"] == 1.0 and answer["commit"] == "abc"
    assert (tmp_path / "unseen" / "answer.png").stat().st_size > 1000
    assert "What happens in a class" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"), [(["--question=why"], "choose labels, components"), (["--seeds"], "at least one")]
)
def test_wrong_input(argv, message, capsys):
    assert timrl_questions.main(argv) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
