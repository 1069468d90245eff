import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metarl_jax.agents import moss
from metarl_jax.data import replay
from metarl_jax.data.statistics import Scale
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import gmm_vae, sac
from metarl_jax.networks.mixture import Mixture
from tests.helpers import HORIZON, SPEC, avals, finite, quick_compilation, same, transitions

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

K, D, N = 3, 2, 4
CONFIG = moss.Config(
    vae=gmm_vae.Config(
        num_components=K,
        latent_size=D,
        hidden_size=6,
        state_decoder_sizes=(6,),
        reward_decoder_sizes=(6,),
        batch_size=5,
        learning_rate=1e-2,
    ),
    sac=sac.Config(hidden_sizes=(8,), obs_embedding=0, belief_embedding=0, batch_size=16, learning_rate=1e-2),
    window=HORIZON,
    vae_updates=2,
    sac_updates=2,
    pool_windows=4,
    pretrain_updates=3,
    standardize_belief=True,
)
VAE_SPEC = gmm_vae.Spec(2, 1)


def with_(**changes):
    return dataclasses.replace(CONFIG, **changes)


def with_vae(**changes):
    return with_(vae=dataclasses.replace(CONFIG.vae, **changes))


def with_sac(**changes):
    return with_(sac=dataclasses.replace(CONFIG.sac, **changes))


@functools.cache
def agent(config):
    return moss.make(config, SPEC)


@functools.cache
def initial(config):
    return jax.jit(agent(config).init)(jax.random.key(0))


@functools.cache
def data():
    """A full replay; each observation is (row, time)."""
    rows = transitions(0, 8, HORIZON)
    place = jnp.stack(jnp.meshgrid(jnp.arange(8.0), jnp.arange(float(HORIZON)), indexing="ij"), -1)
    rows = rows._replace(obs=place, terminated=rows.terminated.at[:, -1].set(jnp.arange(8) % 2 == 0))
    rows = rows._replace(last=rows.last.at[:, -1].set(True), valid=rows.valid.at[3, 2].set(False))
    example = jax.tree.map(lambda x: x[0, 0], rows)
    return jax.jit(replay.insert)(replay.init(example, 8, HORIZON), rows)


@functools.cache
def update(config):
    return jax.jit(agent(config).update)


@functools.cache
def updated(config):
    return update(config)(initial(config), data(), jax.random.key(1))


def abstract_update(config):
    """`update` alone: shapes and types, without compiling."""
    return jax.eval_shape(agent(config).update, initial(config), data(), jax.random.key(1))


# Who learns from what


def count(state):
    """VAE updates so far."""
    return optax.tree_utils.tree_get(state.vae.opt, "count")


def test_update():
    state, metrics = updated(CONFIG)
    assert finite(state) and finite(metrics)
    for part in ("encoder", "decoder"):
        assert not same(getattr(state.vae, part), getattr(initial(CONFIG).vae, part))
    for part in ("actor", "critic", "target_critic"):
        assert not same(getattr(state.sac, part), getattr(initial(CONFIG).sac, part))
    np.testing.assert_allclose(state.scale.mean.reward, data().data.reward[data().data.valid].mean(), rtol=1e-4)


def test_pretraining_is_once():
    first, _ = updated(CONFIG)
    second, _ = update(CONFIG)(first, data(), jax.random.key(2))
    assert [int(count(s)) for s in (initial(CONFIG), first, second)] == [0, 3 + 2, 3 + 2 + 2]
    assert [int(s.num_epochs) for s in (initial(CONFIG), first, second)] == [0, 1, 2]


def test_number_of_updates_is_reported():
    """`updates` counts the gradient steps taken, those before the first epoch's too."""
    first, metrics = updated(CONFIG)
    assert metrics["updates"] == 3 + 2 + 2
    assert update(CONFIG)(first, data(), jax.random.key(2))[1]["updates"] == 2 + 2


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


def recorded(monkeypatch, config):
    """The batches that SAC gets, stacked [updates, ...], and the state they were made with."""
    batches = []

    def step(state, batch, *_):
        jax.debug.callback(lambda b: batches.append(b), batch)
        return state, {"loss": jnp.zeros(())}

    monkeypatch.setattr(moss.sac, "critic_step", step)
    monkeypatch.setattr(moss.sac, "policy_step", step)
    made = moss.make(config, SPEC)
    state, _ = jax.jit(made.update)(initial(config), data(), jax.random.key(1))
    jax.effects_barrier()
    return jax.tree.map(lambda *x: np.stack([np.asarray(y) for y in x]), *batches), state


@jax.jit
def infer(state, windows):
    return gmm_vae.infer(state.vae.encoder, CONFIG.vae, VAE_SPEC, state.scale, windows)


