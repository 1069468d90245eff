"""Hyper-parameters that arrays may stand for, so that one compiled program trains with many values at once."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import jax

TRACEABLE = (
    "sac.alpha",
    "sac.average_rate",
    "sac.discount",
    "sac.learning_rate",
    "sac.pessimism",
    "sac.target_entropy",
    "sac.target_rate",
    "vae.kl_y_weight",
    "vae.kl_z_weight",
    "vae.learning_rate",
    "vae.reward_weight",
    "vae.state_weight",
)
"""Names of fields of agents' configurations, `group.field`, on whose values no shape and no branch depends. A weight
that switches a term on is none of them."""

Values = Mapping[str, jax.Array | float]
"""By name, of `TRACEABLE`."""

C = TypeVar("C")


def replaced(config: C, values: Values) -> C:
    """The nested dataclass with these values, which may be traced; what they are is not checked."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        group, field = name.split(".")
        groups.setdefault(group, {})[field] = value
    new = {group: dataclasses.replace(getattr(config, group), **fields) for group, fields in groups.items()}
    return dataclasses.replace(config, **new)  # type: ignore[type-var]
