"""Imports only go down: experiments -> metarl_jax, envs -> libraries. Tests pass in any order."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import helpers

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "envs": {"metarl_jax", "experiments", "tests", "benchmarks", "distrax"},
    "metarl_jax": {"envs", "experiments", "tests", "benchmarks", "distrax"},
    "experiments": {"tests", "benchmarks", "distrax"},
}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import absolutely"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_down(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        allowed = {"distrax"} if path == ROOT / "metarl_jax" / "distributions.py" else set()
        assert not (imported(path) & FORBIDDEN[package]) - allowed, path.relative_to(ROOT)


def test_what_tests_share_is_no_tracer():
    shared = helpers.cached(lambda: jnp.arange(3.0))
    jax.eval_shape(shared)
    np.testing.assert_array_equal(shared(), [0.0, 1.0, 2.0])
    own = Path(__file__), Path(helpers.__file__)
    users = [path.name for path in (ROOT / "tests").rglob("*.py") if "functools.cache" in path.read_text()]
    assert sorted(users) == sorted(path.name for path in own), "use helpers.cached"
