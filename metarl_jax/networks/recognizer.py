"""A transformer with one output per class."""

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Float

from metarl_jax.networks.transformer import Transformer


class Recognizer(nn.Module):
    """Context items to class logits, from the newest item's feature (TIMRL, Fig. 2)."""

    num_classes: int
    size: int
    num_layers: int
    num_heads: int
    feed_forward_size: int
    dropout: float

    def setup(self):
        self.transformer = Transformer(self.size, self.num_layers, self.num_heads, self.feed_forward_size, self.dropout)
        self.head = nn.Dense(self.num_classes)

    def __call__(
        self,
        items: Float[Array, "... T C"],
        mask: Bool[Array, "... T S"],
        train: bool = False,
    ) -> tuple[Float[Array, "... T K"], list[jax.Array]]:
        """Logits at every item of a sequence, and the attention weights of every layer."""
        features, maps = self.transformer(items, mask, train)
        return self.head(features), maps

    def step(
        self,
        keys: jax.Array,
        values: jax.Array,
        mask: Bool[Array, "n S"],
        item: Float[Array, "n C"],
    ) -> tuple[jax.Array, jax.Array, Float[Array, "n L A S"], Float[Array, "n K"]]:
        """See `Transformer.step`; logits in place of the feature."""
        keys, values, weights, feature = self.transformer.step(keys, values, mask, item)
        return keys, values, weights, self.head(feature)
