import jax
import pytest


@pytest.fixture(autouse=True, scope="session")
def shared_compilations(tmp_path_factory):
    """The toy's programs compile once per session, not once per test."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield
    jax.config.update("jax_compilation_cache_dir", None)
