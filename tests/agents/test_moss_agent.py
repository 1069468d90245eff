import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metarl_jax.agents import belief_forms, control, moss
from metarl_jax.data import replay, statistics
from metarl_jax.data.statistics import Scale
from metarl_jax.errors import ConfigurationError
from tests.agents.small_moss import (
    CONFIG,
    abstract_update,
    agent,
    data,
    infer,
    initial,
    trained,
    updated,
    with_,
    with_sac,
    with_vae,
)
from tests.helpers import HORIZON, SPEC, avals, finite, quick_compilation, same

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)


# Who learns from what


def count(state):
    """VAE updates so far."""
    return optax.tree_utils.tree_get(state.vae.opt, "count")


def test_update():
    state, metrics = trained(CONFIG)
    assert finite(state) and finite(metrics)
    for part in ("encoder", "decoder"):
        assert not same(getattr(state.vae, part), getattr(initial(CONFIG).vae, part))
    for part in ("actor", "critic", "target_critic"):
        assert not same(getattr(state.sac, part), getattr(initial(CONFIG).sac, part))
    np.testing.assert_allclose(state.scale.mean.reward, data().data.reward[data().data.valid].mean(), rtol=1e-4)


def test_pretraining_is_once():
    first, _ = updated(CONFIG)
    second, _ = trained(CONFIG)
    assert [int(count(s)) for s in (initial(CONFIG), first, second)] == [0, 3 + 2, 3 + 2 + 2]
    assert [int(s.num_epochs) for s in (initial(CONFIG), first, second)] == [0, 1, 2]


def test_number_of_updates_is_reported():
    """`updates` counts the gradient steps taken, the VAE's further ones in the first epoch too."""
    assert updated(CONFIG)[1]["updates"] == 3 + 2
    assert trained(CONFIG)[1]["updates"] == 2 + 2


def test_sac_waits_for_an_encoder_that_learns():
    """In the first epoch, whose metrics are finite and as many; without such an encoder it does not wait."""
    state, metrics = updated(CONFIG)
    assert same(state.sac, initial(CONFIG).sac) and same(state.belief_scale, initial(CONFIG).belief_scale)
    assert finite(metrics) and set(metrics) == set(trained(CONFIG)[1]) and metrics["critic_loss"] == 0
    state, metrics = updated(ONLY_SAC)
    assert not same(state.sac.critic, initial(ONLY_SAC).sac.critic) and metrics["critic_loss"] != 0


def test_parts_are_independent():
    """Each reads the state before the epoch; what they change has no field in common, and is the whole update."""
    config = dataclasses.replace(with_vae(base_tasks="rewards", base_task_weight=1.0), reward_model_updates=2)
    before, parts = initial(config), {name: jax.jit(part) for name, part in agent(config).parts.items()}
    keys = jax.random.split(jax.random.key(2), len(parts))
    changes = [part(before, data(), key)[0] for part, key in zip(parts.values(), keys, strict=True)]
    fields = [name for change in changes for name in change]
    assert len(parts) == 3 and sorted(fields) == sorted(before._fields)
    whole, _ = agent(config)._replace(parts=parts).update(before, data(), jax.random.key(2))
    assert same(before._replace(**changes[0], **changes[1], **changes[2]), whole)


def test_the_policy_acts_with_the_encoder_that_sac_learnt_with(monkeypatch):
    """The one that the epoch found, not the one that it trained, with the scale of the data that it found."""
    first, _ = updated(CONFIG)
    batches, state = recorded(monkeypatch, CONFIG, first)
    assert same(state.acting_encoder, first.vae.encoder) and not same(state.acting_encoder, state.vae.encoder)
    assert same(state.scale, jax.jit(statistics.scale)(data().moments))
    row, time = (batches.obs[..., i].astype(int) for i in (0, 1))
    before, after = expected_beliefs(state, CONFIG)
    np.testing.assert_allclose(batches.belief[-1], before[row, time][-1], atol=1e-5)
    np.testing.assert_allclose(batches.next_belief[-1], after[row, time][-1], atol=1e-5)
    newest, _ = expected_beliefs(state._replace(acting_encoder=state.vae.encoder), CONFIG)
    assert np.abs(newest - before).max() > 1e-2


@pytest.mark.parametrize("automatic", [False, True])
def test_an_update_keeps_the_types_of_the_state(automatic):
    """Otherwise the second epoch would be compiled again."""
    config = with_sac(automatic_entropy_tuning=automatic)
    assert avals(abstract_update(config)[0]) == avals(initial(config))


