import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.distributions import tanh_normal_sample
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import sac
from tests.helpers import avals, cached, finite, quick_compilation, same

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

SPEC = sac.Spec(obs_size=2, action_size=1, belief_size=3)
CONFIG = sac.Config(
    hidden_sizes=(16,),
    obs_embedding=4,
    belief_embedding=4,
    discount=0.5,
    target_rate=0.1,
    alpha=1e-3,
    learning_rate=1e-2,
    reward_scale=2.0,
    max_grad_norm=None,
)
NUM, SEEDS, UPDATES = 32, 8, 400


def with_(**changes):
    return dataclasses.replace(CONFIG, **changes)


def batch(seed=0, terminated=False, reward=None) -> sac.Batch:
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return sac.Batch(
        obs=normal(NUM, 2),
        belief=normal(NUM, 3),
        action=jnp.asarray(rng.uniform(-1, 1, (NUM, 1)), jnp.float32),
        reward=normal(NUM) if reward is None else jnp.broadcast_to(reward, (NUM,)),
        next_obs=normal(NUM, 2),
        next_belief=normal(NUM, 3),
        terminated=jnp.full(NUM, terminated),
        weight=jnp.ones(NUM),
    )


@cached
def initial(config=CONFIG):
    return jax.jit(lambda: sac.init(jax.random.key(0), config, SPEC))()


@functools.partial(jax.jit, static_argnums=3)
def step(state, batch, key, config=CONFIG):
    return sac.train_step(state, batch, key, config, SPEC)


def test_what_critics_and_policy_learn_from_by_hand():
    """The target critics' soft value of the next observation, belief and task, at the temperature that is learnt; the
    policy is judged by the critics themselves. No two networks, beliefs or tasks are the same."""
    spec, key = SPEC._replace(privileged_size=1), jax.random.key(1)
    state = sac.init(jax.random.key(0), CONFIG, spec)
    state = state._replace(
        log_alpha=jnp.log(jnp.asarray(0.3)),
        target_critic=jax.tree.map(lambda x: 1.5 * x + 0.1, state.critic),
        average_actor=jax.tree.map(lambda x: 0.1 - x, state.actor),
    )
    ones, weight = jnp.ones((NUM, 1)), jnp.arange(NUM) % 2.0
    data = batch()._replace(privileged=ones, next_privileged=-ones, terminated=jnp.arange(NUM) % 3 == 0, weight=weight)
    known, next_known = jnp.concatenate([data.belief, ones], -1), jnp.concatenate([data.next_belief, -ones], -1)

    def drawn(obs, belief):
        return tanh_normal_sample(key, *sac._actor(CONFIG, spec).apply(state.actor, obs, belief))

    action, log_prob = drawn(data.next_obs, data.next_belief)
    behind = state._replace(critic=state.target_critic)
    value = sac.q_values(behind, CONFIG, spec, data.next_obs, next_known, action).min(0) - 0.3 * log_prob
    target = CONFIG.reward_scale * data.reward + CONFIG.discount * (1.0 - data.terminated) * value
    q = sac.q_values(state, CONFIG, spec, data.obs, known, data.action)
    _, metrics = sac.critic_step(state, data, key, CONFIG, spec)
    np.testing.assert_allclose(metrics["critic_loss"], (weight * np.square(q - target)).mean(-1).sum(), rtol=1e-4)

    action, log_prob = drawn(data.obs, data.belief)
    q = sac.q_values(state, CONFIG, spec, data.obs, known, action).min(0)
    _, metrics = sac.policy_step(state, data, key, CONFIG, spec)
    np.testing.assert_allclose(metrics["actor_loss"], (weight * (0.3 * log_prob - q)).mean(), rtol=1e-4, atol=1e-6)


def test_target_moves_by_tau():
    old = initial()._replace(target_critic=jax.tree.map(lambda x: x + 1.0, initial().critic))
    new, metrics = step(old, batch(), jax.random.key(0))
    expected = jax.tree.map(lambda c, t: 0.1 * c + 0.9 * t, new.critic, old.target_critic)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), new.target_critic, expected)
    assert not same(new.critic, old.critic) and not same(new.actor, old.actor)
    assert finite(metrics) and finite(new)