def expected_beliefs(state, config):
    """Standardised belief before and after every step of every row: [row, time, b]."""
    windows = jax.tree.map(lambda x: x.swapaxes(0, 1), data().data)
    beliefs = infer(state, windows)
    vectors = [moss.belief_vector(config, q, jax.random.key(0)) for q in beliefs]
    return [np.asarray(state.belief_scale.apply(x)).swapaxes(0, 1) for x in vectors]


@pytest.mark.parametrize(("trajectory", "online"), [(True, True), (False, True), (False, False)])
def test_sac_learns_from_exact_beliefs(monkeypatch, trajectory, online):
    """Every transition comes with the belief before it and, at s', the one after it; with ablations, what they say."""
    config = dataclasses.replace(ONLY_SAC, use_trajectory_sample_sac=trajectory, online_inference=online)
    config = dataclasses.replace(config, standardize_belief=trajectory, updates_per_pool=2)
    config = dataclasses.replace(config, sac=dataclasses.replace(config.sac, batch_size=16 if trajectory else 4))
    config = dataclasses.replace(config, sac_reward_normalization=not online)
    batches, state = recorded(monkeypatch, config)
    assert batches.reward.shape == (4, config.sac.batch_size)  # two of the critics, two of the policy
    row, time = (batches.obs[..., i].astype(int) for i in (0, 1))
    before, after = expected_beliefs(state, config)
    if not online:
        before = after = np.broadcast_to(after[:, -1:], after.shape) if trajectory else after
    np.testing.assert_allclose(batches.belief, before[row, time], atol=1e-5)
    np.testing.assert_allclose(batches.next_belief, after[row, time], atol=1e-5)
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


# Acting


@functools.cache
def functions(config):
    a = agent(config)
    return jax.jit(a.begin, static_argnums=1), jax.jit(a.act, static_argnums=4), jax.jit(a.observe), jax.jit(a.describe)


SIZES = {"component": 2 * D, "mixture": K * (1 + 2 * D), "sample": D}
OBS = jnp.ones((N, 2))
STEP = transitions(5, N)


@pytest.mark.parametrize("belief", SIZES)
def test_shapes(belief):
    config = with_(belief=belief)
    assert moss.belief_size(config, SPEC) == SIZES[belief]
    a, state = agent(config), jax.eval_shape(agent(config).init, jax.random.key(0))
    memory = jax.eval_shape(lambda s: a.begin(s, N), state)
    assert memory.carry.shape == (N, 6) and memory.belief.shape == (N, SIZES[belief])
    action = jax.eval_shape(lambda s, m: a.act(s, OBS, m, jax.random.key(0), True), state, memory)
    assert action.shape == (N, 1)
    assert avals(jax.eval_shape(a.observe, state, memory, STEP)) == avals(memory)
    described = jax.eval_shape(a.describe, state, memory)
    assert {k: v.shape for k, v in described.items()} == {"belief": (N, SIZES[belief]), "component": (N, K)}


def test_deterministic_or_exploring():
    begin, act, _, _ = functions(CONFIG)
    memory = begin(initial(CONFIG), N)
    modes = [act(initial(CONFIG), OBS, memory, jax.random.key(i), False) for i in (0, 1)]
    samples = [act(initial(CONFIG), OBS, memory, jax.random.key(i), True) for i in (0, 1)]
    assert same(*modes) and not same(*samples)
    assert len(np.unique(np.asarray(samples[0]))) == N  # lanes explore apart
    assert np.abs(np.asarray(modes + samples)).max() < 1


def test_memory_is_the_encoder_s():
    begin, act, observe, describe = functions(CONFIG)
    state, _ = updated(CONFIG)
    memory = observe(state, begin(state, N), STEP)
    q = jax.tree.map(lambda x: x[0], infer(state, jax.tree.map(lambda x: x[None], STEP)).after)
    mean, std = gmm_vae.most_likely(q)
    raw = np.concatenate([mean, std], -1)
    np.testing.assert_allclose(memory.belief, (raw - state.belief_scale.mean) / state.belief_scale.std, atol=1e-4)
    np.testing.assert_allclose(describe(state, memory)["component"], jax.nn.softmax(q.logits), atol=1e-6)
    assert not same(
        act(state, OBS, memory, jax.random.key(0), False), act(state, OBS, begin(state, N), jax.random.key(0), False)
    )


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


def test_belief_vectors():
    q = Mixture(
        logits=jnp.log(jnp.array([0.2, 0.5, 0.3])),
        mean=jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        std=jnp.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
    )
    read = lambda belief, seed=0: moss.belief_vector(with_(belief=belief), q, jax.random.key(seed))  # noqa: E731
    np.testing.assert_allclose(read("component"), [3.0, 4.0, 0.3, 0.4])
    np.testing.assert_allclose(
        read("mixture"), [0.2, 0.5, 0.3, *np.arange(1.0, 7.0), *(np.arange(1, 7) / 10)], rtol=1e-5
    )
    many = jax.vmap(lambda k: moss.belief_vector(with_(belief="sample"), q, k))(
        jax.random.split(jax.random.key(0), 4000)
    )
    np.testing.assert_allclose(many.mean(0), [3.0, 4.0], atol=0.05)
    np.testing.assert_allclose(many.std(0), [0.3, 0.4], rtol=0.1)


