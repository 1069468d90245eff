"""A gated recurrent unit whose input projection can be hoisted out of the scan."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class GRU(nn.Module):
    """Gated recurrent unit (Chung et al., 2014), the variant of cuDNN and PyTorch.

    `flax.linen.GRUCell` projects its input inside the step, six small products each; projecting a whole window
    at once and stepping with one product makes training on a CPU about twice as fast.
    """

    hidden_size: int

    def setup(self):
        self.inputs = nn.Dense(3 * self.hidden_size)
        self.recurrent = nn.Dense(3 * self.hidden_size)

    def __call__(self, carry: Float[Array, "... H"], x: Float[Array, "... C"]) -> Float[Array, "... H"]:
        return self.step(carry, self.project(x))

    def project(self, x: Float[Array, "... C"]) -> Float[Array, "... G"]:
        """The inputs' share of the three gates, G = 3 H: independent of the carry."""
        return self.inputs(x)

    def step(self, carry: Float[Array, "... H"], projected: Float[Array, "... G"]) -> Float[Array, "... H"]:
        """h' = (1 - z) n + z h with reset gate r, update gate z and candidate n = tanh(W x + r (U h))."""
        reset_x, update_x, new_x = jnp.split(projected, 3, -1)
        reset_h, update_h, new_h = jnp.split(self.recurrent(carry), 3, -1)
        reset, update = nn.sigmoid(reset_x + reset_h), nn.sigmoid(update_x + update_h)
        return (1.0 - update) * jnp.tanh(new_x + reset * new_h) + update * carry
