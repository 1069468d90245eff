"""MoSS's ablations, all in one figure: python -m experiments.ablations --env=cheetah_vel_ood --minutes=15."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arms, cli, moss
from experiments.arms import Arm, Comparison


@dataclasses.dataclass(frozen=True)
class Config(arms.Config):
    """The paper's four ablations, and the oracle as the upper line."""

    env: str = "cheetah_vel_ood"
    """Benchmark."""


def comparison(env: str) -> Comparison:
    """What is taken away from MoSS, one at a time."""
    vae = moss.presets_for("fast", env).agent.vae
    total = vae.num_components * vae.latent_size
    single = (f"--vae.latent_size={total}", "--vae.mutual_information_weight=0")
    several = ("--vae.num_components=4", "--vae.mutual_information_weight=0.5")
    return Comparison(
        "MoSS and what its parts are worth",
        env,
        {
            "MoSS": Arm("moss"),
            "trajectory-level inference": Arm("moss", ("--online_inference=False",)),
            **(
                {"one Gaussian": Arm("moss", ("--vae.num_components=1", *single))}
                if vae.num_components > 1
                else {"four Gaussians": Arm("moss", several)}
            ),
            "contrastive loss": Arm("moss", ("--vae.contrastive_weight=0.1",)),
            "posterior sample": Arm("moss", ("--belief=sample",)),
            "oracle": Arm("moss", ("--belief=oracle",)),
        },
    )


def ablate(config: Config) -> int:
    """Run what is missing, then write the figure and the JSON file."""
    arms.compare(comparison(config.env), config, Path(config.out) / f"ablations_{config.env}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Ablate as the command line says; returns the exit code."""
    return cli.guarded(lambda: ablate(cli.parse(Config, list(sys.argv[1:] if argv is None else argv))))


if __name__ == "__main__":
    sys.exit(main())