def test_temperature_is_fixed_by_default():
    state, metrics = step(initial(), batch(), jax.random.key(0))
    assert same(state.log_alpha, initial().log_alpha) and same(state.alpha_opt, initial().alpha_opt)
    np.testing.assert_allclose(metrics["alpha"], 1e-3, rtol=1e-5)


def test_learnt_temperature_raises_or_lowers_the_entropy():
    config = with_(automatic_entropy_tuning=True)
    state = initial(config)
    wide, metrics = step(state, batch(), jax.random.key(0), config)
    assert metrics["entropy"] > -1.0  # the target: -1 per action
    np.testing.assert_allclose(wide.log_alpha, state.log_alpha - 0.01, atol=1e-4)  # one step of Adam
    actor = state.actor["params"]
    bias = actor["MLP_0"]["Dense_1"]["bias"].at[1].set(-9.0)
    head = actor["MLP_0"] | {"Dense_1": actor["MLP_0"]["Dense_1"] | {"bias": bias}}
    narrow, metrics = step(
        state._replace(actor={"params": actor | {"MLP_0": head}}), batch(), jax.random.key(0), config
    )
    assert metrics["entropy"] < -1.0
    np.testing.assert_allclose(narrow.log_alpha, state.log_alpha + 0.01, atol=1e-4)
    wider, _ = step(state, batch(), jax.random.key(0), with_(automatic_entropy_tuning=True, target_entropy=2.0))
    np.testing.assert_allclose(wider.log_alpha, state.log_alpha + 0.01, atol=1e-4)


@pytest.mark.parametrize("automatic", [False, True])
def test_one_trace(automatic):
    """The state that comes out is of the very types that went in: a second update compiles nothing."""
    config = with_(automatic_entropy_tuning=automatic)
    state = initial(config)
    new, _ = jax.eval_shape(lambda s: sac.train_step(s, batch(), jax.random.key(0), config, SPEC), state)
    assert avals(new) == avals(state)


def test_no_gradient_to_beliefs():
    def total(belief, next_belief):
        state, _ = step(initial(), batch()._replace(belief=belief, next_belief=next_belief), jax.random.key(0))
        return sum(jnp.sum(x) for x in jax.tree.leaves((state.actor, state.critic, state.target_critic)))

    grads = jax.jit(jax.grad(total, (0, 1)))(batch().belief, batch().next_belief)
    np.testing.assert_array_equal(grads, 0.0)
    moved = batch()._replace(belief=batch().belief + 1.0)
    assert not same(
        step(initial(), moved, jax.random.key(0))[0].critic, step(initial(), batch(), jax.random.key(0))[0].critic
    )


def test_critics_and_policy_move_apart():
    critics, policy = (
        jax.jit(lambda s, f=f: f(s, batch(), jax.random.key(0), CONFIG, SPEC)[0])(initial())
        for f in (sac.critic_step, sac.policy_step)
    )
    names = {"critic", "target_critic", "critic_opt"}
    for name in sac.State._fields:
        old = getattr(initial(), name)
        assert same(getattr(critics, name), old) == (name not in names)
        assert same(getattr(policy, name), old) == (name not in {"actor", "actor_opt", "average_actor"})


def test_weightless_transitions_teach_nothing():
    silent = batch()._replace(weight=jnp.zeros(NUM))
    state, metrics = step(initial(), silent, jax.random.key(0))
    assert same((state.actor, state.critic), (initial().actor, initial().critic))
    assert metrics["critic_loss"] == 0.0 and metrics["actor_loss"] == 0.0
    half = jnp.arange(NUM) % 2.0
    clean = batch()._replace(weight=half)
    dirty = clean._replace(
        reward=jnp.where(half == 0.0, 1e6, clean.reward), obs=clean.obs * (1 + 9 * (1 - half[:, None]))
    )
    results = [step(initial(), x, jax.random.key(0))[0] for x in (clean, dirty)]
    assert same(results[0].critic, results[1].critic) and same(results[0].actor, results[1].actor)


def target_action(belief):
    return 0.6 * jnp.tanh(belief[..., 0])


