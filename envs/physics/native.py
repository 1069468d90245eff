"""MuJoCo's C engine on a thread pool, as a pure function of a small state.

`mujoco.batch.Batch` steps many simulations at once; one host callback per control step hands it the whole
batch. The callback reads nothing but its arguments, so the step can be scanned, vmapped and checkpointed.
"""

import threading

import jax
import jax.numpy as jnp
import mujoco
import mujoco.batch
import numpy as np

from envs.physics.base import Physics, PhysicsState, cold_start


class _Pool:
    """One `Batch` per batch size met so far, behind a lock: a Batch serves one caller at a time."""

    def __init__(self, model: mujoco.MjModel, num_threads: int):
        self._model = model
        self._num_threads = num_threads
        self._batches: dict[int, mujoco.batch.Batch] = {}
        self._lock = threading.Lock()

    def step(self, qpos, qvel, warmstart, ctrl, *, num_substeps: int, dtype: np.dtype):
        """Advance simulations with any leading batch axes; returns qpos, qvel, qacc_warmstart of those axes."""
        qpos, qvel, warmstart, ctrl = (np.asarray(x) for x in (qpos, qvel, warmstart, ctrl))
        lead = qpos.shape[:-1]
        num = int(np.prod(lead))
        with self._lock:
            if num not in self._batches:
                self._batches[num] = mujoco.batch.Batch(self._model, num, nthread=min(self._num_threads, num))
            batch = self._batches[num]
            batch.qpos[:] = qpos.reshape(num, -1)
            batch.qvel[:] = qvel.reshape(num, -1)
            batch.qacc_warmstart[:] = warmstart.reshape(num, -1)
            batch.ctrl[:] = ctrl.reshape(num, -1)
            batch.step(nstep=num_substeps)
            return tuple(
                np.array(field, dtype).reshape(*lead, -1)
                for field in (batch.qpos, batch.qvel, batch.qacc_warmstart)
            )


def make(model: mujoco.MjModel, num_threads: int = 0) -> Physics:
    """Load `model` into the C engine.

    Args:
      model: compiled model.
      num_threads: threads of the pool; 0 means one per CPU.
    """
    import os

    pool = _Pool(model, num_threads or len(os.sched_getaffinity(0)))

    def step(state: PhysicsState, ctrl: jax.Array, n: int) -> PhysicsState:
        dtype = state.qpos.dtype

        def host(*arrays):
            return pool.step(*arrays, num_substeps=n, dtype=np.dtype(dtype))

        result = tuple(jax.ShapeDtypeStruct(x.shape, dtype) for x in state[:3])
        qpos, qvel, warmstart = jax.pure_callback(
            host, result, *state[:3], ctrl, vmap_method="broadcast_all"
        )
        return PhysicsState(qpos, qvel, warmstart, state.time + n * model.opt.timestep)

    return Physics(
        engine="native",
        init=cold_start,
        step=step,
        qpos0=jnp.asarray(model.qpos0),
        timestep=float(model.opt.timestep),
        ctrl_range=tuple((float(low), float(high)) for low, high in model.actuator_ctrlrange),
        nv=model.nv,
    )
