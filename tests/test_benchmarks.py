import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import fidelity, idle, time_to_return, train_steps
from benchmarks.adaptation import after_changes, kept, ratio_to_long_after, settled
from benchmarks.programs import product_flops
from benchmarks.time_to_return import crossing
from experiments import cli
from metarl_jax.errors import ConfigurationError
from metarl_jax.types import Evaluation


def test_a_target_is_reached_by_three_evaluations_in_a_row():
    returns = [-100, -20, -90, -40, -30, -38, -35, -50]
    curve = [{"test_return": r, "seconds": 10 * i, "env_steps": 1000 * i} for i, r in enumerate(returns)]
    assert crossing(curve, -50) == {"seconds": 30, "env_steps": 3000}
    assert crossing(curve, -36) == {"seconds": 50, "env_steps": 5000}
    assert crossing(curve, -35) == {"seconds": 60, "env_steps": 6000}
    assert crossing(curve, -34) is None


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_evaluations_reach_nothing(count):
    assert crossing([{"test_return": 0.0, "seconds": 1.0, "env_steps": 1}] * count, -40) is None


def test_seeds_that_are_not_given_stay_in_a_file(tmp_path):
    path = tmp_path / "time_to_return_cheetah_dir_fast.json"
    how = {"minutes": 15.0, "jobs": 1}
    assert time_to_return.kept(path, (0,), how) == []
    runs = [{"config": {"config": {"run": {"seed": seed}}}} for seed in range(3)]
    path.write_text(json.dumps(how | {"runs": runs}))
    assert time_to_return.kept(path, (0, 3), how) == runs[1:]
    assert time_to_return.kept(path, (0, 1, 2), how | {"minutes": 1.0}) == []
    for name, value in {"minutes": 1.0, "jobs": 2}.items():
        with pytest.raises(
            ConfigurationError, match=f"--{name}: .* has seed 1 with {how[name]:g}, not {value:g}: name"
        ):
            time_to_return.kept(path, (0,), how | {name: value})


def test_flags_add_up():
    flags = ["--flags=--belief=oracle", "--flags=--sac.alpha=0.1"]
    found = cli.parse(time_to_return.Config, ["cheetah_dir", *flags])
    assert found.flags == ("--belief=oracle", "--sac.alpha=0.1")


def test_products_in_loops_count_as_often_as_they_run():
    """A [4, 5] x [5, 6] product costs 240 operations; its gradient by one factor another 240."""
    a, b = jnp.ones((4, 5)), jnp.ones((5, 6))

    def loss(b):
        return jnp.sum(jax.lax.scan(lambda b, _: (b * jnp.sum(jnp.tanh(a @ b)), None), b, None, 3)[0])

    assert product_flops(loss, b) == 3 * 240
    assert product_flops(jax.jit(jax.grad(loss)), b) == 6 * 240
    assert product_flops(jax.vmap(lambda x: x @ b), jnp.ones((7, 4, 5))) == 7 * 240


