import dataclasses

import jax
import jax.numpy as jnp
import pytest

import experiments.moss
from envs import make
from experiments import cli, presets
from metarl_jax.agents import cemrl, moss, timrl
from metarl_jax.training.checkpoint import Checkpoints, structure
from tests import helpers


def test_an_oracle_is_told_its_task():
    flags = ["--env=cheetah_multitask", "--belief=oracle"]
    built, plain = experiments.moss.build(cli.configure(experiments.moss, flags)), make("cheetah_multitask").spec
    assert built.spec.obs_size == plain.obs_size + len(plain.families) * (1 + plain.task_size)


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


@pytest.mark.parametrize(("flags", "learnt"), [([], True), (["--imagined_episodes=0"], False)])
def test_a_model_of_rewards_is_learnt_if_it_pays(flags, learnt):
    built = experiments.moss.build(cli.configure(experiments.moss, ["--env=cheetah_vel_ood", *flags]))
    assert ("reward_model" in built.trainer.epoch.parts) == learnt


def test_tasks_are_imagined_where_they_stay():
    still, moving = (make("cheetah_vel_ood", mode=mode).spec for mode in (None, "drift"))
    assert [presets.fast(spec)[1].imagined_episodes for spec in (still, moving)] == [0.6, 0.0]
    moss.make(presets.fast(moving)[0], moving)


def test_base_tasks_are_counted_where_a_benchmark_is_not_known():
    one, three = (helpers.spec("own", families=names) for names in (("run",), ("run", "jump", "flip")))
    assert [presets.paper(spec)[0].vae.num_components for spec in (one, three)] == [1, 3]
    assert [presets.fast(spec)[0].sac.automatic_entropy_tuning for spec in (one, three)] == [True, False]


def test_a_part_of_a_benchmark_has_the_settings_of_the_whole():
    (part, data), (whole, all_data) = (
        presets.fast(make("cheetah_multitask", only=only).spec) for only in ("jump,stand_back", None)
    )
    assert part == dataclasses.replace(whole, reward_floor=(-1.0, -1.5)) and data == all_data
    assert whole.reward_floor == (-1.5, -1.5, -1.0, -1.5)  # velocities, goals, stands, jumps
