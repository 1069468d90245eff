"""MuJoCo's C engine on a thread pool, as a pure function of a small state.

`mujoco.batch.Batch` steps many simulations at once; one host callback per control step hands it the whole
batch, and a second one where a body observes what follows from its state. A callback reads nothing but its argument,
so the step can be scanned, vmapped and checkpointed.
"""

import copy
import math
import threading
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Float
from mujoco.batch import Batch, SimulationError

from envs.physics.base import Physics, PhysicsState, from_model
from envs.physics.host import num_cpus
from envs.physics.models import quiet

MOVED = ("qpos", "qvel", "qacc_warmstart")
"""Fields of `mjData` that a step changes, and depends on beside the control."""


class _Pool:
    """One `Batch` per batch size met so far, behind a lock: a Batch serves one caller at a time."""

    def __init__(
        self,
        model: mujoco.MjModel,
        num_threads: int,
        before: Sequence[str],
        varied: Sequence[str],
        after: Sequence[str],
    ):
        """Simulations that take fields `before` of `mjData` and `varied` of the model, and give the fields `after`."""
        self._model = model
        self._num_threads = num_threads
        self._before, self._varied, self._after = before, varied, after
        data = mujoco.MjData(model)
        sizes = [*(getattr(data, name).size for name in before), *(getattr(model, name).size for name in varied)]
        self._ends = np.cumsum(sizes)
        self._shapes = [np.shape(getattr(data, name)) for name in after]
        self._batches: dict[int, tuple[Batch, list[np.ndarray], list[np.ndarray]]] = {}
        self._lock = threading.Lock()

    def _batch(self, num: int) -> tuple[Batch, list[np.ndarray], list[np.ndarray]]:
        """The batch of `num` simulations and its live views [num, ...]: of what it takes, and of what it gives."""
        if num not in self._batches:
            batch = Batch(self._model, num, nthread=min(self._num_threads, num))
            takes = [*(batch.bind(name) for name in self._before), *(batch.expand(name) for name in self._varied)]
            self._batches[num] = batch, takes, [batch.bind(name) for name in self._after]
        return self._batches[num]

    def _advance(self, rows: Float[np.ndarray, "... row"], advance: Callable[[Batch], None]) -> np.ndarray:
        """Rows of what simulations take, to rows of what they give; one that fails becomes NaN."""
        lead, dtype = rows.shape[:-1], rows.dtype
        rows = rows.reshape(-1, rows.shape[-1])
        with self._lock, quiet(), np.errstate(all="ignore"):
            batch, takes, gives = self._batch(len(rows))
            for view, part in zip(takes, np.split(rows, self._ends[:-1], axis=-1), strict=True):
                view[:] = part.reshape(view.shape)
            failed = np.zeros(0, int)
            try:
                advance(batch)
            except SimulationError as error:
                failed = error.ids
            columns = [view.reshape(len(rows), -1) for view in gives]
            result = np.concatenate(columns, axis=-1, dtype=dtype, casting="same_kind")
        result[failed] = np.nan
        return result.reshape(*lead, -1)

    def __call__(self, takes: Sequence[jax.Array], advance: Callable[[Batch], None]) -> list[jax.Array]:
        """What a simulation gives after `advance`, for what it takes: flat arrays of one type."""
        # One packed array each way: every argument and result of a callback costs tens of microseconds.
        row = jnp.concatenate(takes)
        ends = np.cumsum([math.prod(shape) for shape in self._shapes])
        result = jax.pure_callback(
            lambda rows: self._advance(np.asarray(rows), advance),
            jax.ShapeDtypeStruct((int(ends[-1]),), row.dtype),
            row,
            vmap_method="broadcast_all",
        )
        parts = jnp.split(result, ends[:-1])
        return [x.reshape(shape) for x, shape in zip(parts, self._shapes, strict=True)]


def _without_contacts(model: mujoco.MjModel) -> mujoco.MjModel:
    """The same bodies, where nothing touches: none of `DERIVED` depends on it, and finding it out takes longest."""
    model = copy.copy(model)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
    return model


def make(
    model: mujoco.MjModel, varied: Sequence[str] = (), derived: Sequence[str] = (), num_threads: int = 0
) -> Physics:
    """Load `model` into the C engine.

    Args:
      model: compiled model.
      varied: fields of the model in which simulations differ.
      derived: of `DERIVED`, what states come with; the engine's own.
      num_threads: threads of the pool; 0 means one per CPU.
    """
    model = copy.copy(model)
    # A diverged simulation must show: by default the C engine would silently reset it to qpos0.
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    num_threads = num_threads or num_cpus()
    moving = _Pool(model, num_threads, (*MOVED, "ctrl"), varied, MOVED)
    posed = _Pool(_without_contacts(model), num_threads, ("qpos", "qvel"), varied, derived)

    def own(state: PhysicsState) -> list[jax.Array]:
        return [jnp.ravel(state.model[name]).astype(state.qpos.dtype) for name in varied]

    def step(state: PhysicsState, ctrl: jax.Array, n: int) -> PhysicsState:
        takes = [state.qpos, state.qvel, state.qacc_warmstart, ctrl, *own(state)]
        qpos, qvel, warmstart = moving(takes, lambda batch: batch.step(nstep=n))
        time = state.time + n * model.opt.timestep
        return complete(state._replace(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart, time=time))

    def complete(state: PhysicsState) -> PhysicsState:
        if not derived:
            return state
        takes = [state.qpos, state.qvel, *own(state)]
        found = posed(takes, lambda batch: batch.forward(stage=mujoco.mjtStage.mjSTAGE_VEL))
        return state._replace(derived=dict(zip(derived, found, strict=True)))

    return from_model("native", model, step, complete, varied)
