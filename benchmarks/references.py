"""Returns that learners are compared with: words in tables, lines in figures."""

import json
from pathlib import Path
from typing import NamedTuple

IDLE = Path(__file__).parent / "results" / "idle.json"
"""Written by benchmarks/idle.py."""


class Reference(NamedTuple):
    """A return that somebody else reached."""

    name: str
    returns: tuple[float, ...]
    """One, or both ends of a range."""
    cost: str = ""
    """What it took, for the reader."""

    def __str__(self) -> str:
        """`name return`, or `name from to to, cost`."""
        told = f"{self.name} {' to '.join(f'{value:g}' for value in self.returns)}"
        return f"{told}, {self.cost}" if self.cost else told


REFERENCES: dict[str, tuple[Reference, ...]] = {
    "cheetah_vel": (Reference("CEMRL", (-25, -17), "13-22 h on a GPU"),),
    "cheetah_dir": (Reference("CEMRL", (1630, 1998), "18-22 h on a GPU"),),
    "cheetah_vel_ood": (),
    "cheetah_vel_nonstat": (),
    "cheetah_dir_nonstat": (),
    "point_robot": (),
    "sparse_point_robot": (),
    "cheetah_multitask": (),
    "cheetah_eight": (),
    "ant_dir": (),
    "ant_dir_nonstat": (),
    "ant_goal": (),
    "ant_goal_ood": (),
    "ant_multitask": (),
    "walker_rand_params": (),
    "humanoid_dir": (),
    "cheetah_dir_vel_to_goal": (),
    "cheetah_vel_grid": (),
    "ant_dir_grid": (),
    "ant_goal_grid": (),
    "humanoid_dir_grid": (),
    "hopper_mass": (),
    "hopper_friction": (),
    "walker_mass": (),
    "walker_friction": (),
}
"""What others reached, by benchmark."""


def levels(env: str) -> tuple[Reference, ...]:
    """What a return on a benchmark is to be seen beside: doing nothing, where that was measured, and others'."""
    measured = json.loads(IDLE.read_text())["returns"] if IDLE.exists() else {}
    idle = (Reference("idle", (round(measured[env]["mean"]),)),) if env in measured else ()
    return idle + REFERENCES.get(env, ())
