"""Algorithms on one benchmark, with the same loop and budget: python -m experiments.compare --algorithms moss timrl."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arms, cli
from experiments.arms import Arm, Comparison
from metarl_jax.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class Config(arms.Config):
    """Algorithms side by side, over seeds."""

    env: str = "cheetah_dir_nonstat"
    """Benchmark."""
    algorithms: tuple[str, ...] = ("moss", "timrl", "cemrl")
    """Which; each in its preset `fast`."""


def comparison(env: str, algorithms: Sequence[str]) -> Comparison:
    """Algorithms that differ in how they infer the task.

    Raises:
      ConfigurationError: an unknown algorithm, or none.
    """
    if not algorithms:
        raise ConfigurationError("--algorithms needs at least one algorithm")
    if unknown := [name for name in algorithms if name not in cli.ALGORITHMS]:
        raise ConfigurationError(f"unknown algorithm {unknown[0]!r}: choose {', '.join(cli.ALGORITHMS)}")
    measures = ("reached_return", "matched_accuracy", "recognition_accuracy")
    return Comparison("Algorithms on the same loop and budget", env, {name: Arm(name) for name in algorithms}, measures)


def compare(config: Config) -> int:
    """Run what is missing, then write the figures and the JSON file."""
    chosen = comparison(config.env, config.algorithms)
    arms.compare(chosen, config, Path(config.out) / f"algorithms_{config.env}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Compare as the command line says; returns the exit code."""
    return arms.entry(Config, compare, argv)


if __name__ == "__main__":
    sys.exit(main())
