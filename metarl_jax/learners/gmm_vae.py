"""Recurrent Gaussian-mixture VAE for task inference (MoSS), usable alone: `init`, `train_step`, `step`, `infer`."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from metarl_jax.data.replay import Vectors, vectors
from metarl_jax.data.segments import partners, segments, starts
from metarl_jax.data.statistics import Scale
from metarl_jax.distributions import categorical_entropy
from metarl_jax.learners.optimizers import adam
from metarl_jax.losses.elbo import negative_elbo, sample_components, separated_prior, standard_prior
from metarl_jax.losses.infonce import infonce
from metarl_jax.networks.mixture import Mixture, RecurrentMixtureEncoder, TaskDecoder
from metarl_jax.types import Metrics, Transition

KNOWN = 100.0
"""Logit of a component that is given; the others have 0, and a probability that float32 cannot tell from 0."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Recurrent Gaussian-mixture VAE."""

    num_components: int = 1
    """K: Gaussians in the mixture."""
    latent_size: int = 5
    """d: latent dimensions of each component."""
    hidden_size: int | None = None
    """Units of the GRU; None: 5 x (2 obs + action + 1), the reference's rule."""
    state_decoder_sizes: tuple[int, ...] | None = None
    """Hidden layers of the state decoder; None: two of 5 x (obs + action + d) units."""
    reward_decoder_sizes: tuple[int, ...] | None = None
    """Hidden layers of the reward decoder; None: three of 5 x (obs + action + d) units."""
    decode: str = "next"
    """Which transition the belief at a step decodes. `self`: the one it has just seen (the reference's code);
    `next`: the one that follows, strictly predictive (the paper's words); `trajectory`: random ones of the same
    task segment (VariBAD's way); `task`: half of them random ones of a stored episode of the same task."""
    decode_samples: int = 1
    """Transitions decoded per step when `decode` is `trajectory` or `task`."""
    learning_rate: float = 3e-4
    """Adam's step size."""
    max_grad_norm: float | None = 1.0
    """Clip the gradient at this global norm; None: do not clip."""
    batch_size: int = 256
    """Windows per update."""
    kl_z_weight: float = 1e-3
    """alpha: weight of KL(q(z|y) || prior)."""
    kl_y_weight: float = 1e-3
    """beta: weight of KL(q(y) || prior)."""
    contrastive_weight: float = 1.0
    """Weight of InfoNCE; experiments set it to 0 in non-stationary benchmarks."""
    contrastive_temperature: float = 1.0
    """Scale of the distance in InfoNCE."""
    mutual_information_weight: float = 0.0
    """Weight of -I(y; history) = E[H(q(y))] - H(E[q(y)]): sharp components that are all in use. 0: the paper's."""
    state_weight: float = 1.0
    """Weight of the next-state error (mean over its standardised dimensions)."""
    reward_weight: float = 1.0
    """Weight of the standardised reward's error."""
    use_global_prior: bool = False
    """Prior N(0, I) and uniform at every step, instead of the previous step's posterior."""
    use_separated_prior: bool = False
    """Prior N(k, 0.5) of component k = 0, 1, ... at every step (CEMRL's and TIMRL's), uniform over components."""
    stop_z_prior: bool = False
    """No gradient through the previous posterior of z."""
    stop_y_prior: bool = True
    """No gradient through the previous posterior of y."""


class Spec(NamedTuple):
    """Sizes of the vectors."""

    obs_size: int
    action_size: int


class State(NamedTuple):
    """Parameters and optimiser state."""

    encoder: Any
    decoder: Any
    opt: Any


class Beliefs(NamedTuple):
    """What a scanned window believed around each of its steps."""

    before: Mixture
    """[T, N, ...] given the history before each transition."""
    after: Mixture
    """[T, N, ...] given the history up to and including it."""


def _hidden_size(config: Config, spec: Spec) -> int:
    return config.hidden_size or 5 * (2 * spec.obs_size + spec.action_size + 1)


def _encoder(config: Config, spec: Spec) -> RecurrentMixtureEncoder:
    return RecurrentMixtureEncoder(_hidden_size(config, spec), config.num_components, config.latent_size)


def _decoder(config: Config, spec: Spec) -> TaskDecoder:
    width = 5 * (spec.obs_size + spec.action_size + config.latent_size)
    state_sizes, reward_sizes = config.state_decoder_sizes, config.reward_decoder_sizes
    return TaskDecoder(
        spec.obs_size,
        (width,) * 2 if state_sizes is None else state_sizes,
        (width,) * 3 if reward_sizes is None else reward_sizes,
    )


