import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.losses import infonce as module

infonce = jax.jit(module.infonce)
with_gradients = jax.jit(jax.value_and_grad(module.infonce, (0, 1)))

QUERY = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
KEY = np.array([[0.0, 1.0], [3.0, 4.0], [6.0, 4.0]])
SAME = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], bool)  # trajectories 0 and 1 share a task


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_value_by_hand(temperature):
    s = {
        (0, 0): 1.0, (0, 2): np.sqrt(52.0),  # distances of the pairs that count
        (1, 1): 4.0, (1, 2): 5.0,
        (2, 2): 6.0, (2, 0): 3.0, (2, 1): 3.0,
    }  # fmt: skip
    e = {pair: np.exp(-distance / temperature) for pair, distance in s.items()}
    terms = [
        e[0, 0] / (e[0, 0] + e[0, 2]),
        e[1, 1] / (e[1, 1] + e[1, 2]),
        e[2, 2] / (e[2, 2] + e[2, 0] + e[2, 1]),
    ]
    value = infonce(jnp.asarray(QUERY), jnp.asarray(KEY), jnp.asarray(SAME), temperature)
    np.testing.assert_allclose(value, -np.mean(np.log(terms)), rtol=1e-5)


def test_positive_is_kept_and_negatives_of_the_same_task_are_not():
    everyone = jnp.ones((3, 3), bool)
    value, grads = with_gradients(jnp.asarray(QUERY), jnp.asarray(KEY), everyone, 1.0)
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    np.testing.assert_allclose(grads, 0.0, atol=1e-6)


def test_a_negative_of_the_same_task_has_no_influence():
    near = KEY.copy()
    near[1] = QUERY[0]  # closer to query 0 than its own key, but of the same task
    alone = jnp.asarray(np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1]], bool))  # query 0 has no negatives
    _, (grad, _) = with_gradients(jnp.asarray(QUERY), jnp.asarray(near), alone, 1.0)
    np.testing.assert_allclose(grad[0], 0.0, atol=1e-6)
    assert np.abs(grad[1]).max() > 1e-3


def test_nobody_shares_a_task():
    # same_task[i, i] True or False is the same: the positive counts once.
    args = jnp.asarray(QUERY), jnp.asarray(KEY)
    np.testing.assert_allclose(
        infonce(*args, jnp.eye(3, dtype=bool), 1.0), infonce(*args, jnp.zeros((3, 3), bool), 1.0)
    )


def test_gradient_is_finite_where_query_equals_key():
    point = jnp.asarray(QUERY)
    value, grads = with_gradients(point, point, jnp.asarray(SAME), 1.0)
    assert np.isfinite(value) and np.isfinite(grads).all()
    assert np.abs(grads).max() > 0  # of the negatives
