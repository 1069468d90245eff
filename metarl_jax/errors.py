"""One-line errors of the library."""

import dataclasses
from typing import Any


class ConfigurationError(ValueError):
    """A wrong input. The message is one line a user can act on; entry points print it and exit with code 2."""


def check_sizes(config: Any, prefix: str = "") -> None:
    """Raise `ConfigurationError` for a size below 1 in a dataclass's fields `..._size(s)`, nested ones included."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            check_sizes(value, f"{name}.")
            continue
        sizes = value if isinstance(value, tuple) else (value,)
        if field.name.endswith(("_size", "_sizes")) and value is not None and min(sizes, default=1) < 1:
            raise ConfigurationError(f"{name} must be >= 1, got {value}")
