"""What finished runs of experiments.er_trl have learnt: python -m experiments.er_trl_analyses --runs DIR DIR ...

| analysis | question | runs |
|---|---|---|
| `representation` | does the embedding tell the task? | any |
| `information` | what does the embedding tell of the behaviour? | any |
| `actions` | are generated actions like those of the data? | one, of er_trl |
| `diversity` | does the gain over FOCAL go with how much behaviour differs? | er_trl and focal on each benchmark |
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, er_trl, er_trl_runs, rundir, setup
from metarl_jax.agents import comrl
from metarl_jax.analysis import actions as action_plots
from metarl_jax.analysis import diversity as diversities
from metarl_jax.analysis import information as informations
from metarl_jax.analysis import representation as representations
from metarl_jax.data import offline
from metarl_jax.data.offline import SPLITS
from metarl_jax.errors import ConfigurationError
from metarl_jax.learners import gan
from metarl_jax.training import compilation
from metarl_jax.training.logging import read_metrics, write_json
from metarl_jax.training.loop import MAX_SEED

PUBLISHED = Path(__file__).with_name("er_trl_rmse.json")
MAP_POINTS = 10
"""Contexts of each task in a map."""
GAIN = "non_prior/moderate"
"""The score whose gain over FOCAL counts: the publication's headline."""


@dataclasses.dataclass(frozen=True)
class Config:
    """An analysis of finished runs, in one figure and one JSON file."""

    analysis: str = "representation"
    """representation, information, actions or diversity."""
    runs: tuple[str, ...] = ()
    """Run directories of experiments.er_trl."""
    contexts: int = 50
    """representation: contexts of each task."""
    splits: tuple[str, ...] = ("train", "moderate")
    """representation: tasks to tell apart; train, moderate and extreme."""
    held_out: str = "contexts"
    """representation: what the error is measured on: other `contexts` of the same tasks, or other `tasks`."""
    samples: int = 500
    """information, actions, diversity: stored transitions of each task."""
    seed: int = 0
    """Of everything that is drawn."""
    out: str = "runs/analyses"
    """Directory of the figure and the JSON file."""


def parameter(env: str, spec: np.ndarray) -> np.ndarray:
    """The numbers [n, p] that a task is told by, in the units of the reference: an angle, a factor, or the spec."""
    if env.endswith("_dir_grid"):
        return np.mod(np.arctan2(spec[:, 1:2], spec[:, :1]), 2 * np.pi)
    if env in ("hopper_mass", "hopper_friction", "walker_mass", "walker_friction"):
        return 1.5**spec
    return spec


def representation(config: Config, image: Path) -> dict[str, Any]:
    """Errors of the task parameter, regressed from embeddings, and maps."""
    if unknown := [name for name in config.splits if name not in SPLITS]:
        raise ConfigurationError(f"--splits: unknown split {unknown[0]!r}: choose {', '.join(SPLITS)}")
    if config.held_out not in ("contexts", "tasks"):
        raise ConfigurationError(f"--held_out must be contexts or tasks, got {config.held_out!r}")
    env = one_benchmark(config.runs)
    errors: dict[str, dict[str, np.ndarray]] = {}
    maps: dict[str, np.ndarray] = {}
    for name, path in er_trl_runs.named(config.runs).items():
        run = er_trl_runs.load(path)
        rows = np.flatnonzero(np.isin(run.data.split, [SPLITS.index(split) for split in config.splits]))
        if len(rows) < 2:
            raise ConfigurationError(f"--splits: the data of {path} has {len(rows)} such tasks, 2 are needed")
        tasks = np.tile(rows, config.contexts)
        latent = np.asarray(er_trl_runs.contexts(run, jax.random.key(config.seed), tasks))
        spec = parameter(env, np.asarray(run.data.task.spec))
        groups = tasks if config.held_out == "tasks" else None
        errors[name] = {
            kind: np.stack([representations.rmse(z, spec[tasks], kind, groups) for z in latent])
            for kind in representations.REGRESSORS
        }
        maps[name] = latent[0, : MAP_POINTS * len(rows)]
    spec = spec[tasks]
    comparable = set(config.splits) == {"train", "moderate"} and config.held_out == "contexts"
    published = json.loads(PUBLISHED.read_text())["rmse"].get(env, {}) if comparable else {}
    representations.draw(image, errors, maps, spec[: len(next(iter(maps.values())))], published)
    varying = spec[:, spec.std(0) > 0]
    constant = float(np.sqrt(varying.var(0).mean()))
    print(f"RMSE of the task parameter (of a constant: {constant:.4f})\n{'':28}{'linear':>18}{'svr':>18}")
    for title, values in (errors | {f"published, {k}": v for k, v in published.items()}).items():
        numbers = (
            v if isinstance(v, list) else [np.mean(v), np.std(v)]
            for v in (values[kind] for kind in representations.REGRESSORS)
        )
        print(f"{title:28}" + "".join(f"{mean:10.4f} ±{std:6.4f}" for mean, std in numbers))
    return {"env": env, "constant": constant, "rmse": errors, "published": published}


