"""Write the tables of README and docs/results.md from the JSON files, and draw them: python -m benchmarks.readme."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import figures
from benchmarks.adaptation import ratio_to_long_after
from benchmarks.callback import STAGES
from benchmarks.figures import ROOT
from benchmarks.physics import BENCHMARKS as BODIES
from benchmarks.references import REFERENCES, levels
from benchmarks.time_to_return import ROWS, crossing
from experiments import cli
from metarl_jax.training.offline import CONTEXTS
from metarl_jax.training.report import recent_scores

RESULTS = ROOT / "benchmarks" / "results"


def is_row(path: Path) -> bool:
    """Whether a result has a row of its own: oracles are lines in figures, and some evaluations have more episodes."""
    data = json.loads(path.read_text())["runs"][0]["config"]["config"]["data"]
    return not path.stem.endswith(figures.ORACLE) and data.get("eval_episodes", 1) == 1


LEARNING = [path.stem for env in REFERENCES for path in sorted(RESULTS.glob(f"moss_{env}_fast*.json")) if is_row(path)]
"""Results of the preset, each with its variants."""
ADAPTATION = sorted(path.stem for path in RESULTS.glob("adaptation_*.json"))
RECOGNITION = sorted(path.stem for path in RESULTS.glob("timrl_*_fast.json"))
"""Results that are told by return and by recognition, with figures."""
ON_E = (
    *("cheetah_vel_nonstat", "cheetah_dir_nonstat", "point_robot", "sparse_point_robot", "cheetah_eight"),
    *("ant_dir_nonstat", "ant_goal_ood", "ant_multitask", "walker_rand_params", "humanoid_dir"),
    *("cheetah_dir_vel_to_goal", "cheetah_vel_grid", "ant_dir_grid", "ant_goal_grid", "humanoid_dir_grid"),
    *("hopper_mass", "hopper_friction", "walker_mass", "walker_friction"),
)
"""Benchmarks whose runs had one core of machine E."""
MACHINES = {f"moss_{env}_fast": "E" for env in ON_E} | {
    "moss_cheetah_vel_fast": "A, both",
    "moss_cheetah_dir_fast": "B, both",
    "moss_cheetah_vel_ood_fast": "C, both",
    "moss_cheetah_multitask_fast": "D, both",
    "moss_cheetah_multitask_fast_taught": "D, both, shared",
    "moss_cheetah_multitask_fast_found": "E, both, shared",
    "moss_ant_dir_fast": "B",
    "moss_ant_dir_fast, seed 1": "A",
    "moss_ant_goal_fast": "B, both",
    "moss_ant_goal_fast, seed 0": "A",
}
"""What each result, or one seed of it, was run on (see docs/results.md): what says nothing is not known."""
EARLY = 5
"""Epoch by which the publication's recogniser has learnt two classes."""


def read(name: str) -> dict[str, Any]:
    """A result file."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def row(cells: list[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join([row(head), row(["---"] * len(head)), *map(row, rows)]) + "\n"


def reached(env: str, curve: list[dict[str, Any]]) -> str:
    """When each target of the benchmark was reached; see `time_to_return`."""
    found = [(target, crossing(curve, target)) for target in (ROWS[env].targets if env in ROWS else ())]
    return ", ".join(f"{target:g} after {at['seconds']:.0f} s" for target, at in found if at) or "-"


def learning() -> str:
    """Every published run."""
    rows = []
    for result in LEARNING:
        content = read(result)
        variant = f", {content['name']}" if content.get("name") else ""
        for run in content["runs"]:
            config, summary = run["config"]["config"], run["summary"]
            env, seeds = config["env"], config["run"]
            seed = str(seeds["seed"]) if seeds["seeds"] == 1 else f"{seeds['seeds']} vmapped"
            returns = [f"{summary[kind]:.1f}" for kind in ("test_return", "best_test_return")]
            seconds = [f"{summary['seconds']:.0f}", f"{summary['compile_seconds']:.0f}"]
            budget = [f"{summary['env_steps']:,}", *seconds]
            on = MACHINES.get(f"{result}, seed {seeds['seed']}", MACHINES.get(result, "-"))
            rows.append([f"`{env}`{variant}", seed, on, *budget, reached(env, run["curve"]), *returns])
            rows[-1].append("; ".join(map(str, levels(env))))
    head = ["benchmark", "seed", "machine", "env steps", "training seconds", "compilation", "reached"]
    head += ["final", "best", "reference level"]
    return table(head, rows) + figures.gallery(LEARNING)


def headline() -> str:
    """The highest target that each benchmark's seeds reached, and after how many minutes: of the preset as it is."""
    rows = []
    for env in REFERENCES:
        if env not in ROWS or not (RESULTS / f"moss_{env}_fast.json").exists():
            continue
        runs = read(f"moss_{env}_fast")["runs"]
        found = {target: [crossing(run["curve"], target) for run in runs] for target in ROWS[env].targets}
        reached_by_all = [(t, [at["seconds"] for at in each if at]) for t, each in found.items() if all(each)]
        if not reached_by_all:
            continue
        target, seconds = max(reached_by_all)
        idle, *others = levels(env)
        minutes = ", ".join(f"{at / 60:.0f}" for at in seconds)
        rows.append([f"`{env}`", f"{idle.returns[0]:g}", f"{target:g}", minutes, "; ".join(map(str, others))])
    return table(["benchmark", "idling returns", "reached", "after minutes, each seed", "elsewhere"], rows)


