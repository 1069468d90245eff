"""What a mixture belief is worth: the transitions it can predict. Learners that infer a task by an ELBO share it."""

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
from metarl_jax.losses.elbo import negative_elbo, sample_components
from metarl_jax.networks.mixture import Mixture, TaskDecoder
from metarl_jax.types import Metrics, Transition

Steps = Int[Array, " S"] | slice
"""Which steps of a window."""

TARGETS = ("self", "next", "trajectory", "task")
"""Values of `Config.decode`."""


@dataclasses.dataclass(frozen=True)
class Config:
    """A mixture belief that decodes transitions."""

    gross_reward: bool = False
    """Encoder and decoder look at what a step would have paid had its action been free. An agent knows its action and
    what it costs: left in the reward, the cost hides what the task says of a step."""
    reward_change: bool = False
    """Tell the encoder also how this gross reward has changed since the last step, compressed, which a recurrent one
    would have to remember and one of single transitions cannot know: where a body hardly moves, a goal's direction
    shows in nothing else."""
    num_components: int = 1
    """K: Gaussians in the mixture."""
    latent_size: int = 5
    """d: latent dimensions of each component."""
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
    elbo_steps: int | None = None
    """Steps of a window, drawn anew for every update, whose beliefs decode; None: all. An unbiased estimate (but for
    `mutual_information_weight`'s term) for a share of the work, most of which is decoding where there are several
    components."""
    learning_rate: float = 3e-4
    """Adam's step size."""
    learning_rate_held_for: float | None = None
    """Updates for which the step size is held; then it halves with every half of them more, down to a tenth, so that
    beliefs come to rest and the policy can. None: it stays."""
    max_grad_norm: float | None = 1.0
    """Clip the gradient at this global norm; None: do not clip."""
    batch_size: int = 256
    """Windows per update."""
    kl_z_weight: float = 1e-3
    """alpha: weight of KL(q(z|y) || prior)."""
    kl_y_weight: float = 1e-3
    """beta: weight of KL(q(y) || prior)."""
    mutual_information_weight: float = 0.0
    """Weight of -I(y; history) = E[H(q(y))] - H(E[q(y)]): sharp components that are all in use. 0: the paper's."""
    state_weight: float = 1.0
    """Weight of the next-state error (mean over its standardised dimensions)."""
    reward_weight: float = 1.0
    """Weight of the standardised reward's error."""
    progress_weight: float = 0.0
    """Weight of the error of a step's progress, in root mean squares of a batch: how much more the task pays for
    standing still where the step ended than where it began. Of a goal's distance that is the part which tells the
    direction, and it is all but lost in the reward while a body hardly moves. 0: not decoded."""


class _Target(NamedTuple):
    """A transition to decode."""

    vectors: Vectors
    """Standardised."""
    progress: Float[Array, "..."] | None
    """In root mean squares of the batch; None if it is not decoded."""


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
    """What was believed around each step of a window."""

    before: Mixture
    """[T, N, ...] given the history before each transition."""
    after: Mixture
    """[T, N, ...] given the history up to and including it."""


def context(
    scale: Scale, transition: Transition, gross_reward: bool = False, reward_change: bool = False
) -> Float[Array, "... C"]:
    """A transition as an encoder's input: standardised [s, a, r, s'], and the change of r if that is wanted.

    `scale` is of `Vectors`: `statistics.scale(replay.moments)`, or `replay.unscaled`, which standardises nothing.
    Changes are compressed, because they differ by orders of magnitude between tasks and steps: by asinh, which is
    linear below a hundredth of the reward's standard deviation and logarithmic above, and a third of it.
    """
    x: Vectors = scale.apply(vectors(transition))
    reward = x.gross_reward if gross_reward else x.reward
    item = [x.obs, x.action, reward[..., None], x.next_obs]
    if reward_change:
        change = jnp.arcsinh(100.0 * transition.gross_reward_change / scale.std.gross_reward) / 3.0
        item.append(change[..., None])
    return jnp.concatenate(item, -1)


def context_size(obs_size: int, action_size: int, reward_change: bool = False) -> int:
    """C: length of a context item."""
    return 2 * obs_size + action_size + 1 + reward_change


def beliefs(after: Mixture, blank: Mixture, last: Bool[Array, "T N"]) -> Beliefs:
    """The belief before each step is that after the previous one, or `blank` [N, ...] where an episode begins."""

    def leaf(x, empty):
        previous = jnp.concatenate([empty[None], x[:-1]])
        fresh = starts(last).reshape(*last.shape, *(1,) * (x.ndim - 2))
        return jnp.where(fresh, empty[None], previous)

    return Beliefs(before=jax.tree.map(leaf, after, blank), after=after)


def optimizer(config: Config) -> optax.GradientTransformation:
    """Of encoder and decoder."""
    return adam(config.learning_rate, config.max_grad_norm, held_for=config.learning_rate_held_for)


