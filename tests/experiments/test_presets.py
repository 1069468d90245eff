import jax
import jax.numpy as jnp
import pytest

from envs import make
from experiments import presets
from metarl_jax.agents import cemrl, moss, timrl
from metarl_jax.training.checkpoint import Checkpoints, structure


@pytest.mark.parametrize("preset", presets.PRESETS)
@pytest.mark.parametrize(
    ("algorithm", "settings", "benchmark"),
    [
        (moss, presets.common, "point_robot"),
        (timrl, presets.timrl, "cheetah_2task"),
        (cemrl, presets.cemrl, "point_robot"),
    ],
)
def test_what_a_preset_learns_can_be_stored(algorithm, settings, benchmark, preset, tmp_path):
    spec = make(benchmark).spec
    agent = algorithm.make(settings(preset, spec)[0], spec)
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    store = Checkpoints(tmp_path)
    store.save(1, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), {"epoch": 1})
    restored, _ = store.restore(shapes)
    assert structure(restored) == structure(shapes)
