import functools

import pytest

from experiments import cli, moss
from tests.helpers import fails


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ("sac.batch_size=64", "sac.batch_size cannot differ between them: choose sac.alpha"),
        ("sac.alpha=0.1 sac.alpha=0.10", "each setting at most once"),
        ("sac.alpha=0.1,sac.alpha=0.2", "each name at most once"),
        ("sac.target_rate=nan", "sac.target_rate must be a finite number, got nan"),
        ("sac.target_entropy=-1", "needs --sac.automatic_entropy_tuning=True"),
        ("sac.alpha", "'sac.alpha' is not name=value"),
        ("sac.alpha=high", "sac.alpha must be a finite number, got 'high'"),
        ("sac.alpha=0.1,sac.discount=1.5", "sac.discount must be in [0, 1], got 1.5"),
        ("vae.kl_z_weight=-1", "vae.kl_z_weight must be >= 0 and finite, got -1"),
    ],
)
def test_wrong_members_are_one_line(capsys, tmp_path, members, message):
    command = functools.partial(cli.main, moss)
    flags = ("--env=point_robot", "--sac.automatic_entropy_tuning=False", f"--run_dir={tmp_path}")
    assert message in fails(capsys, command, *flags, "--members", *members.split())
    assert not list(tmp_path.iterdir())
