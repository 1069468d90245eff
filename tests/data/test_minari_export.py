import importlib.util

import numpy as np
import pytest

from metarl_jax.data import minari_export, offline
from metarl_jax.errors import ConfigurationError
from tests.data.test_offline import METADATA, data


def test_minari_is_optional(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install -e '.\[offline\]'"):
        minari_export.export(data(), METADATA, "toy")


def test_names(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    for name in ("", "a b", "/a", "a/"):
        with pytest.raises(ConfigurationError, match="--minari: "):
            minari_export.check(name)


def test_minari_reads_what_was_stored(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    names = minari_export.export(data(), METADATA, "toy/small")
    assert names == [f"toy/small/task-0{n}-v0" for n in range(3)]
    table = offline.episodes(data())
    for n, name in enumerate(names):
        stored = minari.load_dataset(name)
        of_task = table.task == n
        assert stored.total_steps == data().count[n]
        for episode, start, length in zip(stored, table.start[of_task], table.length[of_task], strict=True):
            row = slice(start, start + length)
            np.testing.assert_array_equal(episode.observations[:-1], data().obs[n, row])
            np.testing.assert_array_equal(episode.observations[-1], data().next_obs[n, start + length - 1])
            np.testing.assert_array_equal(episode.actions, data().action[n, row])
            np.testing.assert_array_equal(episode.rewards, data().reward[n, row])
            np.testing.assert_array_equal(episode.terminations, data().terminated[n, row])
            assert episode.truncations.sum() + episode.terminations.sum() == 1
    with pytest.raises(ConfigurationError, match="task-00-v0 is there already"):
        minari_export.export(data(), METADATA, "toy/small")
