"""What README shows runs."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_examples():
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.splitlines()[-1][:30])
def test_example_runs(code):
    assert len(code.splitlines()) <= 15
    names: dict = {}
    exec(code, names)
    if "metrics" in names:
        assert names["metrics"]["critic_loss"].shape == (8,)
    else:
        assert names["state"].obs.shape == (256, 20)


def test_every_benchmark_is_named():
    import envs

    assert [name for name in envs.names() if f"`{name}`" not in README] == []