def information(config: Config, image: Path) -> dict[str, Any]:
    """Mutual information of embeddings and behaviour."""
    env = one_benchmark(config.runs)
    estimate = jax.jit(informations.estimate)
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, path in er_trl_runs.named(config.runs).items():
        run = er_trl_runs.load(path)
        tasks = np.repeat(run.rows, config.samples)
        keys = jax.random.split(jax.random.key(config.seed), 3)
        behaviour = offline.sample(run.data, keys[0], jnp.asarray(tasks), 1)
        action = behaviour.action[:, 0]
        visit = jnp.concatenate([behaviour.obs[:, 0], action], -1)
        latent = er_trl_runs.contexts(run, keys[1], tasks)
        pairs = {
            "I(z; a), z of another context": (latent, action),
            "I(z; s, a), z of another context": (latent, visit),
            "I(z; a), z of the transition": (er_trl_runs.embed(run, behaviour), action),
        }
        found[name] = {
            kind: np.asarray([estimate(z, y, keys[2]) for z in latents]) for kind, (latents, y) in pairs.items()
        }
    spec = jnp.asarray(run.data.task.spec)[tasks]
    limits = {kind: float(estimate(spec, y, keys[2])) for kind, (_, y) in list(pairs.items())[:2]}
    informations.draw(image, found, limits)
    print(f"nats\n{'':28}" + "".join(f"{kind:>34}" for kind in pairs))
    for name, values in found.items():
        print(f"{name:28}" + "".join(f"{np.mean(v):26.3f} ±{np.std(v):6.3f}" for v in values.values()))
    print(f"{'the task itself':28}" + "".join(f"{limit:26.3f}        " for limit in limits.values()))
    return {"env": env, "task": limits, "information": found}


def actions(config: Config, image: Path) -> dict[str, Any]:
    """Generated and real actions in the same states of the training tasks."""
    if len(config.runs) != 1:
        raise ConfigurationError(f"--runs: actions are of one run, got {len(config.runs)}")
    run = er_trl_runs.load(config.runs[0])
    if comrl.METHODS[run.method].term != "entropy":
        raise ConfigurationError(f"--runs: {run.path} is of {run.method}, which has no generator: use one of er_trl")
    keys = jax.random.split(jax.random.key(config.seed), 3)
    stored = offline.sample(run.data, keys[0], jnp.asarray(run.rows), config.samples)
    latent = er_trl_runs.contexts(run, keys[1], run.rows)
    sizes = gan.Spec(run.spec.obs_size, run.spec.action_size, latent.shape[-1])
    obs = comrl.seen_obs(run.config.agent, run.scale, stored.obs)

    def generated(generator: Any, z: jax.Array) -> jax.Array:
        return gan.generate(generator, run.config.agent.gan, sizes, obs, z[:, None], keys[2])

    made = np.asarray(jax.vmap(generated)(run.states.term.generator, latent)).reshape(-1, sizes.action_size)
    real = np.asarray(stored.action).reshape(-1, sizes.action_size)
    shares = [action_plots.histograms(x) for x in (real, made)]
    records = [r for r in read_metrics(run.path / "metrics.jsonl") if r["epoch"] <= run.epoch]
    if not records:
        raise ConfigurationError(f"--runs: {run.path} has learnt nothing yet: resume it")
    distance = action_plots.total_variation(*shares)
    action_plots.draw(image, shares[0], shares[1], records, f"{run.config.env}, {run.method}")
    accuracy = records[-1]["discriminator_accuracy"]
    print(f"total variation per action: {' '.join(f'{x:.3f}' for x in distance)}; discriminator: {accuracy:.3f}")
    return {
        "env": run.config.env,
        "total_variation": distance,
        "std": {"data": real.std(0), "generated": made.std(0)},
        "discriminator_accuracy": accuracy,
    }


