"""How entry points set up JAX: programs compiled once per machine, and a generator that compiles fast."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
from jax.stages import Compiled, Lowered


def configure() -> None:
    """Set up JAX for a process that trains or evaluates.

    Called by entry points, and by what opens a run, before anything is traced.

    Random bits come from XLA's own generator: programs that inline Threefry everywhere take two to three times as
    long to compile. Its numbers under vmap are not those of each key alone, so a seed among several is another run
    than that seed by itself. `JAX_DEFAULT_PRNG_IMPL` overrides.
    """
    if "JAX_DEFAULT_PRNG_IMPL" not in os.environ:
        jax.config.update("jax_default_prng_impl", "rbg")
    enable_cache()


def enable_cache() -> Path | None:
    """Keep compiled programs between runs, in `~/.cache/metarl_jax` by default.

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


def num_cpus() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compile_all(programs: Sequence[Lowered]) -> list[Compiled]:
    """Compile programs side by side, as many at once as this process has CPUs.

    On one CPU five at once took a quarter more CPU time than one after another.
    """
    with ThreadPoolExecutor(num_cpus()) as threads:
        return list(threads.map(lambda program: program.compile(), programs))
