"""Encoders whose output is a Gaussian mixture, and the decoders that give it meaning."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarl_jax.networks.mlp import MLP
from metarl_jax.networks.recurrent import GRU

MIN_STD = 1e-3


class Mixture(NamedTuple):
    """q(y) = softmax(logits) and q(z | y = k) = N(mean_k, std_k^2)."""

    logits: Float[Array, "... K"]
    mean: Float[Array, "... K D"]
    std: Float[Array, "... K D"]


def most_likely(q: Mixture) -> tuple[Float[Array, "... D"], Float[Array, "... D"]]:
    """Mean and standard deviation of the most likely component."""
    k = jnp.argmax(q.logits, -1)[..., None, None]
    return jnp.take_along_axis(q.mean, k, -2)[..., 0, :], jnp.take_along_axis(q.std, k, -2)[..., 0, :]


class Evidence(NamedTuple):
    """Natural parameters of a mixture, component by component: those of a product of mixtures are their sum."""

    logits: Float[Array, "... K"]
    precision: Float[Array, "... K D"]
    """1 / std^2."""
    pull: Float[Array, "... K D"]
    """mean / std^2."""

    @classmethod
    def of(cls, q: Mixture) -> "Evidence":
        """What a mixture alone says."""
        precision = 1.0 / jnp.square(q.std)
        return cls(q.logits, precision, precision * q.mean)

    def mixture(self) -> Mixture:
        """Components N(sum mu_n / s_n^2 / sum 1 / s_n^2, 1 / sum 1 / s_n^2) (PEARL), probabilities prod_n q_n(y)."""
        return Mixture(self.logits, self.pull / self.precision, self.precision**-0.5)


def _split(head: Float[Array, "... h"], k: int, d: int) -> Mixture:
    """A head's K (1 + 2 D) outputs as a mixture."""
    logits, mean, std = jnp.split(head, (k, k + k * d), axis=-1)
    shape = (*head.shape[:-1], k, d)
    return Mixture(logits, mean.reshape(shape), nn.softplus(std).reshape(shape) + MIN_STD)


class TransitionMixtureEncoder(nn.Module):
    """A context item to what it alone says of the task (CEMRL)."""

    sizes: Sequence[int]
    num_components: int
    latent_size: int

    @nn.compact
    def __call__(self, context: Float[Array, "... C"]) -> Mixture:
        k, d = self.num_components, self.latent_size
        return _split(MLP((*self.sizes, k * (1 + 2 * d)))(context), k, d)


class RecurrentMixtureEncoder(nn.Module):
    """GRU over context items, then a mixture at every step (MoSS, Fig. 15)."""

    hidden_size: int
    num_components: int
    latent_size: int

    def setup(self):
        self.gru = GRU(self.hidden_size)
        self.trunk = MLP((self.hidden_size,), activate_final=True)
        self.head = nn.Dense(self.num_components * (1 + 2 * self.latent_size))

    def __call__(self, carry: Float[Array, "... H"], context: Float[Array, "... C"]):
        """One step of memory: carry' [..., H], and the mixture after it."""
        carry = self.gru(carry, context)
        return carry, self.mixture(carry)

    def project(self, context: Float[Array, "... C"]) -> Float[Array, "... G"]:
        """The part of a step that does not depend on the memory."""
        return self.gru.project(context)

    def step(self, carry: Float[Array, "... H"], projected: Float[Array, "... G"]) -> Float[Array, "... H"]:
        """The memory after one more projected context item."""
        return self.gru.step(carry, projected)

    def mixture(self, carry: Float[Array, "... H"]) -> Mixture:
        """What a memory believes."""
        return _split(self.head(self.trunk(carry)), self.num_components, self.latent_size)


class TaskDecoder(nn.Module):
    """Predict the next observation and what (s, a) pays under a latent: two independent regressors (Eq. 6)."""

    obs_size: int
    state_sizes: Sequence[int]
    reward_sizes: Sequence[int]
    num_rewards: int = 1

    @nn.compact
    def __call__(
        self, obs: Float[Array, "... O"], action: Float[Array, "... A"], latent: Float[Array, "... D"]
    ) -> tuple[Float[Array, "... O"], Float[Array, "... R"]]:
        lead = jnp.broadcast_shapes(obs.shape[:-1], action.shape[:-1], latent.shape[:-1])
        inputs = [jnp.broadcast_to(x, (*lead, x.shape[-1])) for x in (obs, action, latent)]
        x: jax.Array = jnp.concatenate(inputs, -1)
        next_obs = MLP((*self.state_sizes, self.obs_size), name="state")(x)
        rewards = MLP((*self.reward_sizes, self.num_rewards), name="reward")(x)
        return next_obs, rewards
