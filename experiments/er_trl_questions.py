"""ER-TRL's open questions, each one command and figure: python -m experiments.er_trl_questions --data=FILE."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arms, cli, er_trl
from experiments.arms import Arm, Comparison
from metarl_jax.agents.comrl import METHODS
from metarl_jax.data import offline, offline_file
from metarl_jax.data.offline import QUALITIES, SPLITS
from metarl_jax.errors import ConfigurationError

QUESTIONS = ("tasks", "quality")
MEASURES = ("score offline/iid", "score non_prior/moderate")


@dataclasses.dataclass(frozen=True)
class Config(arms.Config):
    """ER-TRL's open questions."""

    data: str = ""
    """Data set: a file of experiments.collect_offline."""
    question: str = "tasks"
    """`tasks`: how many training tasks are needed; `quality`: how good behaviour must be."""
    methods: tuple[str, ...] = ("er_trl", "focal")
    """Which; each is one line of arms."""
    counts: tuple[int, ...] = (5, 10, 20)
    """tasks: numbers of training tasks."""
    qualities: tuple[str, ...] = QUALITIES
    """quality: variants of the data."""


def comparison(config: Config) -> Comparison:
    """Every method with every variant of the data.

    Raises:
      ConfigurationError: an unknown question, method, variant, or more tasks than the data has.
    """
    if config.question not in QUESTIONS:
        raise ConfigurationError(f"unknown question {config.question!r}: choose {', '.join(QUESTIONS)}")
    if unknown := [name for name in config.methods if name not in METHODS]:
        raise ConfigurationError(f"--methods: unknown method {unknown[0]!r}: choose {', '.join(METHODS)}")
    if not config.methods:
        raise ConfigurationError("--methods needs at least one method")
    if not config.data:
        raise ConfigurationError("--data is needed: collect it by python -m experiments.collect_offline")
    variants: dict[str, tuple[str, ...]]
    data, metadata = offline_file.load(config.data)
    base = er_trl.presets_for("small", metadata.env, metadata.env_options)
    if config.question == "tasks":
        title = "How many training tasks are needed?"
        most = int((data.split == SPLITS.index("train")).sum())
        if wrong := [count for count in config.counts if not 2 <= count <= most]:
            raise ConfigurationError(f"--counts must be in [2, {most}], got {wrong[0]}")
        variants = {
            f"{count} tasks": (f"--train_tasks={count}", f"--tasks_per_step={min(count, base.agent.tasks_per_step)}")
            for count in config.counts
        }
    else:
        title = "How good must behaviour be?"
        for name in config.qualities:
            offline.quality(data, metadata, name)
        variants = {name: (f"--quality={name}",) for name in config.qualities}
    options = ("--env_options", *metadata.env_options) if metadata.env_options else ()
    common = (f"--data={config.data}", *options)
    found = {
        f"{method}, {name}": Arm("er_trl", (*common, f"--method={method}", *flags))
        for method in config.methods
        for name, flags in variants.items()
    }
    if not found:
        raise ConfigurationError(f"--{'counts' if config.question == 'tasks' else 'qualities'} needs at least one")
    return Comparison(title, metadata.env, found, MEASURES)


def ask(config: Config) -> int:
    """Run what is missing, then write the figure and the JSON file."""
    found = comparison(config)
    arms.compare(found, config, Path(config.out) / f"er_trl_{config.question}_{found.env}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Answer the question that the command line asks; returns the exit code."""
    return cli.guarded(lambda: ask(cli.parse(Config, list(sys.argv[1:] if argv is None else argv))))


if __name__ == "__main__":
    sys.exit(main())
