"""What offline data is collected with: flags, and presets of what is cheap and what is like the publication."""

import dataclasses
from pathlib import Path

from experiments import presets, rundir
from metarl_jax.agents import reactive
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import sac
from metarl_jax.training.loop import MAX_SEED

PRESETS = ("conditioned", "small", "reference")


@dataclasses.dataclass(frozen=True)
class Config:
    """Train behaviour policies by soft actor-critic, and store stochastic episodes of them at checkpoints."""

    env: str = "cheetah_vel_grid"
    """Benchmark; an unknown name lists them all."""
    preset: str = "conditioned"
    """Where all other defaults come from. `conditioned`: one agent that is told the task, by far the most return per
    second; `small`: one small agent per task; `reference`: the publication's sizes, for a GPU."""
    out: str | None = None
    """HDF5 file to write; None: data/<env>.h5. A collection that was stopped goes on where it was."""
    physics: str = "auto"
    """Engine: auto, native (CPU), mjx (XLA) or warp (NVIDIA GPU)."""
    variant: str = "fast"
    """Model variant: fast (Euler) or reference (the model file as shipped)."""
    env_options: tuple[str, ...] = ()
    """Options of the benchmark as name=value, such as horizon=300."""
    seed: int = 0
    """Of everything random."""
    conditioned: bool = True
    """One agent that is told the task, instead of one per task."""
    epochs: int = 200
    """In each, every agent collects `num_envs` episodes and learns."""
    checkpoints: int = 5
    """How many times behaviour is stored, at even distances; the last time is at the end."""
    episodes: int = 20
    """Stochastic episodes that are stored per task and checkpoint."""
    num_envs: int = 40
    """Episodes that one agent collects per epoch."""
    initial_episodes: int = 40
    """Episodes of one agent before it learns."""
    replay_size: int = 1_000_000
    """Transitions that one agent remembers."""
    agent: reactive.Config = dataclasses.field(default_factory=reactive.Config)


def presets_for(preset: str, env: str) -> Config:
    """The configuration that flags then override.

    `conditioned` and `small` take about ten minutes on one core for `cheetah_vel_grid`.

    Raises:
      ConfigurationError: unknown preset.
    """
    if preset not in PRESETS:
        raise ConfigurationError(f"unknown preset {preset!r}: choose {', '.join(PRESETS)}")
    plain = sac.Config(obs_embedding=0, belief_embedding=0, max_grad_norm=None)
    if preset == "reference":
        learner = dataclasses.replace(
            plain,
            hidden_sizes=(1024, 1024),
            learning_rate=1e-4,
            batch_size=1024,
            alpha=0.1,
            automatic_entropy_tuning=True,
            target_rate=0.0025,  # the publication moves the targets by 0.005 every second update
        )
        agent = reactive.Config(learner, updates=2000, standardize_obs=False)
        return Config(
            env,
            preset,
            conditioned=False,
            epochs=450,
            checkpoints=18,
            episodes=50,
            num_envs=10,
            initial_episodes=250,
            agent=agent,
        )
    fixed = env in presets.FIXED_TEMPERATURE
    learner = dataclasses.replace(
        plain,
        hidden_sizes=(128, 128) if preset == "conditioned" else (64, 64),
        learning_rate=1e-3,
        batch_size=64,
        discount=0.97 if fixed else 0.99,
        target_rate=0.02,
        alpha=0.02,
        automatic_entropy_tuning=not fixed,
        policy_every=2,
    )
    if preset == "conditioned":
        return Config(env, preset, agent=reactive.Config(learner, updates=1600))
    return Config(
        env,
        preset,
        conditioned=False,
        epochs=150,
        num_envs=2,
        initial_episodes=4,
        replay_size=60_000,
        agent=reactive.Config(learner, updates=256),
    )


def check(config: Config) -> Path:
    """The file to write; raises `ConfigurationError` for a value out of range or a file that must not be written."""
    for name in ("epochs", "checkpoints", "episodes", "num_envs", "initial_episodes"):
        if getattr(config, name) < 1:
            raise ConfigurationError(f"--{name} must be at least 1, got {getattr(config, name)}")
    if not 0 <= config.seed <= MAX_SEED:
        raise ConfigurationError(f"--seed must be in [0, {MAX_SEED}], got {config.seed}")
    if config.checkpoints > config.epochs:
        raise ConfigurationError(f"--checkpoints ({config.checkpoints}) must not exceed --epochs ({config.epochs})")
    path = Path(config.out or f"data/{config.env}.h5").absolute()
    if config.out is not None and not path.parent.is_dir():
        raise ConfigurationError(f"--out: there is no directory for {path}")
    if path.is_dir():
        raise ConfigurationError(f"--out: {path} is a directory")
    return path


def settings(config: Config) -> tuple[str, ...]:
    """Everything that decides what is in the file, as name=value."""
    return tuple(f"{name}={value}" for name, value in rundir.flatten(config).items() if name != "out")


def replay_rows(config: Config, horizon: int) -> int:
    """Episodes that one agent's replay holds: as many as it may, or as there will be.

    Raises:
      ConfigurationError: the replay cannot hold the episodes that one epoch collects.
    """
    least = max(config.num_envs, config.initial_episodes) * horizon
    if config.replay_size < least:
        raise ConfigurationError(
            f"--replay_size must be at least {least}, a block of episodes, got {config.replay_size}"
        )
    return min(config.replay_size // horizon, config.initial_episodes + (config.epochs + 1) * config.num_envs)
