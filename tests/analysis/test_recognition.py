import numpy as np

from metarl_jax.analysis.recognition import age, recognition
from metarl_jax.types import Evaluation


def test_age_restarts_with_every_task():
    changed = np.array([[0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(age(changed), [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5]])


def test_accuracy_by_age_of_the_task():
    """One seed, two episodes of four steps, two held-out tasks; the first episode counts."""
    changed, right = np.zeros((1, 2, 4, 2), bool), np.zeros((1, 2, 4, 2, 1))
    changed[0, 0, 1, 0] = True  # ages of the first task 0 1 0 1, of the second 0 1 2 3
    right[0, 0, :, 0, 0] = [False, True, False, True]
    right[0, 0, :, 1, 0] = [True, True, False, True]
    right[0, 1] = True
    rewards = np.zeros((1, 2, 4, 2))
    evaluation = Evaluation(rewards, rewards[..., None], rewards[..., None], changed, rewards == 0, right)
    result = recognition(evaluation)
    np.testing.assert_array_equal(result.steps, [0, 1, 2, 3])
    np.testing.assert_allclose(result.accuracy, [1 / 3, 1.0, 0.0, 1.0])
    np.testing.assert_array_equal(result.samples, [3, 3, 1, 1])
    assert recognition(evaluation._replace(recognized=right[..., :0])) is None
    right[0, 0, 2:, 1] = np.nan  # the second task's episode ended
    np.testing.assert_array_equal(recognition(evaluation).samples, [3, 3, 0, 0])
