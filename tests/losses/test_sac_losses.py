import jax
import jax.numpy as jnp
import numpy as np

from metarl_jax.losses import sac

Q = jnp.array([[1.0, 2.0, 3.0], [2.0, 1.0, 5.0]])
LOG_PROB = jnp.array([0.5, -1.0, 2.0])


def test_truncation_bootstraps_and_termination_cuts():
    reward, terminated = jnp.array([10.0, 20.0, 30.0]), jnp.array([False, False, True])
    target = sac.soft_target(reward, terminated, Q, LOG_PROB, 0.2, 0.9)
    np.testing.assert_allclose(target, [10 + 0.9 * (1.0 - 0.1), 20 + 0.9 * (1.0 + 0.2), 30.0], rtol=1e-6)
    grad = jax.grad(lambda q: sac.soft_target(reward, terminated, q, LOG_PROB, 0.2, 0.9).sum())(Q)
    np.testing.assert_array_equal(grad, 0.0)


def test_value_of_two_critics():
    for pessimism, expected in ((1.0, [1, 1, 3]), (0.0, [1.5, 1.5, 4]), (-1.0, [2, 2, 5]), (0.5, [1.25, 1.25, 3.5])):
        np.testing.assert_array_equal(sac.value(Q, pessimism), expected)
    reward, terminated = jnp.zeros(3), jnp.array([False, False, True])
    np.testing.assert_allclose(sac.soft_target(reward, terminated, Q, 0 * LOG_PROB, 0.2, 0.9, 0.0), [1.35, 1.35, 0.0])
    grad = jax.grad(sac.actor_loss)(Q, LOG_PROB, 0.1, jnp.array([1.0, 1.0, 0.0]), 0.0)
    np.testing.assert_allclose(grad, np.array([[-0.5, -0.5, 0], [-0.5, -0.5, 0]]) / 3, rtol=1e-6)  # both alike


def test_critic_loss_by_hand():
    target, weight = jnp.array([0.0, 1.0, 100.0]), jnp.array([1.0, 2.0, 0.0])
    first = (1.0 * 1.0 + 2.0 * 1.0) / 3
    second = (1.0 * 4.0 + 2.0 * 0.0) / 3
    np.testing.assert_allclose(sac.critic_loss(Q, target, weight), first + second, rtol=1e-6)
    grad = jax.grad(sac.critic_loss)(Q, target, weight)
    np.testing.assert_array_equal(grad[:, 2], 0.0)


def test_actor_loss_by_hand():
    weight = jnp.array([1.0, 1.0, 0.0])
    expected = ((0.1 * 0.5 - 1.0) + (0.1 * -1.0 - 1.0)) / 3
    np.testing.assert_allclose(sac.actor_loss(Q, LOG_PROB, 0.1, weight), expected, rtol=1e-6)
    grad_q, grad_log_prob = jax.grad(sac.actor_loss, (0, 1))(Q, LOG_PROB, 0.1, weight)
    np.testing.assert_allclose(grad_q, np.array([[-1, 0, 0], [0, -1, 0]]) / 3, rtol=1e-6)  # only the smaller critic
    np.testing.assert_allclose(grad_log_prob, np.array([0.1, 0.1, 0.0]) / 3, rtol=1e-6)


def test_temperature_loss_by_hand():
    weight = jnp.array([1.0, 1.0, 0.0])
    loss = lambda log_alpha, log_prob: sac.temperature_loss(log_alpha, log_prob, -1.0, weight)  # noqa: E731
    log_alpha = jnp.log(0.3)
    expected = -0.3 * ((0.5 - 1.0) + (-1.0 - 1.0)) / 3
    np.testing.assert_allclose(loss(log_alpha, LOG_PROB), expected, rtol=1e-5)
    slope, slope_log_prob = jax.grad(loss, (0, 1))(log_alpha, LOG_PROB)
    np.testing.assert_allclose(slope, expected, rtol=1e-5)
    assert slope > 0  # entropy above the target: descent lowers the temperature
    np.testing.assert_array_equal(slope_log_prob, 0.0)
