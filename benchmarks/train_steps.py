"""Updates per second, how near that is to the machine's limit, and where an epoch's time goes.

    python -m benchmarks.train_steps
    python -m benchmarks.train_steps --env=cheetah_vel --sac-sizes "300 300 300 256" "128 128 64"
    python -m benchmarks.train_steps --cores=1

A SAC size is the hidden layers and then the batch. Floating-point operations of SAC are counted by XLA from the
compiled update, those of ER-TRL's train step (16 tasks x 256 transitions, 5 rounds of the GAN, 3 updates of the
divergence's critic) are those of its matrix products; the limit is a product of square float32 matrices. Everything
runs in turns: in each of `repeats` rounds every program runs once; the median of the rounds counts. An epoch's parts
are timed alone, and together as runs have them, in as many threads as there are cores. The limit is that of the cores
in use: products as small as those of SAC's updates run on one, so `--cores=1` tells how well they use it.
"""

import dataclasses
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import envs
from benchmarks.programs import GEMM_FLOPS, Program, Work, gemm, offline_update, ratio, side_by_side
from benchmarks.provenance import provenance
from experiments import cli, er_trl
from experiments import moss as experiment
from metarl_jax.agents import moss
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import sac
from metarl_jax.training import compilation, epochs, trainer


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    env: str = "cheetah_vel"
    """Benchmark whose sizes, and whose epoch, are measured."""
    preset: str = "fast"
    """Settings of the epoch."""
    sac_sizes: tuple[str, ...] = ("64 64 64", "128 128 64", "128 128 256", "256 256 256", "300 300 300 256")
    """SAC updates to measure: hidden layers, then the batch."""
    collector_size: str = "64 64 64"
    """SAC update of one behaviour policy: hidden layers, then the batch."""
    collectors: int = 40
    """Behaviour policies that learn in one program, against one alone."""
    offline_env: str = "cheetah_vel_grid"
    """Benchmark whose sizes ER-TRL's train step has."""
    offline_steps: int = 5
    """Its train steps per program."""
    repeats: int = 5
    """Rounds; the median counts."""
    cores: int | None = None
    """CPU cores that the process is bound to, as one of several runs side by side is; None: all it may use."""
    name: str = ""
    """Added to the file's name, to tell measurements apart."""
    out: Path = Path("benchmarks/results")
    """Folder of the JSON file."""


PARTS = {
    "control": "control: SAC and its beliefs",
    "inference": "inference: VAE",
    "reward_model": "model of rewards",
    "collection": "collection",
    "finish": "insertion in the replay",
}
"""Programs of an epoch, and what the table calls them."""


def layers_and_batch(size: str) -> tuple[tuple[int, ...], int]:
    """The hidden layers and the batch of a text such as `128 128 64`; raises `ConfigurationError` for others."""
    words = size.split()
    if len(words) < 2 or not all(word.isdecimal() and int(word) for word in words):
        raise ConfigurationError(f"a SAC size is hidden layers, then the batch, such as '128 128 64', got {size!r}")
    *hidden, batch_size = map(int, words)
    return tuple(hidden), batch_size


def sac_updates(size: str, spec: sac.Spec, agents: int = 1) -> Work:
    """Jitted SAC updates in a row, of several agents side by side; each agent's count as one."""
    hidden, batch_size = layers_and_batch(size)
    config = sac.Config(hidden, batch_size=batch_size)
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

    def update(state, batch, key):
        return sac.train_step(state, batch, key, config, spec)[0]

    state = sac.init(jax.random.key(0), config, spec)
    flops = float(jax.jit(update).lower(state, batch, jax.random.key(0)).compile().cost_analysis()["flops"])
    num = max(10, int(2e9 / flops / agents))
    keys = jax.random.split(jax.random.key(2), num)
    if agents > 1:
        state, batch = (jax.tree.map(lambda x: jnp.stack([x] * agents), tree) for tree in (state, batch))
        keys, update = jax.random.split(jax.random.key(2), (num, agents)), jax.vmap(update)
    several = jax.jit(lambda s, b, k: jax.lax.scan(lambda s, k: (update(s, b, k), None), s, k)[0])
    many = several.lower(state, batch, keys).compile()
    return Work(lambda: many(state, batch, keys), agents * num * flops, agents * num)


def epoch_parts(env: str, preset: str) -> dict[str, Program]:
    """The programs that an epoch consists of, each alone; the epoch, as runs have it; an evaluation. All compiled."""
    config = experiment.presets_for(preset, env)
    world = experiment.make_env(config)
    whole = trainer.make(world, moss.make(config.agent, world.spec), config.data)
    state = jax.jit(whole.init)(jax.random.key(0))
    # A late epoch: SAC waits no more, and no pretraining.
    one = jnp.ones_like(state.epoch)
    state = state._replace(epoch=one, agent=state.agent._replace(num_epochs=jnp.copy(one)))
    evaluate = jax.jit(whole.evaluate).lower(state, jax.random.key(0))
    *compiled, evaluate = compilation.compile_all([*epochs.lower(whole.epoch, state), evaluate])
    epoch = epochs.assemble(whole.epoch, compiled)
    brought = {name: part(state) for name, part in epoch.parts.items()}
    programs: dict[str, Program] = {name: lambda part=part: part(state) for name, part in epoch.parts.items()}
    programs["finish"] = _repeated(lambda s: epoch.finish(s, brought), jax.tree.map(jnp.copy, state))
    programs["epoch"] = _repeated(epoch, jax.tree.map(jnp.copy, state))
    programs["evaluation"] = lambda: evaluate(state, jax.random.key(1))
    return programs


