"""Film what a run's agent did on its tasks in the last evaluation: an animated picture, a tile for each task."""

import dataclasses
import itertools
import math
import os
import sys
from collections.abc import Iterator, Sequence
from ctypes.util import find_library
from pathlib import Path
from typing import NamedTuple

if sys.platform == "linux" and not os.environ.get("DISPLAY") and find_library("EGL"):
    os.environ.setdefault("MUJOCO_GL", "egl")  # draws without a display; is read when MuJoCo is imported

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from envs import rendering
from experiments import cli, rundir
from metarl_jax.analysis import evaluation as evaluations
from metarl_jax.analysis.evaluation import HeldOutTasks
from metarl_jax.errors import ConfigurationError

SUFFIXES = (".gif", ".webp", ".png")
"""Of formats that browsers animate."""
WIDTHS = (80, 640)
"""Of a tile, pixels: the least and the most. It is four to three."""
MANY = 8
"""Tiles where there is one sub-task, unless others are asked for."""
PICTURE = 0.1
"""Seconds from one picture to the next, about."""
LEAST, MOST = 20, 600_000
"""Milliseconds from one picture to the next: browsers show shorter ones for longer, and formats know no longer ones."""
COLOURS = 64
"""Of each picture."""
SMALLEST_FONT = 10


@dataclasses.dataclass(frozen=True)
class Config:
    """What the agent (of the first seed) did in the run's last evaluation, as an animated picture."""

    run: str
    """Run directory."""
    tasks: tuple[int, ...] = ()
    """Which of them, from 0 in the order in which `experiments.evaluate` lists them; none: one of each sub-task, or,
    where there is one sub-task, eight that are spread over all."""
    episode: int = 1
    """Which of the episodes that an evaluation plays in a row."""
    every: int | None = None
    """Steps from one picture to the next; None: about a tenth of a second."""
    speed: float = 1.0
    """How much faster than the body really moves."""
    columns: int = 4
    """Tiles in a row."""
    width: int = 320
    """Of a tile, pixels."""
    out: str | None = None
    """Where to write: a .gif, .webp or .png; None: episodes.gif in the run's directory."""


class Episode(NamedTuple):
    """On one task; of T steps."""

    name: str
    """Of its sub-task."""
    spec: np.ndarray
    """[p]; none where tasks change."""
    rewards: np.ndarray
    """[T]"""
    qpos: np.ndarray
    """[T, q]"""
    place: np.ndarray | None
    """Where the body is to go, if that is what the task asks for."""


