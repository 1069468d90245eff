import jax
import jax.numpy as jnp
import pytest

from metarl_jax.data import replay
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import guard
from metarl_jax.types import TrainState
from tests.helpers import transitions


def test_finite_is_silent():
    assert guard.nonfinite({"loss": jnp.ones(2), "count": jnp.array([1])}, {"w": jnp.ones(3), "n": jnp.array(1)}) == []


def test_metrics_come_first_in_their_order():
    nan, inf = jnp.array([1.0, jnp.nan]), jnp.array([jnp.inf])
    bad = guard.nonfinite({"b_loss": nan, "a_loss": inf}, {"w": [jnp.ones(1), nan]})
    assert bad == ["b_loss", "a_loss", "w/1"]


def test_lanes_of_a_learner_that_went_bad():
    weight = jnp.ones((4, 2, 3)).at[1, 1, 2].set(jnp.nan)
    learner = {"w": weight, "b": jnp.array([1.0, 1.0, 1.0, jnp.inf]), "n": jnp.ones(4, int)}
    assert guard.bad_lanes({"loss": jnp.ones(4)}, learner) == [1, 3]
    known = {"loss": jnp.array([jnp.nan, 1.0, 1.0, 1.0]), "train_return": jnp.full(4, jnp.nan)}
    assert guard.bad_lanes(known, learner) == [0, 1, 3]


def test_a_replay_that_holds_no_number_is_found_before_anything_learns_from_it():
    rows = transitions(0, 2, 3)
    broken = rows._replace(reward=rows.reward.at[1, 2].set(jnp.nan))
    empty = replay.init(jax.tree.map(lambda x: x[0, 0], rows), 4, 3)
    replays = replay.insert(empty, rows), replay.insert(empty, broken), ()
    states = [TrainState({"w": jnp.ones(1)}, held, None, None, None) for held in replays]
    found = [guard.nonfinite({}, guard.watched(state)) for state in states]
    assert found == [[], ["replay/m2/reward", "replay/mean/reward"], []]


def test_lanes_become_copies_of_others():
    keys = jax.random.split(jax.random.key(0), 3)
    state = guard.overwritten({"w": jnp.arange(6.0).reshape(3, 2), "key": jnp.copy(keys)}, [2, 0], [1, 1])
    assert state["w"].tolist() == [[2.0, 3.0]] * 3 and (state["key"] == keys[1]).all()


def test_returns_may_be_unknown():
    assert guard.nonfinite({"train_return": jnp.array([jnp.nan])}, {}) == []


def test_a_container_has_what_its_limit_leaves(tmp_path, monkeypatch):
    (tmp_path / "memory.stat").write_text("anon 300\nfile 5000\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert guard._left_in_container(tmp_path) == 700  # cached files give way
    (tmp_path / "memory.max").write_text("max\n")
    assert guard._left_in_container(tmp_path) == guard._left_in_container(tmp_path / "none") == float("inf")
    monkeypatch.setattr(guard, "_left_in_container", lambda: 10)
    assert guard.available_memory() == 10


def test_memory(monkeypatch):
    monkeypatch.setattr(guard, "available_memory", lambda on_host=False: 10_000_000_000)
    guard.check_memory(8_000_000_000)
    with pytest.raises(ConfigurationError, match=r"16.00 GB does not fit in 8.00 GB.*at most --replay_rows=500 fits"):
        guard.check_memory(16_000_000_000, 1000, "--replay_rows")
