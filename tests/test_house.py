"""Imports only go down: experiments -> metarl_jax, envs -> libraries."""

import ast
from pathlib import Path

import pytest

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
