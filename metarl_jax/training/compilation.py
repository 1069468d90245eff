"""Compile once per machine, not once per run."""

import os
from pathlib import Path

import jax


def enable_cache() -> Path | None:
    """Keep compiled programs between runs, in `~/.cache/metarl_jax` by default. Called by entry points only.

    JAX's own variables decide: `JAX_COMPILATION_CACHE_DIR` moves the cache and
    `JAX_ENABLE_COMPILATION_CACHE=false` turns it off. JAX never caches a program that calls back into Python,
    so with the native engine collection and evaluation compile anew in every run.

    Returns:
      The directory, or None if the cache is off.
    """
    if not jax.config.values["jax_enable_compilation_cache"]:
        return None
    if chosen := jax.config.values["jax_compilation_cache_dir"]:
        return Path(chosen)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metarl_jax"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    return cache
