import pytest

from benchmarks.time_to_return import crossing


def test_a_target_is_reached_by_three_evaluations_in_a_row():
    returns = [-100, -20, -90, -40, -30, -38, -35, -50]
    curve = [{"test_return": r, "seconds": 10 * i, "env_steps": 1000 * i} for i, r in enumerate(returns)]
    assert crossing(curve, -50) == {"seconds": 30, "env_steps": 3000}
    assert crossing(curve, -36) == {"seconds": 50, "env_steps": 5000}
    assert crossing(curve, -35) == {"seconds": 60, "env_steps": 6000}
    assert crossing(curve, -34) is None


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_evaluations_reach_nothing(count):
    assert crossing([{"test_return": 0.0, "seconds": 1.0, "env_steps": 1}] * count, -40) is None