@cached
def trained():
    """Eight seeds at once. Lanes 0, 1: a constant reward, never terminal; 2, 3: always; 4..7: a contextual bandit."""

    def lane(key, terminated, bandit):
        def body(state, key):
            key_data, key_train = jax.random.split(key)
            keys = jax.random.split(key_data, 4)
            obs, belief = jax.random.normal(keys[0], (NUM, 2)), jax.random.normal(keys[1], (NUM, 3))
            action = jax.random.uniform(keys[2], (NUM, 1), minval=-1.0)
            distance = jnp.square(action[:, 0] - target_action(belief))
            reward = jnp.where(bandit, -4.0 * distance, 0.5)
            weight = (jnp.arange(NUM) > 0) * 1.0
            reward = jnp.where(weight > 0, reward, 1e3)  # must not count
            data = sac.Batch(obs, belief, action, reward, obs[::-1], belief[::-1], jnp.full(NUM, terminated), weight)
            return sac.train_step(state, data, key_train, CONFIG, SPEC)[0], None

        state = sac.init(key, CONFIG, SPEC)
        return jax.lax.scan(body, state, jax.random.split(key, UPDATES))[0]

    keys = jax.random.split(jax.random.key(3), SEEDS)
    lanes = np.arange(SEEDS)
    return jax.jit(jax.vmap(lane))(keys, lanes >= 2, lanes >= 4)


def test_critics_learn_the_return_of_a_constant_reward():
    values = jax.jit(
        jax.vmap(lambda s: sac._critic(CONFIG).apply(s.critic, batch().obs, batch().belief, batch().action))
    )(trained())
    assert values.shape == (SEEDS, 2, NUM)
    np.testing.assert_allclose(values[:2].mean(-1), 2.0 * 0.5 / (1 - 0.5), atol=0.1)  # reward scale 2, gamma 0.5
    np.testing.assert_allclose(values[2:4].mean(-1), 2.0 * 0.5, atol=0.1)


def test_policy_learns_to_act_on_the_belief():
    belief = batch(7).belief

    @jax.jit
    @jax.vmap
    def mode(state):
        return sac.act(state, CONFIG, SPEC, batch(7).obs, belief, jax.random.key(0), False)[:, 0]

    error = np.abs(np.asarray(mode(trained())) - np.asarray(target_action(belief))).mean(-1)
    assert (error[4:] < 0.15).all()
    assert (error[:4] > 0.15).all()  # the other lanes had no reason to


def test_privileged_critics_teach_a_policy_that_knows_less():
    """The reward says which of two tasks it is, and nothing else does: critics that are told tell both tasks' values
    apart, and the policy, which is not, takes what is best on average."""
    config, spec = with_(reward_scale=1.0, learning_rate=3e-3), SPEC._replace(privileged_size=1)
    none = jnp.zeros((NUM, 2)), jnp.zeros((NUM, 3))

    def body(state, key):
        key_task, key_action, key_train = jax.random.split(key, 3)
        task = jax.random.bernoulli(key_task, 0.75, (NUM, 1)) * 2.0 - 1.0
        action = jax.random.uniform(key_action, (NUM, 1), minval=-1.0)
        reward = (task * action - 0.5 * action**2)[:, 0]  # best on average: 0.5
        data = sac.Batch(*none, action, reward, *none, jnp.ones(NUM, bool), jnp.ones(NUM), task, task)
        return sac.train_step(state, data, key_train, config, spec)[0], None

    train = jax.jit(lambda keys: jax.lax.scan(body, sac.init(jax.random.key(0), config, spec), keys)[0])
    state = train(jax.random.split(jax.random.key(1), 1_500))
    assert sac.act(state, config, spec, *none, jax.random.key(0), False)[0, 0] == pytest.approx(0.5, abs=0.1)
    for task, value in ((1.0, 0.48), (-1.0, -1.12)):
        known = jnp.full((NUM, 4), task).at[:, :3].set(0.0)
        q = sac.q_values(state, config, spec, none[0], known, jnp.full((NUM, 1), 0.8))
        np.testing.assert_allclose(q, value, atol=0.15)


