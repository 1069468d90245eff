"""A causal transformer with a sliding window of attention, over whole sequences or one item at a time."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def attend(
    query: Float[Array, "... Q A d"],
    key: Float[Array, "... S A d"],
    value: Float[Array, "... S A d"],
    mask: Bool[Array, "... Q S"],
) -> tuple[Float[Array, "... Q A d"], Float[Array, "... A Q S"]]:
    """softmax(Q K^T / sqrt(d)) V for A heads, and its weights (Vaswani et al., 2017, Eq. 1).

    A query for which `mask` allows no key gets zeros.
    """
    scores = jnp.einsum("...qad,...sad->...aqs", query, key) / jnp.sqrt(query.shape[-1])
    allowed = mask[..., None, :, :]
    weights = jax.nn.softmax(jnp.where(allowed, scores, -1e9), -1) * allowed
    return jnp.einsum("...aqs,...sad->...qad", weights, value), weights


def sinusoids(position: Int[Array, "..."], size: int) -> Float[Array, "... size"]:
    """Sines and cosines of a position, wavelengths 2 pi to 2 pi 10^4 (Vaswani et al., 2017, Sec. 3.5); even `size`."""
    rate = jnp.exp(-jnp.log(1e4) * jnp.arange(size // 2) / (size // 2))
    angle = position[..., None] * rate
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


class Block(nn.Module):
    """Pre-norm attention and feed-forward layer, split where keys and values of the past come in."""

    size: int
    num_heads: int
    feed_forward_size: int
    dropout: float

    def setup(self):
        heads = (self.num_heads, self.size // self.num_heads)
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(), nn.LayerNorm()
        self.query, self.key, self.value = (nn.DenseGeneral(heads) for _ in range(3))
        self.place = nn.DenseGeneral(heads, use_bias=False)
        self.out = nn.DenseGeneral(self.size, axis=(-2, -1))
        self.up, self.down = nn.Dense(self.feed_forward_size), nn.Dense(self.size)
        self.drop = nn.Dropout(self.dropout)

    def project(self, x: Float[Array, "... M"]) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Query, key and value [..., A, d] of items."""
        x = self.norm_attention(x)
        return self.query(x), self.key(x), self.value(x)

    def located(self, keys: Float[Array, "... S A d"]) -> Float[Array, "... S A d"]:
        """Keys that also say how far back they are; the last is the newest.

        Distances rather than times: a window cut from an episode is then read like the episode itself.
        """
        distance = jnp.arange(keys.shape[-3])[::-1]
        return keys + self.place(sinusoids(distance, self.size))

    def complete(self, x: Float[Array, "... M"], attended: Float[Array, "... A d"], train: bool) -> jax.Array:
        """The items after attention and feed-forward layer, each with its residual."""
        x = x + self.drop(self.out(attended), deterministic=not train)
        hidden = nn.relu(self.up(self.norm_feed_forward(x)))
        return x + self.drop(self.down(hidden), deterministic=not train)


class Transformer(nn.Module):
    """Items [..., C] to features [..., M]: Linear-ReLU, blocks that look back S items each, layer normalisation.

    A feature thus depends on the last L (S - 1) + 1 items.
    """

    size: int = 64
    num_layers: int = 2
    num_heads: int = 4
    feed_forward_size: int = 256
    dropout: float = 0.1

    def setup(self):
        self.embed = nn.Dense(self.size)
        sizes = (self.size, self.num_heads, self.feed_forward_size, self.dropout)
        self.blocks = [Block(*sizes) for _ in range(self.num_layers)]
        self.norm = nn.LayerNorm()

    def __call__(
        self,
        items: Float[Array, "... T C"],
        mask: Bool[Array, "... T S"],
        train: bool = False,
    ) -> tuple[Float[Array, "... T M"], list[Float[Array, "... T A S"]]]:
        """Features of whole sequences, and every block's attention weights.

        Each item looks at the last S, itself the last of them, where `mask` allows.
        """
        length, size = mask.shape[-2:]
        past = jnp.maximum(jnp.arange(length)[:, None] + jnp.arange(size) - (size - 1), 0)
        x, maps = nn.relu(self.embed(items)), []
        for block in self.blocks:
            query, key, value = block.project(x)
            located = block.located(key[..., past, :, :])
            attended, weights = attend(query[..., None, :, :], located, value[..., past, :, :], mask[..., None, :])
            x = block.complete(x, attended[..., 0, :, :], train)
            maps.append(weights[..., 0, :])
        return self.norm(x), maps

    def step(
        self,
        keys: Float[Array, "n L S A d"],
        values: Float[Array, "n L S A d"],
        mask: Bool[Array, "n S"],
        item: Float[Array, "n C"],
    ) -> tuple[Float[Array, "n L S A d"], Float[Array, "n L S A d"], Float[Array, "n L A S"], Float[Array, "n M"]]:
        """One more item: keys and values of the last S items of each of L blocks, newest last, its weights and feature.

        `mask` says which of these S places the new item, itself in the last, may look at.
        """
        x, maps = nn.relu(self.embed(item)), []
        for layer, block in enumerate(self.blocks):
            query, key, value = block.project(x)
            keys = keys.at[:, layer].set(jnp.concatenate([keys[:, layer, 1:], key[:, None]], 1))
            values = values.at[:, layer].set(jnp.concatenate([values[:, layer, 1:], value[:, None]], 1))
            attended, weights = attend(query[:, None], block.located(keys[:, layer]), values[:, layer], mask[:, None])
            x = block.complete(x, attended[:, 0], False)
            maps.append(weights[:, :, 0])
        return keys, values, jnp.stack(maps, 1), self.norm(x)
