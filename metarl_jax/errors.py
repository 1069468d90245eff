"""One-line errors of the library."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple


class ConfigurationError(ValueError):
    """A wrong input. The message is one line a user can act on; entry points print it and exit with code 2."""


@contextlib.contextmanager
def reading(path: Path | str, remedy: str = "") -> Iterator[None]:
    """Raise whatever goes wrong while a file is read as one `ConfigurationError` that names it and tells a remedy."""
    try:
        yield
    except ConfigurationError:
        raise
    except IsADirectoryError as error:
        raise ConfigurationError(f"{path} cannot be read: it is a directory") from error
    except Exception as error:  # damaged headers make libraries fail in every way: KeyError, RuntimeError, MemoryError
        missing = "" if Path(path).exists() else "there is no such file"
        reason = missing or " ".join(str(error).split()) or type(error).__name__
        raise ConfigurationError(f"{path} cannot be read: {reason}{remedy}") from error


class Range(NamedTuple):
    """What fields whose names end alike may be."""

    endings: tuple[str, ...]
    words: str
    holds: Callable[[float], bool]
    """Of a number; of NaN it is False."""


RANGES = (
    Range(("_size", "_sizes"), ">= 1", lambda x: x >= 1),
    Range(("_weight",), ">= 0 and finite", lambda x: 0.0 <= x < math.inf),
    Range(("reward_scale", "action_cost", "target_entropy", "reward_floor"), "finite", math.isfinite),
    Range(("discount",), "in [0, 1]", lambda x: 0.0 <= x <= 1.0),
    Range(("target_rate", "average_rate", "scale_rate"), "in (0, 1]", lambda x: 0.0 < x <= 1.0),
    Range(
        ("learning_rate", "held_for", "max_grad_norm", "contrastive_temperature"),
        "positive and finite",
        lambda x: 0.0 < x < math.inf,
    ),
)


def check_ranges(config: Any, prefix: str = "") -> None:
    """Raise `ConfigurationError` for a number of a dataclass, or of one inside it, that its name's `Range` excludes.

    What is None is not set.
    """
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            check_ranges(value, f"{name}.")
        if value is None:
            continue
        for endings, words, holds in RANGES:
            if field.name.endswith(endings) and not all(map(holds, value if isinstance(value, tuple) else (value,))):
                raise ConfigurationError(f"{name} must be {words}, got {value}")
