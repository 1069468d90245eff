"""The optimiser that every learner uses."""

import optax


def adam(
    learning_rate: float, max_grad_norm: float | None = None, momentum: float = 0.9
) -> optax.GradientTransformation:
    """Adam, behind clipping of the gradient's global norm if that is given; `momentum` is its beta 1."""
    plain = optax.adam(learning_rate, b1=momentum)
    return plain if max_grad_norm is None else optax.chain(optax.clip_by_global_norm(max_grad_norm), plain)
