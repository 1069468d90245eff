"""What agents that act on a belief have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.agents import control
from metarl_jax.learners import sac

SPEC = sac.Spec(obs_size=2, action_size=1, belief_size=1, privileged_size=1)
SAC = sac.Config(hidden_sizes=(4,), obs_embedding=0, belief_embedding=0, batch_size=4, policy_every=1)
CONFIG = control.Config(
    SAC, standardize_belief=True, scale_rate=0.25, window=2, pool_windows=4, sac_updates=2, updates_per_pool=1
)


def make_pool(key):
    """Eight transitions whose beliefs have mean 4 and deviation 2, and whose tasks are ten times as large."""
    belief = jnp.tile(jnp.array([[2.0], [6.0]]), (4, 1))
    obs, scalar = jnp.zeros((8, 2)), jnp.zeros(8)
    return sac.Batch(
        obs, belief, scalar[:, None], scalar, obs, belief, scalar > 0, scalar + 1, 10 * belief, 10 * belief
    )


@pytest.mark.parametrize(("num_epochs", "mean", "std"), [(0, 4.0, 2.0), (10, 1.75, 1.4375)])
def test_statistics_are_the_mean_of_the_first_pools_and_then_move_slowly(num_epochs, mean, std):
    """Two pools, from mean 0 and deviation 1: at first all the way, later a quarter of it each time."""
    before = control.init(jax.random.key(0), CONFIG, SPEC)
    train = jax.jit(lambda state, num: control.train(CONFIG, SPEC, state, make_pool, num, jax.random.key(1))[0])
    after = train(before, jnp.asarray(num_epochs))
    np.testing.assert_allclose([after.belief_scale.mean[0], after.belief_scale.std[0]], [mean, std], rtol=1e-5)
    if not num_epochs:
        np.testing.assert_allclose([after.task_scale.mean[0], after.task_scale.std[0]], [40.0, 20.0], rtol=1e-5)
