import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from metarl_jax.training import interrupt
from metarl_jax.training.logging import read_metrics
from tests.test_house import ROOT


@contextlib.contextmanager
def started(path, **output):
    """A run that has logged an epoch, and is killed in the end."""
    command = [sys.executable, "-m", "tests.toy", f"--run_dir={path}", "--epochs=1000000", "--save_every=1000"]
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under `nohup` children ignore it too
    process = subprocess.Popen(command, cwd=ROOT, text=True, **output)
    signal.signal(signal.SIGHUP, before)
    try:
        deadline = time.monotonic() + 60
        while not (path / "metrics.jsonl").exists() or not (path / "metrics.jsonl").stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()


def assert_saved(path):
    assert json.loads((path / "summary.json").read_text())["status"] == "interrupted"
    saved = max(int(folder.name) for folder in (path / "checkpoints").iterdir())
    assert saved == read_metrics(path / "metrics.jsonl")[-1]["epoch"]


def test_sigterm_saves_and_says_how_to_resume(tmp_path):
    path = tmp_path / "run"
    with started(path, stdout=subprocess.PIPE) as process:
        os.kill(process.pid, signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"--resume={path}" in out
    assert_saved(path)


def test_a_run_whose_output_nobody_reads_is_saved(tmp_path):
    path = tmp_path / "run"
    ours, theirs = os.pipe()
    with started(path, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        os.close(ours)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in errors
    assert_saved(path)


def test_a_run_that_loses_its_terminal_is_saved(tmp_path):
    path = tmp_path / "run"
    with started(path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        os.kill(process.pid, signal.SIGHUP)
        assert process.wait(timeout=60) == 128 + signal.SIGHUP
    assert_saved(path)


def test_what_runs_under_nohup_does_not_hear_of_the_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt.listen() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert asked.signum == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_first_signal_decides_and_the_second_ctrl_c_stops():
    with interrupt.listen() as asked:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert asked.signum == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
