"""ER-TRL's open questions, each one command and figure: python -m experiments.er_trl_questions --data=FILE."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arms, er_trl
from experiments.arms import Arm, Comparison
from metarl_jax.agents.comrl import METHODS
from metarl_jax.data import offline, offline_file
from metarl_jax.data.offline import QUALITIES, SPLITS
from metarl_jax.errors import ConfigurationError

QUESTIONS = {"tasks": "counts", "quality": "qualities", "entropy": "weights"}
"""Each with the field that lists its variants."""
MEASURES = ("score offline/iid", "score non_prior/moderate")


@dataclasses.dataclass(frozen=True)
class Config(arms.Config):
    """ER-TRL's open questions."""

    data: str = ""
    """Data set: a file of experiments.collect_offline."""
    question: str = "tasks"
    """`tasks`: how many training tasks are needed; `quality`: how good behaviour must be; `entropy`: what the weight of
    ER-TRL's entropy term does."""
    methods: tuple[str, ...] = ("er_trl", "focal")
    """tasks, quality: which; each is one line of arms. `entropy` is a question to er_trl alone."""
    counts: tuple[int, ...] = (5, 10, 20)
    """tasks: numbers of training tasks."""
    qualities: tuple[str, ...] = QUALITIES
    """quality: variants of the data."""
    weights: tuple[float, ...] = (0.0, 2.5, 25.0, 100.0)
    """entropy: weights of the term."""


def comparison(config: Config) -> Comparison:
    """Every method with every variant of the data, or every weight of the entropy term.

    Raises:
      ConfigurationError: an unknown question, method, variant, more tasks than the data has, or a negative weight.
    """
    if config.question not in QUESTIONS:
        raise ConfigurationError(f"unknown question {config.question!r}: choose {', '.join(QUESTIONS)}")
    if unknown := [name for name in config.methods if name not in METHODS]:
        raise ConfigurationError(f"--methods: unknown method {unknown[0]!r}: choose {', '.join(METHODS)}")
    methods = ("er_trl",) if config.question == "entropy" else config.methods
    if not methods:
        raise ConfigurationError("--methods needs at least one method")
    if not config.data:
        raise ConfigurationError("--data is needed: collect it by python -m experiments.collect_offline")
    variants: dict[str, tuple[str, ...]]
    data, metadata = offline_file.load(config.data)
    most = int((data.split == SPLITS.index("train")).sum())
    preset = er_trl.presets_for("small", metadata.env, metadata.env_options)

    def drawn(num_tasks: int) -> str:
        """How many of them a train step draws."""
        return f"--tasks_per_step={min(num_tasks, preset.agent.tasks_per_step)}"

    if config.question == "tasks":
        title = "How many training tasks are needed?"
        if wrong := [count for count in config.counts if not 2 <= count <= most]:
            raise ConfigurationError(f"--counts must be in [2, {most}], got {wrong[0]}")
        variants = {f"{count} tasks": (f"--train_tasks={count}", drawn(count)) for count in config.counts}
    elif config.question == "entropy":
        title = "What does the entropy term's weight do?"
        if len({f"{weight:g}" for weight in config.weights}) < len(config.weights):
            raise ConfigurationError("--weights: two of them are the same to six digits")
        if wrong_weights := [weight for weight in config.weights if not 0 <= weight < float("inf")]:
            raise ConfigurationError(f"--weights must be at least 0, got {wrong_weights[0]:g}")
        variants = {f"weight {weight:g}": (f"--entropy_weight={weight}", drawn(most)) for weight in config.weights}
    else:
        title = "How good must behaviour be?"
        for name in config.qualities:
            offline.quality(data, metadata, name)
        variants = {name: (f"--quality={name}", drawn(most)) for name in config.qualities}
    options = ("--env_options", *metadata.env_options) if metadata.env_options else ()
    common = (f"--data={config.data}", f"--variant={metadata.variant}", *options)
    found = {
        f"{method}, {name}": Arm("er_trl", (*common, f"--method={method}", *flags))
        for method in methods
        for name, flags in variants.items()
    }
    if not found:
        raise ConfigurationError(f"--{QUESTIONS[config.question]} needs at least one")
    return Comparison(title, metadata.env, found, MEASURES)


def ask(config: Config) -> int:
    """Run what is missing, then write the figure and the JSON file."""
    found = comparison(config)
    arms.compare(found, config, Path(config.out) / f"er_trl_{config.question}_{found.env}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Answer the question that the command line asks; returns the exit code."""
    return arms.entry(Config, ask, argv)


if __name__ == "__main__":
    sys.exit(main())
