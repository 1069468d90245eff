"""Train ER-TRL or a relative on stored data: python -m experiments.er_trl --data=FILE [--method=focal] [--help]."""

import dataclasses
import sys
import warnings
from pathlib import Path
from typing import Annotated

import jax
import numpy as np

import envs
from experiments import cli, normalizers, offline_presets, setup
from metarl_jax.agents import comrl
from metarl_jax.analysis.evaluation import Normalizer
from metarl_jax.data import offline, offline_file
from metarl_jax.data.offline import SPLITS, Metadata, OfflineData
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import guard
from metarl_jax.training import offline as offline_trainer
from metarl_jax.training.loop import Experiment, RunConfig

SPLIT_NAMES = {"train": "iid"} | {name: name for name in SPLITS[1:]}
"""What reports call the splits."""


@dataclasses.dataclass(frozen=True)
class Config(setup.Base):
    """Context-based offline meta-RL: ER-TRL, FOCAL, CSRO, UNICORN and offline PEARL."""

    env: str = "cheetah_vel_grid"
    """Benchmark that the data was collected on; an unknown name lists them all."""
    preset: str = "small"
    """Where all other defaults come from. `reference`: the released settings; `small`: for a few CPU cores."""
    data: str = ""
    """Data set: a file of experiments.collect_offline, to be left as it is for as long as the run is used. If it has
    moved: `--resume=RUN --data=FILE`."""
    quality: str = "mixed"
    """Variant of the data: expert, medium, mixed (all of it) or noisy."""
    sigma: float = 0.1
    """Noise of `noisy`, in standard deviations of observations and rewards."""
    train_tasks: int | None = None
    """Training tasks to learn from, evenly spread over those of the data; None: all. The others are scored as
    `left_out`."""
    normalizer: str = "auto"
    """Whose lowest and highest returns are the scores 0 and 100: those of the ER-TRL `reference`, of the `data`, or
    `auto`: of the reference where it has them."""
    wrong_extreme_contexts: bool = False
    """Offline contexts of extreme tasks come from the data of moderate ones (a quirk of the reference)."""
    agent: Annotated[comrl.Config, setup.Flat] = dataclasses.field(default_factory=comrl.Config)
    evaluation: Annotated[offline_trainer.Config, setup.Flat] = dataclasses.field(
        default_factory=offline_trainer.Config
    )


def presets_for(preset: str, env: str, options: tuple[str, ...] = ()) -> Config:
    """The configuration that flags override.

    Raises:
      ConfigurationError: unknown preset or environment.
    """
    setup.spec_of(preset, env, options, offline_presets.PRESETS)
    config = Config(env=env, preset=preset, env_options=options)
    if preset == "reference":
        agent, epochs = offline_presets.reference(env)
        run = RunConfig(epochs=epochs, eval_every=5)
        return dataclasses.replace(config, agent=agent, run=run, wrong_extreme_contexts=True)
    return dataclasses.replace(config, agent=offline_presets.small(env), run=RunConfig(minutes=10.0, eval_every=5))


def load(config: Config, env: envs.Environment) -> tuple[OfflineData, Metadata, Normalizer]:
    """The data that a configuration names, with tasks of the environment's own type, and the scale of its scores.

    Raises:
      ConfigurationError: none is named, it cannot be used, or tasks change in mid-episode.
    """
    if not env.spec.stationary:
        raise ConfigurationError(
            f"{config.env} changes its tasks in mid-episode: offline learning needs stationary tasks"
        )
    if not config.data:
        raise ConfigurationError(
            f"--data is needed: collect it by python -m experiments.collect_offline --env={config.env} --out=FILE"
        )
    path = Path(config.data)
    guard.check_memory(path.stat().st_size if path.is_file() else 0, what="stored data", on_host=True)
    data, metadata = offline_file.load(path, env.spec)
    if metadata.variant != env.spec.variant:
        warnings.warn(
            f"{config.data} was collected on {metadata.variant} models, policies act on {env.spec.variant} ones: "
            f"--variant={metadata.variant} is the same",
            stacklevel=2,
        )
    normalizer = normalizers.choose(config.normalizer, data, metadata)  # one scale for all qualities
    data, metadata = offline.quality(data, metadata, config.quality, config.sigma)
    return data._replace(task=type(env.test_tasks)(*data.task)), metadata, normalizer


def chosen_tasks(config: Config, data: OfflineData) -> np.ndarray:
    """Rows of the training tasks to learn from."""
    rows = np.flatnonzero(data.split == SPLITS.index("train"))
    if config.train_tasks is None:
        return rows
    if not 2 <= config.train_tasks <= len(rows):
        raise ConfigurationError(f"--train_tasks must be in [2, {len(rows)}], got {config.train_tasks}")
    return rows[np.linspace(0, len(rows) - 1, config.train_tasks).round().astype(int)]


def context_sources(config: Config, data: OfflineData) -> np.ndarray:
    """Whose data is the offline context of each task."""
    sources = np.arange(len(data.split))
    extreme, moderate = (np.flatnonzero(data.split == SPLITS.index(name)) for name in ("extreme", "moderate"))
    if config.wrong_extreme_contexts and len(moderate):
        sources[extreme] = np.resize(moderate, len(extreme))
    return sources


def build(config: Config, episodes: int | None = None) -> Experiment:
    """What to train; `episodes` that count per evaluation, None for the configuration's."""
    env = setup.make_env(config)
    data, metadata, normalizer = load(config, env)
    rows = chosen_tasks(config, data)
    agent = comrl.make(config.agent, env.spec, offline_trainer.moments(data, rows), rows)
    evaluation = config.evaluation
    if episodes is not None:
        evaluation = dataclasses.replace(evaluation, eval_episodes=episodes)
    table = offline.episodes(data)
    behaviour = float(table.returns[np.isin(table.task, rows)].mean())
    trainer = offline_trainer.make(
        env, agent, data, evaluation, config.run.seeds, behaviour, context_sources(config, data)
    )
    left_out = (data.split == SPLITS.index("train")) & ~np.isin(np.arange(len(data.split)), rows)
    kinds = (*SPLIT_NAMES.values(), *(("left_out",) if left_out.any() else ()))
    kind = np.where(left_out, len(SPLITS), data.split)
    families = tuple(f"{context}/{name}" for context in offline_trainer.CONTEXTS for name in kinds)
    contexts = np.repeat(np.arange(len(offline_trainer.CONTEXTS)), len(kind))
    tasks = jax.tree.map(lambda x: np.concatenate([x] * len(offline_trainer.CONTEXTS)), data.task)
    tasks = tasks._replace(family=contexts * len(kinds) + np.tile(kind, len(offline_trainer.CONTEXTS)))
    state = jax.eval_shape(agent.init, jax.random.key(0))
    networks = {"encoder": state.encoder.params, "policy": state.control.actor, "critics": state.control.critic}
    numbers = ", ".join(f"{np.sum(data.split == i)} {name}" for i, name in enumerate(SPLIT_NAMES.values()))
    description = setup.describe(env.spec) | {
        "data": f"{config.data}, {metadata.quality}, {int(data.count.sum()):,} transitions",
        "tasks": f"{numbers}; learning from {len(rows)}",
        "behaviour": f"mean return {behaviour:.1f} on them",
        "method": config.agent.method,
        "networks": setup.counts(networks),
        "per epoch": f"{config.agent.steps_per_epoch} train steps",
        "scores": f"0 and 100 are the lowest and highest returns of {normalizer.source}",
    }
    spec = env.spec._replace(families=families)
    return Experiment(trainer, spec, tasks, description, normalizer, offline_file.checksum(config.data))


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
