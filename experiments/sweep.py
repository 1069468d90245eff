"""MoSS with one setting changed, in a table and figures: python -m experiments.sweep --settings kl discount."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arms, rundir
from experiments.arms import Arm, Comparison
from metarl_jax.errors import ConfigurationError

SETTINGS: dict[str, tuple[str, ...]] = {
    "updates": ("--sac_updates", "800", "1600", "3200"),
    "batch": ("--sac.batch_size", "64", "128", "256"),
    "width": ("--sac.hidden_sizes", "64 64", "128 128", "256 256"),
    "layer_norm": ("--sac.layer_norm", "False", "True"),
    "temperature": ("--sac.alpha", "0.01", "0.02", "0.05", "0.1"),
    "learnt_temperature": ("--sac.automatic_entropy_tuning", "False", "True"),
    "discount": ("--sac.discount", "0.95", "0.97", "0.985", "0.99"),
    "pessimism": ("--sac.pessimism", "-0.5", "0", "0.5", "1"),
    "sac_rate": ("--sac.learning_rate", "3e-4", "1e-3", "3e-3"),
    "vae_rate": ("--vae.learning_rate", "5e-4", "1e-3", "2e-3", "4e-3"),
    "kl": ("--vae.kl_z_weight", "0.001", "0.01", "0.05", "0.2"),
    "contrastive": ("--vae.contrastive_weight", "0", "0.1", "1"),
    "vae_window": ("--vae_window", "32", "64", "128"),
    "lanes": ("--num_envs", "10", "25", "50", "100"),
    "observations": ("--standardize_obs", "False", "True"),
    "head_starts": ("--head_starts", "0", "0.1", "0.25", "0.5"),
}
"""Name -> a flag and the values it is given."""


@dataclasses.dataclass(frozen=True)
class Config(arms.Config):
    """A sweep, one setting at a time."""

    env: str = "cheetah_vel"
    """Benchmark."""
    settings: tuple[str, ...] = tuple(SETTINGS)
    """Which settings to sweep."""


def comparison(env: str, settings: Sequence[str]) -> Comparison:
    """The preset, and every other value of the settings; of all settings those values that the benchmark can have.

    Raises:
      ConfigurationError: an unknown setting, or none.
    """
    if not settings:
        raise ConfigurationError("--settings needs at least one setting")
    if unknown := [name for name in settings if name not in SETTINGS]:
        raise ConfigurationError(f"unknown setting {unknown[0]!r}: choose {', '.join(SETTINGS)}")

    chosen = tuple(settings) != tuple(SETTINGS)
    found = {"fast": Arm("moss")}
    curves: dict[str, list[str]] = {}
    preset = rundir.flatten(arms.configured(env, found["fast"]))
    for setting in settings:
        flag, *values = SETTINGS[setting]
        own = preset[flag.lstrip("-")]
        own = " ".join(map(str, own)) if isinstance(own, tuple) else own
        curves[f"curves_{setting}"] = ["fast"]
        for value in values:
            # one pool per epoch, whatever the number of updates
            pools = [f"--updates_per_pool={int(value) // preset['sac.policy_every']}"] if setting == "updates" else []
            arm = Arm("moss", (flag, *value.split(), *pools))
            if rundir.flatten(arms.configured(env, arm)) != preset and (chosen or arms.is_possible(env, arm)):
                name = f"{setting} {value} (fast: {own})"
                found[name] = arm
                curves[f"curves_{setting}"].append(name)
    curves = {name: arms_of for name, arms_of in curves.items() if len(arms_of) > 1}
    return Comparison("MoSS, one setting changed", env, found, curves=curves)


def sweep(config: Config) -> int:
    """Run what is missing, then write the figures and the JSON file."""
    arms.compare(comparison(config.env, config.settings), config, Path(config.out) / f"sweep_{config.env}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Sweep as the command line says; returns the exit code."""
    return arms.entry(Config, sweep, argv)


if __name__ == "__main__":
    sys.exit(main())