def diversity(config: Config, image: Path) -> dict[str, Any]:
    """Distances of behaviour policies on each benchmark, against what er_trl gains over focal there."""
    scores: dict[str, dict[str, float]] = {}
    matrices: dict[str, np.ndarray] = {}
    sources: dict[str, er_trl_runs.Source] = {}
    for path in config.runs:
        run_config = er_trl_runs.config_of(path)
        if run_config.agent.method in scores.setdefault(run_config.env, {}):
            raise ConfigurationError(
                f"--runs: two of {run_config.agent.method} on {run_config.env}: use --seeds in one run instead"
            )
        scores[run_config.env][run_config.agent.method] = score(path)
        learnt_from = er_trl_runs.learnt_from(path)
        if learnt_from != sources.setdefault(run_config.env, learnt_from):
            raise ConfigurationError(f"--runs: those on {run_config.env} differ in data, quality, tasks or scores")
        if run_config.env not in matrices:
            matrices[run_config.env] = policy_distances(run_config, config)
    if missing := [env for env, found in scores.items() if not {"er_trl", "focal"} <= set(found)]:
        raise ConfigurationError(f"--runs: er_trl and focal are both needed on {missing[0]}")
    gains = {env: found["er_trl"] - found["focal"] for env, found in scores.items()}
    means = {env: diversities.mean_pairwise(matrix) for env, matrix in matrices.items()}
    r = diversities.correlation(np.array(list(means.values())), np.array(list(gains.values())))
    diversities.draw(image, matrices, gains, r)
    print(f"{'':28}{'distance':>10}{'gain':>10}")
    for env, gain in gains.items():
        print(f"{env:28}{means[env]:10.3f}{gain:10.2f}")
    print("Pearson r: " + ("needs three benchmarks" if r is None else f"{r:.3f}"))
    return {"score": GAIN, "distance": means, "gain": gains, "scores": scores, "pearson_r": r}


def policy_distances(run_config: er_trl.Config, config: Config) -> np.ndarray:
    """Of the behaviour policies of a run's training tasks: the best ones, where several checkpoints are stored."""
    env = setup.make_env(run_config)
    data, metadata, _ = er_trl.load(dataclasses.replace(run_config, quality="mixed"), env)
    if len(metadata.checkpoints) > 1:
        data, _ = offline.quality(data, metadata, "expert")
    rows = er_trl.chosen_tasks(run_config, data)
    found = offline.sample(jax.device_put(data), jax.random.key(config.seed), jnp.asarray(rows), config.samples)
    return diversities.distances(np.asarray(found.obs), np.asarray(found.action))


def score(path: str) -> float:
    """Mean over the last evaluations of a run; raises `ConfigurationError` if it has none."""
    try:
        summary = json.loads((Path(path) / "summary.json").read_text())
        if summary["status"] not in ("budget", "completed"):
            raise KeyError(summary["status"])
        return summary["recent_score_by_family"][GAIN]
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise ConfigurationError(f"--runs: {path} has no score of {GAIN} yet: resume it to its end") from error


def one_benchmark(runs: Sequence[str]) -> str:
    """The benchmark that all runs are of; raises `ConfigurationError` if they, or their data, differ."""
    names = sorted({er_trl_runs.config_of(path).env for path in runs})
    if len(names) > 1:
        raise ConfigurationError(f"--runs: all must be of one benchmark, got {' and '.join(names[:2])}")
    if len({rundir.read(path, "--runs").get("data_checksum") for path in runs} - {None}) > 1:
        raise ConfigurationError("--runs: all must have learnt from one file of data")
    return names[0]


ANALYSES: dict[str, Callable[[Config, Path], dict[str, Any]]] = {
    "representation": representation,
    "information": information,
    "actions": actions,
    "diversity": diversity,
}


def analyse(config: Config) -> int:
    """Print a table, write the figure and the JSON file."""
    if config.analysis not in ANALYSES:
        raise ConfigurationError(f"unknown analysis {config.analysis!r}: choose {', '.join(ANALYSES)}")
    if not config.runs:
        raise ConfigurationError("--runs needs at least one run directory of experiments.er_trl")
    for name, low in (("contexts", 1), ("samples", 2), ("seed", 0)):
        if (value := getattr(config, name)) < low:
            raise ConfigurationError(f"--{name} must be at least {low}, got {value}")
    if config.seed > MAX_SEED:
        raise ConfigurationError(f"--seed must be at most {MAX_SEED}, got {config.seed}")
    compilation.configure()
    folder = Path(config.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out: cannot create {folder}: {error.strerror}") from error
    result = ANALYSES[config.analysis](config, folder / f"{config.analysis}.png")
    sources = {path: rundir.read(path, "--runs") for path in config.runs}
    about = {name: next(iter(sources.values()))[name] for name in ("versions", "devices", "machine")}
    about |= {"config": dataclasses.asdict(config), "commits": {path: x["commit"] for path, x in sources.items()}}
    write_json(folder / f"{config.analysis}.json", result | about)
    print("\n".join(str(folder / f"{config.analysis}{suffix}") for suffix in (".json", ".png")))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Analyse as the command line says; returns the exit code."""
    return cli.command(Config, analyse, argv)


if __name__ == "__main__":
    sys.exit(main())
