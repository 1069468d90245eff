"""Publish comparisons and analyses, and write what the pages in docs/ say of them.

    python -m benchmarks.comparisons runs/comparisons/timrl_labels runs/analyses/cheetah/representation.json

Copies a comparison's numbers to `benchmarks/results/<folder>.json` and its figure to `docs/figures/<folder>.png`, an
analysis's to `er_trl_<analysis>_<benchmark>`, and rewrites the tables. Without paths it rewrites the tables alone.
"""

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from scipy import stats

from benchmarks import er_trl_tables, figures
from benchmarks.provenance import provenance
from benchmarks.readme import RESULTS, ROOT, table
from experiments import cli, outcomes
from experiments.arms import Budget
from metarl_jax.analysis.curves import LAST
from metarl_jax.analysis.statistics import FEW, seeds_needed
from metarl_jax.errors import ConfigurationError

DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"(<!-- result: (\w+), written by benchmarks/comparisons.py -->\n).*?(<!-- end of result -->\n)", re.S
)
ALGORITHMS = ("moss", "timrl", "cemrl", "pearl")
"""Rows that a comparison of algorithms keeps, whether there is a result or not."""
AFTER = (1, 3, 5, 10)
"""Steps since a change at which the attention's share is told."""
MEASURES = {
    "test_return": "return",
    "reached_return": f"return, mean of the last {LAST} evaluations",
    "matched_accuracy": "recognised, best matching",
    "recognition_accuracy": "recognised, by the label",
    "belief_purity": "clusters of beliefs are sub-tasks (adjusted Rand index)",
}
"""How measures of comparisons are called; others as they are."""
NOTHING = "No result yet.\n"


@dataclasses.dataclass(frozen=True)
class Config:
    """What to publish."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of finished comparisons, and JSON files of analyses."""


def publish(path: Path) -> None:
    """Copy the numbers and the figure of a comparison's folder, or of an analysis's file."""
    file = path if path.suffix == ".json" else path / "comparison.json"
    picture = file.with_suffix(".png")
    try:
        content = json.loads(file.read_text())
        analysis = content.get("config", {}).get("analysis")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} holds no finished comparison or analysis (no readable {file.name})"
        ) from error
    if not picture.exists() or (analysis is None and "arms" not in content):
        raise ConfigurationError(f"{path} is no comparison's folder, nor an analysis's file with its figure beside it")
    name = file.absolute().parent.name
    if analysis:
        name = "_".join(("er_trl", analysis, *([content["env"]] if "env" in content else [])))
    machine = {k: v for k, v in provenance("benchmarks.comparisons").items() if k in ("cpu", "cores", "device")}
    (RESULTS / f"{name}.json").write_text(json.dumps(content | {"machine": machine}, indent=1) + "\n")
    figures.copy(picture, DOCS / "figures" / f"{name}.png")


def told(over: dict[str, float] | None, digits: int, seeds: int) -> str:
    """Mean, standard deviation and range; of `FEW` or more seeds interquartile mean and interval; of one its value."""
    if over is None:
        return "-"
    if seeds == 1:
        return f"{over['mean']:.{digits}f}"
    mean, std, iqm, low, high = (f"{over[name]:.{digits}f}" for name in ("mean", "std", "iqm", "low", "high"))
    return f"{mean} ± {std} [{low}, {high}]" if seeds < FEW else f"{mean} ± {std} ({iqm} [{low}, {high}])"


