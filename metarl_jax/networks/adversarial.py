"""A conditional generator of actions, and the discriminator that judges them (ER-TRL)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarl_jax.networks.mlp import MLP


class Generator(nn.Module):
    """(s, z, noise) -> action in (-1, 1)."""

    action_size: int
    hidden_sizes: Sequence[int]

    @nn.compact
    def __call__(
        self, obs: Float[Array, "... O"], latent: Float[Array, "... D"], noise: Float[Array, "... E"]
    ) -> Float[Array, "... A"]:
        return jnp.tanh(MLP((*self.hidden_sizes, self.action_size))(jnp.concatenate([obs, latent, noise], -1)))


class Discriminator(nn.Module):
    """(action, s, z) -> logit of being real."""

    hidden_sizes: Sequence[int]

    @nn.compact
    def __call__(
        self, action: Float[Array, "... A"], obs: Float[Array, "... O"], latent: Float[Array, "... D"]
    ) -> Float[Array, "..."]:
        return MLP((*self.hidden_sizes, 1))(jnp.concatenate([action, obs, latent], -1))[..., 0]
