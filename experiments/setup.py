"""What the entry points of all algorithms share: the environment's flags, and how an experiment is put together."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Protocol

import jax
import numpy as np
import tyro

import envs
from experiments import cli, presets, rundir
from metarl_jax.agents import control
from metarl_jax.agents.hyperparameters import TRACEABLE, Values, replaced
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import trainer
from metarl_jax.training.loop import Experiment, RunConfig
from metarl_jax.types import Agent

Flat = tyro.conf.arg(name="")
"""Fields of a nested configuration become flags without a prefix."""


@dataclasses.dataclass(frozen=True)
class Base:
    """Environment and budget of an experiment."""

    env: str = "ant_multitask"
    """Benchmark; an unknown name lists them all."""
    preset: str = "fast"
    """Where all other defaults come from. `paper`: the publication's table; `fast`: the fastest found."""
    physics: str = "auto"
    """Engine: auto, native (CPU), mjx (XLA), warp or warp_staged (NVIDIA GPU)."""
    variant: str = "fast"
    """Model variant: fast (Euler) or reference (the model file as shipped)."""
    env_options: tuple[str, ...] = ()
    """Options of the benchmark as name=value, such as preset=ldm or horizon=300."""
    run: Annotated[RunConfig, Flat] = dataclasses.field(default_factory=RunConfig)


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Environment, data and budget of an experiment that collects its data."""

    data: Annotated[trainer.Config, Flat] = dataclasses.field(default_factory=trainer.Config)
    members: tuple[str, ...] = ()
    """Train several settings at once, in one vmapped program and each with all seeds: hyper-parameters of each one,
    where they are not as the other flags say, as name=value,name=value. Of sac. alpha, average_rate, discount,
    learning_rate, pessimism, target_entropy and target_rate; of vae. kl_y_weight, kl_z_weight, learning_rate,
    reward_weight and state_weight. All have the same budget; one that goes non-finite is left out, and the others go
    on. Equal seeds of several are not the same random numbers. Returns are told by member; all else is a mean over
    those that go on."""


def spec_of(preset: str, env: str, options: tuple[str, ...], known: Sequence[str] = presets.PRESETS) -> envs.EnvSpec:
    """The spec that a preset's sizes depend on; `known` are the algorithm's presets.

    Raises:
      ConfigurationError: unknown preset, environment or option.
    """
    presets.check(preset, known)
    return envs.make(env, "native", **options_of(options)).spec  # no size depends on the engine, which may be missing


def budget(epochs: int | None) -> RunConfig:
    """How long a preset trains: for so many epochs, or, if None, for ten minutes."""
    return RunConfig(minutes=10.0, eval_every=5) if epochs is None else RunConfig(epochs=epochs, eval_every=10)


def options_of(given: Sequence[str]) -> dict[str, Any]:
    """`--env_options` as keyword arguments of `envs.make`; raises `ConfigurationError` for what has its own flag."""
    options = cli.parse_options(given)
    for name, flag in {"name": "env", "physics": "physics", "variant": "variant"}.items():
        if name in options:
            raise ConfigurationError(f"--env_options: {name} has a flag of its own: --{flag}={options[name]}")
    return options


def make_env(config: Base) -> envs.Environment:
    """The benchmark of a configuration."""
    return envs.make(config.env, config.physics, config.variant, **options_of(config.env_options))


def agent_of(config: Any) -> Any:
    """The settings of a run's agent: a model of rewards is learnt only if there are imagined tasks that it pays for."""
    return config.agent if config.data.imagined_episodes else dataclasses.replace(config.agent, reward_model_updates=0)


class Make(Protocol):
    """An algorithm's `make`: (config, spec, values that replace its hyper-parameters) -> the agent."""

    def __call__(self, config: Any, spec: envs.EnvSpec, values: Values | None = None) -> Agent: ...


