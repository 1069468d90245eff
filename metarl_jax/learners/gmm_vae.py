"""Recurrent Gaussian-mixture VAE for task inference (MoSS), usable alone: `init`, `train_step`, `step`, `infer`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from metarl_jax.data.segments import same_task, starts
from metarl_jax.data.statistics import Scale
from metarl_jax.learners import decoding
from metarl_jax.learners.decoding import Beliefs, Spec, State, context, context_size
from metarl_jax.losses.elbo import separated_prior, standard_prior
from metarl_jax.losses.infonce import infonce
from metarl_jax.losses.recognition import cross_entropy
from metarl_jax.networks.mixture import Mixture, RecurrentMixtureEncoder, most_likely
from metarl_jax.types import Metrics, Transition

TEACHERS = ("labels", "rewards")
"""Values of `Config.base_tasks`."""
KNOWN = 100.0
"""Logit of a component that is given; the others have 0, and a probability that float32 cannot tell from 0."""


@dataclasses.dataclass(frozen=True)
class Config(decoding.Config):
    """Recurrent Gaussian-mixture VAE."""

    hidden_size: int | None = None
    """Units of the GRU; None: 5 x (2 obs + action + 1), the reference's rule."""
    contrastive_weight: float = 1.0
    """Weight of InfoNCE; experiments set it to 0 in non-stationary benchmarks."""
    contrastive_temperature: float = 1.0
    """Scale of the distance in InfoNCE."""
    base_task_weight: float = 0.0
    """Weight of the cross-entropy of q(y) with the base task of a step, which training knows: component k comes to
    stand for the k-th base task, and those beyond the last are not used (an option of CEMRL's code). q(y) is that of
    what is decoded: of the history before the step, unless `decode` is `self`. 0: the paper's, without labels."""
    base_tasks: str = "labels"
    """Where those base tasks are known from. `labels`: the benchmark; `rewards`: found without labels, as what tasks of
    the replay pay for (see `learners.base_tasks`). Every component then stands for one, in no order that is known
    beforehand, so give as many as there are."""
    use_global_prior: bool = False
    """Prior N(0, I) and uniform at every step, instead of the previous step's posterior."""
    use_separated_prior: bool = False
    """Prior N(k, 0.5) of component k = 0, 1, ... at every step (CEMRL's and TIMRL's), uniform over components."""
    stop_z_prior: bool = False
    """No gradient through the previous posterior of z."""
    stop_y_prior: bool = True
    """No gradient through the previous posterior of y."""


def _hidden_size(config: Config, spec: Spec) -> int:
    return config.hidden_size or 5 * context_size(*spec, config.reward_change)


def _encoder(config: Config, spec: Spec) -> RecurrentMixtureEncoder:
    return RecurrentMixtureEncoder(_hidden_size(config, spec), config.num_components, config.latent_size)


def init(key: PRNGKeyArray, config: Config, spec: Spec) -> State:
    """Fresh parameters."""
    key_encoder, key_decoder = jax.random.split(key)
    item = jnp.zeros(context_size(*spec, config.reward_change))
    encoder = _encoder(config, spec).init(key_encoder, begin(config, spec), item)
    decoder = decoding.init(key_decoder, config, spec)
    opt = decoding.optimizer(config).init((encoder, decoder))
    return State(encoder, decoder, opt)


def begin(config: Config, spec: Spec, lead: tuple[int, ...] = ()) -> Float[Array, "... H"]:
    """The memory of an empty history."""
    return jnp.zeros((*lead, _hidden_size(config, spec)))


def _project(encoder: Any, config: Config, spec: Spec, items: Float[Array, "... C"]) -> Float[Array, "... G"]:
    return _encoder(config, spec).apply(encoder, items, method="project")


def _advance(
    encoder: Any,
    config: Config,
    spec: Spec,
    carry: Float[Array, "n H"],
    projected: Float[Array, "n G"],
    valid: Bool[Array, " n"],
) -> Float[Array, "n H"]:
    after = _encoder(config, spec).apply(encoder, carry, projected, method="step")
    return jnp.where(valid[:, None], after, carry)


def step(
    encoder: Any, config: Config, spec: Spec, scale: Scale, carry: Float[Array, "n H"], transition: Transition
) -> Float[Array, "n H"]:
    """The memories after one more transition [n]; an invalid one leaves them as they are."""
    projected = _project(encoder, config, spec, context(scale, transition, config.gross_reward, config.reward_change))
    return _advance(encoder, config, spec, carry, projected, transition.valid)


def recall(
    encoder: Any, config: Config, spec: Spec, items: Float[Array, "n W C"], present: Bool[Array, "n W"]
) -> Float[Array, "n H"]:
    """The memories of the last W context items alone, read from an empty memory; absent items are skipped."""
    projected = _project(encoder, config, spec, items)
    empty = begin(config, spec, present.shape[:1])

    def scan(carry, inputs):
        return _advance(encoder, config, spec, carry, *inputs), None

    return jax.lax.scan(scan, empty, (projected.swapaxes(0, 1), present.T))[0]


def mixture(encoder: Any, config: Config, spec: Spec, carry: Float[Array, "... H"]) -> Mixture:
    """What a memory believes."""
    return _encoder(config, spec).apply(encoder, carry, method="mixture")