def test_seeds_differ():
    assert not same(*(jax.tree.map(lambda x: x[i], trained().actor) for i in (4, 5)))  # noqa: B023


def test_act():
    state = initial()
    act = jax.jit(
        lambda key, explore: sac.act(state, CONFIG, SPEC, batch().obs, batch().belief, key, explore),
        static_argnums=1,
    )
    mode, sample = (act(jax.random.key(0), explore) for explore in (False, True))
    assert mode.shape == sample.shape == (NUM, 1)
    assert same(mode, act(jax.random.key(1), False)) and not same(sample, act(jax.random.key(1), True))
    mean, std = sac._actor(CONFIG, SPEC).apply(state.actor, batch().obs, batch().belief)
    np.testing.assert_allclose(mode, np.tanh(mean), rtol=1e-5)
    assert (np.abs(sample) < 1).all() and (std > 0).all()


def test_without_a_belief():
    spec, config = sac.Spec(2, 1, 0), with_(layer_norm=True, obs_embedding=0, max_grad_norm=0.5)
    state = jax.eval_shape(lambda: sac.init(jax.random.key(0), config, spec))
    data = batch()._replace(belief=jnp.zeros((NUM, 0)), next_belief=jnp.zeros((NUM, 0)))
    new, metrics = jax.eval_shape(lambda s: sac.train_step(s, data, jax.random.key(0), config, spec), state)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert all(x.shape == () for x in metrics.values())


def test_critics_subtract_the_known_cost_of_actions():
    """In units of the scaled reward, from both critics; what their networks say stays."""
    data = batch()
    values = [sac.q_values(initial(), with_(action_cost=c), SPEC, data.obs, data.belief, data.action) for c in (0, 0.3)]
    cost = CONFIG.reward_scale * 0.3 * np.sum(np.square(data.action), -1)
    np.testing.assert_allclose(values[0] - values[1], [cost, cost], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("part", "update", "updates"), [("critic", sac.critic_step, 6), ("actor", sac.policy_step, 3)])
def test_step_sizes_of_critics_and_policy_fall_together(part, update, updates):
    """Held for four critic updates, halved after two more; the policy sees every second one."""

    def moved(config):
        state = initial(config)
        aged = jax.tree.map(lambda x: x if x.ndim else jnp.full_like(x, updates), getattr(state, f"{part}_opt"))
        after, _ = update(state._replace(**{f"{part}_opt": aged}), batch(), jax.random.key(0), config, SPEC)
        return jax.tree.map(jnp.subtract, getattr(after, part), getattr(state, part))

    full, half = moved(CONFIG), moved(with_(learning_rate_held_for=4.0, policy_every=2))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(0.5 * x, y, atol=1e-6), full, half)
    assert not same(full, half)


def test_step_size_must_fall():
    with pytest.raises(ConfigurationError, match="learning_rate_held_for must be positive and finite, got 0"):
        sac.validate(with_(learning_rate_held_for=0.0))


def test_deterministic_actions_come_from_the_average_policy():
    config = dataclasses.replace(CONFIG, average_rate=0.25)
    first = initial()
    second, _ = sac.policy_step(first, batch(), jax.random.key(0), config, SPEC)
    third, _ = sac.policy_step(second, batch(), jax.random.key(1), config, SPEC)
    expected = jax.tree.map(lambda a, b, c: 0.5625 * a + 0.1875 * b + 0.25 * c, first.actor, second.actor, third.actor)
    for average, by_hand in zip(*map(jax.tree.leaves, (third.average_actor, expected)), strict=True):
        np.testing.assert_allclose(average, by_hand, atol=1e-6)
    act = lambda s, explore: sac.act(s, config, SPEC, batch().obs, batch().belief, jax.random.key(0), explore)  # noqa: E731
    swapped = third._replace(actor=third.average_actor, average_actor=third.actor)
    assert not same(act(third, False), act(swapped, False)) and not same(act(third, True), act(swapped, True))
    np.testing.assert_array_equal(act(third, False), act(third._replace(actor=first.actor), False))
    np.testing.assert_array_equal(act(third, True), act(third._replace(average_actor=first.actor), True))