def init(key: PRNGKeyArray, config: Config, spec: Spec) -> State:
    """Fresh parameters."""
    key_encoder, key_decoder = jax.random.split(key)
    context = jnp.zeros(2 * spec.obs_size + spec.action_size + 1)
    encoder = _encoder(config, spec).init(key_encoder, begin(config, spec), context)
    decoder = _decoder(config, spec).init(
        key_decoder, jnp.zeros(spec.obs_size), jnp.zeros(spec.action_size), jnp.zeros(config.latent_size)
    )
    return State(
        encoder,
        decoder,
        adam(config.learning_rate, config.max_grad_norm).init((encoder, decoder)),
    )


def begin(config: Config, spec: Spec, lead: tuple[int, ...] = ()) -> Float[Array, "... H"]:
    """The memory of an empty history."""
    return jnp.zeros((*lead, _hidden_size(config, spec)))


def context(scale: Scale, transition: Transition) -> Float[Array, "... C"]:
    """A transition as the encoder's input: standardised [s, a, r, s']."""
    x: Vectors = scale.apply(vectors(transition))
    return jnp.concatenate([x.obs, x.action, x.reward[..., None], x.next_obs], -1)


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
    projected = _project(encoder, config, spec, context(scale, transition))
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
    projected = _project(encoder, config, spec, context(scale, windows))
    empty = begin(config, spec, windows.reward.shape[1:])

    def scan(carry, inputs):
        item, valid, last = inputs
        after = _advance(encoder, config, spec, carry, item, valid)
        return jnp.where(last[:, None], empty, after), after

    _, hidden = jax.lax.scan(scan, empty, (projected, windows.valid, windows.last))
    after = mixture(encoder, config, spec, hidden)
    blank = mixture(encoder, config, spec, empty)
    return Beliefs(before=_shift(after, blank, windows.last), after=after)


def _shift(after: Mixture, blank: Mixture, last: Bool[Array, "T N"]) -> Mixture:
    """The belief before each step: that after the previous one, or `blank` where an episode begins."""

    def leaf(x, empty):
        previous = jnp.concatenate([empty[None], x[:-1]])
        fresh = starts(last).reshape(*last.shape, *(1,) * (x.ndim - 2))
        return jnp.where(fresh, empty[None], previous)

    return jax.tree.map(leaf, after, blank)


def _errors(decoder: TaskDecoder, params: Any, config: Config, target: Vectors, latent: Float[Array, "T N K D"]):
    """Squared errors [..., K] of next state and reward: targets [..., T, N, ...] under every component's latent."""
    per_component = jax.tree.map(lambda x: x[..., None, :], (target.obs, target.action))
    next_obs, reward = decoder.apply(params, *per_component, latent)
    state_error = jnp.mean(jnp.square(next_obs - target.next_obs[..., None, :]), -1)
    reward_error = jnp.square(reward - target.reward[..., None])
    return config.state_weight * state_error, config.reward_weight * reward_error


def _decode(
    config: Config,
    spec: Spec,
    params: Any,
    scale: Scale,
    windows: Transition,
    siblings: Transition | None,
    q: Mixture,
    key: PRNGKeyArray,
):
    """Errors [T, N, K] of next state and reward that the latents of `q` make on the transitions they must decode."""
    key_z, key_partner, key_sibling, key_swap = jax.random.split(key, 4)
    latent = sample_components(key_z, q)
    target: Vectors = scale.apply(vectors(windows))
    if config.decode not in ("trajectory", "task"):
        return _errors(_decoder(config, spec), params, config, target, latent)
    partner = partners(key_partner, segments(windows), config.decode_samples)
    lane = jnp.arange(windows.reward.shape[1])
    target, valid = jax.tree.map(lambda x: x[partner, lane], (target, windows.valid))
    if siblings is not None:
        time = jax.random.randint(key_sibling, partner.shape, 0, siblings.reward.shape[0])
        other, other_valid = jax.tree.map(lambda x: x[time, lane], (scale.apply(vectors(siblings)), siblings.valid))
        swap = other_valid & jax.random.bernoulli(key_swap, 0.5, partner.shape)
        target = jax.tree.map(
            lambda x, y: jnp.where(swap.reshape(*swap.shape, *(1,) * (x.ndim - 3)), x, y), other, target
        )
        valid = valid | swap
    errors = _errors(_decoder(config, spec), params, config, target, latent[None])
    return tuple(jnp.mean(valid[..., None] * e, 0) for e in errors)


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


