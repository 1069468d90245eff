"""What benchmarks of learning time, and how: programs that run side by side, and their matrix products."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metarl_jax.agents import comrl
from metarl_jax.data.offline import OfflineData
from metarl_jax.data.statistics import Scale
from metarl_jax.training.offline import Columns
from metarl_jax.types import EnvSpec

GEMM_SIZE = 2048
"""Rows and columns of the matrices whose product is the machine's limit."""
GEMM_FLOPS = 2.0 * GEMM_SIZE**3
"""Of that product."""

Program = Callable[[], Any]


class Work(NamedTuple):
    """A compiled program of several updates in a row."""

    run: Program
    flops: float
    """Of all of them."""
    num: int
    """Updates."""


def seconds(run: Program) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def side_by_side(programs: Mapping[str, Program], repeats: int) -> list[dict[str, float]]:
    """Seconds of every program in each of `repeats` rounds, after one that does not count."""
    for run in programs.values():
        jax.block_until_ready(run())
    return [{name: seconds(run) for name, run in programs.items()} for _ in range(repeats)]


def ratio(rounds: list[dict[str, float]], name: str, other: str) -> float:
    """Median over rounds of how much longer one program takes than another."""
    return statistics.median(r[name] / r[other] for r in rounds)


def gemm() -> Work:
    """A matrix product: the machine's limit."""
    x = jax.random.normal(jax.random.key(0), (GEMM_SIZE, GEMM_SIZE))
    product = jax.jit(lambda a: a @ a)
    return Work(lambda: product(x), GEMM_FLOPS, 1)


def product_flops(function: Callable[..., Any], *args: Any) -> float:
    """Operations of all matrix products in a function; unlike XLA's count, those of loops as often as they run."""
    return _product_flops(jax.make_jaxpr(function)(*args).jaxpr)


def _product_flops(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += times * sum(_product_flops(inner) for inner in _inner(equation.params.values()))
    return total


def _inner(values: Any) -> Iterator[Any]:
    """The programs within an equation's parameters."""
    for value in values:
        if isinstance(value, tuple | list):
            yield from _inner(value)
        elif hasattr(value, "eqns") or hasattr(value, "jaxpr"):
            yield getattr(value, "jaxpr", value)


class OfflineUpdate(NamedTuple):
    """Train steps of an agent of context-based offline meta-RL in a row, on random data."""

    work: Work
    state_bytes: int
    """Parameters and optimiser states."""
    temporary_bytes: int
    """What the program needs besides its inputs and outputs, as XLA plans it."""


def offline_update(config: comrl.Config, spec: EnvSpec, num_steps: int, num_tasks: int = 20) -> OfflineUpdate:
    """`num_steps` train steps with the sizes of `config`, sampling included."""
    config = dataclasses.replace(config, steps_per_epoch=num_steps)
    data = random_data(spec, num_tasks)
    scale = Scale(Columns(np.zeros(spec.obs_size), np.zeros(())), Columns(np.ones(spec.obs_size), np.ones(())))
    agent = comrl.make(config, spec, scale, np.arange(num_tasks))
    state, key = jax.jit(agent.init)(jax.random.key(0)), jax.random.key(1)
    update = jax.jit(agent.update).lower(state, data, key).compile()
    work = Work(lambda: update(state, data, key), product_flops(agent.update, state, data, key), num_steps)
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    return OfflineUpdate(work, size, int(update.memory_analysis().temp_size_in_bytes))


def random_data(spec: EnvSpec, num_tasks: int, num: int = 2_000) -> OfflineData:
    """Stored transitions without any meaning."""
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (num_tasks, num)
    false = jnp.zeros(shape, bool)
    return OfflineData(
        obs=jax.random.normal(keys[0], (*shape, spec.obs_size)),
        action=jnp.tanh(jax.random.normal(keys[1], (*shape, spec.action_size))),
        reward=jax.random.normal(keys[2], shape),
        next_obs=jax.random.normal(keys[3], (*shape, spec.obs_size)),
        terminated=false,
        last=false,
        count=jnp.full(num_tasks, num),
        checkpoint=jnp.zeros(shape, jnp.int32),
        task=(),
        split=jnp.zeros(num_tasks, jnp.int32),
    )