ONLY_SAC = with_(vae_updates=0, pretrain_updates=0, standardize_belief=False)
ONLY_VAE = with_(sac_updates=0)


def test_no_gradient_of_sac_reaches_the_encoder():
    base, _ = updated(ONLY_SAC)

    def learnt(encoder):
        state = initial(ONLY_SAC)
        state = state._replace(vae=state.vae._replace(encoder=encoder))
        new, _ = agent(ONLY_SAC).update(state, data(), jax.random.key(1))
        return new.sac

    def total(encoder):
        new = learnt(encoder)
        parts = jax.tree.leaves((new.actor, new.critic, new.target_critic))
        return sum(jnp.sum(jnp.sin(x)) for x in parts), new

    encoder = jax.tree.map(lambda x: x + 0.3, initial(ONLY_SAC).vae.encoder)
    grads, new = jax.jit(jax.grad(total, has_aux=True))(encoder)
    for x in jax.tree.leaves(grads):
        np.testing.assert_array_equal(x, 0.0)
    assert not same(new.critic, base.sac.critic)  # yet SAC does learn from what the encoder believes


def test_sac_updates_leave_the_vae_alone():
    state, metrics = updated(ONLY_SAC)
    assert same(state.vae, initial(ONLY_SAC).vae)
    assert not same(state.sac.critic, initial(ONLY_SAC).sac.critic)
    assert finite(metrics), "no VAE update: its metrics must not be NaN, which would stop a run"


def test_vae_updates_leave_sac_alone():
    state, metrics = updated(ONLY_VAE)
    assert same(state.sac, initial(ONLY_VAE).sac)
    assert not same(state.vae.encoder, initial(ONLY_VAE).vae.encoder)
    assert finite(metrics), "no SAC update: its metrics must not be NaN, which would stop a run"


def recorded(monkeypatch, config, before=None):
    """The batches that SAC gets, stacked [updates, ...], and the state after them.

    Of a state `before` the whole update is run, else the part of it that has SAC, which compiles sooner.
    """
    batches = []

    def step(state, batch, *_):
        jax.debug.callback(lambda b: batches.append(b), batch)
        return state, {"loss": jnp.zeros(())}

    monkeypatch.setattr(moss.sac, "critic_step", step)
    monkeypatch.setattr(moss.sac, "policy_step", step)
    made = moss.make(config, SPEC)
    if before:
        state, _ = jax.jit(made.update)(before, data(), jax.random.key(1))
    else:
        changes, _ = jax.jit(made.parts["control"])(initial(config), data(), jax.random.key(2))
        state = initial(config)._replace(**changes)
    jax.effects_barrier()
    return jax.tree.map(lambda *x: np.stack([np.asarray(y) for y in x]), *batches), state


def expected_beliefs(state, config):
    """Standardised belief before and after every step of every row: [row, time, b]."""
    windows = jax.tree.map(lambda x: x.swapaxes(0, 1), data().data)
    beliefs = infer(state, windows)
    vectors = [belief_forms.vector(config.belief, q, jax.random.key(0)) for q in beliefs]
    return [np.asarray(state.belief_scale.apply(x)).swapaxes(0, 1) for x in vectors]


