"""Returns that learners are compared with: words in README's table, lines in its figures."""

from typing import NamedTuple


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


REFERENCES = {
    "cheetah_vel": (Reference("idle", (-300,)), Reference("CEMRL", (-25, -17), "13-22 h on a GPU")),
    "cheetah_dir": (Reference("idle", (0,)), Reference("CEMRL", (1630, 1998), "18-22 h on a GPU")),
    "cheetah_vel_ood": (Reference("idle", (-636,)),),
    "cheetah_vel_nonstat": (Reference("idle", (-733,)),),
    "cheetah_dir_nonstat": (Reference("idle", (0,)),),
    "point_robot": (Reference("idle", (-21,)),),
    "cheetah_multitask": (Reference("idle", (-200,)),),
    "ant_dir": (Reference("idle", (200,)),),
    "ant_goal": (Reference("idle", (-533,)),),
    "ant_multitask": (Reference("idle", (-200,)),),
}
"""By benchmark."""
