"""What doing nothing returns on held-out tasks: the level that learners have to leave behind.

    python -m benchmarks.idle

Zero actions, first episodes, all held-out tasks of the benchmarks of `REFERENCES`.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import envs
from benchmarks.provenance import provenance
from benchmarks.references import IDLE, REFERENCES
from experiments import cli, rundir
from metarl_jax.training import compilation, rollout
from metarl_jax.types import Agent


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    benchmarks: tuple[str, ...] = tuple(REFERENCES)
    """Names of benchmarks; what the file holds of others stays."""
    repeats: int = 5
    """Episodes per task."""
    out: Path = IDLE
    """The JSON file."""


def idle(action_size: int) -> Agent:
    """An agent that does nothing and learns nothing."""
    return Agent(
        init=lambda key: (),
        begin=lambda state, n: jnp.zeros((n, 0)),
        act=lambda state, obs, memory, key, explore: jnp.zeros((obs.shape[0], action_size)),
        observe=lambda state, memory, transition: memory,
        parts={},
        describe=lambda state, memory: {"belief": memory, "component": jnp.ones((memory.shape[0], 1))},
    )


def measure(env: envs.Environment, repeats: int) -> dict[str, float]:
    """Mean return over held-out tasks and repeats, and the standard deviation of the means of the repeats."""
    agent = idle(env.spec.action_size)
    evaluate = jax.jit(lambda key: rollout.evaluate(env, agent, (), key).returns)
    means = jnp.stack([jnp.mean(evaluate(key)) for key in jax.random.split(jax.random.key(0), repeats)])
    return {"mean": float(means.mean()), "std": float(means.std())}


def kept(path: Path, repeats: int) -> dict[str, dict[str, Any]]:
    """The returns that a file holds, each with its commit, if they were measured with as many repeats."""
    content = json.loads(path.read_text()) if path.exists() else {}
    if content.get("repeats") != repeats:
        return {}
    return {name: {"commit": content["machine"]["commit"]} | one for name, one in content["returns"].items()}


def main(config: Config) -> None:
    """Measure, print, write JSON."""
    cli.check_counts(repeats=config.repeats)
    compilation.configure()
    found = kept(config.out, config.repeats)
    for name in config.benchmarks:
        found[name] = measure(envs.make(name), config.repeats) | {"commit": rundir.commit()}
        print(f"{name:22}{found[name]['mean']:9.1f} ± {found[name]['std']:.1f}", flush=True)
    content = {"machine": provenance("benchmarks.idle"), "repeats": config.repeats, "returns": found}
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {config.out}")


if __name__ == "__main__":
    sys.exit(cli.command(Config, main))
