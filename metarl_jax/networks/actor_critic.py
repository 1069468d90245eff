"""Policy and value networks over an observation and a belief."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from metarl_jax.networks.mlp import MLP

LOG_STD_RANGE = (-5.0, 2.0)


class _Embed(nn.Module):
    """Observation and belief, each through Linear-ReLU (if its size is not 0), concatenated."""

    obs_size: int
    belief_size: int

    @nn.compact
    def __call__(self, obs: Float[Array, "... O"], belief: Float[Array, "... b"]) -> Float[Array, "... e"]:
        embed_obs = MLP((self.obs_size,), activate_final=True)(obs) if self.obs_size else obs
        if belief.shape[-1] and self.belief_size:
            belief = MLP((self.belief_size,), activate_final=True)(belief)
        return jnp.concatenate([embed_obs, belief], -1)


class Actor(nn.Module):
    """Mean and standard deviation of a Gaussian that tanh squashes into (-1, 1)."""

    action_size: int
    hidden_sizes: Sequence[int]
    obs_embedding: int = 0
    belief_embedding: int = 0
    log_std_range: tuple[float, float] = LOG_STD_RANGE

    @nn.compact
    def __call__(
        self, obs: Float[Array, "... O"], belief: Float[Array, "... b"]
    ) -> tuple[Float[Array, "... A"], Float[Array, "... A"]]:
        x = _Embed(self.obs_embedding, self.belief_embedding)(obs, belief)
        x = MLP((*self.hidden_sizes, 2 * self.action_size))(x)
        mean, log_std = jnp.split(x, 2, axis=-1)
        return mean, jnp.exp(jnp.clip(log_std, *self.log_std_range))


class Critic(nn.Module):
    """Q(s, b, a): what a network says, less `action_cost` times the sum of squared actions."""

    hidden_sizes: Sequence[int]
    obs_embedding: int = 0
    belief_embedding: int = 0
    layer_norm: bool = False
    action_cost: float = 0.0

    @nn.compact
    def __call__(
        self, obs: Float[Array, "... O"], belief: Float[Array, "... b"], action: Float[Array, "... A"]
    ) -> Float[Array, "..."]:
        x = _Embed(self.obs_embedding, self.belief_embedding)(obs, belief)
        x = jnp.concatenate([x, action], -1)
        q = MLP((*self.hidden_sizes, 1), layer_norm=self.layer_norm)(x)[..., 0]
        return q - self.action_cost * jnp.sum(jnp.square(action), -1) if self.action_cost else q


class TwinCritic(nn.Module):
    """Two independent critics: [2, ...]."""

    hidden_sizes: Sequence[int]
    obs_embedding: int = 0
    belief_embedding: int = 0
    layer_norm: bool = False
    action_cost: float = 0.0

    @nn.compact
    def __call__(self, obs, belief, action) -> Float[Array, "2 ..."]:
        twin = nn.vmap(
            Critic, in_axes=None, out_axes=0, axis_size=2, variable_axes={"params": 0}, split_rngs={"params": True}
        )
        settings = (self.obs_embedding, self.belief_embedding, self.layer_norm, self.action_cost)
        return twin(self.hidden_sizes, *settings)(obs, belief, action)
