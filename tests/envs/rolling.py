"""Environments under random actions."""

import jax

N = 8


def start(env, n=N, seed=0):
    keys = jax.random.split(jax.random.key(seed), n)
    return jax.jit(jax.vmap(env.reset))(keys, env.sample_tasks(jax.random.key(seed + 1), "train", n))


def random_actions(env, n, steps, seed=2):
    return jax.random.uniform(jax.random.key(seed), (steps, n, env.spec.action_size), minval=-1.0, maxval=1.0)


def roll(env, state, steps, seed=2):
    """State [steps, n, ...] under random actions."""
    actions = random_actions(env, state.obs.shape[0], steps, seed)

    def body(state, action):
        after = jax.vmap(env.step)(state, action)
        return after, after

    return jax.jit(lambda s, a: jax.lax.scan(body, s, a)[1])(state, actions)
