"""Train MoSS: python -m experiments.moss --env=ant_multitask [--preset=fast|paper] [--minutes=10] [--help]."""

import dataclasses
import sys
from typing import Annotated

import jax
import tyro

import envs
from envs.wrappers import reveal_task
from experiments import cli, presets
from metarl_jax.agents import moss
from metarl_jax.training import trainer
from metarl_jax.training.loop import Experiment, RunConfig

_Flat = tyro.conf.arg(name="")


@dataclasses.dataclass(frozen=True)
class Config:
    """MoSS: task inference by a recurrent Gaussian-mixture VAE, control by SAC on the belief."""

    env: str = "ant_multitask"
    """Benchmark; an unknown name lists them all."""
    preset: str = "fast"
    """Where all other defaults come from. `paper`: the publication's table; `fast`: the fastest found."""
    physics: str = "auto"
    """Engine: auto, native (CPU), mjx (XLA) or warp (NVIDIA GPU)."""
    variant: str = "fast"
    """Model variant: fast (Euler) or reference (the model file as shipped)."""
    env_options: tuple[str, ...] = ()
    """Options of the benchmark as name=value, such as preset=ldm or horizon=300."""
    run: Annotated[RunConfig, _Flat] = dataclasses.field(default_factory=RunConfig)
    data: Annotated[trainer.Config, _Flat] = dataclasses.field(default_factory=trainer.Config)
    agent: Annotated[moss.Config, _Flat] = dataclasses.field(default_factory=moss.Config)


def make_env(config: Config) -> envs.Environment:
    """The benchmark of a configuration."""
    env = envs.make(config.env, config.physics, config.variant, **cli.parse_options(config.env_options))
    return reveal_task(env) if config.agent.belief == "oracle" else env


def presets_for(preset: str, env: str, options: tuple[str, ...] = ()) -> Config:
    """The configuration that flags override.

    Raises:
      ConfigurationError: unknown preset or environment.
    """
    presets.check(preset)
    spec = envs.make(env, **cli.parse_options(options)).spec
    config = Config(env=env, preset=preset, env_options=options)
    if preset == "paper":
        agent, data, epochs = presets.paper(env, spec.horizon, spec.stationary)
        return dataclasses.replace(config, agent=agent, data=data, run=RunConfig(epochs=epochs, eval_every=10))
    agent, data = presets.fast(env, spec.horizon, spec.stationary)
    return dataclasses.replace(config, agent=agent, data=data, run=RunConfig(minutes=10.0, eval_every=5))


def build(config: Config, episodes: int | None = None) -> Experiment:
    """What to train; `episodes` in a row per evaluation, None for the configuration's."""
    env = make_env(config)
    agent = moss.make(config.agent, env.spec)
    data = config.data if episodes is None else dataclasses.replace(config.data, eval_episodes=episodes)
    mixture = f"{config.agent.vae.num_components} Gaussians of {config.agent.vae.latent_size} dimensions"
    counts = moss.parameter_counts(jax.eval_shape(agent.init, jax.random.key(0)))
    description = {
        "benchmark": f"{env.spec.name}, horizon {env.spec.horizon}, dt {env.spec.dt:g} s",
        "engine": f"{env.spec.engine}, {env.spec.variant} models",
        "tasks": f"{env.train_tasks.family.shape[0]} train, {env.test_tasks.family.shape[0]} test",
        "environments": data.num_envs,
        "belief": "the task itself (oracle)" if config.agent.belief == "oracle" else mixture,
        "networks": ", ".join(f"{name} {count:,}" for name, count in counts.items()) + " parameters",
        "per epoch": f"{config.agent.vae_updates} VAE and {config.agent.sac_updates} SAC updates",
    }
    return Experiment(trainer.make(env, agent, data, config.run.seeds), env.spec, env.test_tasks, description)


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
