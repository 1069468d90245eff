"""Which engine a name means on which device, and what is told of the choice."""

import importlib.util

import pytest

from envs import ConfigurationError
from envs.physics import models, resolve


def test_engine_names(monkeypatch):
    assert resolve("auto", "cpu") == "native"
    assert resolve("auto", "tpu") == "mjx"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert resolve("auto", "gpu") == "warp" and resolve("warp_staged", "gpu") == "warp_staged"
    with pytest.raises(ConfigurationError, match="needs an NVIDIA GPU"):
        resolve("warp_staged", "cpu")
    for engine in ("warp", "warp_staged"):
        with pytest.raises(ConfigurationError, match="needs an NVIDIA GPU"):
            resolve(engine, "tpu")
    for engine in ("mjx", "warp"):
        with pytest.warns(UserWarning, match=f"{engine} is many times slower than native"):
            assert resolve(engine, "cpu") == engine
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="warp-lang, which is faster"):
        assert resolve("auto", "gpu") == "mjx"
    with pytest.raises(ConfigurationError, match="warp-lang") as error:
        resolve("warp")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigurationError, match="did you mean native"):
        resolve("nativ")
    with pytest.raises(ConfigurationError, match="fast, reference"):
        models.load("ant.xml", "quick")
