"""A MoSS agent small enough for tests, and a replay to learn from."""

import dataclasses

import jax
import jax.numpy as jnp

from metarl_jax.agents import moss
from metarl_jax.data import replay
from metarl_jax.learners import gmm_vae, sac
from tests.helpers import HORIZON, SPEC, cached, transitions

K, D, N = 3, 2, 4
CONFIG = moss.Config(
    vae=gmm_vae.Config(
        num_components=K,
        latent_size=D,
        hidden_size=6,
        state_decoder_sizes=(6,),
        reward_decoder_sizes=(6,),
        batch_size=5,
        gross_reward=True,
        reward_change=True,
        learning_rate=1e-2,
    ),
    sac=sac.Config(hidden_sizes=(8,), obs_embedding=0, belief_embedding=0, batch_size=16, learning_rate=1e-2),
    window=HORIZON,
    vae_updates=2,
    sac_updates=2,
    pool_windows=4,
    pretrain_updates=3,
    standardize_belief=True,
)
VAE_SPEC = gmm_vae.Spec(2, 1)


def with_(**changes):
    return dataclasses.replace(CONFIG, **changes)


def with_vae(**changes):
    return with_(vae=dataclasses.replace(CONFIG.vae, **changes))


def with_sac(**changes):
    return with_(sac=dataclasses.replace(CONFIG.sac, **changes))


@cached
def agent(config):
    return moss.make(config, SPEC)


@cached
def initial(config):
    return jax.jit(agent(config).init)(jax.random.key(0))


@cached
def data():
    """A full replay; each observation is (row, time)."""
    rows = transitions(0, 8, HORIZON)
    place = jnp.stack(jnp.meshgrid(jnp.arange(8.0), jnp.arange(float(HORIZON)), indexing="ij"), -1)
    rows = rows._replace(obs=place, terminated=rows.terminated.at[:, -1].set(jnp.arange(8) % 2 == 0))
    rows = rows._replace(last=rows.last.at[:, -1].set(True), valid=rows.valid.at[3, 2].set(False))
    example = jax.tree.map(lambda x: x[0, 0], rows)
    return jax.jit(replay.insert)(replay.init(example, 8, HORIZON), rows)


@cached
def update(config):
    return jax.jit(agent(config).update)


@cached
def updated(config):
    """After the first epoch, in which SAC waits for the encoder."""
    return update(config)(initial(config), data(), jax.random.key(1))


@cached
def trained(config):
    """After two epochs: every learner has learnt."""
    return update(config)(updated(config)[0], data(), jax.random.key(2))


def abstract_update(config):
    """`update` alone: shapes and types, without compiling."""
    return jax.eval_shape(agent(config).update, initial(config), data(), jax.random.key(1))


@jax.jit
def infer(state, windows):
    """Beliefs that the policy acts on."""
    return gmm_vae.infer(state.acting_encoder, CONFIG.vae, VAE_SPEC, state.scale, windows)
