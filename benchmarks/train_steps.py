"""SAC updates per second, how near that is to the machine's limit, and where an epoch's time goes.

    python -m benchmarks.train_steps
    python -m benchmarks.train_steps --env=cheetah_vel --sac-sizes "300 300 300 256" "128 128 64"

A SAC size is the hidden layers and then the batch. Floating-point operations are counted by XLA from the compiled
update; the limit is a product of square float32 matrices. Everything runs side by side: in each of `repeats` rounds
every program runs once; the median of the rounds counts.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

import envs
from benchmarks.provenance import provenance
from experiments import moss as experiment
from metarl_jax.agents import moss
from metarl_jax.learners import sac
from metarl_jax.training import compilation, trainer

GEMM_SIZE = 2048
"""Rows and columns of the matrices whose product is the machine's limit."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    env: str = "cheetah_vel"
    """Benchmark whose sizes, and whose epoch, are measured."""
    preset: str = "fast"
    """Settings of the epoch."""
    sac_sizes: tuple[str, ...] = ("64 64 64", "128 128 64", "128 128 256", "256 256 256", "300 300 300 256")
    """SAC updates to measure: hidden layers, then the batch."""
    repeats: int = 5
    """Rounds; the median counts."""
    out: Path = Path("benchmarks/results")
    """Folder of the JSON file."""


VARIANTS: dict[str, dict[str, int]] = {
    "epoch": {},
    "epoch without SAC updates": {"sac_updates": 0},
    "epoch without updates": {"sac_updates": 0, "vae_updates": 0, "pretrain_updates": 0},
}
"""Epochs that are timed: changes to the agent's configuration."""

Program = Callable[[], Any]


def gemm() -> tuple[Program, float]:
    """A matrix product, and its floating-point operations."""
    x = jax.random.normal(jax.random.key(0), (GEMM_SIZE, GEMM_SIZE))
    product = jax.jit(lambda a: a @ a)
    return lambda: product(x), 2.0 * GEMM_SIZE**3


def sac_updates(size: str, spec: sac.Spec) -> tuple[Program, float, int]:
    """Jitted SAC updates in a row, the operations of all of them, and how many they are."""
    *hidden, batch_size = map(int, size.split())
    config = sac.Config(tuple(hidden), batch_size=batch_size)
    state = sac.init(jax.random.key(0), config, spec)
    keys = jax.random.split(jax.random.key(1), 6)
    batch = sac.Batch(
        obs=jax.random.normal(keys[0], (batch_size, spec.obs_size)),
        belief=jax.random.normal(keys[1], (batch_size, spec.belief_size)),
        action=jnp.tanh(jax.random.normal(keys[2], (batch_size, spec.action_size))),
        reward=jax.random.normal(keys[3], (batch_size,)),
        next_obs=jax.random.normal(keys[4], (batch_size, spec.obs_size)),
        next_belief=jax.random.normal(keys[5], (batch_size, spec.belief_size)),
        terminated=jnp.zeros(batch_size, bool),
        weight=jnp.ones(batch_size),
    )

    def update(state, key):
        return sac.train_step(state, batch, key, config, spec)[0]

    analysis = jax.jit(update).lower(state, jax.random.key(0)).compile().cost_analysis()
    flops = float(analysis["flops"])
    num = max(10, int(2e9 / flops))
    keys = jax.random.split(jax.random.key(2), num)
    many = jax.jit(lambda s, k: jax.lax.scan(lambda s, k: (update(s, k), None), s, k)[0]).lower(state, keys).compile()
    return lambda: many(state, keys), num * flops, num


def epoch_parts(env: str, preset: str) -> dict[str, Program]:
    """The programs that an epoch consists of, with and without each kind of update, compiled; and an evaluation."""
    config = experiment.presets_for(preset, env)
    world = experiment.make_env(config)
    state = None
    programs: dict[str, Program] = {}
    for name, changes in VARIANTS.items():
        agent = moss.make(dataclasses.replace(config.agent, **changes), world.spec)
        whole = trainer.make(world, agent, config.data)
        if state is None:
            state = jax.jit(whole.init)(jax.random.key(0))
            # A late epoch: no pretraining.
            state = state._replace(agent=state.agent._replace(num_epochs=jnp.ones_like(state.agent.num_epochs)))
            evaluate = jax.jit(whole.evaluate).lower(state, jax.random.key(0)).compile()
            programs["evaluation"] = lambda e=evaluate, s=state: e(s, jax.random.key(1))
        epoch = jax.jit(whole.epoch, donate_argnums=0).lower(state).compile()
        programs[name] = _repeated(epoch, jax.tree.map(jnp.copy, state))
    return programs


def _repeated(epoch: Callable[[Any], tuple[Any, Any]], state: Any) -> Program:
    """A program that goes on from its own result, as training does: the state is donated."""
    newest = [state]

    def run() -> Any:
        newest[0], metrics = epoch(newest[0])
        return metrics

    return run


def seconds(run: Program) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def main(config: Config) -> None:
    """Measure, print two tables, write JSON."""
    compilation.configure()
    info = provenance("benchmarks.train_steps")
    print(f"{info['cpu']} x {info['cores']}, {info['device']}, load {info['load_average']}")
    spec = envs.make(config.env).spec
    own = sac.Spec(spec.obs_size, spec.action_size, 10)
    limit, limit_flops = gemm()
    updates = {size: sac_updates(size, own) for size in config.sac_sizes}
    parts = epoch_parts(config.env, config.preset)
    programs = {"limit": limit} | {size: run for size, (run, _, _) in updates.items()} | parts
    for run in programs.values():
        jax.block_until_ready(run())
    rounds = [{name: seconds(run) for name, run in programs.items()} for _ in range(config.repeats)]

    def median(values: Iterable[float]) -> float:
        return statistics.median(values)

    rate = median(limit_flops / r["limit"] for r in rounds)
    print(f"matrix product: {rate / 1e9:.1f} GFLOP/s\n{'SAC hidden, batch':20}{'updates/s':>11}{'of the limit':>14}")
    sac_rows = []
    for size, (_, flops, num) in updates.items():
        one = {
            "size": size,
            "updates_per_s": median(num / r[size] for r in rounds),
            "flops_per_update": flops / num,
            "share_of_limit": median(flops / r[size] * r["limit"] / limit_flops for r in rounds),
        }
        sac_rows.append(one)
        print(f"{size:20}{one['updates_per_s']:11.0f}{one['share_of_limit']:14.2f}")
    whole, without_sac, without = (median(r[name] for r in rounds) for name in VARIANTS)
    epoch = {
        "collection and replay": without,
        "VAE updates": without_sac - without,
        "SAC updates and their beliefs": whole - without_sac,
        "whole epoch": whole,
        "one evaluation": median(r["evaluation"] for r in rounds),
    }
    print(f"\n{config.env}, preset {config.preset}: {'':14}{'ms':>9}{'share':>8}")
    for name, value in epoch.items():
        print(f"{name:36}{1e3 * value:9.0f}{value / whole:8.2f}")
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / f"train_steps_{jax.default_backend()}.json"
    content = {"machine": info, "limit_flops_per_s": rate, "sac": sac_rows}
    content["epoch"] = {"env": config.env, "preset": config.preset, "seconds": epoch}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
