"""Figures of the stored results, in docs/figures: learning curves from their JSON, and what runs drew of themselves."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import references
from metarl_jax.analysis import curves, recognition

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "docs" / "figures"

DETAILS = {
    "latents": "What the first seed believes on held-out tasks",
    "response": "The first seed's reward around a change of task",
    "attention": "Which transitions inform the first seed's class",
}
"""Images that a run leaves in its directory, and what they show."""
ORACLE = "_oracle"
"""Ends the names of results of policies that are told their task: lines in the figures of those that are not."""
COLOURS = 128
"""Of a copied image: a third of the bytes."""


def oracle(result: Path, variant: str = "") -> dict[str, float]:
    """What the oracle reached on the benchmark of a result file, by name and env steps; nothing where there is none.

    A `variant` (see `publish`) that has none of its own has that of the settings it varies.
    """
    stems = (result.stem, result.stem.removesuffix("".join(f"_{word}" for word in variant.split())))
    paths = [path for path in (result.with_stem(stem + ORACLE) for stem in stems) if path.exists()]
    runs = json.loads(paths[0].read_text())["runs"] if paths else []
    members = [member for run in runs for member in curves.curves(run["curve"])]
    return {f"oracle, {members[0].env_steps[-1] / 1e6:.1f} M steps": curves.reached(members)} if members else {}


def draw(result: Path, folder: Path = FIGURES) -> Path:
    """Draw the learning curves of a result file (see `publish`): a third of a page, or more with a legend."""
    content = json.loads(result.read_text())
    groups: dict[str, list[curves.Curve]] = {}
    for run in content["runs"]:
        settings = run["config"]["config"]
        env, method = settings["env"], settings["agent"].get("method", run["config"]["algorithm"])
        options = settings.get("env_options", ())
        name = ", ".join([method, env, *options, *filter(None, [content.get("name")])])
        groups.setdefault(name, []).extend(curves.curves(run["curve"]))
    known = () if options else references.levels(env)  # which are of the benchmark as it is
    levels = {reference.name: reference.returns for reference in known} | oracle(result, content.get("name", ""))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.stem}.png"
    curves.draw_groups(path, groups, levels, against=("minutes",), width=3.4 if len(groups) == 1 else 6.8, height=2.7)
    return path


def draw_recognition(result: Path, folder: Path = FIGURES) -> list[Path]:
    """Draw how often the runs of a result file recognise a class; nothing where there are none."""
    runs = json.loads(result.read_text())["runs"]
    if not all("recognition" in run["summary"] for run in runs):
        return []
    epochs = [[(point["epoch"], point["recognition_accuracy"]) for point in run["curve"]] for run in runs]
    steps = [
        [(step, right) for step, right in zip(found["steps"], found["accuracy"], strict=True) if right is not None]
        for found in (run["summary"]["recognition"] for run in runs)
    ]
    lines = ([tuple(np.transpose(member)) for member in members] for members in (epochs, steps))
    path = folder / f"{result.stem}_recognition.png"
    recognition.draw_seeds(path, f"recognised, {runs[0]['config']['config']['env']}", *lines)
    return [path]


def copy(image: Path, path: Path) -> Path:
    """Copy an image to `path`, in `COLOURS` colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(image) as picture:
        picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)
    return path


def keep(run: Path, result: str, folder: Path = FIGURES) -> list[Path]:
    """Copy those of `DETAILS` that a run has, under the name of its result file."""
    found = [run / f"{name}.png" for name in DETAILS]
    return [copy(image, folder / f"{result}_{image.name}") for image in found if image.exists()]


def gallery(results: Sequence[str]) -> str:
    """Learning curves of results beside each other, and links to what else is drawn of them, as far as there is any."""

    def there(suffix: str) -> dict[str, Path]:
        paths = {result: FIGURES / f"{result}{suffix}.png" for result in results}
        return {result: path.relative_to(FIGURES.parent) for result, path in paths.items() if path.exists()}

    images = [f'<img src="{path}" width="32%" alt="Learning curves, {name}">' for name, path in there("").items()]
    images += [
        f'<img src="{path}" width="49%" alt="Recognition, {name}">' for name, path in there("_recognition").items()
    ]
    parts = ["\n".join(("<p>", *images, "</p>"))] if images else []
    for name, told in DETAILS.items():
        if links := [f"[`{result}`]({path})" for result, path in there(f"_{name}").items()]:
            parts.append(f"{told}: {', '.join(links)}.")
    return "".join(f"\n{part}\n" for part in parts)
