"""Tables of ER-TRL's analyses and overheads, in Markdown, from what the commands of docs/er_trl.md write."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.readme import table


def within(values: Sequence[Any], digits: int) -> str:
    """Mean and standard deviation over seeds [seeds, ...], each of which counts by its mean."""
    each = np.reshape(values, (len(values), -1)).mean(1)
    return f"{each.mean():.{digits}f}" + (f" ± {each.std(ddof=1):.{digits}f}" if len(each) > 1 else "")


def representation(content: dict[str, Any]) -> str:
    """Errors of the task parameter beside the publication's, which are given as (mean, standard deviation)."""
    kinds = list(next(iter(content["rmse"].values())))
    rows = []
    for name, errors in content["rmse"].items():
        paper = content["published"].get(name.partition(" ")[0])
        told = [f"{paper[kind][0]:.3f} ± {paper[kind][1]:.3f}" if paper else "-" for kind in kinds]
        rows.append([f"`{name}`", *(within(errors[kind], 3) for kind in kinds), *told])
    head = ["RMSE", *kinds, *(f"paper: {kind}" for kind in kinds)]
    return table(head, rows) + f"\nA constant has {content['constant']:.3f}.\n"


def information(content: dict[str, Any]) -> str:
    """Lower bounds of mutual information, and what the task itself tells."""
    kinds = list(next(iter(content["information"].values())))
    rows = [[f"`{name}`", *(within(found[k], 2) for k in kinds)] for name, found in content["information"].items()]
    rows.append(["the task itself", *(f"{content['task'][k]:.2f}" if k in content["task"] else "-" for k in kinds)])
    return table(["nats", *kinds], rows)


def diversity(content: dict[str, Any]) -> str:
    """Distances of behaviour policies, and what ER-TRL scores more than FOCAL."""
    rows = []
    for env, scores in content["scores"].items():
        numbers = (scores["er_trl"], scores["focal"], content["gain"][env])
        rows.append([f"`{env}`", f"{content['distance'][env]:.3f}", *(f"{x:.1f}" for x in numbers)])
    r = content["pearson_r"]
    return table(["", "distance", "`er_trl`", "`focal`", "gain"], rows) + (f"\nPearson's r {r:.2f}.\n" if r else "")


def actions(content: dict[str, Any]) -> str:
    """How far generated actions are from real ones, per dimension."""
    measures = {
        "total variation": content["total_variation"],
        "standard deviation, real": content["std"]["data"],
        "standard deviation, generated": content["std"]["generated"],
    }
    rows = [[name, *(f"{x:.2f}" for x in values)] for name, values in measures.items()]
    head = ["action", *map(str, range(1, len(content["total_variation"]) + 1))]
    return table(head, rows) + f"\nThe discriminator's accuracy is {content['discriminator_accuracy']:.2f}.\n"


def overhead(content: dict[str, Any]) -> str:
    """Costs of a train step, as ratios."""
    measures = ("time", "products", "state", "temporary")
    rows = [
        [f"`{name}`", f"{row['steps_per_s']:,.1f}", *(f"{row[measure]:.2f}" for measure in measures)]
        for name, row in content["methods"].items()
    ]
    return f"`--preset={content['preset']}`:\n\n" + table(["", "steps per second", *measures], rows)


ANALYSES: dict[str, Callable[[dict[str, Any]], str]] = {
    "representation": representation,
    "information": information,
    "diversity": diversity,
    "actions": actions,
}