def choose_tasks(tasks: HeldOutTasks) -> list[int]:
    """One task of each sub-task, the middle one; or, if there is one sub-task, some that are spread over all."""
    labels = np.unique(tasks.label)
    if len(labels) > 1:
        members = (np.flatnonzero(tasks.label == label) for label in labels)
        return [int(own[np.argsort(tasks.spec[own, 0], kind="stable")[len(own) // 2]]) for own in members]
    order = np.argsort(tasks.spec[:, 0], kind="stable")
    return order[np.linspace(0, len(order) - 1, min(MANY, len(order))).round().astype(int)].tolist()


def caption(name: str, spec: np.ndarray, rewards: np.ndarray) -> str:
    """A task, and what it has paid so far; what is longer than a place, such as a body's masses, is left out."""
    values = ", ".join(f"{x:.2f}" for x in spec) if len(spec) <= 3 else ""
    return f"{name} {values}".strip() + f"\nreturn {rewards.sum():.1f}"


def tile(episode: Episode, benchmark: str, every: int, width: int) -> Iterator[Image.Image]:
    """Pictures of an episode."""
    font = ImageFont.load_default(max(SMALLEST_FONT, width // 24))
    length = len(episode.rewards)
    steps = np.unique([*range(0, length, every), length - 1])
    pictures = rendering.film(benchmark, episode.qpos[steps], episode.place, width, width * 3 // 4)
    for step, picture in zip(steps, pictures, strict=True):
        image = Image.fromarray(picture)
        text = caption(episode.name, episode.spec, episode.rewards[: step + 1])
        ImageDraw.Draw(image).text((6, 4), text, "white", font, stroke_width=1, stroke_fill="black")
        yield image


def side_by_side(tiles: Sequence[Iterator[Image.Image]], columns: int) -> Iterator[Image.Image]:
    """Pictures of all tiles, of one size, in rows of `columns`, until the last one ends; others stay as they were."""
    columns = min(columns, len(tiles))
    sheet = None
    for row in itertools.zip_longest(*tiles):
        for i, image in enumerate(row):
            if image is not None:
                sheet = sheet or Image.new("RGB", (columns * image.width, -(-len(tiles) // columns) * image.height))
                sheet.paste(image, (i % columns * image.width, i // columns * image.height))
        if sheet:
            yield sheet.copy()


def episodes(config: Config) -> list[Episode]:
    """What is to be drawn.

    Raises:
      ConfigurationError: no run, none that was evaluated, nothing to draw it from, or no such task or episode.
    """
    content = rundir.read(config.run, "--run")
    about = content["environment"]
    path = Path(config.run) / "evaluation.npz"
    if content.get("data_checksum") or content["config"].get("members"):
        raise ConfigurationError(f"--run: {config.run} is of stored data, or of several settings: these are not filmed")
    if not path.exists():
        raise ConfigurationError(
            f"--run: {config.run} has no evaluation.npz yet: it is written when a run ends or stops"
        )
    evaluation, everything = evaluations.load(path)
    if evaluation.qpos is None or "dt" not in about:
        raise ConfigurationError(f"--run: {config.run} is of an earlier version: go on with it (--resume) for an epoch")
    different, _ = everything.different()
    tasks = HeldOutTasks(*(x[different] for x in everything))
    num_episodes, num_tasks = evaluation.qpos.shape[1], len(different)
    if not 1 <= config.episode <= num_episodes:
        raise ConfigurationError(f"--episode must be 1 to {num_episodes} for this run, got {config.episode}")
    chosen = list(config.tasks) or choose_tasks(tasks)
    if bad := [n for n in chosen if not 0 <= n < num_tasks]:
        raise ConfigurationError(f"--tasks must be 0 to {num_tasks - 1} for this run, got {bad[0]}")
    found = []
    for n in chosen:
        rewards, alive, qpos = (
            np.asarray(x)[0, config.episode - 1, :, different[n]]
            for x in (evaluation.rewards, evaluation.alive, evaluation.qpos)
        )
        goal = about["stationary"] and about["families"][tasks.family[n]] == "goal"
        name, spec = about["subtasks"][tasks.label[n]], tasks.spec[n]
        if not about["stationary"]:
            name, spec = "changing task", np.zeros(0)
        found.append(Episode(name, spec, rewards[alive], qpos[alive], spec if goal else None))
    return found


def render(config: Config) -> int:
    """Film, and print where the picture is."""
    if config.every is not None:
        cli.check_counts(every=config.every)
    cli.check_counts(columns=config.columns)
    if not WIDTHS[0] <= config.width <= WIDTHS[1]:
        raise ConfigurationError(f"--width must be {WIDTHS[0]} to {WIDTHS[1]}, got {config.width}")
    if not 0.0 < config.speed < math.inf:
        raise ConfigurationError(f"--speed must be positive and finite, got {config.speed}")
    path = Path(config.out) if config.out else Path(config.run) / "episodes.gif"
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(f"--out: {path} must end in one of {', '.join(SUFFIXES)}")
    found = episodes(config)
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"--out: there is no directory for {path}")
    about = rundir.read(config.run, "--run")
    dt = about["environment"]["dt"]
    every = config.every or max(1, round(PICTURE / dt))
    milliseconds = 10 * round(100 * dt * every / config.speed)  # a GIF counts in hundredths
    if not LEAST <= milliseconds <= MOST:
        raise ConfigurationError(
            f"--every={every} at --speed={config.speed:g} is {milliseconds} ms a picture: show {LEAST} to {MOST}"
        )
    tiles = [tile(episode, about["config"]["env"], every, config.width) for episode in found]
    pictures = side_by_side(tiles, config.columns)
    if path.suffix != ".webp":  # formats that keep every pixel, and would be large
        pictures = (picture.quantize(COLOURS, dither=Image.Dither.NONE) for picture in pictures)
    first, *rest = pictures
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0)
    print(path)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Film as the command line says; returns the exit code."""
    return cli.command(Config, render, argv)


if __name__ == "__main__":
    sys.exit(main())
