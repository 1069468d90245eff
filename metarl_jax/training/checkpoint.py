"""Checkpoints that hold everything, survive a kill at any instant, and are never trusted blindly."""

import contextlib
import errno
import logging
import os
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from metarl_jax.errors import ConfigurationError


def checksum(state: Any) -> int:
    """CRC-32 of all leaves. The storage detects missing bytes, but not flipped ones."""
    crc = 0
    for leaf in jax.tree.leaves(state):
        data = jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        crc = zlib.crc32(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data, crc)
    return crc


def structure(state: Any) -> list[str]:
    """One line per leaf, sorted: its path, dtype and shape, as the storage has them (random keys as their data)."""

    def line(path: str, leaf: Any) -> str:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        return f"{path} {leaf.dtype}{list(leaf.shape)}"

    return sorted(line(path, leaf) for path, leaf in _by_path(state).items())


def _path(keys: Any) -> str:
    """The same for a field, a key of a dictionary and a place in a list: the storage makes dictionaries of all."""
    return jax.tree_util.keystr(keys, simple=True, separator=".")


def _by_path(state: Any) -> dict[str, Any]:
    return {_path(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(state)}


def _stored(state: Any) -> Any:
    """The leaves that hold anything, None for the others: the storage refuses arrays of size 0."""
    return jax.tree.map(lambda leaf: leaf if leaf.size else None, state)


class Checkpoints:
    """The newest `keep` checkpoints of a run, numbered by epoch.

    A save is written beside the others and renamed when complete. It is synchronous: training donates its
    state, and a background write could see the buffers of the next epoch.
    """

    def __init__(self, directory: Path | str, keep: int = 2, read_only: bool = False) -> None:
        """Open `directory`; create it if needed.

        With `read_only` nothing there is touched: another process may be saving.
        """
        how = {"read_only": True, "create": False, "save_interval_steps": 0} if read_only else {"max_to_keep": keep}
        options = ocp.CheckpointManagerOptions(
            enable_async_checkpointing=False, cleanup_tmp_directories=not read_only, **how
        )
        self.directory = Path(directory).absolute()
        with _quiet():
            self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, epoch: int, state: Any, info: dict[str, Any]) -> None:
        """Write the whole `state`, and `info`, which must be JSON.

        Raises:
          OSError: the disk is full. The checkpoints before are as they were.
        """
        info = info | {"checksum": checksum(state)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(_stored(state)), info=ocp.args.JsonSave(info))
        try:
            with _quiet():
                self._manager.save(epoch, args=args)
        except ValueError as error:  # the storage's name for it
            if os.strerror(errno.ENOSPC) not in str(error):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.directory)) from error

    def restore(self, template: Any, discard: bool = False) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint that is whole, with a one-line warning for each that is not.

        Args:
          template: `jax.eval_shape` of the state.
          discard: delete the damaged ones that are newer than what is returned, so that training can save there again.

        Returns:
          (state, info), or None if nothing was ever saved.

        Raises:
          ConfigurationError: there are checkpoints, but none can be restored, or one holds other things.
        """
        whole = jax.tree.map(_on_device, template)
        template = _stored(whole)
        wanted = _by_path(template)
        damaged: list[int] = []
        problem = ""
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            try:
                # By the stored tree: another version's may have fields that hold nothing, or lack them.
                item = jax.tree_util.tree_map_with_path(lambda keys, _: wanted[_path(keys)], self._metadata(epoch))
                with _quiet():
                    found = self._manager.restore(
                        epoch,
                        args=ocp.args.Composite(state=ocp.args.StandardRestore(item), info=ocp.args.JsonRestore()),
                    )
                if structure(found.state) != structure(template):  # what the storage lacks it takes for None
                    raise ValueError("it holds other things")
                state = _rebuilt(whole, _by_path(found.state))
                if checksum(state) != found.info["checksum"]:
                    raise ValueError("checksum does not match")
            except Exception as error:
                self._check_structure(epoch, template)
                problem = str(error).splitlines()[0][:100]
                warnings.warn(f"checkpoint of epoch {epoch} is damaged, using the one before: {problem}", stacklevel=2)
                damaged.append(epoch)
                continue
            if discard:
                for newer in damaged:
                    self._manager.delete(newer)
            return state, found.info
        if damaged:
            raise ConfigurationError(f"no checkpoint in {self.directory} can be restored: {problem}")
        return None

    def _metadata(self, epoch: int) -> Any:
        """What the storage says that a checkpoint's state is, as dictionaries and lists."""
        with _quiet():
            return ocp.StandardCheckpointHandler().metadata(self.directory / str(epoch) / "state").tree

    def _check_structure(self, epoch: int, template: Any) -> None:
        """Raise `ConfigurationError` for a checkpoint that holds other things; say nothing of a damaged one."""
        try:
            stored = structure(self._metadata(epoch))
        except Exception:
            return
        wanted = structure(template)
        if stored == wanted:
            return
        differ = sorted(set(stored) ^ set(wanted))
        if {line.split()[0] for line in differ} <= _keys_in(template):
            raise ConfigurationError(
                f"the checkpoints in {self.directory} have random keys of another kind: set JAX_DEFAULT_PRNG_IMPL as "
                "it was when the run began"
            )
        example = differ[0]
        where = "there" if example in stored else "here"
        raise ConfigurationError(
            f"the checkpoints in {self.directory} hold other things than this version of metarl_jax keeps "
            f"(only {where}: {example}): go on with the commit that config.json of the run names"
        )

    def close(self) -> None:
        """Release the directory."""
        self._manager.close()


def _keys_in(template: Any) -> set[str]:
    """Paths of its random keys, as `structure` writes them."""
    leaves = _by_path(template)
    return {path for path, leaf in leaves.items() if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)}


def _rebuilt(template: Any, stored: dict[str, Any]) -> Any:
    """The state that `stored` has the leaves of, but for those that hold nothing."""

    def leaf(keys: Any, wanted: jax.ShapeDtypeStruct) -> Any:
        return stored[_path(keys)] if wanted.size else jnp.zeros(wanted.shape, wanted.dtype)

    return jax.tree_util.tree_map_with_path(leaf, template)


def _on_device(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Where a leaf goes: this machine's first device, whatever wrote it."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax warns of its own internals, and logs the tracebacks of what it raises anyway."""
    logger = logging.getLogger("absl")
    logger.disabled, before = True, logger.disabled
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.disabled = before
