"""A small agent of context-based offline meta-RL, and stored behaviour on the probe with a hidden sign."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from metarl_jax.agents import comrl
from metarl_jax.data.offline import OfflineData
from metarl_jax.learners import brac, club, context_encoder, gan, transition_decoder
from tests import probes

CONFIG = comrl.Config(
    method="focal",
    encoder=context_encoder.Config(hidden_sizes=(16,), latent_size=2, learning_rate=1e-2),
    brac=brac.Config(
        hidden_sizes=(32, 32),
        learning_rate=2e-3,
        discount=0.9,
        target_rate=0.05,
        divergence_weight=1.0,
        divergence_weight_rate=0.0,
        reward_scale=5.0,
        temperature=0.1,
    ),
    gan=gan.Config((16,), (16,), noise_size=2, rounds=1),
    club=club.Config((16,)),
    decoder=transition_decoder.Config((16,)),
    entropy_weight=0.1,
    tasks_per_step=2,
    batch_size=32,
    context_size=16,
    steps_per_epoch=4,
)


def with_(**changes) -> comrl.Config:
    return dataclasses.replace(CONFIG, **changes)


def behaviour(leak: float = 0.0, episodes: int = 40, seed: int = 0) -> OfflineData:
    """Actions around `leak` times the hidden sign, uniform if it is 0; the reward is the action times the sign."""
    rng, env = np.random.default_rng(seed), probes.context()
    sign, shape = np.asarray(env.train_tasks.spec), (2, episodes * probes.HORIZON)
    action = rng.uniform(-1, 1, shape) if not leak else np.clip(leak * sign + rng.normal(0, 0.4, shape), -1, 1)
    time = np.tile(np.arange(probes.HORIZON), (2, episodes))
    obs, next_obs = (np.stack([t / probes.HORIZON, np.ones(shape)], -1).astype(np.float32) for t in (time, time + 1))
    return OfflineData(
        obs=obs,
        action=action[..., None].astype(np.float32),
        reward=(sign * action).astype(np.float32),
        next_obs=next_obs,
        terminated=np.zeros(shape, bool),
        last=time == probes.HORIZON - 1,
        count=np.full(2, shape[1], np.int32),
        checkpoint=np.zeros(shape, np.int32),
        task=jax.tree.map(jnp.asarray, env.train_tasks),
        split=np.zeros(2, np.int32),
    )