def test_a_row_of_fidelity_tells_whose_policy_it_is(tmp_path, monkeypatch):
    """Returns of two tasks on `fast` and 1 and 2 less on `reference`."""
    config = {"environment": {"name": "walker_mass"}, "config": {"preset": "fast"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "summary.json").write_text(json.dumps({"env_steps": 500, "test_return": 9.0}))
    less = {"fast": np.zeros(2), "reference": np.array([1.0, 2.0])}
    monkeypatch.setattr(fidelity, "returns", lambda run, variant, repeats: np.array([10.0, 20.0]) - less[variant])
    row = fidelity.row(tmp_path, 3)
    assert row["body"] == "walker2d" and row["config"] == {"preset": "fast"} and row["test_return"] == 9.0
    assert (row["episodes"], row["difference"], row["percent"]) == (6, -1.5, -10.0)
    assert -2.0 <= row["low"] <= row["difference"] <= row["high"] <= -1.0


def test_rewards_are_counted_from_some_steps_after_a_change():
    """Task 0 changes after steps 2 and 9 of 12, task 1 after 2 and 4, task 2 never; rewards are 100 task + step."""
    changed = np.zeros((1, 12, 3), bool)
    changed[0, [2, 9], 0] = changed[0, [2, 4], 1] = True
    rewards = np.arange(12.0)[None, :, None] + 100.0 * np.arange(3)
    nothing = np.zeros((*rewards.shape, 1))
    one = Evaluation(rewards, nothing, nothing, changed, np.ones(changed.shape, bool), nothing)
    batched = Evaluation(*(np.stack([x, x]) for x in one[:6]))  # two seeds
    # Steps 5 and 6 of task 0; another change comes too early, or the end: neither counts. Steps 7 and 8 of task 1.
    np.testing.assert_allclose(after_changes(batched, 4)[:, 2:].mean(-1), [5.5, 107.5] * 2)
    np.testing.assert_allclose(settled(one, 10), [10.5, 110.5, 210.5])
    # Task 1 ends with step 7, before its change has been seen for long enough; task 2 before what would count.
    fallen = one._replace(alive=np.arange(12)[None, :, None] < np.array([12, 8, 10]))
    np.testing.assert_allclose(after_changes(fallen, 4)[:, 2:].mean(-1), [5.5])
    fallen = fallen._replace(rewards=rewards * fallen.alive)
    np.testing.assert_allclose(settled(fallen, 7), [9.0, 107.0, 208.0])


def test_rewards_after_a_change_are_compared_with_those_long_after_it():
    responses = [[-9.0, -9.0, -3.0, -1.0, -2.0, -2.0], [-9.0, -9.0, -3.0, -5.0, -2.0, -2.0]]
    assert ratio_to_long_after(responses, 2, 2) == 1.5
    assert ratio_to_long_after(responses, 3, 2) is None and ratio_to_long_after(responses, 0, 7) is None


def test_what_idling_returns_elsewhere_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "new" / "idle.json"
    monkeypatch.setattr(idle, "measure", lambda env, repeats: {"mean": float(len(env.spec.name)), "std": 0.0})
    for names in (("cheetah_vel", "point_robot"), ("point_robot", "cheetah_dir")):
        idle.main(idle.Config(names, 2, path))
    found = json.loads(path.read_text())["returns"]
    assert {name: row["mean"] for name, row in found.items()} == {
        n: len(n) for n in ("cheetah_vel", "point_robot", "cheetah_dir")
    }
    idle.main(idle.Config(("cheetah_dir",), 3, path))  # measured otherwise
    assert list(json.loads(path.read_text())["returns"]) == ["cheetah_dir"]


def test_sizes_are_layers_and_a_batch():
    assert train_steps.layers_and_batch("128 64 32") == ((128, 64), 32)
    for wrong in ("", "128", "128 x 64", "128 0 64"):
        with pytest.raises(ConfigurationError, match="hidden layers, then the batch"):
            train_steps.layers_and_batch(wrong)


def test_other_seeds_of_a_measurement_are_kept(tmp_path):
    def about(seed, **agent):
        settings = {"env": "toy", "preset": "fast", "agent": agent, "run": {"seed": seed}}
        return {"algorithm": "moss", "config": settings}

    path, how = tmp_path / "adaptation.json", {"settle": 20}
    row = {"per_run": [1.0, 2.0], "samples": [3, 4], "mean": 1.5}
    content = how | {"runs": [about(0), about(1)], "rows": {"after a change": row}}
    path.write_text(json.dumps(content | {"response": [0.5], "response_per_run": [[0.0], [1.0]]}))
    old = kept(path, [{"config": about(0)}], how)
    assert old["rows"] == {"after a change": {"per_run": [2.0], "samples": [4]}}
    assert old["runs"] == [about(1)] and old["response_per_run"] == [[1.0]]
    for new, measured, problem in ((about(2), {"settle": 30}, "settle 20"), (about(2, x=1), how, "different settings")):
        with pytest.raises(ConfigurationError, match=problem):
            kept(path, [{"config": new}], measured)
    path.write_text(json.dumps(content | {"response": [0.5]}))
    with pytest.raises(ConfigurationError, match="no response of each run"):
        kept(path, [{"config": about(2)}], how)
    path.write_text(json.dumps(content | {"rows": {"training tasks": row, "held-out tasks": row}}))
    with pytest.raises(ConfigurationError, match="tells nothing of free actions"):
        kept(path, [{"config": about(2)}], how)
