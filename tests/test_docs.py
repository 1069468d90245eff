"""What the pages in docs/ show can be run, and their tables are the result files."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from benchmarks import comparisons
from experiments import cli, compare, outcomes, timrl_questions
from metarl_jax.analysis.statistics import bootstrap_interval
from metarl_jax.errors import ConfigurationError

TEXT = (comparisons.DOCS / "timrl.md").read_text()
COMMANDS = re.findall(r"python -m experiments\.(timrl_questions|compare) (--.*)\n", TEXT)
MODULES = {"timrl_questions": timrl_questions, "compare": compare}


def test_every_question_has_its_command():
    configs = [cli.parse(MODULES[module].Config, flags.split()) for module, flags in COMMANDS]
    asked = {config.question for config in configs if isinstance(config, timrl_questions.Config)}
    assert asked == set(timrl_questions.QUESTIONS)
    assert all(len(config.seeds) >= 3 for config in configs)
    results = {name for _, name, _ in comparisons.BLOCK.findall(TEXT)}
    assert {f"timrl_{name}" for name in asked} < results


@pytest.mark.parametrize("page", ["moss.md", "timrl.md", "er_trl.md"])
def test_tables_are_the_files(page):
    text = (comparisons.DOCS / page).read_text()
    assert comparisons.BLOCK.search(text)
    assert comparisons.rewritten(text) == text, "run python -m benchmarks.comparisons"
    figures = re.findall(r"!\[.*\]\((.*)\)", text)
    assert all((comparisons.DOCS / figure).stat().st_size < 120_000 for figure in figures)


def test_from_four_seeds_on_it_is_their_interquartile_mean_and_its_interval():
    over = outcomes.spread([0.0, 1.0, 2.0, 9.0])
    low, high = bootstrap_interval(np.array([0.0, 1.0, 2.0, 9.0]))
    assert comparisons.told(over, 1, 4) == f"3.0 ± 4.1 (1.5 [{low:.1f}, {high:.1f}])"
    assert comparisons.told(None, 1, 4) == "-" and comparisons.told(over, 1, 1) == "3.0"


def test_a_published_comparison_is_told(tmp_path, monkeypatch):
    folder = tmp_path / "algorithms_toy"
    folder.mkdir()
    moss, timrl = ([{"test_return": x, "matched_accuracy": None} for x in returns] for returns in ((1, 2), (1, 5)))
    arms = {"moss": [x | {"recognition_accuracy": None} for x in moss]}
    arms["timrl"] = [x | {"recognition_accuracy": y} for x, y in zip(timrl, (0.25, 0.75), strict=True)]
    content = {"title": "Who", "env": "toy", "epochs": 1500, "seeds": [0, 1], "arms": arms}
    content["summary"] = {"moss": dict.fromkeys(("test_return", "matched_accuracy", "recognition_accuracy"))}
    (folder / "comparison.json").write_text(json.dumps(content))
    Image.new("RGB", (8, 8)).save(folder / "comparison.png")
    block = "<!-- result: {}, written by benchmarks/comparisons.py -->\nold\n<!-- end of result -->\n"
    (tmp_path / "timrl.md").write_text(block.format("algorithms_toy") + block.format("seeds"))
    monkeypatch.setattr(comparisons, "RESULTS", tmp_path)
    monkeypatch.setattr(comparisons, "DOCS", tmp_path)
    comparisons.main(comparisons.Config())
    assert (tmp_path / "timrl.md").read_text().count("No result yet.\n") == 2
    comparisons.main(comparisons.Config((folder,)))
    told = (tmp_path / "timrl.md").read_text()
    assert "|  | return | recognised, by the label |" in told  # a column without values is left out
    assert "| moss | 1.5 ± 0.7 [1.0, 2.0] | - |" in told and "| pearl | - | - |" in told
    assert "`toy`, 1,500 epochs per run, seeds 0, 1: " in told
    assert "| timrl | 3.0 ± 2.8 [1.0, 5.0] | 0.500 ± 0.354 [0.250, 0.750] |" in told
    assert "| `algorithms_toy` | moss, timrl | 1.5 | 0.7 and 2.8 | 2 | 0.59 | 32 |" in told
    assert Image.open(tmp_path / "figures" / "algorithms_toy.png").size == (8, 8)
    assert json.loads((tmp_path / "algorithms_toy.json").read_text())["arms"] == arms
    before = (tmp_path / "algorithms_toy.json").read_text()
    comparisons.publish(folder / "comparison.json")  # the file's name means its folder
    assert (tmp_path / "algorithms_toy.json").read_text() == before
    (tmp_path / "summary.json").write_text('{"status": "budget"}')
    for wrong in (tmp_path / "summary.json", tmp_path / "algorithms_toy.json"):
        with pytest.raises(ConfigurationError, match="is no comparison's folder"):
            comparisons.publish(wrong)
    with pytest.raises(ConfigurationError, match="holds no finished comparison"):
        comparisons.main(comparisons.Config((tmp_path / "nowhere",)))


ANALYSES = {
    "representation": (
        {
            "env": "toy",
            "constant": 0.6,
            "rmse": {"focal": {"linear": [[0.1, 0.3], [0.5, 0.3]], "svr": [[0.2, 0.2]]}},
            "published": {"focal": {"linear": [0.5, 0.01], "svr": [0.4, 0.02]}},
        },
        "| `focal` | 0.300 ± 0.141 | 0.200 | 0.500 ± 0.010 | 0.400 ± 0.020 |",
    ),
    "information": (
        {"env": "toy", "task": {"I(z; a)": 0.5}, "information": {"csro": {"I(z; a)": [0.25], "I(z; s, a)": [1, 2]}}},
        "| `csro` | 0.25 | 1.50 ± 0.71 |\n| the task itself | 0.50 | - |",
    ),
    "diversity": (
        {
            "distance": {"toy": 1.25},
            "gain": {"toy": 3.0},
            "scores": {"toy": {"er_trl": 5.0, "focal": 2.0}},
            "pearson_r": None,
        },
        "| `toy` | 1.250 | 5.0 | 2.0 | 3.0 |",
    ),
    "actions": (
        {
            "env": "toy",
            "total_variation": [0.25],
            "std": {"data": [1.0], "generated": [0.5]},
            "discriminator_accuracy": 0.75,
        },
        "| standard deviation, generated | 0.50 |\n\nThe discriminator's accuracy is 0.75.",
    ),
}


@pytest.mark.parametrize("analysis", ANALYSES)
def test_a_published_analysis_is_told(analysis, tmp_path, monkeypatch):
    content, line = ANALYSES[analysis]
    (tmp_path / "any.json").write_text(json.dumps(content | {"config": {"analysis": analysis}}))
    Image.new("RGB", (8, 8)).save(tmp_path / "any.png")
    name = f"er_trl_{analysis}" + ("_toy" if "env" in content else "")
    (tmp_path / "page.md").write_text(
        f"<!-- result: {name}, written by benchmarks/comparisons.py -->\n<!-- end of result -->\n"
    )
    monkeypatch.setattr(comparisons, "RESULTS", tmp_path)
    monkeypatch.setattr(comparisons, "DOCS", tmp_path)
    comparisons.main(comparisons.Config((tmp_path / "any.json",)))
    told = (tmp_path / "page.md").read_text()
    assert line in told and f"![{name}](figures/{name}.png)" in told