def members_of(config: Any, make: Make | None, spec: envs.EnvSpec) -> trainer.Members | None:
    """The agents that `config.members` ask for; None without any.

    Args:
      config: an algorithm's configuration, with `agent` and `members`.
      make: of the algorithm; None: its hyper-parameters may not be traced.
      spec: of the environment.

    Raises:
      ConfigurationError: what is given is no value of a hyper-parameter that may be traced, or one out of range.
    """
    if not config.members:
        return None
    if make is None:
        raise ConfigurationError("--members: this algorithm trains one setting at a time")
    wanted = [member.split(",") for member in config.members]
    given = [cli.parse_options(settings, "--members") for settings in wanted]
    flat = rundir.flatten(config.agent)
    for name, value in (item for member in given for item in member.items()):
        if name not in TRACEABLE:
            raise ConfigurationError(f"--members: {name} cannot differ between them: choose {', '.join(TRACEABLE)}")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigurationError(f"--members: {name} must be a finite number, got {value!r}")
    named = sorted({name for member in given for name in member})
    if "sac.target_entropy" in named and not config.agent.sac.automatic_entropy_tuning:
        raise ConfigurationError("--members: sac.target_entropy needs --sac.automatic_entropy_tuning=True")
    rows = [{name: float(member.get(name, flat[name])) for name in named} for member in given]
    if any(len(member) < len(settings) for member, settings in zip(given, wanted, strict=True)):
        raise ConfigurationError(f"--members: each name at most once, got {' '.join(config.members)}")
    if len({tuple(row.values()) for row in rows}) < len(rows):
        raise ConfigurationError(f"--members: each setting at most once, got {' '.join(config.members)}")
    for row in rows:
        make(replaced(config.agent, row), spec)  # raises what is wrong with it
    values = {name: np.array([row[name] for row in rows]) for name in named}
    return trainer.Members(functools.partial(make, config.agent, spec), values)


def experiment(
    config: Any,
    env: envs.Environment,
    agent: Agent,
    episodes: int | None,
    more: Mapping[str, Any],
    make: Make | None = None,
) -> Experiment:
    """What to train: `agent`, or the members, on `env`.

    Args:
      config: an algorithm's: a `Config` with a field `agent`.
      env: the benchmark.
      agent: made for it.
      episodes: in a row per evaluation; None for the configuration's.
      more: lines of the header that are the algorithm's own, such as `networks`, the text of `counts`.
      make: of an algorithm whose hyper-parameters may be traced; without it there are no `members`.
    """
    data = config.data if episodes is None else dataclasses.replace(config.data, eval_episodes=episodes)
    made = trainer.make(env, agent, data, config.run.seeds, members_of(config, make, env.spec))
    shares = {
        "in imagined tasks": trainer.num_imagined(data),
        "with head starts": trainer.num_ahead(data, data.num_envs),
    }
    special = "".join(f", {count} of them {what}" for what, count in shares.items() if count)
    description = describe(env.spec) | {
        "tasks": f"{env.train_tasks.family.shape[0]} train, {env.test_tasks.family.shape[0]} test",
        "environments": f"{data.num_envs}{special}",
    }
    description |= {"members": "; ".join(config.members)} if config.members else {}
    return Experiment(made, env.spec, trainer.tasks_of(env, data), description | dict(more), members=config.members)


def describe(spec: envs.EnvSpec) -> dict[str, Any]:
    """Lines of the header that say what is simulated, and how."""
    return {
        "benchmark": f"{spec.name}, horizon {spec.horizon}, dt {spec.dt:g} s",
        "engine": f"{spec.engine}, {spec.variant} models",
    }


def networks(agent: Agent, more: Callable[[Any], Mapping[str, Any]] = lambda state: {}) -> dict[str, Any]:
    """What an agent with a VAE and SAC learns, for the header: names to the shapes of its parameters.

    `more` takes the state's shapes to the algorithm's own.
    """
    state = jax.eval_shape(agent.init, jax.random.key(0))
    found = {"encoder": state.vae.encoder, "decoder": state.vae.decoder} if "inference" in agent.parts else {}
    found |= {"policy": state.sac.actor, "critics": state.sac.critic}
    found |= {"model of rewards": state.reward_model.params} if state.reward_model else {}
    return found | dict(more(state))


def updates(config: control.Config, agent: Agent, more: Mapping[str, int] | None = None) -> str:
    """How often an epoch updates what such an agent learns, for the header; `more` is the algorithm's own."""
    found = {"VAE": config.vae_updates} if "inference" in agent.parts else {}
    found |= {"reward model": config.reward_model_updates} if "reward_model" in agent.parts else {}
    counted = [f"{count:,} {name}" for name, count in (found | dict(more or {})).items()]
    return " and ".join([*([", ".join(counted)] if counted else []), f"{config.sac_updates:,} SAC updates"])


def gaussians(vae: Any) -> str:
    """What a VAE's belief consists of, for the header."""
    num = vae.num_components
    return f"{num} Gaussian{'s' * (num > 1)} of {vae.latent_size} dimensions"


def counts(networks: Mapping[str, Any]) -> str:
    """Scalars in each of some parameter pytrees, for the header."""
    sizes = {name: sum(x.size for x in jax.tree.leaves(params)) for name, params in networks.items()}
    return ", ".join(f"{name} {size:,}" for name, size in sizes.items()) + " parameters"
