"""One-line errors: what is wrong, and what would be right."""

import difflib
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np

MAX_INTEGER = 2**31 - 1
"""Of a count on the device."""


class ConfigurationError(ValueError):
    """A wrong input. The message is one line a user can act on; entry points print it and exit with code 2."""


def choose(what: str, given: str, known: Iterable[str]) -> str:
    """Return `given` if it is one of `known`, else raise a `ConfigurationError` that names the nearest ones."""
    known = list(known)
    if given in known:
        return given
    near = difflib.get_close_matches(str(given), known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ConfigurationError(f"unknown {what} {given!r}: {hint}known: {', '.join(known)}")


def check_integers(**values: Any) -> None:
    """Raise `ConfigurationError` for a value that is given and no integer, or too large for 32 bits with a sign."""
    for name, value in values.items():
        if value is not None and (not isinstance(value, numbers.Integral) or isinstance(value, bool)):
            raise ConfigurationError(f"{name} must be an integer, got {value!r}")
        if value is not None and int(value) > MAX_INTEGER:
            raise ConfigurationError(f"{name} must be at most {MAX_INTEGER}, got {value}")


def is_finite(value: float) -> bool:
    """Whether a number is one in single precision too."""
    return bool(abs(value) <= float(np.finfo(np.float32).max))
