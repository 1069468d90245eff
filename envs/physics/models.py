"""MuJoCo models: Gymnasium's files, and the two variants every body comes in."""

import contextlib
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import mujoco

from envs.errors import ConfigurationError, choose

VARIANTS = ("fast", "reference")

FAST_ITERATIONS, FAST_LS_ITERATIONS = 8, 10
"""Bounds of the Newton solver and its line search in the `fast` variant (as shipped: 100 and 50). They do not change
a trajectory: no body needs more than 7 iterations, and the shorter line search changes a humanoid's step by a rounding
error and no other body's. But MJX runs every simulation as long as the slowest, and the shorter line search alone makes
it 2.7 (cheetah) and 2.0 (ant) times as fast on a CPU."""


_lock = threading.Lock()
_quiet = 0
"""Threads that need MuJoCo to be quiet."""
_before: mujoco.MjLogConfig | None = None
"""Its setting before the first of them came."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MuJoCo from printing warnings and from writing MUJOCO_LOG.TXT; errors are still raised.

    The files of models are not ours to complain of, and divergence is reported by the environment. The setting is of
    the whole process: the last thread that needs quiet restores what the first one found.
    """
    global _quiet, _before
    with _lock:
        if not _quiet:
            _before, silent = mujoco.MjLogConfig.get(), mujoco.MjLogConfig.get()
            silent.logto_console = silent.logto_file = False
            silent.set()
        _quiet += 1
    try:
        yield
    finally:
        with _lock:
            _quiet -= 1
            if not _quiet and _before is not None:
                _before.set()


@cache
def load(file: str, variant: str = "fast", timestep: float | None = None) -> mujoco.MjModel:
    """Compile a model file of the `gymnasium` package, or of one's own.

    Args:
      file: file name, for example `half_cheetah.xml`, or an absolute path.
      variant: `reference` is the file as shipped, with Newton in place of PGS (which MJX lacks);
        `fast` also replaces RK4, four times the work, by semi-implicit Euler, and bounds the solver's iterations.
      timestep: seconds per substep, or None for the file's.

    Returns:
      A model shared by all callers: do not write to it.

    Raises:
      ConfigurationError: unknown variant, there is no such file, or it holds no model.
    """
    choose("model variant", variant, VARIANTS)
    import gymnasium  # imports a lot; only model loading needs it

    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / file  # or `file` itself, if absolute
    if Path(file).is_absolute() and not path.exists():
        raise ConfigurationError(f"there is no model file {file}")
    if not path.exists():
        raise ConfigurationError(
            f"gymnasium {gymnasium.__version__} ships no model file {file}: install gymnasium>=1.1"
        )
    try:
        with quiet():
            model = mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise ConfigurationError(f"{path} is no model that MuJoCo reads: {' '.join(str(error).split())}") from error
    model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    if variant == "fast":
        model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
        model.opt.iterations, model.opt.ls_iterations = FAST_ITERATIONS, FAST_LS_ITERATIONS
    if timestep is not None:
        model.opt.timestep = timestep
    return model