def decoder(config: Config, spec: Spec) -> TaskDecoder:
    """The network that a latent gives meaning to."""
    width = 5 * (spec.obs_size + spec.action_size + config.latent_size)
    state_sizes, reward_sizes = config.state_decoder_sizes, config.reward_decoder_sizes
    return TaskDecoder(
        spec.obs_size,
        (width,) * 2 if state_sizes is None else state_sizes,
        (width,) * 3 if reward_sizes is None else reward_sizes,
        2 if config.progress_weight else 1,
    )


def init(key: PRNGKeyArray, config: Config, spec: Spec) -> Any:
    """Fresh parameters of the decoder."""
    sizes = (spec.obs_size, spec.action_size, config.latent_size)
    return decoder(config, spec).init(key, *(jnp.zeros(size) for size in sizes))


def _target(config: Config, scale: Scale, windows: Transition) -> _Target:
    x = scale.apply(vectors(windows))
    if not config.progress_weight:
        return _Target(x, None)
    progress = windows.resting[..., 1] - windows.resting[..., 0]
    square = jnp.sum(windows.valid * jnp.square(progress)) / jnp.maximum(jnp.sum(windows.valid), 1.0)
    return _Target(x, progress * jax.lax.rsqrt(square + 1e-12))


def _squared(
    config: Config, spec: Spec, params: Any, target: _Target, latent: Float[Array, "T N K D"]
) -> tuple[Float[Array, "... K"], Float[Array, "... K"]]:
    """Squared errors [..., K] of next state and pay: targets [..., T, N, ...] under every component's latent."""
    x = target.vectors
    next_obs, rewards = decoder(config, spec).apply(params, x.obs[..., None, :], x.action[..., None, :], latent)
    state_error = jnp.mean(jnp.square(next_obs - x.next_obs[..., None, :]), -1)
    reward = x.gross_reward if config.gross_reward else x.reward
    reward_error = config.reward_weight * jnp.square(rewards[..., 0] - reward[..., None])
    if target.progress is not None:
        reward_error += config.progress_weight * jnp.square(rewards[..., 1] - target.progress[..., None])
    return config.state_weight * state_error, reward_error


def errors(
    config: Config,
    spec: Spec,
    params: Any,
    scale: Scale,
    windows: Transition,
    siblings: Transition | None,
    q: Mixture,
    steps: Steps,
    key: PRNGKeyArray,
) -> tuple[Float[Array, "S N K"], Float[Array, "S N K"]]:
    """Errors of next state and reward that the latents of `q` make on the transitions they must decode.

    `q` [S, N, ...] are the beliefs at the `steps` of the windows [T, N, ...].
    """
    key_z, key_partner, key_sibling, key_swap = jax.random.split(key, 4)
    latent = sample_components(key_z, q)
    target = _target(config, scale, windows)
    if config.decode not in ("trajectory", "task"):
        return _squared(config, spec, params, jax.tree.map(lambda x: x[steps], target), latent)
    if config.decode == "task" and siblings is None:
        raise ValueError("decode='task' needs siblings: other episodes of the windows' tasks")
    partner = partners(key_partner, segments(windows), config.decode_samples)[:, steps]
    lane = jnp.arange(windows.reward.shape[1])
    target, valid = jax.tree.map(lambda x: x[partner, lane], (target, windows.valid))
    if siblings is not None:
        time = jax.random.randint(key_sibling, partner.shape, 0, siblings.reward.shape[0])
        other, other_valid = jax.tree.map(lambda x: x[time, lane], (_target(config, scale, siblings), siblings.valid))
        swap = other_valid & jax.random.bernoulli(key_swap, 0.5, partner.shape)
        target = jax.tree.map(
            lambda x, y: jnp.where(swap.reshape(*swap.shape, *(1,) * (x.ndim - 3)), x, y), other, target
        )
        valid = valid | swap
    found = _squared(config, spec, params, target, latent[None])
    state_error, reward_error = (jnp.mean(valid[..., None] * e, 0) for e in found)
    return state_error, reward_error


def objective(
    params: Any,
    config: Config,
    spec: Spec,
    scale: Scale,
    windows: Transition,
    siblings: Transition | None,
    q: Mixture,
    prior: Mixture,
    key: PRNGKeyArray,
) -> tuple[Float[Array, ""], Metrics]:
    """-ELBO of the beliefs `q` [T, N, ...] along windows, averaged over valid steps; `params` are the decoder's.

    `siblings` [T, N, ...] are other episodes of the same tasks, to decode if `decode` is `task`.
    """
    length = windows.reward.shape[0]
    steps: Steps = slice(None)
    if config.elbo_steps is not None and config.elbo_steps < length:
        key, key_steps = jax.random.split(key)
        steps = jax.random.choice(key_steps, length, (config.elbo_steps,), replace=False)
        q, prior = jax.tree.map(lambda x: x[steps], (q, prior))
    state_error, reward_error = errors(config, spec, params, scale, windows, siblings, q, steps, key)
    elbo, parts = negative_elbo(state_error + reward_error, q, prior, config.kl_z_weight, config.kl_y_weight)
    valid = windows.valid[steps]
    weight = valid / jnp.maximum(jnp.sum(valid), 1.0)
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
    return total, metrics
