"""MoSS and CEMRL on environments whose answer is known by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.agents import cemrl, control, moss
from metarl_jax.learners import context_vae, decoding, gmm_vae, sac
from metarl_jax.training import trainer
from metarl_jax.types import Evaluation
from tests import probes
from tests.helpers import quick_compilation

DISCOUNT = 0.9

quick = pytest.fixture(scope="module", autouse=True)(quick_compilation)

CONFIG = moss.Config(
    vae=gmm_vae.Config(
        latent_size=2,
        hidden_size=16,
        state_decoder_sizes=(16,),
        reward_decoder_sizes=(16,),
        decode="trajectory",
        learning_rate=3e-3,
        batch_size=32,
        kl_z_weight=1e-2,
        contrastive_weight=0.0,
    ),
    sac=sac.Config(
        hidden_sizes=(32, 32),
        obs_embedding=0,
        belief_embedding=0,
        learning_rate=1e-3,
        batch_size=64,
        discount=DISCOUNT,
        target_rate=0.05,
        alpha=1e-3,
        max_grad_norm=None,
    ),
    standardize_belief=True,
    window=probes.HORIZON,
    vae_updates=20,
    sac_updates=100,
    pretrain_updates=100,
    pool_windows=32,
    updates_per_pool=50,
)


def _cemrl(context: int) -> cemrl.Config:
    """The same loop with a belief from the last `context` transitions."""
    shared, vae = (
        {field.name: getattr(config, field.name) for field in dataclasses.fields(kind)}
        for kind, config in ((control.Config, CONFIG), (decoding.Config, CONFIG.vae))
    )
    return cemrl.Config(**shared, vae=context_vae.Config(**vae, context=context, encoder_sizes=(16,)))


def _train(env: probes.Probe, epochs: int, config: moss.Config | cemrl.Config = CONFIG):
    """The trained state for one seed, and an evaluation."""
    agent = moss.make(config, env.spec) if isinstance(config, moss.Config) else cemrl.make(config, env.spec)
    run = trainer.make(env, agent, trainer.Config(num_envs=16, replay_rows=512, initial_episodes=16))
    epoch = jax.jit(run.epoch, donate_argnums=0)
    state = jax.jit(run.init)(jax.random.key(0, impl="rbg"))
    for _ in range(epochs):
        state, _ = epoch(state)
    evaluation = jax.jit(run.evaluate)(state, jax.random.key(1, impl="rbg"))
    return jax.tree.map(lambda x: x[0], state.agent), evaluation


def _q_values(state: moss.State, evaluation: Evaluation) -> np.ndarray:
    """Q [H, 2, B] of both critics along an episode of the policy, with its beliefs, at actions over the whole range."""
    actions = jnp.linspace(-0.9, 0.9, 5)[:, None]
    beliefs = evaluation.beliefs[0, 0, :, 0]
    times = jnp.arange(probes.HORIZON) / probes.HORIZON
    observations = jnp.stack([times, jnp.ones_like(times)], -1)
    spec = sac.Spec(2, 1, beliefs.shape[-1])

    def at(obs, belief):
        obs, belief = (jnp.tile(x, (len(actions), 1)) for x in (obs, belief))
        return sac.q_values(state.sac, CONFIG.sac, spec, obs, belief, actions)

    return np.asarray(jax.vmap(at)(observations, beliefs))


def test_constant_reward_is_worth_its_discounted_sum_through_truncation():
    q = _q_values(*_train(probes.constant(), 15))[0]  # this probe has no clock: there is but one observation
    np.testing.assert_allclose(q, 1 / (1 - DISCOUNT), atol=0.5)


def test_delayed_reward_is_discounted_back_and_cut_at_termination():
    q = _q_values(*_train(probes.delayed(), 60))
    expected = DISCOUNT ** np.arange(probes.HORIZON - 1, -1, -1.0)
    np.testing.assert_allclose(q.mean((1, 2)), expected, atol=0.08)


def test_the_best_action_is_found():
    # At a temperature of 1e-3 some seeds stop exploring first, and stay 0.1 to 0.3 away from it for 100 epochs.
    # There is no task to infer: standardised, the noise of beliefs has the size of a task, and after any epoch a
    # quarter of the seeds acts wrongly.
    config = dataclasses.replace(CONFIG, sac=dataclasses.replace(CONFIG.sac, alpha=1e-2), standardize_belief=False)
    *_, evaluation = _train(probes.action(), 40, config)
    # A deviation of 0.05 from the best action costs 0.0025 per step.
    assert evaluation.returns.min() > -0.0025 * probes.HORIZON


@pytest.mark.parametrize("name", ["context", "changing"])
def test_a_hidden_task_is_inferred_from_one_transition(name):
    *_, evaluation = _train(probes.ALL[name](), 40)
    rewards = np.asarray(evaluation.rewards)[0, 0]  # [T, N]
    blind = {0} if name == "context" else {0, probes.HORIZON // 2}  # nothing can be known at these steps
    seeing = [t for t in range(probes.HORIZON) if t not in blind]
    assert rewards[seeing].min() > 0.8, rewards


@pytest.mark.parametrize(
    ("name", "context", "epochs"),
    [("context", probes.HORIZON, 40), pytest.param("changing", 1, 80, marks=pytest.mark.slow)],  # learnt after 40 to 50
)
def test_recent_transitions_vote_for_the_task(name, context, epochs):
    """All of an episode's where the task stays; of two tasks, as many votes would count, so the last one alone."""
    *_, evaluation = _train(probes.ALL[name](), epochs, _cemrl(context))
    rewards = np.asarray(evaluation.rewards)[0, 0]
    blind = {0} if name == "context" else {0, probes.HORIZON // 2}
    assert rewards[[t for t in range(probes.HORIZON) if t not in blind]].min() > 0.8, rewards