def most_likely(q: Mixture) -> tuple[Float[Array, "... D"], Float[Array, "... D"]]:
    """Mean and standard deviation of the most likely component."""
    k = jnp.argmax(q.logits, -1)[..., None, None]
    return jnp.take_along_axis(q.mean, k, -2)[..., 0, :], jnp.take_along_axis(q.std, k, -2)[..., 0, :]


def _contrast(config: Config, windows: Transition, after: Mixture, key: PRNGKeyArray) -> Float[Array, ""]:
    """InfoNCE between two random steps of each window."""
    length, num = windows.reward.shape
    first = jax.random.randint(key, (num,), 0, length)
    second = (first + jax.random.randint(jax.random.fold_in(key, 1), (num,), 1, length)) % length
    lane = jnp.arange(num)
    mean = most_likely(after)[0]
    task = jnp.concatenate([windows.task.family[0][:, None].astype(jnp.float32), windows.task.spec[0]], -1)
    same_task = jnp.all(task[:, None] == task[None], -1)
    return infonce(mean[first, lane], mean[second, lane], same_task, config.contrastive_temperature)


def loss(
    params: tuple[Any, Any],
    config: Config,
    spec: Spec,
    scale: Scale,
    windows: Transition,
    key: PRNGKeyArray,
    siblings: Transition | None = None,
    component: Int[Array, "T N"] | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """-ELBO + InfoNCE of windows [T, N, ...], averaged over valid steps; params = (encoder, decoder).

    `siblings` [T, N, ...] are other episodes of the same tasks, to decode if `decode` is `task`. `component` says
    which component must explain each step, where something else than the encoder knows (TIMRL).
    """
    encoder, decoder = params
    key_decode, key_contrast = jax.random.split(key)
    beliefs = infer(encoder, config, spec, scale, windows)
    fresh = starts(windows.last)
    if config.decode == "self":
        q, previous = beliefs.after, beliefs.before
    else:
        q = beliefs.before
        previous = jax.tree.map(lambda x: jnp.concatenate([x[:1], x[:-1]]), q)
    if component is not None:
        q = q._replace(logits=KNOWN * jax.nn.one_hot(component, config.num_components))
    prior = _prior(config, q, previous, fresh)
    state_error, reward_error = _decode(config, spec, decoder, scale, windows, siblings, q, key_decode)
    elbo, parts = negative_elbo(state_error + reward_error, q, prior, config.kl_z_weight, config.kl_y_weight)

    weight = windows.valid / jnp.maximum(jnp.sum(windows.valid), 1.0)
    probs = jax.nn.softmax(q.logits)
    usage = jnp.sum(weight[..., None] * probs, (0, 1))
    entropy = jnp.sum(weight * categorical_entropy(q.logits))
    marginal_entropy = -jnp.sum(usage * jnp.log(usage + 1e-8))
    total = jnp.sum(weight * elbo)
    metrics = {name: jnp.sum(weight * part) for name, part in parts.items()} | {
        "state_error": jnp.sum(weight * jnp.sum(probs * state_error, -1)),
        "reward_error": jnp.sum(weight * jnp.sum(probs * reward_error, -1)),
        "responsibility_entropy": entropy,
        "marginal_entropy": marginal_entropy,
    }
    if config.mutual_information_weight:
        total += config.mutual_information_weight * (entropy - marginal_entropy)
    if config.contrastive_weight:
        metrics["contrastive_loss"] = _contrast(config, windows, beliefs.after, key_contrast)
        total += config.contrastive_weight * metrics["contrastive_loss"]
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
) -> tuple[State, Metrics]:
    """One Adam step on windows [T, N, ...]; see `loss` for `siblings` and `component`."""
    params = (state.encoder, state.decoder)
    grads, metrics = jax.grad(loss, has_aux=True)(params, config, spec, scale, windows, key, siblings, component)
    updates, opt = adam(config.learning_rate, config.max_grad_norm).update(grads, state.opt, params)
    encoder, decoder = optax.apply_updates(params, updates)
    return State(encoder, decoder, opt), metrics
