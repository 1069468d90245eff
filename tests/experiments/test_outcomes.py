"""What runs of a comparison came to."""

import numpy as np
import pytest

from experiments import outcomes


def test_matched_accuracy_finds_the_best_matching():
    classes = np.array([0, 1, 1, 2])
    chosen = np.array([[2, 0, 0, 1], [2, 0, 1, 1]])  # 2 stands for 0, 0 for 1, 1 for 2: one step of eight is wrong
    assert outcomes.matched_accuracy(np.eye(3)[chosen], classes) == pytest.approx(7 / 8)
    assert outcomes.matched_accuracy(np.ones((2, 4, 1)), classes) is None  # one component tells nothing apart
    assert outcomes.matched_accuracy(np.eye(3)[chosen], np.zeros(4)) is None
    assert outcomes.matched_accuracy(np.eye(5)[chosen + 2], classes) == pytest.approx(7 / 8)


def test_spread_of_seeds():
    over = outcomes.spread([1.0, 2.0, 3.0, 10.0])
    assert (over["mean"], over["std"], over["iqm"]) == (4.0, pytest.approx(4.0825, rel=1e-4), 2.5)
    assert 1.0 <= over["low"] <= 2.5 <= over["high"] <= 10.0
    assert outcomes.spread([None, None]) is None
