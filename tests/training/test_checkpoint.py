import errno
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.errors import ConfigurationError
from metarl_jax.training.checkpoint import Checkpoints, checksum
from tests.helpers import same


def state(value: float):
    nothing = jnp.zeros((0, 4))  # statistics of what critics are not told
    return {
        "weight": value * jnp.arange(50_000.0),
        "key": jax.random.key(int(value)),
        "n": jnp.array(3),
        "nothing": nothing,
    }


def template():
    return jax.eval_shape(lambda: state(0.0))


def largest_file(directory: Path) -> Path:
    return max((f for f in directory.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.fixture
def checkpoints(tmp_path):
    store = Checkpoints(tmp_path)
    for epoch in (1, 2, 3):
        store.save(epoch, state(float(epoch)), {"epoch": epoch, "seconds": 0.1 * epoch})
    store.close()
    return tmp_path


def test_whole_state_comes_back_with_typed_keys(checkpoints):
    restored, info = Checkpoints(checkpoints).restore(template())
    assert (info["epoch"], info["seconds"]) == (3, 0.1 * 3)
    np.testing.assert_array_equal(restored["weight"], state(3.0)["weight"])
    assert restored["key"].dtype == jax.random.key(0).dtype
    assert restored["nothing"].shape == (0, 4) and restored["nothing"].dtype == jnp.float32
    assert jax.random.key_data(restored["key"]).tolist() == jax.random.key_data(jax.random.key(3)).tolist()


@pytest.mark.parametrize(("saved", "wanted"), [(0, 2), (2, 0)])
def test_what_held_nothing_is_not_made_up(tmp_path, saved, wanted):
    store = Checkpoints(tmp_path)
    store.save(1, {"n": jnp.ones(1), "told": jnp.ones(saved)}, {"epoch": 1})
    with pytest.raises(ConfigurationError, match=r"hold other things .* told"):
        store.restore(jax.eval_shape(lambda: {"n": jnp.ones(1), "told": jnp.ones(wanted)}))


def test_keys_of_another_generator_are_told_from_another_version(tmp_path):
    store = Checkpoints(tmp_path)
    store.save(1, {"n": jnp.ones(1), "key": jax.random.key(0, impl="rbg")}, {"epoch": 1})
    with pytest.raises(ConfigurationError, match="random keys of another kind: set JAX_DEFAULT_PRNG_IMPL"):
        store.restore(jax.eval_shape(lambda: {"n": jnp.ones(1), "key": jax.random.key(0, impl="threefry2x32")}))


def test_only_the_newest_are_kept(checkpoints):
    assert sorted(p.name for p in checkpoints.iterdir()) == ["2", "3"]


def test_nothing_saved_is_none(tmp_path):
    assert Checkpoints(tmp_path).restore(template()) is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [flip, truncate, os.remove])
def test_damage_falls_back_to_the_one_before(checkpoints, damage):
    damage(largest_file(checkpoints / "3"))
    store = Checkpoints(checkpoints)
    with pytest.warns(UserWarning, match="epoch 3 is damaged") as caught:
        restored, info = store.restore(template(), discard=True)
    assert "\n" not in str(caught[0].message)
    assert info["epoch"] == 2
    np.testing.assert_array_equal(restored["weight"], state(2.0)["weight"])
    store.save(3, state(30.0), {"epoch": 3})
    with warnings.catch_warnings(action="error"):
        assert float(store.restore(template())[0]["weight"][1]) == 30.0


def test_a_save_that_was_cut_short_is_invisible(checkpoints):
    (checkpoints / "3").rename(checkpoints / "3.orbax-checkpoint-tmp-0")
    assert Checkpoints(checkpoints).restore(template())[1]["epoch"] == 2


def test_a_full_disk_is_called_that(checkpoints, monkeypatch):
    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write 656018 bytes to file 21: No space left on device")

    store = Checkpoints(checkpoints)
    monkeypatch.setattr(store._manager, "save", full)
    with pytest.raises(OSError, match=str(checkpoints)) as caught:
        store.save(4, state(4.0), {"epoch": 4})
    assert caught.value.errno == errno.ENOSPC
    assert store.restore(template())[1]["epoch"] == 3


def test_a_reader_leaves_a_save_that_is_going_on_alone(checkpoints):
    unfinished = checkpoints / "4.orbax-checkpoint-tmp-0"
    unfinished.mkdir()
    reader = Checkpoints(checkpoints, read_only=True)
    restored, info = reader.restore(template())
    reader.close()
    assert info["epoch"] == 3 and float(restored["weight"][1]) == 3.0 and unfinished.exists()


def test_reading_deletes_nothing(checkpoints):
    flip(largest_file(checkpoints / "3"))
    with pytest.warns(UserWarning):
        Checkpoints(checkpoints).restore(template())
    assert (checkpoints / "3").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the storage's own tasks
def test_all_damaged_is_an_error(checkpoints):
    for epoch in "23":
        truncate(largest_file(checkpoints / epoch))
    with pytest.warns(UserWarning), pytest.raises(ConfigurationError, match="no checkpoint in"):
        Checkpoints(checkpoints).restore(template())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the tests before
def test_what_another_version_wrote_is_not_called_damage(checkpoints):
    more = jax.eval_shape(lambda: state(0.0) | {"task_scale": jnp.zeros(2)})
    with warnings.catch_warnings(action="error"), pytest.raises(ConfigurationError, match="this version") as caught:
        Checkpoints(checkpoints).restore(more)
    assert "only here: task_scale float32[2]" in str(caught.value) and "\n" not in str(caught.value)


class Before(NamedTuple):
    pair: tuple[jax.Array, jax.Array]
    key: jax.Array
    gone: None


class After(NamedTuple):
    added: None
    pair: tuple[jax.Array, jax.Array]
    key: jax.Array


def test_fields_that_hold_nothing_may_come_and_go(tmp_path):
    """An option that a run does not use costs it nothing, whichever version had it."""
    old = Before((jnp.arange(3.0), jnp.ones(())), jax.random.key(7), None)
    store = Checkpoints(tmp_path)
    store.save(1, old, {"epoch": 1})
    new, _ = store.restore(jax.eval_shape(lambda: After(None, old.pair, old.key)))
    assert isinstance(new, After) and new.added is None and same((new.key, new.pair), (old.key, old.pair))


def test_checksum_sees_every_leaf():
    base = state(1.0)
    assert checksum(base) == checksum(state(1.0))
    assert checksum(base) != checksum(base | {"key": jax.random.key(2)})
    assert checksum(base) != checksum(base | {"n": jnp.array(4)})
