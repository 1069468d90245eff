import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_derivatives import SymbolicZero

from metarl_jax.agents import timrl
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import gmm_vae, recognizer
from tests.agents.small_moss import CONFIG as MOSS
from tests.agents.small_moss import data
from tests.helpers import SPEC, cached, quick_compilation, same, transitions

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

K, D, N = 3, 2, 4
CONFIG = timrl.Config(
    vae=dataclasses.replace(MOSS.vae, decode="trajectory", contrastive_weight=0.0, use_separated_prior=True),
    recognizer=recognizer.Config(
        context=3, model_size=8, num_layers=1, num_heads=2, feed_forward_size=8, batch_size=5, learning_rate=1e-2
    ),
    sac=MOSS.sac,
    window=MOSS.window,
    vae_updates=2,
    recognizer_updates=2,
    sac_updates=2,
    standardize_belief=True,
)


def with_(**changes):
    return dataclasses.replace(CONFIG, **changes)


@cached
def agent(config):
    return timrl.make(config, SPEC)


@cached
def updated(config):
    """After two epochs: in the first SAC waits for what beliefs come from."""
    state, update = jax.jit(agent(config).init)(jax.random.key(0)), jax.jit(agent(config).update)
    return update(update(state, data(), jax.random.key(1))[0], data(), jax.random.key(2))


def test_an_update_trains_every_learner():
    state, metrics = updated(CONFIG)
    before = jax.jit(agent(CONFIG).init)(jax.random.key(0))
    for name in ("vae", "recognizer", "sac"):
        assert not same(getattr(state, name), getattr(before, name))
    assert metrics["updates"] == 6 and state.num_epochs == 2
    assert {"recognition_loss", "train_recognition_accuracy", "vae_loss", "critic_loss"} <= set(metrics)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics)))


@pytest.mark.parametrize("changes", [{"labels": "mixture"}, {"vae_component": "recognized"}])
def test_no_gradient_crosses_between_learners(changes):
    """Where VAE and recogniser read each other: derivatives of what an update leaves of them, by what it began with.

    Zeros that JAX knows without numbers, so nothing is compiled.
    """
    made = agent(with_(**changes))
    state = jax.eval_shape(made.init, jax.random.key(0))
    zeros = []

    @jax.custom_jvp
    def watched(encoder, params):
        return encoder, params

    @functools.partial(watched.defjvp, symbolic_zeros=True)
    def watch(primals, tangents):
        zeros.append([{isinstance(x, SymbolicZero) for x in jax.tree.leaves(tangent)} for tangent in tangents])
        return primals, primals

    def derivatives(state, replay, key):
        def after(encoder, params, critic):
            vae, learner = state.vae._replace(encoder=encoder), state.recognizer._replace(params=params)
            start = state._replace(vae=vae, recognizer=learner, sac=state.sac._replace(critic=critic))
            end, _ = made.update(start, replay, key)
            return watched(end.vae.encoder, end.recognizer.params)

        before = (state.vae.encoder, state.recognizer.params, state.sac.critic)
        for i, one in enumerate(before):
            jax.jvp(lambda x, i=i: after(*before[:i], x, *before[i + 1 :]), (one,), (one,))

    jax.eval_shape(derivatives, state, data(), jax.random.key(1))
    assert zeros == [[{False}, {True}], [{True}, {False}]]  # and no derivative by the critics arrives at all


def test_the_recognised_class_picks_the_component():
    made, state = agent(CONFIG), updated(CONFIG)[0]
    windows = transitions(7, 5, N)._replace(last=jnp.zeros((5, N), bool))
    whole = recognizer.infer(state.acting_recognizer, CONFIG.recognizer, recognizer.Spec(2, 1, K), state.scale, windows)
    memory, observe = made.begin(state, N), jax.jit(made.observe)
    for t in range(5):
        memory = observe(state, memory, jax.tree.map(lambda x, t=t: x[t], windows))
        np.testing.assert_allclose(memory.logits, whole.after[t], atol=1e-5)
    q = gmm_vae.mixture(state.acting_encoder, CONFIG.vae, gmm_vae.Spec(2, 1), memory.carry)
    chosen = np.asarray(memory.logits).argmax(-1)
    raw = np.concatenate([np.asarray(x)[np.arange(N), chosen] for x in (q.mean, q.std)], -1)
    np.testing.assert_allclose(memory.belief, (raw - state.belief_scale.mean) / state.belief_scale.std, atol=1e-4)
    described = made.describe(state, memory)
    np.testing.assert_array_equal(described["component"].argmax(-1), chosen)
    np.testing.assert_allclose(described["attention"][:, 0], whole.attention[0][:, -1].mean(1), atol=1e-5)


def test_labels_choose_what_the_vae_explains():
    """With labels, components that no class stands for are never trained; their heads keep their parameters."""
    vae = dataclasses.replace(CONFIG.vae, kl_z_weight=0.0, kl_y_weight=0.0)
    state = updated(with_(vae=vae, sac_updates=0))[0]
    before = jax.jit(agent(CONFIG).init)(jax.random.key(0))
    assert timrl.classes(SPEC) == ("terminates", "truncates")
    for new, old in zip(*(jax.tree.leaves(s.vae.encoder["params"]["head"]) for s in (state, before)), strict=True):
        means = slice(K, K + K * D)
        changed = np.abs(np.asarray(new - old))[..., means].reshape(-1, K, D).max((0, 2)) > 0
        np.testing.assert_array_equal(changed, [True, True, False])


def test_classes_are_base_tasks_or_else_subtasks():
    directions = SPEC._replace(families=("direction",), subtasks=("forward", "backward"))
    task = transitions(0, 3).task._replace(family=jnp.zeros(3, int), label=jnp.array([0, 1, 1]))
    assert timrl.classes(directions) == ("forward", "backward")
    np.testing.assert_array_equal(timrl.class_of(directions, task), [0, 1, 1])
    np.testing.assert_array_equal(timrl.class_of(SPEC, task), [0, 0, 0])


