"""MuJoCo models: Gymnasium's files, and the two variants every body comes in."""

import warnings
from functools import cache
from pathlib import Path

import mujoco

from envs.errors import ConfigurationError, choose

VARIANTS = ("fast", "reference")

FAST_ITERATIONS, FAST_LS_ITERATIONS = 100, 50


@cache
def load(file: str, variant: str = "fast", timestep: float | None = None) -> mujoco.MjModel:
    """Compile a model file of the `gymnasium` package.

    Args:
      file: file name, for example `half_cheetah.xml`.
      variant: `reference` is the file as shipped, with Newton in place of PGS (which MJX lacks);
        `fast` also replaces RK4, four times the work, by semi-implicit Euler.
      timestep: seconds per substep, or None for the file's.

    Returns:
      A model shared by all callers: do not write to it.

    Raises:
      ConfigurationError: unknown variant, or gymnasium does not ship the file.
    """
    choose("model variant", variant, VARIANTS)
    import gymnasium  # imports a lot; only model loading needs it

    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / file
    if not path.exists():
        raise ConfigurationError(f"gymnasium {gymnasium.__version__} ships no model file {file}: install gymnasium>=1.1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = mujoco.MjModel.from_xml_path(str(path))
    model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    if variant == "fast":
        model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    if timestep is not None:
        model.opt.timestep = timestep
    # A diverged simulation must show: by default the C engine would silently reset it to qpos0.
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return model
