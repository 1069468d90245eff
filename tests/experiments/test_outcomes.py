"""What runs of a comparison came to."""

import numpy as np
import pytest

from experiments import outcomes


def test_matched_accuracy_finds_the_best_matching():
    classes = np.array([0, 1, 1, 2])
    chosen = np.array([[2, 0, 0, 1], [2, 0, 1, 1]])  # 2 stands for 0, 0 for 1, 1 for 2: one step of eight is wrong
    alive = np.ones((2, 4), bool)
    assert outcomes.matched_accuracy(np.eye(3)[chosen], classes, alive) == pytest.approx(7 / 8)
    assert outcomes.matched_accuracy(np.ones((2, 4, 1)), classes, alive) is None  # one component tells nothing apart
    assert outcomes.matched_accuracy(np.eye(3)[chosen], np.zeros(4), alive) is None
    assert outcomes.matched_accuracy(np.eye(5)[chosen + 2], classes, alive) == pytest.approx(7 / 8)
    alive[1, 2] = False  # the wrong one comes after its episode's end
    assert outcomes.matched_accuracy(np.eye(3)[chosen], classes, alive) == pytest.approx(1.0)


def test_shares_of_components_are_of_steps_before_the_end():
    chosen, family = np.array([[0, 1, 1], [0, 1, 0]]), np.array([0, 0, 1])
    alive = np.array([[True, True, True], [True, False, True]])
    shares = outcomes.component_shares(np.eye(2)[chosen], family, alive, ["run", "stand"])
    assert shares == {
        "run as component 0": pytest.approx(2 / 3),
        "run as component 1": pytest.approx(1 / 3),
        "stand as component 0": 0.5,
        "stand as component 1": 0.5,
    }


def test_spread_of_seeds():
    over = outcomes.spread([1.0, 2.0, 3.0, 10.0])
    assert (over["mean"], over["std"], over["iqm"]) == (4.0, pytest.approx(4.0825, rel=1e-4), 2.5)
    assert 1.0 <= over["low"] <= 2.5 <= over["high"] <= 10.0
    assert outcomes.spread([None, None]) is None
