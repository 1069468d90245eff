"""Offline data as Minari data sets, one per task: the format of the Farama Foundation's offline RL tools."""

import importlib.util
import re
import warnings

import numpy as np

from metarl_jax.data import offline
from metarl_jax.data.offline import Metadata, OfflineData
from metarl_jax.errors import ConfigurationError


def check(name: str) -> None:
    """Raise `ConfigurationError` if Minari is not there, or takes no data set of this name."""
    if importlib.util.find_spec("minari") is None:
        raise ConfigurationError("--minari needs Minari: pip install -e '.[offline]'")
    if not re.fullmatch(r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*", name):
        raise ConfigurationError(f"--minari: {name!r} must be letters, digits and underscores, with / between parts")


def export(data: OfflineData, metadata: Metadata, name: str) -> list[str]:
    """Write every task's episodes to Minari's local store.

    Args:
      data: on the host.
      metadata: its own.
      name: of the group; task 7 becomes `<name>/task-07-v0`.

    Returns:
      The names of the data sets.

    Raises:
      ConfigurationError: Minari is not installed, an impossible name, or one that is there already.
    """
    check(name)
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    num, (obs_size, action_size) = len(data.count), (data.obs.shape[-1], data.action.shape[-1])
    names = [f"{name}/task-{n:02}-v0" for n in range(num)]
    if there := sorted(set(names) & set(minari.list_local_datasets())):
        raise ConfigurationError(f"--minari: {there[0]} is there already: name another, or minari.delete_dataset it")
    table = offline.episodes(data)
    ranges = offline.return_range(data)
    for n, task_name in enumerate(names):
        episodes = []
        for start, length in zip(table.start[table.task == n], table.length[table.task == n], strict=True):
            row = slice(start, start + length)
            episodes.append(
                EpisodeBuffer(
                    observations=np.concatenate([data.obs[n, row], data.next_obs[n, row][-1:]]),
                    actions=data.action[n, row],
                    rewards=data.reward[n, row],
                    terminations=data.terminated[n, row],
                    truncations=data.last[n, row] & ~data.terminated[n, row],
                )
            )
        spec = ", ".join(f"{x:.4g}" for x in data.task.spec[n])
        about = f"{metadata.env}, {offline.SPLITS[data.split[n]]} task [{spec}], {metadata.quality} behaviour"
        with warnings.catch_warnings(action="ignore"):  # Minari asks for an author and an environment of Gymnasium's
            minari.create_dataset_from_buffers(
                task_name,
                episodes,
                observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (obs_size,), np.float32),
                action_space=gymnasium.spaces.Box(-1.0, 1.0, (action_size,), np.float32),
                algorithm_name=f"SAC, {metadata.preset}",
                description=about,
                ref_min_score=float(ranges[n, 0]),
                ref_max_score=float(ranges[n, 1]),
                num_episodes_average_score=len(episodes),
            )
    return names
