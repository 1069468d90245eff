"""Multilayer perceptrons."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax


class MLP(nn.Module):
    """Dense layers with ReLU between them: [..., in] -> [..., sizes[-1]]."""

    sizes: Sequence[int]
    activate_final: bool = False
    layer_norm: bool = False
    """Normalise before each hidden activation."""
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, size in enumerate(self.sizes):
            x = nn.Dense(size)(x)
            if i < len(self.sizes) - 1 or self.activate_final:
                x = self.activation(nn.LayerNorm()(x) if self.layer_norm else x)
        return x
