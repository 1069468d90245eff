"""The optimiser that every learner uses."""

import optax


def adam(
    learning_rate: float, max_grad_norm: float | None = None, momentum: float = 0.9, halved_after: float | None = None
) -> optax.GradientTransformation:
    """Adam, behind clipping of the gradient's global norm if that is given; `momentum` is its beta 1.

    With `halved_after` its step size falls as `learning_rate / (1 + updates / halved_after)` (Robbins and Monro, 1951),
    which needs no known end.
    """
    rate = learning_rate if halved_after is None else lambda updates: learning_rate / (1.0 + updates / halved_after)
    plain = optax.adam(rate, b1=momentum)
    return plain if max_grad_norm is None else optax.chain(optax.clip_by_global_norm(max_grad_norm), plain)
