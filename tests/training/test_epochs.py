import threading

import jax
import jax.numpy as jnp
import pytest

from metarl_jax.training import compilation, epochs, trainer
from metarl_jax.types import Epoch
from tests import helpers
from tests.agents.small_moss import agent, with_
from tests.helpers import same

quick = pytest.fixture(autouse=True, scope="module")(helpers.quick_compilation)


@pytest.fixture(scope="module")
def moss():
    """Two seeds of MoSS, with imagined tasks, on the environment whose every number is known: their compiled epoch, and
    a way to begin.
    """
    config = trainer.Config(num_envs=3, replay_rows=8, imagined_episodes=0.4)
    made = trainer.make(helpers.environment(), agent(with_(reward_model_updates=2)), config, num_seeds=2)
    init = jax.jit(made.init)
    lowered = epochs.lower(made.epoch, jax.eval_shape(init, jax.random.key(0)))
    return epochs.assemble(made.epoch, [program.compile() for program in lowered]), lambda: init(jax.random.key(0))


@pytest.mark.parametrize("cpus", [1, 3])
def test_side_by_side_equals_one_after_another(moss, monkeypatch, cpus):
    """To the bit, in any order, over epochs in which SAC waits and learns."""
    epoch, begin = moss
    monkeypatch.setattr(compilation, "num_cpus", lambda: cpus)
    state, other = begin(), begin()
    for _ in range(3):
        brought = {name: epoch.parts[name](other) for name in reversed(epoch.parts)}
        other, expected = epoch.finish(other, brought)
        state, metrics = epoch(state)
        assert same(state, other) and same(metrics, expected)
    assert not same(state.agent.sac, begin().agent.sac)


def test_the_replay_stays_where_it_is(moss):
    epoch, begin = moss
    state = begin()
    place = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state.replay.data)]
    for _ in range(2):
        state, _ = epoch(state)
        assert [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state.replay.data)] == place
    sizes = [x.nbytes for x in jax.tree.leaves(state.replay.data)]
    assert epoch.finish.memory_analysis().alias_size_in_bytes >= sum(sizes)
    for part in epoch.parts.values():
        assert part.memory_analysis().alias_size_in_bytes == 0  # nothing is donated


def test_as_many_parts_at_once_as_there_are_cpus(monkeypatch):
    monkeypatch.setattr(compilation, "num_cpus", lambda: 2)
    meeting, order = threading.Barrier(2, timeout=60), []

    def meet(name):
        def part(state):
            meeting.wait()  # for ever, were the other not running
            return jnp.zeros(())

        return part

    epoch = epochs.Compiled({name: meet(name) for name in "ab"}, lambda state, brought: (sorted(brought), {}))
    assert epoch(None)[0] == ["a", "b"]
    monkeypatch.setattr(compilation, "num_cpus", lambda: 1)
    parts = {name: lambda state, name=name: order.append(name) for name in "ba"}
    epochs.Compiled(parts, lambda state, brought: (state, {}))(None)
    assert order == ["b", "a"]


def test_what_a_part_raises_is_raised():
    def fails(state):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        epochs.Compiled({"a": fails}, lambda state, brought: (state, {}))(None)


def test_each_program_is_traced_once():
    entries = []
    made = trainer.make(helpers.environment(entries), helpers.counting_agent(), trainer.Config(3, 8))
    lowered = epochs.lower(made.epoch, jax.eval_shape(made.create, jax.random.key(0)))
    assert len(entries) == 1 and len(lowered) == len(made.epoch.parts) + 1 == 3
    assert isinstance(made.epoch, Epoch)
