import jax
import jax.numpy as jnp
import numpy as np

from metarl_jax.learners import gan
from tests.helpers import cached, same

CONFIG = gan.Config(generator_sizes=(64, 64), discriminator_sizes=(64, 64))
SPEC = gan.Spec(obs_size=1, action_size=2, latent_size=1)
SPREAD = (0.1, 0.4)
"""Standard deviation of both actions in task 0 and in task 1."""


def behaviour(key, n=256):
    """Actions ~ N(0.3 s, spread_task^2), independent, in the states s of two tasks z."""
    keys = jax.random.split(key, 3)
    obs = jax.random.uniform(keys[0], (n, 1), minval=-0.5, maxval=0.5)
    latent = jax.random.bernoulli(keys[1], 0.5, (n, 1)).astype(jnp.float32)
    std = jnp.asarray(SPREAD)[latent.astype(int)]
    return gan.Batch(obs, jnp.clip(0.3 * obs + std * jax.random.normal(keys[2], (n, 2)), -1, 1), latent)


def entropies(generator, key, n=1024):
    """In both tasks, at s = 0."""
    latent = jnp.arange(2.0)[:, None]
    return gan.entropy(generator, CONFIG, SPEC, jnp.zeros((2, n, 1)), latent, key)


@cached
def trained():
    """The state after training, and the entropies and metrics along it."""

    def step(state, key):
        keys = jax.random.split(key, 3)
        state, metrics = gan.train_step(state, behaviour(keys[0]), keys[1], CONFIG, SPEC)
        return state, metrics | {"entropies": entropies(state.generator, keys[2])}

    train = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys))
    return train(gan.init(jax.random.key(0), CONFIG, SPEC), jax.random.split(jax.random.key(1), 700))


def test_recovers_the_entropy_of_a_known_behaviour():
    """Within a tenth, in each task. With a momentum of 0.9 they end 1 to 4 nats too low."""
    _, metrics = trained()
    found = metrics["entropies"][-300:].mean(0)
    np.testing.assert_allclose(found, np.log(2 * np.pi * np.e * np.square(SPREAD)), rtol=0.1)
    assert 0.4 < metrics["discriminator_accuracy"][-300:].mean() < 0.65


def test_entropy_reaches_the_embedding():
    state, _ = trained()
    obs = jnp.zeros((512, 1))
    slope = jax.grad(lambda z: gan.entropy(state.generator, CONFIG, SPEC, obs, z, jax.random.key(0)))(jnp.array([0.5]))
    assert slope[0] > 0.5  # towards the task with the wider actions


def test_embeddings_get_no_gradient_from_training():
    state, batch = gan.init(jax.random.key(0), CONFIG, SPEC), behaviour(jax.random.key(1), 8)

    def after(latent):
        new, _ = gan.train_step(state, batch._replace(latent=latent), jax.random.key(2), CONFIG, SPEC)
        return sum(jnp.sum(x) for x in jax.tree.leaves((new.generator, new.discriminator)))

    np.testing.assert_array_equal(jax.jit(jax.grad(after))(batch.latent), 0.0)


def test_rounds():
    config = gan.Config((8,), (8,), rounds=3)
    state = gan.init(jax.random.key(0), config, SPEC)
    after, metrics = jax.jit(lambda s, b, k: gan.train_step(s, b, k, config, SPEC))(
        state, behaviour(jax.random.key(1), 8), jax.random.key(2)
    )
    assert after.generator_opt[0].count == after.discriminator_opt[0].count == 3
    assert not same(after.generator, state.generator) and np.isfinite(metrics["generator_loss"])
