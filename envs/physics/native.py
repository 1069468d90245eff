"""MuJoCo's C engine on a thread pool, as a pure function of a small state.

`mujoco.batch.Batch` steps many simulations at once; one host callback per control step hands it the whole
batch. The callback reads nothing but its argument, so the step can be scanned, vmapped and checkpointed.
"""

import copy
import math
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

    def __init__(self, model: mujoco.MjModel, num_threads: int, varied: Sequence[str], derived: Sequence[str]):
        self._model = model
        self._num_threads = num_threads
        self._varied = varied
        self._derived = derived
        self._stage = int(mujoco.mjtStage.mjSTAGE_VEL if derived else mujoco.mjtStage.mjSTAGE_NONE)
        self._batches: dict[int, tuple[Batch, list[np.ndarray], list[np.ndarray]]] = {}
        sizes = [model.nq, model.nv, model.nv, model.nu, *(getattr(model, name).size for name in varied)]
        self._ends = np.cumsum(sizes)
        self._lock = threading.Lock()

    def _batch(self, num: int) -> tuple[Batch, list[np.ndarray], list[np.ndarray]]:
        """The batch of `num` simulations and its live views [num, ...].

        What a step depends on: the state, ctrl, the varied fields; and what it gives: the state, the derived fields.
        """
        if num not in self._batches:
            batch = Batch(self._model, num, nthread=min(self._num_threads, num))
            state = [batch.bind(name) for name in ("qpos", "qvel", "qacc_warmstart")]
            before = [*state, batch.bind("ctrl"), *(batch.expand(name) for name in self._varied)]
            self._batches[num] = batch, before, state + [batch.bind(name) for name in self._derived]
        return self._batches[num]

    def step(self, rows: Float[np.ndarray, "... row"], num_substeps: int) -> Float[np.ndarray, "... result"]:
        """Advance rows of (qpos, qvel, qacc_warmstart, ctrl, varied fields); a simulation that fails becomes NaN.

        No substeps: what is derived becomes current, and nothing moves.

        Returns:
          Rows of (qpos, qvel, qacc_warmstart, derived fields).
        """
        lead, dtype = rows.shape[:-1], rows.dtype
        rows = rows.reshape(-1, rows.shape[-1])
        with self._lock, quiet(), np.errstate(all="ignore"):
            batch, before, after = self._batch(len(rows))
            for view, part in zip(before, np.split(rows, self._ends[:-1], axis=-1), strict=True):
                view[:] = part.reshape(view.shape)
            try:
                if num_substeps:
                    batch.step(nstep=num_substeps, stage=self._stage)
                else:
                    batch.forward(stage=self._stage)
            except SimulationError as error:
                before[0][error.ids] = np.nan
            columns = [view.reshape(len(rows), -1) for view in after]
            result = np.concatenate(columns, axis=-1, dtype=dtype, casting="same_kind")
        return result.reshape(*lead, -1)


def _num_cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make(
    model: mujoco.MjModel, varied: Sequence[str] = (), derived: Sequence[str] = (), num_threads: int = 0
) -> Physics:
    """Load `model` into the C engine.

    Args:
      model: compiled model.
      varied: fields of the model in which simulations differ.
      derived: of `DERIVED`, what states come with; the engine's own, for about a tenth of its time.
      num_threads: threads of the pool; 0 means one per CPU.
    """
    model = copy.copy(model)
    # A diverged simulation must show: by default the C engine would silently reset it to qpos0.
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    pool = _Pool(model, num_threads or _num_cpus(), varied, derived)
    data = mujoco.MjData(model)
    shapes = [np.shape(getattr(data, name)) for name in ("qpos", "qvel", "qacc_warmstart", *derived)]
    ends = np.cumsum([math.prod(shape) for shape in shapes])

    def step(state: PhysicsState, ctrl: jax.Array, n: int) -> PhysicsState:
        # One packed array each way: every argument and result of a callback costs tens of microseconds.
        own = [jnp.ravel(state.model[name]).astype(ctrl.dtype) for name in varied]
        row = jnp.concatenate([state.qpos, state.qvel, state.qacc_warmstart, ctrl, *own])
        result = jax.pure_callback(
            lambda rows: pool.step(np.asarray(rows), n),
            jax.ShapeDtypeStruct((int(ends[-1]),), row.dtype),
            row,
            vmap_method="broadcast_all",
        )
        parts = [x.reshape(shape) for x, shape in zip(jnp.split(result, ends[:-1]), shapes, strict=True)]
        qpos, qvel, warmstart, *rest = parts
        found = dict(zip(derived, rest, strict=True))
        time = state.time + n * model.opt.timestep
        return state._replace(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart, time=time, derived=found)

    def complete(state: PhysicsState) -> PhysicsState:
        return step(state, jnp.zeros_like(state.qpos, shape=model.nu), 0) if derived else state

    return from_model("native", model, step, complete, varied)
