import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax.learners import recognizer
from tests.helpers import cached, quick_compilation, same, transitions
from tests.learners.small_vae import LENGTH, NUM, SCALE, VALID, WINDOWS

quick = pytest.fixture(autouse=True, scope="module")(quick_compilation)

CONFIG = recognizer.Config(
    context=3, model_size=8, num_layers=2, num_heads=2, feed_forward_size=8, learning_rate=1e-2, batch_size=4
)
SPEC = recognizer.Spec(2, 1, 3)


@cached
def initial():
    return jax.jit(lambda key: recognizer.init(key, CONFIG, SPEC))(jax.random.key(0))


jitted_infer = jax.jit(lambda params, windows: recognizer.infer(params, CONFIG, SPEC, SCALE, windows))


def infer(windows):
    return jitted_infer(initial().params, windows)


def test_step_by_step_equals_whole_windows():
    """Episode ends, invalid steps and a context shorter than the episodes included."""
    whole = infer(WINDOWS)
    params = initial().params
    step = jax.jit(lambda m, t: recognizer.step(params, CONFIG, SPEC, SCALE, m, t))
    blank = recognizer.begin(CONFIG, SPEC, NUM)
    memory = blank
    for t in range(LENGTH):
        np.testing.assert_allclose(memory.logits, whole.before[t], atol=1e-5)
        transition = jax.tree.map(lambda x, t=t: x[t], WINDOWS)
        memory = step(memory, transition)
        np.testing.assert_allclose(memory.logits, whole.after[t], atol=1e-5)
        np.testing.assert_allclose(memory.attention, np.stack(whole.attention, 1)[:, :, t], atol=1e-5)
        last = transition.last
        memory = jax.tree.map(lambda x, y, z=last: jnp.where(z.reshape(-1, *[1] * (x.ndim - 1)), x, y), blank, memory)
    assert np.abs(whole.after[0, 0] - whole.after[1, 0]).max() > 1e-3


def test_nothing_is_known_before_the_first_step():
    before = np.asarray(infer(WINDOWS).before)
    fresh = np.concatenate([np.ones((1, NUM), bool), np.asarray(WINDOWS.last[:-1])])
    assert not before[fresh].any() and before[~fresh].any(-1).all()


def test_invalid_steps_are_never_looked_at():
    noise = jnp.where(WINDOWS.valid, 0.0, 100.0)
    changed = WINDOWS._replace(reward=WINDOWS.reward + noise, obs=WINDOWS.obs - noise[..., None])
    assert not np.array_equal(changed.reward, WINDOWS.reward)
    np.testing.assert_allclose(infer(changed).after, infer(WINDOWS).after, atol=1e-6)


def test_loss_is_the_mean_over_valid_steps():
    target = jax.nn.one_hot(jnp.arange(LENGTH * NUM).reshape(LENGTH, NUM) % 3, 3)
    plain = dataclasses.replace(CONFIG, dropout=0.0)
    found, metrics = recognizer.loss(initial().params, plain, SPEC, SCALE, WINDOWS, target, jax.random.key(0))
    logits = infer(WINDOWS).after
    errors = np.square(jax.nn.softmax(logits) - target).mean(-1)
    np.testing.assert_allclose(found, errors[VALID].mean(), rtol=1e-4)
    right = np.asarray(logits.argmax(-1) == target.argmax(-1))
    np.testing.assert_allclose(metrics["train_recognition_accuracy"], right[VALID].mean(), rtol=1e-5)


def test_attention_looks_back_on_the_context_alone():
    weights = infer(transitions(3, LENGTH, NUM)).attention
    assert [w.shape for w in weights] == [(NUM, LENGTH, 2, 3)] * 2
    assert not weights[0][:, 0, :, :2].any()  # the first step sees itself alone
    np.testing.assert_allclose(weights[1].sum(-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("loss", recognizer.LOSSES)
def test_learns_a_class_that_one_transition_shows(loss):
    config = dataclasses.replace(CONFIG, loss=loss, dropout=0.0)
    windows = transitions(1, 6, 30)
    label = jnp.arange(30) % 3
    windows = windows._replace(reward=windows.reward.at[1].set(3.0 * label), valid=jnp.ones_like(windows.valid))
    windows = windows._replace(last=jnp.zeros_like(windows.last), reward=windows.reward.at[0].set(0.0))
    target = jnp.broadcast_to(jax.nn.one_hot(label, 3), (6, 30, 3))

    @jax.jit
    def train(state, keys):
        update = lambda s, k: recognizer.train_step(s, windows, target, k, config, SPEC, SCALE)  # noqa: E731
        return jax.lax.scan(update, state, keys)[1]

    accuracy = train(initial(), jax.random.split(jax.random.key(0), 200))["train_recognition_accuracy"]
    assert accuracy[0] < 0.6 and accuracy[-1] > 0.8  # the first of six steps says nothing: at best 1/3 right there


def test_targets_get_no_gradient():
    start = initial()

    def after(weight):
        target = weight * jnp.ones((LENGTH, NUM, 3)) / 3
        state, _ = recognizer.train_step(start, WINDOWS, target, jax.random.key(0), CONFIG, SPEC, SCALE)
        return sum(jnp.sum(x) for x in jax.tree.leaves(state.params))

    assert jax.jit(jax.grad(after))(1.0) == 0.0


def test_vmaps_over_seeds():
    keys = jax.random.split(jax.random.key(0), 2)
    states = jax.jit(jax.vmap(lambda k: recognizer.init(k, CONFIG, SPEC)))(keys)
    assert not same(*(jax.tree.map(lambda x, i=i: x[i], states.params) for i in (0, 1)))
