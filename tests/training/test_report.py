import pytest

from benchmarks import readme
from metarl_jax.training import report


def test_spread_is_that_of_the_scores_that_are_told():
    """Two seeds' scores rise with the evaluations, of which the last five count: 4 and 16 on average."""
    records = []
    for i in range(7):
        seeds = {name: [i, 2.0 * i + 8.0] for name in readme.SCORES}
        means = dict.fromkeys(readme.SCORES, 1.5 * i + 4.0)
        records.append({"epoch": i, "test_return": 0.0, "test_score_by_family": means, "test_score_per_seed": seeds})
    summary = report.summarise([{"epoch": 0}, *records], "completed")
    assert summary["recent_score_by_family"]["prior/iid"] == 10.0
    assert summary["recent_score_std_by_family"]["prior/iid"] == pytest.approx(12 / 2**0.5)

    config = {"config": {"env": "hopper_mass", "agent": {"method": "focal"}}}
    run = {"config": config, "summary": summary, "curve": records}
    cells = dict(zip(readme.SCORES, readme.offline_scores(run), strict=True))
    assert cells["prior/iid"] == "10.0 ± 8.5" and cells["non_prior/moderate"] == "10.0 ± 8.5 (79.1)"
    for record in records:
        del record["test_score_per_seed"]  # as in results of earlier versions
    assert "recent_score_std_by_family" not in report.summarise(records, "completed")
    assert readme.offline_scores(run)[0] == "10.0"


def test_the_best_evaluation_need_not_be_the_last():
    records = [{"epoch": i, "test_return": x} for i, x in enumerate([None, -5.0, -1.0, -3.0])]
    summary = report.summarise(records, "completed")
    assert (summary["test_return"], summary["best_test_return"], summary["best_epoch"]) == (-3.0, -1.0, 2)


def test_what_a_later_epoch_did_not_measure_is_kept():
    measured = {"epoch": 5, "test_return": 1.0, "test_return_by_family": {"goal": 1.0}}
    summary = report.summarise([measured, {"epoch": 6, "test_return": None, "test_return_by_family": None}], "running")
    assert (summary["epoch"], summary["test_return"], summary["test_return_by_family"]) == (6, 1.0, {"goal": 1.0})