def test_a_posterior_sample_is_drawn_anew_at_every_action():
    config = with_(belief="sample")
    begin, act, _, _ = functions(config)
    state = initial(config)
    actions = [act(state, OBS, begin(state, N), jax.random.key(i), False) for i in (0, 1)]
    assert not same(*actions)
    assert len(np.unique(np.asarray(actions[0]))) == N


def test_offline_inference_waits_for_the_episode_s_end():
    config = with_(online_inference=False)
    begin, _, observe, _ = functions(config)
    state = initial(config)
    memory = begin(state, N)
    last = jnp.array([True, False, False, True])
    after = observe(state, memory, STEP._replace(last=last))
    assert not same(after.carry, memory.carry)
    np.testing.assert_array_equal(after.belief[1:3], memory.belief[1:3])
    online = functions(CONFIG)[2](state, memory, STEP)  # the same parameters, updated at every step
    np.testing.assert_allclose(after.belief[jnp.array([0, 3])], online.belief[jnp.array([0, 3])], atol=1e-6)
    assert np.abs(after.belief[0] - memory.belief[0]).max() > 1e-4
    later = observe(state, after, STEP._replace(last=~last))
    np.testing.assert_array_equal(later.belief[0], after.belief[0])  # what the first episode told stays


def test_without_a_retained_memory_the_belief_follows_from_the_last_window_alone():
    config = with_(retain_hidden=False, window=3, pool_windows=6)
    retained, windowed = functions(CONFIG), functions(config)
    state = initial(CONFIG)
    steps = transitions(7, 5, N)
    steps = steps._replace(valid=steps.valid.at[1, 2].set(False))

    def carry(functions, first, n):
        memory = functions[0](state, N)
        for t in range(first, n):
            memory = functions[2](state, memory, jax.tree.map(lambda x, t=t: x[t], steps))
        return memory.carry

    np.testing.assert_allclose(carry(windowed, 0, 3), carry(retained, 0, 3), atol=1e-6)
    np.testing.assert_allclose(carry(windowed, 0, 5), carry(retained, 2, 5), atol=1e-6)
    assert np.abs(carry(windowed, 0, 5) - carry(retained, 0, 5)).max() > 1e-3


def test_the_oracle_acts_on_the_revealed_task():
    """The tail of the observation is its belief, standardised as in training; it has nothing to infer."""
    revealed = SPEC._replace(obs_size=SPEC.obs_size + len(SPEC.families) + SPEC.task_size)
    made = moss.make(with_(belief="oracle"), revealed)
    rows = data().data
    tell = lambda x: jnp.concatenate([x, jnp.ones((8, HORIZON, 2)), rows.task.spec], -1)  # noqa: E731
    rows = rows._replace(obs=tell(rows.obs), next_obs=tell(rows.next_obs))
    example = jax.tree.map(lambda x: x[0, 0], rows)
    filled = jax.jit(replay.insert)(replay.init(example, 8, HORIZON), rows)
    before = jax.jit(made.init)(jax.random.key(0))
    state, metrics = jax.jit(made.update)(before, filled, jax.random.key(1))
    assert same(state.vae, before.vae) and not same(state.sac, before.sac) and metrics["updates"] == 2
    scale = state.belief_scale
    np.testing.assert_allclose(scale.mean[2:], rows.task.spec[rows.valid].mean(0), atol=0.3)
    obs = tell(data().data.obs)[:, 0]
    memory = made.begin(state, 8)
    assert made.observe(state, memory, STEP) is memory
    action = made.act(state, obs, memory, jax.random.key(0), False)
    sac_spec = sac.Spec(2, 1, 4)
    belief = (obs[:, 2:] - scale.mean) / scale.std
    expected = sac.act(state.sac, CONFIG.sac, sac_spec, obs[:, :2], belief, jax.random.key(0), False)
    np.testing.assert_allclose(action, expected, atol=1e-6)


# Errors


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (with_vae(decode="past"), "unknown decode 'past': choose self, next, trajectory, task"),
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


def test_parameter_counts():
    counts = moss.parameter_counts(initial(CONFIG))
    assert set(counts) == {"encoder", "decoder", "policy", "critics"}
    inputs = 2 + 2 * D
    assert counts["policy"] == (inputs + 1) * 8 + 9 * 2
    assert counts["critics"] == 2 * ((inputs + 1 + 1) * 8 + 9)


def test_scale_starts_as_the_identity():
    assert isinstance(initial(CONFIG).scale, Scale)
    np.testing.assert_array_equal(initial(CONFIG).belief_scale.std, 1.0)
    np.testing.assert_array_equal(initial(CONFIG).scale.std.obs, 1.0)
