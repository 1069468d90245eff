"""One-line errors of the library."""


class ConfigurationError(ValueError):
    """A wrong input. The message is one line a user can act on; entry points print it and exit with code 2."""
