"""A recurrent Gaussian-mixture VAE small enough for tests, and windows with every kind of end."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from metarl_jax.data.replay import Vectors
from metarl_jax.data.statistics import Scale
from metarl_jax.learners import gmm_vae
from tests.helpers import cached, transitions

K, D = 3, 2
SPEC = gmm_vae.Spec(obs_size=2, action_size=1)
CONFIG = gmm_vae.Config(
    num_components=K,
    latent_size=D,
    hidden_size=6,
    state_decoder_sizes=(6,),
    reward_decoder_sizes=(6, 6),
    contrastive_weight=0.0,
    learning_rate=3e-3,
    state_weight=2.0,
    reward_weight=0.5,
)
OPTIONS = dataclasses.replace(CONFIG, mutual_information_weight=0.5, contrastive_weight=0.7, base_task_weight=0.3)
SCALE = Scale(
    Vectors(jnp.array([0.5, -1.0]), jnp.array([0.2]), jnp.array(2.0), jnp.array([0.0, 1.0]), jnp.array(1.5)),
    Vectors(jnp.array([2.0, 0.5]), jnp.array([0.7]), jnp.array(3.0), jnp.array([1.5, 0.5]), jnp.array(2.5)),
)
LENGTH, NUM = 7, 3
WINDOWS = transitions(0, LENGTH, NUM)
# Lane 0 is one episode with an invalid step, lane 1 three episodes, lane 2 has an invalid step that ends an episode.
LAST = np.zeros((LENGTH, NUM), bool)
LAST[[2, 4], 1] = LAST[3, 2] = True
VALID = np.ones((LENGTH, NUM), bool)
VALID[3, 0] = VALID[3, 2] = False
WINDOWS = WINDOWS._replace(last=jnp.asarray(LAST), valid=jnp.asarray(VALID))


def with_(**changes):
    return dataclasses.replace(CONFIG, **changes)


init = jax.jit(lambda key: gmm_vae.init(key, CONFIG, SPEC))


@cached
def initial():
    """Parameters with large enough heads that beliefs differ visibly."""
    state = init(jax.random.key(0))
    return state._replace(encoder=jax.tree.map(lambda x: 2.0 * x, state.encoder))


infer = jax.jit(lambda encoder, windows: gmm_vae.infer(encoder, CONFIG, SPEC, SCALE, windows))


@functools.partial(jax.jit, static_argnums=3)
def gradients(params, windows, key, config):
    """((loss, metrics), gradients)"""
    return jax.value_and_grad(gmm_vae.loss, has_aux=True)(params, config, SPEC, SCALE, windows, key)


def loss(*args):
    return gradients(*args)[0]


@cached
def beliefs():
    return jax.tree.map(np.asarray, infer(initial().encoder, WINDOWS))


def params():
    return initial().encoder, initial().decoder


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def changing():
    """Lane 0: the spec changes after step 3; lane 2: only the family, after step 1."""
    task = WINDOWS.task
    task = task._replace(spec=task.spec.at[4:, 0, 1].add(1.0), family=task.family.at[2:, 2].add(1))
    return WINDOWS._replace(task=task)
