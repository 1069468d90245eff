"""MoSS's ablations, all in one figure: python -m experiments.ablations --env=cheetah_vel_ood --minutes=15."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arms, moss, setup
from experiments.arms import Arm, Comparison, mixture


@dataclasses.dataclass(frozen=True)
class Config(arms.Config):
    """The paper's four ablations, and the oracle as the upper line.

    And imagined tasks and head starts, where `fast` has them, and, where there are several base tasks, mixtures that
    are taught them, by labels or by what tasks pay for.
    """

    env: str = "cheetah_vel_ood"
    """Benchmark."""


def comparison(env: str) -> Comparison:
    """What is taken away from MoSS, or put back that `fast` leaves out, one at a time.

    The contrastive loss needs one task per episode, and labels need several base tasks.
    """
    fast = moss.presets_for("fast", env)
    size = fast.agent.vae.latent_size
    extras = {"imagined tasks": "imagined_episodes", "head starts": "head_starts"}
    extras = {what: field for what, field in extras.items() if getattr(fast.data, field)}
    spec = setup.spec_of("fast", env, ())
    num = len(spec.families)
    taught = Arm("moss", (f"--vae.num_components={num}", "--vae.elbo_steps=16", "--vae.base_task_weight=0.1"))
    found = Arm("moss", (*taught.flags, "--vae.base_tasks=rewards"))
    mixtures = {"a Gaussian per base task, taught": taught, "a Gaussian per base task, found": found}
    return Comparison(
        "MoSS and what its parts are worth",
        env,
        {
            "MoSS": Arm("moss"),
            **{f"without {what}": Arm("moss", (f"--{field}=0",)) for what, field in extras.items()},
            "trajectory-level inference": Arm("moss", ("--online_inference=False",)),
            "four Gaussians": mixture(4),
            **(mixtures if num > 1 else {}),
            "one Gaussian of their size": Arm("moss", (f"--vae.latent_size={4 * size}",)),
            **({"contrastive loss": Arm("moss", ("--vae.contrastive_weight=0.1",))} if spec.stationary else {}),
            "posterior sample": Arm("moss", ("--belief=sample",)),
            "oracle": Arm("moss", ("--belief=oracle",)),
        },
        ("reached_return", "matched_accuracy", "belief_purity"),
    )


def ablate(config: Config) -> int:
    """Run what is missing, then write the figure and the JSON file."""
    arms.compare(comparison(config.env), config, Path(config.out) / f"ablations_{config.env}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Ablate as the command line says; returns the exit code."""
    return arms.entry(Config, ablate, argv)


if __name__ == "__main__":
    sys.exit(main())