def infer(encoder: Any, config: Config, spec: Spec, scale: Scale, windows: Transition) -> Beliefs:
    """Beliefs along windows [T, N, ...], each read from an empty memory and forgotten at episode ends."""
    projected = _project(encoder, config, spec, context(scale, windows, config.gross_reward, config.reward_change))
    empty = begin(config, spec, windows.reward.shape[1:])

    def scan(carry, inputs):
        item, valid, last = inputs
        after = _advance(encoder, config, spec, carry, item, valid)
        return jnp.where(last[:, None], empty, after), after

    _, hidden = jax.lax.scan(scan, empty, (projected, windows.valid, windows.last))
    after = mixture(encoder, config, spec, hidden)
    blank = mixture(encoder, config, spec, empty)
    return decoding.beliefs(after, blank, windows.last)


def _prior(config: Config, q: Mixture, previous: Mixture, fresh: Bool[Array, "T N"]) -> Mixture:
    """The previous posterior, or the standard prior where a history begins; or a fixed prior everywhere."""
    if config.use_separated_prior:
        return separated_prior(q)
    standard = standard_prior(q)
    if config.use_global_prior:
        return standard
    stop = jax.lax.stop_gradient
    logits = stop(previous.logits) if config.stop_y_prior else previous.logits
    mean, std = (stop(x) if config.stop_z_prior else x for x in (previous.mean, previous.std))

    def leaf(x, default):
        return jnp.where(fresh.reshape(*fresh.shape, *(1,) * (x.ndim - 2)), default, x)

    return jax.tree.map(leaf, Mixture(logits, mean, std), standard)


def _contrast(config: Config, windows: Transition, after: Mixture, key: PRNGKeyArray) -> Float[Array, ""]:
    """InfoNCE between two random steps of each window."""
    length, num = windows.reward.shape
    first = jax.random.randint(key, (num,), 0, length)
    second = (first + jax.random.randint(jax.random.fold_in(key, 1), (num,), 1, length)) % length
    lane = jnp.arange(num)
    mean = most_likely(after)[0]
    task = jax.tree.map(lambda x: x[0], windows.task)
    return infonce(mean[first, lane], mean[second, lane], same_task(task, task), config.contrastive_temperature)


def _base_task_error(base_task: Int[Array, "T N"], valid: Bool[Array, "T N"], q: Mixture) -> Float[Array, ""]:
    """Mean cross-entropy of q(y) with the base tasks, in nats, of valid steps where these are known (not -1)."""
    errors = cross_entropy(q.logits, jax.nn.one_hot(base_task, q.logits.shape[-1]))
    known = valid & (base_task >= 0)
    return jnp.sum(known * errors) / jnp.maximum(jnp.sum(known), 1.0)


def loss(
    params: tuple[Any, Any],
    config: Config,
    spec: Spec,
    scale: Scale,
    windows: Transition,
    key: PRNGKeyArray,
    siblings: Transition | None = None,
    component: Int[Array, "T N"] | None = None,
    base_task: Int[Array, "T N"] | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """-ELBO + InfoNCE + cross-entropy of windows [T, N, ...], averaged over valid steps; params = (encoder, decoder).

    `siblings` [T, N, ...] are other episodes of the same tasks, to decode if `decode` is `task`. `component` says
    which component must explain each step, where something else than the encoder knows (TIMRL). `base_task` replaces
    the labels of base tasks; -1 is one that is not known.
    """
    encoder, decoder = params
    key_decode, key_contrast = jax.random.split(key)
    beliefs = infer(encoder, config, spec, scale, windows)
    if config.decode == "self":
        q, previous = beliefs.after, beliefs.before
    else:
        q = beliefs.before
        previous = jax.tree.map(lambda x: jnp.concatenate([x[:1], x[:-1]]), q)
    if component is not None:
        q = q._replace(logits=KNOWN * jax.nn.one_hot(component, config.num_components))
    prior = _prior(config, q, previous, starts(windows.last))
    total, metrics = decoding.objective(decoder, config, spec, scale, windows, siblings, q, prior, key_decode)
    if config.contrastive_weight:
        metrics["contrastive_loss"] = _contrast(config, windows, beliefs.after, key_contrast)
        total += config.contrastive_weight * metrics["contrastive_loss"]
    if config.base_task_weight:
        if base_task is None and config.base_tasks == "rewards":
            raise ValueError("base_tasks='rewards' needs base_task: what learners.base_tasks finds of the windows")
        labels = windows.task.family if base_task is None else base_task
        metrics["base_task_loss"] = _base_task_error(labels, windows.valid, q)
        total += config.base_task_weight * metrics["base_task_loss"]
    return total, metrics | {"vae_loss": total}


def train_step(
    state: State,
    windows: Transition,
    key: PRNGKeyArray,
    config: Config,
    spec: Spec,
    scale: Scale,
    siblings: Transition | None = None,
    component: Int[Array, "T N"] | None = None,
    base_task: Int[Array, "T N"] | None = None,
) -> tuple[State, Metrics]:
    """One Adam step on windows [T, N, ...]; see `loss` for `siblings`, `component` and `base_task`."""
    params = (state.encoder, state.decoder)
    grads, metrics = jax.grad(loss, has_aux=True)(
        params, config, spec, scale, windows, key, siblings, component, base_task
    )
    updates, opt = decoding.optimizer(config).update(grads, state.opt, params)
    encoder, decoder = optax.apply_updates(params, updates)
    return State(encoder, decoder, opt), metrics