def answer(name: str, content: dict[str, Any]) -> str:
    """A comparison in Markdown."""
    found = outcomes.summarise(content["arms"], list(next(iter(content["summary"].values()))))
    names = list(dict.fromkeys((*found, *(ALGORITHMS if name.startswith("algorithms_") else ()))))
    measures = [m for m in next(iter(found.values())) if any(one[m] for one in found.values())]
    over = [found.get(arm, dict.fromkeys(measures)) for arm in names]
    digits = [1 if measure.endswith("return") or measure.startswith("score") else 3 for measure in measures]
    count = len(content["seeds"])
    rows = [
        [arm, *(told(x[measure], n, count) for measure, n in zip(measures, digits, strict=True))]
        for arm, x in zip(names, over, strict=True)
    ]
    numbers = ", ".join(map(str, content["seeds"]))
    several = f"{count} seeds drawn from {content['seeds'][0]} in one vmapped program"
    seeds = several if content.get("vmap") else f"seed{'s' * (count > 1)} {numbers}"
    head = f"`{content['env']}`, {Budget.of(content)} per run, {seeds}"
    if count > 1:
        most = "(interquartile mean [its 95 % bootstrap interval])"
        head += f": mean ± standard deviation over seeds {'[lowest, highest]' if count < FEW else most}"
    for arms in content.get("together", ()):
        head += f"; one program trained {', '.join(arms)}"
    head += f", from `benchmarks/results/{name}.json`.\n\n"
    columns = [MEASURES.get(measure, measure) for measure in measures]
    return head + table(["", *columns], rows) + image(name, content["title"])


def seeds_by_result() -> str:
    """How many seeds would tell the first arm of each comparison in docs/timrl.md from the others, by their returns."""
    rows = []
    for path in sorted(path for kind in ("timrl_*", "algorithms_*") for path in RESULTS.glob(f"{kind}.json")):
        content = json.loads(path.read_text())
        arms = content.get("arms")
        if arms is None or min(map(len, arms.values())) < 2:  # published runs, or nothing to tell a deviation from
            continue
        measure = next(iter(next(iter(content["summary"].values()))))
        (first, base), *others = ((arm, np.array([run[measure] for run in runs])) for arm, runs in arms.items())
        for arm, returns in others:
            difference, stds = returns.mean() - base.mean(), (base.std(ddof=1), returns.std(ddof=1))
            p = stats.ttest_ind(base, returns, equal_var=False).pvalue
            cells = [f"{difference:.1f}", " and ".join(f"{std:.1f}" for std in stds), str(len(base)), f"{p:.2f}"]
            rows.append([f"`{path.stem}`", f"{first}, {arm}", *cells, f"{seeds_needed(difference, stds):,.0f}"])
    head = ["result", "arms", "difference of returns", "standard deviations", "seeds", "p (Welch)", "seeds needed"]
    return table(head, rows) if rows else NOTHING


def image(name: str, title: str) -> str:
    """The figure of a result."""
    return f"\n![{title}](figures/{name}.png)\n"


def attention(content: dict[str, Any]) -> str:
    """What published runs of TIMRL say of attention, in Markdown."""
    found = {run["config"]["config"]["run"]["seed"]: run["summary"].get("attention") for run in content["runs"]}
    rows = [
        [
            str(seed),
            *(f"{x['since_change'][i]:.2f} ({x['since_change_uniform'][i]:.2f})" for i in AFTER),
            f"{x['surprise_correlation']:.2f}",
        ]
        for seed, x in found.items()
        if x and None not in (*x["since_change"], x["surprise_correlation"])
    ]
    head = ["seed", *(f"share after {i}" for i in AFTER), "correlation with surprise"]
    return table(head, rows) if rows else NOTHING


def block(name: str) -> str:
    """What is known of a result, or of the `seeds` of all."""
    if name == "seeds":
        return seeds_by_result()
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return NOTHING
    content = json.loads(path.read_text())
    if "runs" in content:
        picture = f"{name}_attention"
        there = (DOCS / "figures" / f"{picture}.png").exists()
        return attention(content) + (image(picture, figures.DETAILS["attention"]) if there else "")
    if "methods" in content:
        return er_trl_tables.overhead(content) + image(name, name)
    if "config" in content:
        return er_trl_tables.ANALYSES[content["config"]["analysis"]](content) + image(name, name)
    return answer(name, content)


def rewritten(text: str) -> str:
    """`text` with everything between its markers replaced."""
    return BLOCK.sub(lambda match: match[1] + block(match[2]) + match[3], text)


def main(config: Config) -> None:
    """Publish, then rewrite."""
    for path in config.paths:
        publish(path)
    for page in sorted(DOCS.glob("*.md")):
        page.write_text(rewritten(page.read_text()))


if __name__ == "__main__":
    sys.exit(cli.command(Config, main))
