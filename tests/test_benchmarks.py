import jax
import jax.numpy as jnp
import pytest

from benchmarks.programs import product_flops
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


def test_products_in_loops_count_as_often_as_they_run():
    """A [4, 5] x [5, 6] product costs 240 operations; its gradient by one factor another 240."""
    a, b = jnp.ones((4, 5)), jnp.ones((5, 6))

    def loss(b):
        return jnp.sum(jax.lax.scan(lambda b, _: (b * jnp.sum(jnp.tanh(a @ b)), None), b, None, 3)[0])

    assert product_flops(loss, b) == 3 * 240
    assert product_flops(jax.jit(jax.grad(loss)), b) == 6 * 240
    assert product_flops(jax.vmap(lambda x: x @ b), jnp.ones((7, 4, 5))) == 7 * 240
