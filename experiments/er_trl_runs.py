"""Finished runs of experiments.er_trl, with what analyses need of them: data, agent, learnt states, embeddings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from experiments import er_trl, evaluate, rundir
from metarl_jax.agents import comrl
from metarl_jax.data import offline, offline_file
from metarl_jax.data.offline import OfflineBatch, OfflineData
from metarl_jax.data.statistics import Scale
from metarl_jax.errors import ConfigurationError, reading
from metarl_jax.training import offline as offline_trainer
from metarl_jax.types import Agent, EnvSpec


class Run(NamedTuple):
    """A finished run."""

    path: Path
    config: er_trl.Config
    spec: EnvSpec
    data: OfflineData
    rows: np.ndarray
    """Of the training tasks in the data."""
    scale: Scale
    agent: Agent
    states: Any
    """Of the agent, leading axis S of seeds."""
    epoch: int
    """Of the checkpoint."""

    @property
    def method(self) -> str:
        """What its encoder learnt from."""
        return self.config.agent.method


def config_of(path: str) -> er_trl.Config:
    """The configuration of a run of experiments.er_trl; raises `ConfigurationError` for any other directory."""
    content = rundir.read(path, "--runs")
    if content["algorithm"] != "er_trl":
        raise ConfigurationError(f"--runs: {path} holds a run of {content['algorithm']}, not of er_trl")
    return rundir.fill(er_trl.Config(), content["config"], path)


class Source(NamedTuple):
    """What two runs must have in common for their scores to be compared."""

    checksum: str
    quality: str
    sigma: float | None
    """Of `noisy` data."""
    train_tasks: int | None
    scores_of: str
    """Whose returns are 0 and 100."""
    env_options: tuple[str, ...]


def learnt_from(path: str) -> Source:
    """What a run learnt from, and what its scores are of.

    Raises:
      ConfigurationError: its file of data is gone, or was replaced.
    """
    config = config_of(path)
    with reading(config.data):
        checksum = offline_file.checksum(config.data)
    rundir.check_data(path, checksum)
    sigma = config.sigma if config.quality == "noisy" else None
    about = rundir.read(path, "--runs")
    scores_of = about.get("scores_of", config.normalizer)  # runs of earlier versions say what they were told
    return Source(checksum, config.quality, sigma, config.train_tasks, scores_of, config.env_options)


def load(path: str) -> Run:
    """The last good checkpoint of a run, and its data.

    Raises:
      ConfigurationError: not a run of experiments.er_trl, or its data is gone.
    """
    config = config_of(path)
    experiment, state, info = evaluate.load(path)
    (data,) = experiment.trainer.constants
    rows = er_trl.chosen_tasks(config, data)
    scale = offline_trainer.moments(data, rows)
    agent = comrl.make(config.agent, experiment.spec, scale, rows)
    data = jax.device_put(data)
    return Run(Path(path), config, experiment.spec, data, rows, scale, agent, state.agent, info["epoch"])


def named(paths: Sequence[str]) -> dict[str, str]:
    """Short names of runs: their methods, told apart by the directories' names where two have the same."""
    methods = [config_of(path).agent.method for path in paths]
    return {
        method if methods.count(method) == 1 else f"{method} ({place})": path
        for method, path, place in zip(methods, paths, rundir.short(paths), strict=True)
    }


def embed(run: Run, stored: OfflineBatch) -> Float[Array, "S n D"]:
    """Every seed's embedding of contexts [n, N], seed after seed to save memory."""
    assert run.agent.recall is not None
    recall = run.agent.recall
    return jax.lax.map(lambda state: recall(state, stored).latent, run.states)


def contexts(run: Run, key: PRNGKeyArray, tasks: Int[np.ndarray, " n"]) -> Float[Array, "S n D"]:
    """Embeddings of a random context of each given task, as large as in training."""
    return embed(run, offline.sample(run.data, key, jnp.asarray(tasks), run.config.agent.context_size))
