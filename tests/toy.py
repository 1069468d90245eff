"""A trainer whose learning is known: a weight walks to 2. Also an experiment for the command line.

The reward of a step is -|weight - spec|, so that the return of an untrained agent on a task is -T |spec|.
"""

import dataclasses
import sys
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from envs.core import Task
from experiments import cli
from metarl_jax.errors import ConfigurationError
from metarl_jax.training.loop import Experiment, RunConfig
from metarl_jax.types import Epoch, Evaluation, Trainer, TrainState
from tests.helpers import spec

STEPS = 20
SPEC = spec("toy", horizon=STEPS, families=("near", "far"), subtasks=("near", "far_left", "far_right"))
RATE = 0.1
TASKS = Task(
    family=np.array([0, 0, 1, 1, 1, 1]),
    spec=np.array([[1.0], [1.2], [3.0], [3.2], [4.0], [4.2]]),
    label=np.array([0, 0, 1, 1, 2, 2]),
)


def trainer(seeds: int = 1, episodes: int = 1, nan_at: int = -1, period: int | None = None) -> Trainer:
    """`nan_at`: the epoch in which the loss, then the weight, becomes NaN; `period`: of task changes."""

    def create(key):
        state = TrainState({"weight": jnp.zeros(3)}, jnp.zeros((50, 7)), key, jnp.zeros((), int), jnp.zeros((), int))
        return jax.vmap(lambda k: state._replace(key=k))(jax.random.split(key, seeds))

    def collect(state):
        return state.agent["weight"][0], jnp.mean((state.agent["weight"] - 2.0) ** 2)

    def learn(state):
        key, noise = jax.random.split(state.key)
        loss = jnp.where(state.epoch + 1 == nan_at, jnp.nan, jnp.mean((state.agent["weight"] - 2.0) ** 2))
        weight = state.agent["weight"] + RATE * (2.0 - state.agent["weight"]) + 0.01 * jax.random.normal(noise, (3,))
        return weight + 0.0 * loss, loss, key

    def finish(state, brought):
        row, distance = brought["collection"]
        weight, loss, key = brought["learning"]
        replay = state.replay.at[state.epoch % 50].set(row)
        metrics = {"updates": jnp.asarray(8), "vae_loss": loss, "critic_loss": loss / 2, "train_return": -distance}
        return TrainState({"weight": weight}, replay, key, state.epoch + 1, state.env_steps + 100), metrics

    def evaluate(state, key):
        shape = (episodes, STEPS, len(TASKS.family))
        rewards = jnp.broadcast_to(-jnp.abs(state.agent["weight"][0] - TASKS.spec[:, 0]), shape)
        beliefs = TASKS.spec * jnp.arange(1.0, 4) + 0.01 * jax.random.normal(key, (*shape, 3))
        components = jnp.broadcast_to(jax.nn.one_hot(TASKS.family, 2), (*shape, 2))
        step = jnp.arange(STEPS)[None, :, None]
        changed = jnp.broadcast_to((step % period == period - 1) if period else False, shape)
        return Evaluation(rewards, beliefs, components, changed, jnp.ones(shape, bool), jnp.zeros((*shape, 0)))

    return Trainer(
        num_seeds=seeds,
        create=create,
        fill=lambda state: state,
        epoch=Epoch({"learning": jax.vmap(learn), "collection": jax.vmap(collect)}, jax.vmap(finish)),
        evaluate=lambda state, key: jax.vmap(evaluate)(state, jax.random.split(key, seeds)),
        env_steps_per_epoch=100,
        replay_bytes=seeds * 50 * 7 * 4,
    )


@dataclasses.dataclass(frozen=True)
class Network:
    """A group that keeps its prefix."""

    batch_size: int = 8
    """Of nothing."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Train the toy."""

    env: str = "toy"
    """Environment."""
    preset: str = "paper"
    """Sizes: paper or fast."""
    width: int = 300
    """Of nothing."""
    nan_at: int = -1
    """Epoch that fails."""
    eval_episodes: int = 1
    """Episodes in a row."""
    members: tuple[str, ...] = ()
    """Names of settings that are trained at once, which do not differ."""
    vae: Network = dataclasses.field(default_factory=Network)
    sac: Network = dataclasses.field(default_factory=Network)
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=lambda: RunConfig(epochs=6, save_every=0.0)
    )


def presets_for(preset: str, env: str, options: tuple[str, ...] = ()) -> Config:
    return Config(env=env, preset=preset, width={"paper": 300, "fast": 64}[preset])


def build(config: Config, episodes: int | None = None) -> Experiment:
    if config.env != "toy":
        raise ConfigurationError(f"unknown environment {config.env!r}: known: toy")
    lanes = config.run.seeds * max(1, len(config.members))
    made = trainer(lanes, episodes or config.eval_episodes, config.nan_at)
    header = {"engine": "none", "networks": f"{config.width} x 1"}
    return Experiment(made, SPEC, TASKS, header, members=config.members)


if __name__ == "__main__":
    sys.exit(cli.main(sys.modules[__name__]))