@pytest.mark.parametrize(("trajectory", "online"), [(True, True), (False, True), (False, False)])
def test_sac_learns_from_exact_beliefs(monkeypatch, trajectory, online):
    """Every transition comes with the belief before it and, at s', the one after it, or the same one if it is held;
    with ablations, what they say."""
    hold = online and not trajectory
    config = dataclasses.replace(
        ONLY_SAC, use_trajectory_sample_sac=trajectory, online_inference=online, hold_belief=hold
    )
    config = dataclasses.replace(config, standardize_belief=trajectory, updates_per_pool=2)
    config = dataclasses.replace(config, sac=dataclasses.replace(config.sac, batch_size=16 if trajectory else 4))
    config = dataclasses.replace(config, sac_reward_normalization=not online)
    batches, state = recorded(monkeypatch, config)
    assert batches.reward.shape == (4, config.sac.batch_size)  # two of the critics, two of the policy
    row, time = (batches.obs[..., i].astype(int) for i in (0, 1))
    before, after = expected_beliefs(state, config)
    if online:
        np.testing.assert_allclose(batches.belief, before[row, time], atol=1e-5)
        np.testing.assert_allclose(batches.next_belief, (before if hold else after)[row, time], atol=1e-5)
    else:  # that of a first episode, which knows nothing, or the one at the window's end
        blank = np.isclose(batches.belief, before[0, 0], atol=1e-5).all(-1, keepdims=True)
        assert 0 < blank.sum() < blank.size
        np.testing.assert_allclose(batches.belief, np.where(blank, before[0, 0], after[row, time]), atol=1e-5)
        np.testing.assert_array_equal(batches.next_belief, batches.belief)
    rows = jax.tree.map(np.asarray, data().data)
    np.testing.assert_array_equal(batches.action, rows.action[row, time])
    np.testing.assert_array_equal(batches.next_obs, rows.next_obs[row, time])
    np.testing.assert_array_equal(batches.terminated, rows.terminated[row, time])
    np.testing.assert_array_equal(batches.weight, rows.valid[row, time])
    reward = rows.reward[row, time]
    if config.sac_reward_normalization:
        reward = (reward - state.scale.mean.reward) / state.scale.std.reward
    np.testing.assert_allclose(batches.reward, reward, rtol=1e-5)
    if trajectory:
        assert len(np.unique(time)) == HORIZON
    else:
        assert len(np.unique(time)) > 2  # the last step of a window is any step of an episode


def test_belief_is_standardised(monkeypatch):
    """Over the pool that SAC learns from, the mean is 0 and the deviation 1; not counting invalid transitions."""
    config = dataclasses.replace(ONLY_SAC, standardize_belief=True, updates_per_pool=2)
    config = dataclasses.replace(config, sac=dataclasses.replace(config.sac, batch_size=24))  # the whole pool
    batches, state = recorded(monkeypatch, config)
    belief = batches.belief[0][batches.weight[0] > 0]
    np.testing.assert_allclose(belief.mean(0), 0.0, atol=1e-3)
    varied = np.asarray(state.belief_scale.std) != 1.0
    assert varied.all()
    np.testing.assert_allclose(belief.std(0), 1.0, rtol=1e-3)


