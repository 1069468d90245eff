"""MoSS settings, one changed at a time, in tables and figures: python -m experiments.sweep --settings kl discount."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arms, cli, moss
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
    "sac_rate": ("--sac.learning_rate", "3e-4", "1e-3", "3e-3"),
    "vae_rate": ("--vae.learning_rate", "5e-4", "1e-3", "2e-3", "4e-3"),
    "kl": ("--vae.kl_z_weight", "0.001", "0.01", "0.05", "0.2"),
    "contrastive": ("--vae.contrastive_weight", "0", "0.1", "1"),
    "vae_window": ("--vae_window", "32", "64", "128"),
    "lanes": ("--num_envs", "10", "25", "50", "100"),
    "observations": ("--standardize_obs", "False", "True"),
}
"""Name -> a flag and the values it is given."""


@dataclasses.dataclass(frozen=True)
class Config(arms.Config):
    """A sweep, one setting at a time."""

    env: str = "cheetah_vel"
    """Benchmark."""
    settings: tuple[str, ...] = tuple(SETTINGS)
    """Which settings to sweep."""


def comparison(env: str, setting: str) -> Comparison:
    """The values of one setting.

    Raises:
      ConfigurationError: an unknown setting.
    """
    if setting not in SETTINGS:
        raise ConfigurationError(f"unknown setting {setting!r}: choose {', '.join(SETTINGS)}")
    flag, *values = SETTINGS[setting]
    follow = {}
    if setting == "updates":  # one pool per epoch, whatever their number
        every = moss.presets_for("fast", env).agent.sac.policy_every
        follow = {value: (f"--updates_per_pool={int(value) // every}",) for value in values}
    settings = {value: Arm("moss", (flag, *value.split(), *follow.get(value, ()))) for value in values}
    return Comparison(f"{flag.lstrip('-')}", env, settings)


def sweep(config: Config) -> int:
    """Run what is missing, then write a figure and a JSON file per setting."""
    chosen = {setting: comparison(config.env, setting) for setting in config.settings}
    for found in chosen.values():  # before the first setting takes its hours
        for arm in found.arms.values():
            arms.check_possible(found.env, arm)
    for setting, found in chosen.items():
        arms.compare(found, config, Path(config.out) / f"sweep_{config.env}_{setting}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Sweep as the command line says; returns the exit code."""
    return cli.command(Config, sweep, argv)


if __name__ == "__main__":
    sys.exit(main())
