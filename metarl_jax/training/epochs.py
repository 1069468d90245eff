"""Epochs on the host: the parts are programs of their own, which threads run side by side.

On a CPU XLA runs what is in one program, and what one thread calls, one after another, and products as small as SAC's
keep one core busy: two threads use two. An accelerator has one stream of work, and a CUDA graph that the physics
captures there must not take in what another thread sends, so its parts come one after another.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from jax.stages import Lowered

from metarl_jax.training import compilation
from metarl_jax.types import Epoch, Metrics, TrainState


class Compiled(Epoch):
    """An epoch of compiled functions: the same results, sooner; the state is donated."""

    def __call__(self, state: TrainState, *constants: Any) -> tuple[TrainState, Metrics]:
        """On a CPU as many parts at once as this process has cores: the first, longest one then has one to itself."""

        def bring(part: Callable[..., Any]) -> Any:
            return jax.block_until_ready(part(state, *constants))

        at_once = compilation.num_cpus() if jax.default_backend() == "cpu" else 1
        with ThreadPoolExecutor(at_once) as threads:
            brought = dict(zip(self.parts, threads.map(bring, self.parts.values()), strict=True))
        return self.finish(state, brought)


def lower(epoch: Epoch, state: Any, *constants: Any) -> list[Lowered]:
    """The programs of an epoch of states like `state`: its parts, then what ends it. Each is traced once."""
    parts = {name: jax.jit(part).lower(state, *constants) for name, part in epoch.parts.items()}
    brought = {name: lowered.out_info for name, lowered in parts.items()}
    return [*parts.values(), jax.jit(epoch.finish, donate_argnums=0).lower(state, brought)]


def assemble(epoch: Epoch, programs: Sequence[Callable[..., Any]]) -> Compiled:
    """The epoch of what `lower` gave, compiled."""
    *parts, finish = programs
    return Compiled(dict(zip(epoch.parts, parts, strict=True)), finish)