# Errors


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (with_vae(decode="past"), "unknown decode 'past': choose self, next, trajectory, task"),
        (with_vae(kl_z_weight=-1.0), "vae.kl_z_weight must be >= 0 and finite, got -1.0"),
        (with_vae(learning_rate_held_for=0.0), "vae.learning_rate_held_for must be positive and finite, got 0"),
        (with_vae(reward_decoder_sizes=(6, 0)), r"vae.reward_decoder_sizes must be >= 1, got \(6, 0\)"),
        (with_sac(hidden_sizes=(0,)), r"sac.hidden_sizes must be >= 1, got \(0,\)"),
        (with_sac(obs_embedding=-1), "sac.obs_embedding must be >= 0, got -1"),
        (with_sac(discount=1.5), r"sac.discount must be in \[0, 1\], got 1.5"),
        (with_(sac=dataclasses.replace(CONFIG.sac, discount=1.0), resting_potential=True), "is infinite"),
        (with_(pretrain_updates=-5), "pretrain_updates must be >= 0, got -5"),
        (with_(belief="sample", online_inference=False), "use it with online_inference"),
        (with_(belief="oracle", online_inference=False), "infers nothing: use it with online_inference"),
        (with_(belief="mean"), "unknown belief 'mean': choose component, mixture, sample, oracle"),
        (with_(window=HORIZON + 1), "window must be in \\[2, 6\\].* got 7"),
        (with_(window=1), "window must be"),
        (with_(pool_windows=2), "fewer than the SAC batch of 16: use pool_windows >= 3"),
        (with_(use_trajectory_sample_sac=False), "4 windows give 4 transitions.*use pool_windows >= 16"),
        (
            with_(updates_per_pool=4),
            "sac_updates \\(2\\) must be a multiple of policy_every x updates_per_pool \\(4\\)",
        ),
        (with_sac(policy_every=3), "must be a multiple of policy_every x updates_per_pool \\(3\\)"),
    ],
)
def test_contradictions(config, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        moss.make(config, SPEC)
    assert "\n" not in str(caught.value)


def test_contrast_needs_a_fixed_task():
    with pytest.raises(ConfigurationError, match="contrastive_weight=0"):
        moss.make(CONFIG, SPEC._replace(stationary=False))
    moss.validate(with_vae(contrastive_weight=0.0), SPEC._replace(stationary=False))
    moss.validate(CONFIG, SPEC)


def test_each_base_task_needs_a_component():
    with pytest.raises(ConfigurationError, match=r"2 base tasks .* need --vae.num_components >= 2 .* got 1"):
        moss.validate(with_vae(num_components=1, base_task_weight=1.0), SPEC)
    moss.validate(with_vae(num_components=2, base_task_weight=1.0), SPEC)
    with pytest.raises(ConfigurationError, match="known has one base task, nothing to tell apart"):
        moss.validate(with_vae(base_task_weight=1.0), SPEC._replace(families=("terminates",)))


@pytest.mark.parametrize(
    ("vae", "spec", "message"),
    [
        ({"base_tasks": "guesses"}, SPEC, "unknown base_tasks 'guesses': choose labels, rewards"),
        ({"base_task_weight": 0.0}, SPEC, "use --vae.base_task_weight=0.1, or --vae.base_tasks=labels"),
        ({}, SPEC._replace(families=("terminates",)), "use --vae.base_task_weight=0 --vae.base_tasks=labels"),
        (
            {"contrastive_weight": 0.0},
            SPEC._replace(stationary=False),
            "one task, unlike known: use --vae.base_tasks=labels",
        ),
    ],
)
def test_base_tasks_that_cannot_be_found(vae, spec, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        moss.validate(with_vae(**{"base_tasks": "rewards", "base_task_weight": 0.1} | vae), spec)
    assert "\n" not in str(caught.value)


def test_components_are_taught_what_tasks_pay_for():
    """Labels are used to tell tasks apart, never as base tasks: other numbers for families change nothing."""
    config = with_vae(base_tasks="rewards", base_task_weight=1.0, contrastive_weight=0.0)
    assert avals(abstract_update(config)[0]) == avals(initial(config))
    update = jax.jit(agent(config).update)
    rows = data().data
    family = jnp.broadcast_to(jnp.arange(8)[:, None] % 2, rows.reward.shape)  # two tasks, one per row
    task = rows.task._replace(family=family, spec=jnp.ones_like(rows.task.spec))
    place = jax.random.uniform(jax.random.key(3), rows.next_obs.shape)
    paid = jnp.where(family == 0, place[..., 0], -place[..., 1])
    changes = {"next_obs": place, "reward": paid, "gross_reward": paid, "valid": rows.valid | True, "task": task}
    stored = data()._replace(data=rows._replace(**changes))
    state, metrics = update(initial(config), stored, jax.random.key(1))
    assert metrics["base_task_loss"] > 0.0 and finite(state)
    found = state.base_tasks.of(jax.tree.map(lambda x: x.swapaxes(0, 1), stored.data))[0]
    one, other = found[:2].tolist()
    assert one != other and -1 not in (one, other) and found.tolist() == [one, other] * 4
    renamed = stored._replace(data=stored.data._replace(task=task._replace(family=1 - family)))
    other, _ = update(initial(config), renamed, jax.random.key(1))
    assert same(other.vae, state.vae)
    assert initial(CONFIG).base_tasks is None
    later, _ = update(state, stored, jax.random.key(2))  # one look serves many epochs
    assert same(later.base_tasks, state.base_tasks)


def test_scale_starts_as_the_identity():
    assert isinstance(initial(CONFIG).scale, Scale)
    np.testing.assert_array_equal(initial(CONFIG).belief_scale.std, 1.0)
    np.testing.assert_array_equal(initial(CONFIG).scale.std.obs, 1.0)


def test_critics_are_told_the_task_of_the_reward():
    config = with_(privileged_critics=True)
    windows = replay.sample_windows(data(), jax.random.key(0), 4, HORIZON)
    belief = jnp.zeros((HORIZON, 4, 1))
    scale = statistics.identity(replay.Vectors(*(jnp.zeros(()),) * len(replay.Vectors._fields)))
    pool = control.pool(config, SPEC, scale, windows, belief, belief)
    told = np.asarray(pool.privileged).reshape(HORIZON, 4, -1)
    np.testing.assert_array_equal(told, windows.task.vector(len(SPEC.families)))
    np.testing.assert_array_equal(np.asarray(pool.next_privileged).reshape(told.shape)[:-1], told[1:])
    after, metrics = abstract_update(config)
    assert metrics["critic_loss"].shape == ()
    plain = abstract_update(CONFIG)[0]
    assert avals(after.sac.actor) == avals(plain.sac.actor) and avals(after.sac.critic) != avals(plain.sac.critic)
