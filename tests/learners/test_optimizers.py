import jax
import jax.numpy as jnp
import numpy as np

from metarl_jax.learners.optimizers import adam


def walk(gradients, max_grad_norm=None, **options):
    """Positions of a parameter that starts at 0, one per gradient."""
    optimizer = adam(0.1, max_grad_norm, **options)
    x, positions = jnp.zeros(2), []
    state = optimizer.init(x)
    for gradient in gradients:
        updates, state = jax.jit(optimizer.update)(jnp.asarray(gradient), state, x)
        x = x + updates
        positions.append(np.asarray(x))
    return np.stack(positions)


def test_step_size():
    """Adam moves by the step size under a constant gradient, whatever its length."""
    np.testing.assert_allclose(walk([[3.0, -30.0]] * 2), [[-0.1, 0.1], [-0.2, 0.2]], rtol=1e-4)


def test_step_size_is_held_and_falls():
    positions = walk([[1.0, -1.0]] * 12, held_for=4)
    steps = np.diff(positions[:, 0], prepend=0.0)
    halvings = np.maximum(0.0, np.arange(12) - 4.0) / 2.0
    np.testing.assert_allclose(steps, -0.1 * np.maximum(0.1, 0.5**halvings), rtol=1e-4)
    assert np.argmin(halvings < 1.0) == 6


def test_clipping_bounds_the_norm_of_all():
    gradients = [[1.0, 2.0], [300.0, 400.0]]
    np.testing.assert_allclose(walk(gradients, 5.0), walk([[1.0, 2.0], [3.0, 4.0]]), rtol=1e-5)
    assert np.abs(walk(gradients, 5.0) - walk(gradients)).max() > 1e-3