def _repeated(epoch: Callable[[Any], tuple[Any, Any]], state: Any) -> Program:
    """A program that goes on from its own result, as training does: the state is donated."""
    newest = [state]

    def run() -> Any:
        newest[0], metrics = epoch(newest[0])
        return metrics

    return run


def rate(rounds: list[dict[str, float]], name: str, work: Work) -> dict[str, float]:
    """Updates per second, and the share of the machine's limit."""
    return {
        "updates_per_s": statistics.median(work.num / r[name] for r in rounds),
        "flops_per_update": work.flops / work.num,
        "share_of_limit": statistics.median(work.flops / r[name] * r["limit"] / GEMM_FLOPS for r in rounds),
    }


def table(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Print rates."""
    print(f"{title:36}{'updates/s':>11}{'of the limit':>14}")
    for name, row in rows.items():
        print(f"{name:36}{row['updates_per_s']:11.4g}{row['share_of_limit']:14.2f}")


def shares(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Where the time of an epoch goes, in seconds."""
    names = [name for name in (*PARTS, "epoch", "evaluation") if name in rounds[0]]
    median = {name: statistics.median(r[name] for r in rounds) for name in names}
    alone = {PARTS[name]: median[name] for name in names if name in PARTS}
    return alone | {
        "these one after another": sum(alone.values()),
        "whole epoch, parts side by side": median["epoch"],
        "one evaluation": median["evaluation"],
    }


def bind(cores: int) -> None:
    """Bind this process to its first CPU cores, before JAX counts them."""
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigurationError("--cores: this system cannot bind a process to CPU cores: leave the flag out")
    usable = sorted(os.sched_getaffinity(0))
    if not 1 <= cores <= len(usable):
        raise ConfigurationError(f"--cores must be in [1, {len(usable)}] on this machine, got {cores}")
    os.sched_setaffinity(0, usable[:cores])


def main(config: Config) -> None:
    """Measure, print tables, write JSON."""
    counts = {"collectors": config.collectors, "offline_steps": config.offline_steps, "repeats": config.repeats}
    cli.check_counts(**counts)
    for size in (*config.sac_sizes, config.collector_size):
        layers_and_batch(size)
    if config.cores is not None:
        bind(config.cores)
    compilation.configure()
    info = provenance("benchmarks.train_steps")
    print(f"{info['cpu']} x {info['cores']}, {info['device']}, load {info['load_average']}")
    spec = envs.make(config.env).spec
    own = sac.Spec(spec.obs_size, spec.action_size, 10)
    learners = {size: sac_updates(size, own) for size in config.sac_sizes}
    collectors = {
        "one collector": sac_updates(config.collector_size, own._replace(belief_size=0)),
        f"{config.collectors} collectors": sac_updates(
            config.collector_size, own._replace(belief_size=0), config.collectors
        ),
    }
    agent = er_trl.presets_for("reference", config.offline_env).agent
    offline = {"ER-TRL": offline_update(agent, envs.make(config.offline_env).spec, config.offline_steps).work}
    works = learners | collectors | offline
    programs = {"limit": gemm().run} | {name: work.run for name, work in works.items()}
    rounds = side_by_side(programs | epoch_parts(config.env, config.preset), config.repeats)

    limit = statistics.median(GEMM_FLOPS / r["limit"] for r in rounds)
    rates = {name: rate(rounds, name, work) for name, work in works.items()}
    print(f"matrix product: {limit / 1e9:.1f} GFLOP/s")
    table("SAC hidden, batch", {name: rates[name] for name in learners})
    table(f"SAC {config.collector_size}, without a belief", {name: rates[name] for name in collectors})
    one, many = collectors
    per_update = ratio(rounds, many, one) * collectors[one].num / collectors[many].num
    print(f"an update of one of {config.collectors} takes {per_update:.2f} of the time of one alone")
    table(f"train steps on {config.offline_env}", {name: rates[name] for name in offline})
    epoch = shares(rounds)
    print(f"{config.env + ', preset ' + config.preset:36}{'ms':>11}{'share':>14}")
    for name, value in epoch.items():
        print(f"{name:36}{1e3 * value:11.0f}{value / epoch['these one after another']:14.2f}")
    config.out.mkdir(parents=True, exist_ok=True)
    used = (f"_cores_{config.cores}" if config.cores else "") + (f"_{config.name}" if config.name else "")
    path = config.out / f"train_steps_{jax.default_backend()}{used}.json"
    content = {"machine": info, "cores_used": config.cores, "limit_flops_per_s": limit}
    content["sac"] = [{"size": size} | rates[size] for size in learners]
    content["collectors"] = {"size": config.collector_size, "time_per_update": per_update}
    content["collectors"] |= {name: rates[name] for name in collectors}
    content["offline"] = {"env": config.offline_env} | {name: rates[name] for name in offline}
    content["epoch"] = {"env": config.env, "preset": config.preset, "seconds": epoch}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(cli.command(Config, main))
