"""Train CEMRL: python -m experiments.cemrl --env=cheetah_dir_nonstat [--preset=fast|paper] [--minutes=10] [--help]."""

import dataclasses
import sys
from typing import Annotated

from experiments import cli, presets, setup
from metarl_jax.agents import cemrl
from metarl_jax.training.loop import Experiment


@dataclasses.dataclass(frozen=True)
class Config(setup.Config):
    """CEMRL: every recent transition votes for the task, whatever their order, and SAC acts on the product."""

    env: str = "cheetah_dir_nonstat"
    """Benchmark; an unknown name lists them all."""
    agent: Annotated[cemrl.Config, setup.Flat] = dataclasses.field(default_factory=cemrl.Config)


def presets_for(preset: str, env: str, options: tuple[str, ...] = ()) -> Config:
    """The configuration that flags override.

    Raises:
      ConfigurationError: unknown preset or environment.
    """
    spec = setup.spec_of(preset, env, options)
    agent, data, epochs = presets.cemrl(preset, spec)
    return Config(env=env, preset=preset, env_options=options, agent=agent, data=data, run=setup.budget(epochs))


def build(config: Config, episodes: int | None = None) -> Experiment:
    """What to train; `episodes` in a row per evaluation, None for the configuration's."""
    config = dataclasses.replace(config, agent=setup.agent_of(config))
    env = setup.make_env(config)
    agent = cemrl.make(config.agent, env.spec)
    vae = config.agent.vae
    description = {
        "belief": f"{setup.gaussians(vae)}, from {vae.context} transitions",
        "networks": setup.counts(setup.networks(agent)),
        "per epoch": setup.updates(config.agent, agent),
    }
    return setup.experiment(config, env, agent, episodes, description, cemrl.make)


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
