"""TIMRL's open questions, each one command and one figure: python -m experiments.timrl_questions --question=labels."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arms
from experiments.arms import Arm, Comparison, mixture
from metarl_jax.errors import ConfigurationError

UNLABELLED = ("--labels=mixture", "--vae.mutual_information_weight=0.5")
QUESTIONS = {
    "labels": Comparison(
        "Does recognition need labels?",
        "cheetah_3task",
        {"labels": Arm("timrl"), "without labels": Arm("timrl", UNLABELLED), "MoSS": mixture(3)},
    ),
    "components": Comparison(
        "What if the number of components is not that of the classes?",
        "cheetah_3task",
        {f"K = {k}": Arm("timrl", (*UNLABELLED, f"--vae.num_components={k}")) for k in (1, 2, 3, 4, 6, 8)},
    ),
    "drift": Comparison(
        "Does a discrete choice harm where tasks change smoothly?",
        "cheetah_vel",
        {
            f"{form} belief": Arm(
                "timrl",
                (*UNLABELLED, "--vae.num_components=4", f"--belief={form}", "--env_options", "mode=drift"),
            )
            for form in ("component", "mixture")
        },
    ),
    "accuracy": Comparison(
        "How does the return depend on the quality of recognition?",
        "cheetah_3task",
        {f"{share:.2f}": Arm("timrl", (f"--forced_accuracy={share}",)) for share in (1 / 3, 0.5, 0.75, 0.95, 1.0)},
    ),
    "random": Comparison(
        "Does a random recogniser stall?",
        "cheetah_dir_nonstat",
        {"recognised": Arm("timrl"), "random": Arm("timrl", ("--forced_accuracy=0.5",))},
        ("reached_return", "recognition_accuracy"),
    ),
    "unseen": Comparison(
        "What happens in a class that was not trained?",
        "cheetah_dir_vel_to_goal",
        {"TIMRL": Arm("timrl"), "mixture belief": Arm("timrl", ("--belief=mixture",)), "MoSS": mixture(3)},
        ("reached_return", *(f"goal as component {k}" for k in range(3))),
    ),
}


@dataclasses.dataclass(frozen=True)
class Config(arms.Config):
    """TIMRL's open questions."""

    question: str = "labels"
    """labels, components, drift, accuracy, random or unseen."""


def ask(config: Config) -> int:
    """Run what is missing, then write the figure and the JSON file."""
    if config.question not in QUESTIONS:
        raise ConfigurationError(f"unknown question {config.question!r}: choose {', '.join(QUESTIONS)}")
    arms.compare(QUESTIONS[config.question], config, Path(config.out) / f"timrl_{config.question}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Answer the question that the command line asks; returns the exit code."""
    return arms.entry(Config, ask, argv)


if __name__ == "__main__":
    sys.exit(main())
