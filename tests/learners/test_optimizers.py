import jax
import jax.numpy as jnp
import numpy as np

from metarl_jax.learners import sac
from metarl_jax.learners.optimizers import adam


def walk(config, gradients):
    """Positions of a parameter that starts at 0, one per gradient."""
    optimizer = adam(config)
    x, positions = jnp.zeros(2), []
    state = optimizer.init(x)
    for gradient in gradients:
        updates, state = jax.jit(optimizer.update)(jnp.asarray(gradient), state, x)
        x = x + updates
        positions.append(np.asarray(x))
    return np.stack(positions)


def test_clipping_bounds_the_norm_of_all():
    gradients = [[1.0, 2.0], [300.0, 400.0]]
    clipped = walk(sac.Config(max_grad_norm=5.0), gradients)
    by_hand = walk(sac.Config(max_grad_norm=None), [[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(clipped, by_hand, rtol=1e-5)
    assert np.abs(clipped - walk(sac.Config(max_grad_norm=None), gradients)).max() > 1e-5
