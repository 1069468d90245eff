"""Train TIMRL: python -m experiments.timrl --env=cheetah_dir_nonstat [--preset=fast|paper] [--minutes=10] [--help]."""

import dataclasses
import sys
from typing import Annotated

from experiments import cli, presets, setup
from metarl_jax.agents import timrl
from metarl_jax.errors import ConfigurationError
from metarl_jax.training.loop import Experiment


@dataclasses.dataclass(frozen=True)
class Config(setup.Config):
    """TIMRL: a transformer recognises the class of a task, which picks a Gaussian of the mixture that SAC sees."""

    env: str = "cheetah_dir_nonstat"
    """Benchmark with several classes of tasks; an unknown name lists all benchmarks."""
    agent: Annotated[timrl.Config, setup.Flat] = dataclasses.field(default_factory=timrl.Config)


def presets_for(preset: str, env: str, options: tuple[str, ...] = ()) -> Config:
    """The configuration that flags override.

    Raises:
      ConfigurationError: unknown preset or environment.
    """
    spec = setup.spec_of(preset, env, options)
    agent, data, epochs = presets.timrl(preset, spec)
    return Config(env=env, preset=preset, env_options=options, agent=agent, data=data, run=setup.budget(epochs))


def build(config: Config, episodes: int | None = None) -> Experiment:
    """What to train; `episodes` in a row per evaluation, None for the configuration's."""
    config = dataclasses.replace(config, agent=setup.agent_of(config))
    env = setup.make_env(config)
    agent = timrl.make(config.agent, env.spec)
    if config.agent.labels == "task" and len(set(timrl.class_of(env.spec, env.train_tasks).tolist())) < 2:
        raise ConfigurationError(f"all training tasks of {config.env} are of one class: there is nothing to recognise")
    networks = setup.networks(agent, lambda state: {"recogniser": state.recognizer.params})
    settings = config.agent
    description = {
        "classes": ", ".join(timrl.classes(env.spec)),
        "belief": setup.gaussians(settings.vae),
        "networks": setup.counts(networks),
        "per epoch": setup.updates(settings, agent, {"recogniser": settings.recognizer_updates}),
    }
    return setup.experiment(config, env, agent, episodes, description, timrl.make)


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