def adaptation() -> str:
    """Rewards per step in the two conditions of every measurement."""
    rows = []
    for measured in map(read, ADAPTATION):
        about = measured["runs"][0]["config"]
        belief = "the task itself" if about["agent"]["belief"] == "oracle" else "inferred"
        values = [
            f"{name}: {found['mean']:.2f}" + (f" ± {found['std']:.2f}" if len(found["per_run"]) > 1 else "")
            for name, found in list(measured["rows"].items())[:2]
        ]
        also = measured.get("ratio_actions_free")
        if "response" in measured:
            also = ratio_to_long_after([measured["response"]], measured["settle"], measured["span"])
        minutes = about["run"]["minutes"]
        how = [str(len(measured["runs"])), f"{minutes:g}" if minutes else "-", belief, str(measured["settle"])]
        ratio = f"{measured['ratio']:.2f}" + (f" ({also:.2f})" if also else "")
        rows.append([f"`{measured['env']}`", *how, *values, ratio])
    head = ["benchmark", "seeds", "minutes", "belief", "from step", "reward per step", "reward per step", "ratio"]
    return table(head, rows)


def recognition() -> str:
    """Every published run of TIMRL."""
    rows = []
    for name in RECOGNITION:
        for run in read(name)["runs"]:
            config, summary = run["config"]["config"], run["summary"]
            by_step = summary["recognition"]["accuracy"]
            early = [point["recognition_accuracy"] for point in run["curve"] if point["epoch"] == EARLY]
            accuracies = [f"{x:.3f}" for x in (summary["recognition_accuracy"], by_step[5], by_step[20])]
            accuracies.insert(0, f"{early[0]:.3f}" if early else "-")
            budget = [f"{summary['env_steps']:,}", f"{summary['seconds']:.0f}"]
            rows.append([f"`{config['env']}`", str(config["run"]["seed"]), *budget, *accuracies])
            rows[-1].append(f"{summary['test_return']:.1f}")
    head = ["benchmark", "seed", "env steps", "training seconds"]
    head += [f"recognised at epoch {EARLY}", "at the end", "after 5 steps", "after 20", "return"]
    return table(head, rows) + figures.gallery(RECOGNITION)


PAPER_SCORES = {
    "cheetah_vel_grid": {
        "offline_pearl": ("83.3", "55.4"),
        "focal": ("92.8", "66.9"),
        "csro": ("94.0", "63.7"),
        "unicorn": ("93.5", "62.1"),
        "er_trl": ("96.4", "70.4"),
    },
    "hopper_mass": {
        "offline_pearl": ("-", "73.6"),
        "focal": ("-", "79.1"),
        "csro": ("-", "84.7"),
        "unicorn": ("-", "86.7"),
        "er_trl": ("98.7", "96.6"),
    },
}
"""Scores that the publication of ER-TRL reports, of `PAPER_KINDS`."""
PAPER_KINDS = ("offline/iid", "non_prior/moderate")
SCORES = tuple(f"{context}/{kind}" for context in CONTEXTS for kind in ("iid", "moderate", "extreme"))
"""Columns: context and kind of task."""


def offline_scores(run: dict[str, Any]) -> list[str]:
    """A run's scores in the order of `SCORES`: mean, standard deviation over seeds, and the publication's."""
    config = run["config"]["config"]
    means, seeds = run["summary"]["recent_score_by_family"], recent_scores(run["curve"])
    paper = dict(zip(PAPER_KINDS, PAPER_SCORES.get(config["env"], {}).get(config["agent"]["method"], ()), strict=False))
    return [
        f"{means[name]:.1f}"
        + (f" ± {np.std(seeds[name], ddof=1):.1f}" if len(seeds.get(name, ())) > 1 else "")
        + (f" ({paper[name]})" if paper.get(name, "-") != "-" else "")
        for name in SCORES
    ]


