"""The optimiser that every learner uses."""

import optax


def adam(
    learning_rate: float, max_grad_norm: float | None = None, momentum: float = 0.9, held_for: float | None = None
) -> optax.GradientTransformation:
    """Adam, behind clipping of the gradient's global norm if that is given; `momentum` is its beta 1.

    With `held_for` its step size stays for so many updates, and then halves with every half of them more, down to a
    tenth: what noise hides comes out, and learning goes on.
    """
    rate: float | optax.Schedule = learning_rate
    if held_for is not None:
        rate = optax.exponential_decay(learning_rate, held_for / 2.0, 0.5, held_for, end_value=learning_rate / 10.0)
    plain = optax.adam(rate, b1=momentum)
    return plain if max_grad_norm is None else optax.chain(optax.clip_by_global_norm(max_grad_norm), plain)
