"""One-line errors: what is wrong, and what would be right."""

import difflib
from collections.abc import Iterable


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
