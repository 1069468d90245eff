"""Publish comparisons, and write what docs/timrl.md says of them.

    python -m benchmarks.comparisons runs/comparisons/timrl_labels runs/comparisons/algorithms_cheetah_dir_nonstat

Copies each folder's comparison.json to `benchmarks/results/<folder>.json`, its figure to `docs/figures/<folder>.png`,
and rewrites the tables. Without folders it rewrites the tables alone.
"""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.provenance import provenance
from benchmarks.readme import RESULTS, ROOT, table

DOCS = ROOT / "docs" / "timrl.md"
BLOCK = re.compile(
    r"(<!-- result: (\w+), written by benchmarks/comparisons.py -->\n).*?(<!-- end of result -->\n)", re.S
)
ALGORITHMS = ("moss", "timrl", "cemrl", "pearl")
"""Rows that a comparison of algorithms keeps, whether there is a result or not."""
AFTER = (1, 3, 5, 10)
"""Steps since a change at which the attention's share is told."""
NOTHING = "No result yet.\n"


@dataclasses.dataclass(frozen=True)
class Config:
    """What to publish."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of finished comparisons."""


def publish(folder: Path) -> None:
    """Copy the numbers and the figure of a comparison."""
    try:
        content = json.loads((folder / "comparison.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise SystemExit(f"error: {folder} holds no finished comparison (no readable comparison.json)") from error
    machine = {k: v for k, v in provenance("benchmarks.comparisons").items() if k in ("cpu", "cores", "device")}
    (RESULTS / f"{folder.name}.json").write_text(json.dumps(content | {"machine": machine}, indent=1) + "\n")
    figures = DOCS.parent / "figures"
    figures.mkdir(exist_ok=True)
    shutil.copy(folder / "comparison.png", figures / f"{folder.name}.png")


def interval(over: dict[str, float] | None, digits: int) -> str:
    """Interquartile mean and its interval."""
    if over is None:
        return "-"
    return f"{over['iqm']:.{digits}f} [{over['low']:.{digits}f}, {over['high']:.{digits}f}]"


def answer(name: str, content: dict[str, Any]) -> str:
    """A comparison in Markdown."""
    found = content["summary"]
    names = list(dict.fromkeys((*found, *(ALGORITHMS if name.startswith("algorithms_") else ()))))
    empty = {"test_return": None, "matched_accuracy": None}
    over = [found.get(arm, empty) for arm in names]
    rows = [
        [arm, interval(x["test_return"], 1), interval(x["matched_accuracy"], 3)]
        for arm, x in zip(names, over, strict=True)
    ]
    seeds = ", ".join(map(str, content["seeds"]))
    head = (
        f"`{content['env']}`, {content['minutes']:g} min per run, seeds {seeds}: interquartile mean over seeds and its"
    )
    head += f" 95 % bootstrap interval, from `benchmarks/results/{name}.json`.\n\n"
    image = f"\n![{content['title']}](figures/{name}.png)\n"
    return head + table(["", "return", "recognised, best matching"], rows) + image


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
    """What is known of a result."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return NOTHING
    content = json.loads(path.read_text())
    return attention(content) if "runs" in content else answer(name, content)


def rewritten(text: str) -> str:
    """`text` with everything between its markers replaced."""
    return BLOCK.sub(lambda match: match[1] + block(match[2]) + match[3], text)


def main(config: Config) -> None:
    """Publish, then rewrite."""
    for folder in config.folders:
        publish(folder)
    DOCS.write_text(rewritten(DOCS.read_text()))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
