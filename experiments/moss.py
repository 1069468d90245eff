"""Train MoSS: python -m experiments.moss --env=ant_multitask [--preset=fast|paper] [--minutes=10] [--help]."""

import dataclasses
import sys
from typing import Annotated

import envs
from envs.wrappers import reveal_task
from experiments import cli, presets, setup
from metarl_jax.agents import moss
from metarl_jax.training.loop import Experiment


@dataclasses.dataclass(frozen=True)
class Config(setup.Config):
    """MoSS: task inference by a recurrent Gaussian-mixture VAE, control by SAC on the belief."""

    agent: Annotated[moss.Config, setup.Flat] = dataclasses.field(default_factory=moss.Config)


def make_env(config: Config) -> envs.Environment:
    """The benchmark of a configuration."""
    env = setup.make_env(config)
    return reveal_task(env) if config.agent.belief == "oracle" else env


def presets_for(preset: str, env: str, options: tuple[str, ...] = ()) -> Config:
    """The configuration that flags override.

    Raises:
      ConfigurationError: unknown preset or environment.
    """
    spec = setup.spec_of(preset, env, options)
    agent, data, epochs = presets.common(preset, spec)
    return Config(env=env, preset=preset, env_options=options, agent=agent, data=data, run=setup.budget(epochs))


def build(config: Config, episodes: int | None = None) -> Experiment:
    """What to train; `episodes` in a row per evaluation, None for the configuration's."""
    config = dataclasses.replace(config, agent=setup.agent_of(config))
    env = make_env(config)
    agent = moss.make(config.agent, env.spec)
    description = {
        "belief": "the task itself (oracle)" if config.agent.belief == "oracle" else setup.gaussians(config.agent.vae),
        "networks": setup.counts(setup.networks(agent)),
        "per epoch": setup.updates(config.agent, agent),
    }
    return setup.experiment(config, env, agent, episodes, description, moss.make)


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
