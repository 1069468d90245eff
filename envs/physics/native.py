"""MuJoCo's C engine on a thread pool, as a pure function of a small state.

`mujoco.batch.Batch` steps many simulations at once; one host callback per control step hands it the whole
batch. The callback reads nothing but its argument, so the step can be scanned, vmapped and checkpointed.
"""

import copy
import os
import threading
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Float
from mujoco.batch import Batch, SimulationError

from envs.physics.base import Physics, PhysicsState, from_model
from envs.physics.models import quiet


class _Pool:
    """One `Batch` per batch size met so far, behind a lock: a Batch serves one caller at a time."""

    def __init__(self, model: mujoco.MjModel, num_threads: int, varied: Sequence[str]):
        self._model = model
        self._num_threads = num_threads
        self._varied = varied
        self._batches: dict[int, tuple[Batch, list[np.ndarray]]] = {}
        sizes = [model.nq, model.nv, model.nv, model.nu, *(getattr(model, name).size for name in varied)]
        self._ends = np.cumsum(sizes)
        self._lock = threading.Lock()

    def _batch(self, num: int) -> tuple[Batch, list[np.ndarray]]:
        """The batch of `num` simulations and its live views [num, ...]: the state, ctrl, and the varied fields."""
        if num not in self._batches:
            batch = Batch(self._model, num, nthread=min(self._num_threads, num))
            views = [batch.bind(name) for name in ("qpos", "qvel", "qacc_warmstart", "ctrl")]
            self._batches[num] = batch, views + [batch.expand(name) for name in self._varied]
        return self._batches[num]

    def step(self, rows: Float[np.ndarray, "... row"], num_substeps: int) -> Float[np.ndarray, "... nq+2nv"]:
        """Advance rows of (qpos, qvel, qacc_warmstart, ctrl, varied fields); a simulation that fails becomes NaN."""
        lead, dtype = rows.shape[:-1], rows.dtype
        rows = rows.reshape(-1, rows.shape[-1])
        with self._lock, quiet(), np.errstate(all="ignore"):
            batch, views = self._batch(len(rows))
            for view, part in zip(views, np.split(rows, self._ends[:-1], axis=-1), strict=True):
                view[:] = part.reshape(view.shape)
            try:
                batch.step(nstep=num_substeps)
            except SimulationError as error:
                views[0][error.ids] = np.nan
            result = np.concatenate(views[:3], axis=-1, dtype=dtype, casting="same_kind")
        return result.reshape(*lead, -1)


def _num_cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make(model: mujoco.MjModel, varied: Sequence[str] = (), num_threads: int = 0) -> Physics:
    """Load `model` into the C engine.

    Args:
      model: compiled model.
      varied: fields of the model in which simulations differ.
      num_threads: threads of the pool; 0 means one per CPU.
    """
    model = copy.copy(model)
    # A diverged simulation must show: by default the C engine would silently reset it to qpos0.
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    pool = _Pool(model, num_threads or _num_cpus(), varied)
    ends = (model.nq, model.nq + model.nv)

    def step(state: PhysicsState, ctrl: jax.Array, n: int) -> PhysicsState:
        # One packed array each way: every argument and result of a callback costs tens of microseconds.
        own = [jnp.ravel(state.model[name]).astype(ctrl.dtype) for name in varied]
        row = jnp.concatenate([state.qpos, state.qvel, state.qacc_warmstart, ctrl, *own])
        result = jax.pure_callback(
            lambda rows: pool.step(np.asarray(rows), n),
            jax.ShapeDtypeStruct((model.nq + 2 * model.nv,), row.dtype),
            row,
            vmap_method="broadcast_all",
        )
        qpos, qvel, warmstart = jnp.split(result, ends)
        time = state.time + n * model.opt.timestep
        return state._replace(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart, time=time, ctrl=ctrl)

    return from_model("native", model, step, varied)
