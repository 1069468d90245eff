import io
import json
import sys

import numpy as np
from rich.console import Console

from metarl_jax.training import logging

RECORD = {
    "epoch": 3,
    "env_steps": 12_000,
    "env_steps_per_second": 1500.4,
    "updates_per_second": 99.6,
    "train_return": -12.34567,
    "test_return": None,
    "critic_loss": 0.0,
    "vae_loss": 0.5,
}


class FakeWandb:
    """Remembers what it is called with."""

    def __init__(self, calls):
        self.calls = calls

    def init(self, **settings):
        self.calls.append(settings)
        return self

    def log(self, scalars, step):
        self.calls.append((scalars, step))

    def finish(self):
        self.calls.append("finish")


def test_an_epoch_in_words():
    counters, values = logging.describe(RECORD, 3723.0)
    assert counters == "1:02:03 left | epoch 3 | 12,000 steps | 1,500 steps/s | 100 updates/s"
    assert values == "train -12.35 | vae_loss 0.5"


def test_json_holds_no_nan():
    value = {"a": np.float32("nan"), "b": [np.inf, 1.0], "c": np.arange(2), "d": {1: "text"}}
    assert logging.jsonable(value) == {"a": None, "b": [None, 1.0], "c": [0, 1], "d": {"1": "text"}}


def test_a_resumed_log_repeats_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n{"epoch": 2}\n5\n[]\n{}\n\x80\n{"epoch": 3}\n{"epo')
    log = logging.Log(tmp_path, epoch=2)
    log.write({"epoch": 3, "loss": float("nan")})
    log.complete({"test_return": 5.0})
    log.complete({"test_return": 6.0})  # has one
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == log.records
    assert log.records == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3, "loss": None, "test_return": 5.0}]


def test_weights_and_biases_continue_the_same_run(tmp_path, monkeypatch):
    """After a resume, not one of the same name in another folder."""
    calls = []
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(calls))
    for folder in ("a", "a", "b"):
        run_dir = tmp_path / folder / "run"
        run_dir.mkdir(parents=True, exist_ok=True)
        log = logging.Log(run_dir, 0, "project")
        log.write({"epoch": 1, "loss": 0.5, "by": {"a": 2.0}, "list": [1, 2], "none": None})
        log.close()
    opened, logged, finished = calls[:3]
    assert (opened["project"], opened["name"], opened["resume"]) == ("project", "run", "allow")
    assert opened["id"] == calls[3]["id"] != calls[6]["id"]
    assert (logged, finished) == (({"epoch": 1, "loss": 0.5, "by/a": 2.0}, 1), "finish")


def test_plain_lines_are_rare_but_the_last_is_shown(monkeypatch):
    out = io.StringIO()
    now = iter([100.0, 100.0, 105.0, 120.0, 120.0, 121.0])
    monkeypatch.setattr(logging.time, "monotonic", lambda: next(now, 121.0))
    with logging.Terminal(Console(file=out, width=200)) as terminal:
        for epoch in range(1, 5):
            terminal.progress(RECORD | {"epoch": epoch}, 0.5, 1.0, last=epoch == 4)
    shown = [line.split("epoch ")[1][0] for line in out.getvalue().splitlines()]
    assert shown == ["1", "3", "4"]


def test_a_terminal_gets_a_bar():
    out = io.StringIO()
    with logging.Terminal(Console(file=out, width=80, force_terminal=True)) as terminal:
        terminal.progress(RECORD, 0.5, 1.0, last=True)
    assert "━" in out.getvalue() and "train -12.35" in out.getvalue() and "100 updates/s" in out.getvalue()