def offline_rl() -> str:
    """Every published run on stored data, in a table for each benchmark and length of training."""
    tables: dict[str, list[list[str]]] = {}
    for path in sorted(RESULTS.glob("er_trl_*_small.json")):
        for run in read(path.stem)["runs"]:
            config = run["config"]["config"]
            steps = run["summary"]["epoch"] * config["agent"]["steps_per_epoch"]
            title = f"`{config['env']}`, {config['run']['seeds']} seeds, {steps:,} train steps:"
            tables.setdefault(title, []).append([f"`{config['agent']['method']}`", *offline_scores(run)])
    return "\n".join(f"{title}\n\n{table(['method', *SCORES], rows)}" for title, rows in tables.items())


def physics() -> str:
    """Steps per second of every engine, on each device that was measured."""
    shown = []
    for device in ("cpu", "gpu"):
        paths = (RESULTS / f"physics_{device}_{body}.json" for body in BODIES)
        if files := [read(path.stem) for path in paths if path.exists()]:
            machine = files[0]["machine"]
            on = f"{machine['cores']} CPU cores" if device == "cpu" else machine["device"]
            shown.append(f"On {on}:\n\n{throughputs([r for file in files for r in file['results']])}")
    return "\n".join(shown)


def throughputs(results: list[dict[str, Any]]) -> str:
    """A line per body, model variant and batch, a column per engine."""
    engines = list(dict.fromkeys(r["engine"] for r in results))
    rows = []
    for key in dict.fromkeys((r["body"], r["variant"], r["batch"]) for r in results):
        found = {r["engine"]: r for r in results if (r["body"], r["variant"], r["batch"]) == key}
        rows.append([*map(str, key), *(throughput(found[e]) if e in found else "-" for e in engines)])
    return table(["body", "models", "batch", *engines], rows)


def throughput(r: dict[str, Any]) -> str:
    """Steps per second, and in brackets the ratio to the bare engine, where measured, and seconds of set-up."""
    notes = [f"{r['ratio_to_bare']:.2g}"] if r["ratio_to_bare"] is not None else []
    notes.append(f"{r['setup_s']:.0f} s")
    if r.get("diverged"):
        notes.append(f"{r['diverged']} diverged")
    return f"{r['env_steps_per_s']:,.0f}" + ("" if r["engine"] == "bare" else f" ({', '.join(notes)})")


def callback() -> str:
    """Milliseconds of a control step on the native engine, by where they go; nothing while they are not measured."""
    path = RESULTS / "callback_cpu.json"
    if not path.exists():
        return ""
    rows = []
    for r in read(path.stem)["results"]:
        *parts, whole = r["milliseconds"].values()
        share = f"{r['milliseconds']['engine'] / whole:.2f}"
        rows.append([r["body"], str(r["batch"]), str(r["threads"]), *(f"{x:.2f}" for x in (*parts, whole)), share])
    return table(["body", "batch", "threads", *STAGES, "engine / stack"], rows)


def fidelity() -> str:
    """Returns of one policy per body on both model variants."""
    rows = []
    for r in read("fidelity")["rows"]:
        difference = f"{r['difference']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
        returns = [f"{r[name]:.1f}" for name in ("fast", "reference")]
        trained = f"{r['trained_env_steps']:,}"
        rows.append([f"`{r['env']}`", trained, str(r["episodes"]), *returns, difference, f"{r['percent']:.2f}"])
    head = ["benchmark", "env steps trained for", "episodes", "fast", "reference", "difference [95 % interval]", "%"]
    return table(head, rows)


PAGES = {
    ROOT / "README.md": (headline,),
    ROOT / "docs" / "results.md": (learning, adaptation, recognition, offline_rl, physics, callback, fidelity),
}
"""What is written into each page."""


def rewritten(page: Path) -> str:
    """The text of a page with what is between its markers replaced."""
    text = page.read_text()
    for make in PAGES[page]:
        name = make.__name__
        begin, end = f"<!-- {name}: written by benchmarks/readme.py -->\n", f"<!-- end of {name} -->\n"
        before, rest = text.split(begin)
        text = before + begin + make() + end + rest.split(end)[1]
    return text


@dataclasses.dataclass(frozen=True)
class Config:
    """Nothing can be chosen."""


def main(config: Config) -> None:
    """Draw, and write."""
    for result in LEARNING + RECOGNITION:
        figures.draw(RESULTS / f"{result}.json")
        figures.draw_recognition(RESULTS / f"{result}.json")
    for page in PAGES:
        page.write_text(rewritten(page))


if __name__ == "__main__":
    sys.exit(cli.command(Config, main))
