import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.agents import belief_forms, moss
from metarl_jax.data import replay
from metarl_jax.learners import gmm_vae, sac
from metarl_jax.networks.mixture import Mixture
from tests.agents.small_moss import CONFIG, D, K, N, agent, data, infer, initial, trained, with_
from tests.helpers import HORIZON, SPEC, avals, cached, quick_compilation, same, transitions

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)


@cached
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
    state, _ = trained(CONFIG)
    memory = observe(state, begin(state, N), STEP)
    q = jax.tree.map(lambda x: x[0], infer(state, jax.tree.map(lambda x: x[None], STEP)).after)
    mean, std = gmm_vae.most_likely(q)
    raw = np.concatenate([mean, std], -1)
    np.testing.assert_allclose(memory.belief, (raw - state.belief_scale.mean) / state.belief_scale.std, atol=1e-4)
    np.testing.assert_allclose(describe(state, memory)["component"], jax.nn.softmax(q.logits), atol=1e-6)
    assert not same(
        act(state, OBS, memory, jax.random.key(0), False), act(state, OBS, begin(state, N), jax.random.key(0), False)
    )


def test_belief_vectors():
    q = Mixture(
        logits=jnp.log(jnp.array([0.2, 0.5, 0.3])),
        mean=jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        std=jnp.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
    )
    read = lambda belief, seed=0: belief_forms.vector(belief, q, jax.random.key(seed))  # noqa: E731
    np.testing.assert_allclose(read("component"), [3.0, 4.0, 0.3, 0.4])
    np.testing.assert_allclose(
        read("mixture"), [0.2, 0.5, 0.3, *np.arange(1.0, 7.0), *(np.arange(1, 7) / 10)], rtol=1e-5
    )
    many = jax.vmap(lambda k: belief_forms.vector("sample", q, k))(jax.random.split(jax.random.key(0), 4000))
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
    size = len(SPEC.families) * (1 + SPEC.task_size)
    revealed = SPEC._replace(obs_size=SPEC.obs_size + size)
    made = moss.make(with_(belief="oracle"), revealed)
    rows = data().data
    told = jnp.concatenate([jnp.ones((8, HORIZON, 2)), rows.task.spec, rows.task.spec], -1)
    assert told.shape[-1] == size
    tell = lambda x: jnp.concatenate([x, told], -1)  # noqa: E731
    rows = rows._replace(obs=tell(rows.obs), next_obs=tell(rows.next_obs))
    example = jax.tree.map(lambda x: x[0, 0], rows)
    filled = jax.jit(replay.insert)(replay.init(example, 8, HORIZON), rows)
    before = jax.jit(made.init)(jax.random.key(0))
    state, metrics = jax.jit(made.update)(before, filled, jax.random.key(1))
    assert same(state.vae, before.vae) and not same(state.sac, before.sac) and metrics["updates"] == 2
    scale = state.belief_scale
    np.testing.assert_allclose(scale.mean, told[rows.valid].mean(0), atol=0.3)
    obs = tell(data().data.obs)[:, 0]
    memory = made.begin(state, 8)
    step = jax.tree.map(lambda x: x[:, 0], rows)
    np.testing.assert_allclose(
        made.observe(state, memory, step).belief * scale.std + scale.mean, step.next_obs[:, 2:], atol=1e-5
    )
    action = made.act(state, obs, memory, jax.random.key(0), False)
    sac_spec = sac.Spec(2, 1, size)
    belief = (obs[:, 2:] - scale.mean) / scale.std
    expected = sac.act(state.sac, CONFIG.sac, sac_spec, obs[:, :2], belief, jax.random.key(0), False)
    np.testing.assert_allclose(action, expected, atol=1e-6)


def test_standardised_observations_make_units_irrelevant():
    """Learning and acting are the same if all observations are measured in other units."""
    made = agent(with_(standardize_obs=True))
    rows = data().data
    rows = rows._replace(obs=rows.next_obs[:, ::-1])  # of one distribution

    def outcome(change):
        changed = rows._replace(obs=change(rows.obs), next_obs=change(rows.next_obs))
        example = jax.tree.map(lambda x: x[0, 0], changed)
        filled = jax.jit(replay.insert)(replay.init(example, 8, HORIZON), changed)
        state, _ = jax.jit(made.update)(jax.jit(made.init)(jax.random.key(0)), filled, jax.random.key(1))
        memory = made.begin(state, 8)
        return made.act(state, changed.obs[:, 0], memory, jax.random.key(0), False)

    plain, other = outcome(lambda x: x), outcome(lambda x: 40.0 * x + 7.0)
    assert np.ptp(plain) > 1e-3
    np.testing.assert_allclose(plain, other, atol=2e-4)
