"""Settings of the whole suite; set before JAX is first imported."""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

# Programs compiled by one run are reused by the next: MJX alone takes 20 s per model.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "metarl_jax_test_cache"))
# Two processes would each take most of a GPU's memory.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Entry points switch the whole process to a generator whose numbers under vmap are not those of each key alone.
os.environ.setdefault("JAX_DEFAULT_PRNG_IMPL", "threefry2x32")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

# Most of the suite's time is XLA's, and more than half of that is a stage that generates code of fusions anew. Another
# version may not know the flag, and XLA ends a process that gives it an unknown one.
if version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()
