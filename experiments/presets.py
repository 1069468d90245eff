"""Settings of MoSS: the paper's table, and the fastest found here."""

import dataclasses

from metarl_jax.agents import moss
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import gmm_vae, sac
from metarl_jax.training import trainer

PRESETS = ("fast", "paper")

MIXTURES = {
    "cheetah_multitask": 4,
    "cheetah_eight": 5,
    "ant_multitask": 3,
    "cheetah_2task": 2,
    "cheetah_3task": 3,
    "cheetah_dir_vel_to_goal": 3,
}
"""Components K of the benchmarks with several base tasks; 1 elsewhere."""

PAPER_SCHEDULE = {"cheetah_multitask": (3001, 70), "ant_multitask": (2001, 90)}
"""(epochs, tasks per epoch) where they differ from cheetah_vel's."""


def paper(env: str, horizon: int, stationary: bool) -> tuple[moss.Config, trainer.Config, int]:
    """The paper's table: agent, data, epochs."""
    k = MIXTURES.get(env, 1)
    epochs, tasks_per_epoch = PAPER_SCHEDULE.get(env, (501, 30))
    window = min(64, horizon)
    trajectory = k == 1
    agent = moss.Config(
        vae=gmm_vae.Config(
            num_components=k, latent_size=5 if k == 1 else 8, contrastive_weight=1.0 if stationary else 0.0
        ),
        window=window,
        use_trajectory_sample_sac=trajectory,
        pool_windows=-(-256 // window) if trajectory else 256,
    )
    return agent, trainer.Config(num_envs=tasks_per_epoch, replay_rows=20_000), epochs


def fast(env: str, horizon: int, stationary: bool) -> tuple[moss.Config, trainer.Config]:
    """Most return per second of wall-clock found here: small networks, large learning rates, relabelled pools."""
    k = MIXTURES.get(env, 1)
    agent = moss.Config(
        vae=gmm_vae.Config(
            num_components=k,
            latent_size=5 if k == 1 else 8,
            hidden_size=64,
            state_decoder_sizes=(64,),
            reward_decoder_sizes=(64, 64),
            decode="trajectory",
            learning_rate=1e-3,
            max_grad_norm=None,
            batch_size=8,
            kl_z_weight=0.05,
            contrastive_weight=0.0,
        ),
        sac=sac.Config(
            hidden_sizes=(128, 128),
            learning_rate=1e-3,
            batch_size=64,
            discount=0.97,
            target_rate=0.02,
            alpha=0.05,
            max_grad_norm=None,
            policy_every=2,
        ),
        standardize_belief=True,
        window=horizon,
        vae_updates=32,
        sac_updates=1600,
        pretrain_updates=400,
        pool_windows=max(512, -(-64 // horizon)),
        updates_per_pool=800,
    )
    return agent, trainer.Config(num_envs=25, replay_rows=10_000)


def check(preset: str) -> None:
    """Raise `ConfigurationError` for an unknown preset."""
    if preset not in PRESETS:
        raise ConfigurationError(f"unknown preset {preset!r}: choose {' or '.join(PRESETS)}")


def with_components(agent: moss.Config, num_components: int) -> moss.Config:
    """The same agent with another number of Gaussians."""
    return dataclasses.replace(agent, vae=dataclasses.replace(agent.vae, num_components=num_components))