@pytest.mark.parametrize("accuracy", [0.0, 1 / 3, 0.75, 1.0])
def test_forced_accuracy(accuracy):
    label = jnp.arange(9_000).reshape(3, 3_000) % 3
    seen = jax.random.normal(jax.random.key(0), (3, 3_000, 2))
    force = jax.jit(lambda label, seen: jnp.argmax(timrl.forced(accuracy, 3, label, seen), -1))
    chosen = force(label, seen)
    np.testing.assert_array_equal(chosen, force(label, seen))  # the same step is judged the same again
    right = np.mean(chosen == label)
    assert abs(right - accuracy) < 4 * np.sqrt(0.25 / 9_000)
    wrong = np.asarray((chosen - label) % 3)[np.asarray(chosen != label)]
    if accuracy < 1:
        assert abs(np.mean(wrong == 1) - 0.5) < 0.05
    assert accuracy not in (0.0, 1.0) or right == accuracy


@pytest.mark.parametrize("generator", ["threefry2x32", "rbg"])
def test_a_stored_step_is_judged_as_it_was(generator):
    """In a batch of another size and order too, with the generator of the entry points."""
    label, seen = jnp.arange(60) % 3, jax.random.normal(jax.random.key(0), (60, 2))
    with jax.default_prng_impl(generator):
        whole = timrl.forced(0.5, 3, label, seen)
        part = timrl.forced(0.5, 3, label[::-7], seen[::-7])
    np.testing.assert_array_equal(part, whole[::-7])


def test_the_choice_is_forced_in_acting_and_in_learning_alike():
    config = with_(forced_accuracy=1.0)
    made, state = agent(config), updated(config)[0]
    step = transitions(5, N)
    memory = made.observe(state, made.begin(state, N), step)
    np.testing.assert_array_equal(memory.logits.argmax(-1), timrl.class_of(SPEC, step.task))
    assert not same(state.sac, updated(CONFIG)[0].sac)


def test_unlabelled_targets_are_the_mixture_s():
    config = with_(labels="mixture", sac_updates=0)
    state, metrics = updated(config)
    assert agent(config).component_of is None and agent(CONFIG).component_of is not None
    assert not same(state.vae, updated(CONFIG)[0].vae) and np.isfinite(metrics["recognition_loss"])


def test_the_vae_may_train_the_recognised_component():
    state, _ = updated(with_(vae_component="recognized", sac_updates=0))
    assert not same(state.vae, updated(CONFIG)[0].vae)


def test_forms_of_belief():
    for form, size in (("sample", D), ("mixture", K * (1 + 2 * D))):
        made = agent(with_(belief=form))
        state = jax.eval_shape(made.init, jax.random.key(0))
        memory = jax.eval_shape(lambda s, m=made: m.begin(s, N), state)
        assert memory.belief.shape == (N, size)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (with_(labels="none"), "unknown labels 'none': choose task, mixture"),
        (with_(vae=dataclasses.replace(CONFIG.vae, decode="task")), "unknown vae.decode 'task'"),
        (with_(vae=dataclasses.replace(CONFIG.vae, num_components=1)), "2 classes .* need --vae.num_components >= 2"),
        (with_(vae=dataclasses.replace(CONFIG.vae, contrastive_weight=1.0)), "no contrastive loss"),
        (with_(vae=dataclasses.replace(CONFIG.vae, base_task_weight=1.0)), "recogniser has the labels"),
        (with_(vae=dataclasses.replace(CONFIG.vae, base_tasks="rewards")), "recogniser is taught labels"),
        (with_(forced_accuracy=1.5), r"forced_accuracy must be in \[0, 1\]"),
        (with_(vae=dataclasses.replace(CONFIG.vae, decode_samples=0)), "vae.decode_samples must be >= 1"),
        (with_(vae=dataclasses.replace(CONFIG.vae, elbo_steps=0)), "vae.elbo_steps must be >= 1, or None"),
        (with_(vae_window=0), r"vae_window must be in \[2, 6\]"),
        (with_(labels="mixture", forced_accuracy=0.5), "components stand for no class"),
        (with_(recognizer=dataclasses.replace(CONFIG.recognizer, dropout=1.5)), r"dropout must be in \[0, 1\)"),
        (with_(recognizer=dataclasses.replace(CONFIG.recognizer, model_size=-8)), "recognizer.model_size must be >= 1"),
        (with_(recognizer_updates=0), "recognizer_updates must be >= 1"),
        (with_(recognizer=dataclasses.replace(CONFIG.recognizer, context=0)), "recognizer.context must be >= 1"),
        (
            with_(recognizer=dataclasses.replace(CONFIG.recognizer, num_heads=3)),
            "must be a multiple of twice num_heads",
        ),
        (with_(recognizer=dataclasses.replace(CONFIG.recognizer, loss="l1")), "choose mse, cross_entropy"),
    ],
)
def test_wrong_settings_are_one_line(config, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        timrl.make(config, SPEC)
    assert "\n" not in str(error.value)


def test_nobody_labels_an_imagined_task_where_sub_tasks_are_classes():
    spec = SPEC._replace(families=("direction",), subtasks=("forward", "backward"))
    with pytest.raises(ConfigurationError, match="an imagined task belongs: use"):
        timrl.make(with_(reward_model_updates=1), spec)


def test_one_class_is_nothing_to_recognise():
    with pytest.raises(ConfigurationError, match="nothing to recognise"):
        timrl.make(CONFIG, SPEC._replace(families=("speed",), subtasks=("speed",)))
