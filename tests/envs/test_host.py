import os
import subprocess
import sys

import pytest

from envs.physics import host


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_single_cpu_has_a_thread_to_spare(monkeypatch, cpus):
    monkeypatch.setattr(host, "num_cpus", lambda: cpus)
    monkeypatch.setitem(os.environ, "PJRT_NPROC", "")  # put back afterwards
    del os.environ["PJRT_NPROC"]
    host.spare_a_thread()
    assert os.environ.get("PJRT_NPROC") == ("2" if cpus == 1 else None)


def test_a_missing_optional_engine_is_no_first_line_of_a_run():
    code = "import sys; sys.modules['warp'] = None; import envs; envs.make('cheetah_vel')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and done.stdout == ""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind processes to a CPU")
def test_many_simulations_on_one_cpu_do_not_hang(tmp_path):
    """Without the spare thread this training hangs before its first epoch."""
    flags = ["--env=cheetah_vel", "--initial_episodes=2000", "--epochs=1", f"--run_dir={tmp_path / 'run'}"]
    bound = "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    done = subprocess.run(
        [sys.executable, "-c", bound + "from experiments import cli, moss; sys.exit(cli.main(moss))", *flags],
        env={name: value for name, value in os.environ.items() if name != "PJRT_NPROC"},
        timeout=240,
    )
    assert done.returncode == 0 and (tmp_path / "run" / "summary.json").exists()
