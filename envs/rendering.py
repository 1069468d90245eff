"""Pictures of a benchmark's body, by MuJoCo's own renderer."""

import warnings
from collections.abc import Iterator

import mujoco
import numpy as np

from envs.benchmarks import BENCHMARKS
from envs.errors import ConfigurationError, choose
from envs.physics import models

MARKER_RADIUS, MARKER_COLOUR = 0.2, (0.9, 0.2, 0.2, 0.6)
"""Of a sphere where a body is to go; m, and RGBA."""
AZIMUTH, VIEWS = 90.0, {1: (3.2, -15.0), 2: (6.0, -35.0)}
"""Of the camera, which follows the body and looks along y: distance in m and elevation in degrees, for what is planar
from its side, for others from above."""


def film(
    name: str, qpos: np.ndarray, place: np.ndarray | None = None, width: int = 320, height: int = 240
) -> Iterator[np.ndarray]:
    """Draw a body in a row of poses.

    Args:
      name: of the benchmark.
      qpos: [T, nq] generalised coordinates.
      place: [1] or more: where it is to go along x, or, if the body is not planar, in the plane, m; None: nowhere.
      width, height: of the pictures in pixels; at most those of the model's off-screen buffer, 640 x 480.

    Yields:
      T pictures, uint8 [height, width, 3].

    Raises:
      ConfigurationError: an unknown benchmark, one whose body is no MuJoCo model, or there is no OpenGL to draw with.
      ValueError: pictures that are too large.
    """
    body = BENCHMARKS[choose("environment", name, BENCHMARKS)]().body
    if body.file is None:
        raise ConfigurationError(f"{name} has no body to draw")
    model = models.load(body.file)
    data = mujoco.MjData(model)
    camera = mujoco.MjvCamera()
    camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, 1  # the first body is the torso
    camera.azimuth, (camera.distance, camera.elevation) = AZIMUTH, VIEWS[body.place]
    with _renderer(model, width, height) as renderer:
        for pose in qpos:
            data.qpos = pose
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
            if place is not None:
                _mark(renderer.scene, np.pad(place[: body.place], (0, 3 - body.place)))
            yield renderer.render().copy()


def _renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    try:
        with warnings.catch_warnings(action="ignore"):  # GLFW's, of what the error below says
            return mujoco.Renderer(model, height, width)
    except (mujoco.FatalError, ImportError, RuntimeError, AttributeError) as error:  # each backend fails in its own way
        raise ConfigurationError(
            "there is no OpenGL to draw with: without a display, install EGL (libegl1 and libgl1-mesa-dri on Debian) "
            "and set MUJOCO_GL=egl"
        ) from error


def _mark(scene: mujoco.MjvScene, place: np.ndarray) -> None:
    sphere, size, colour = mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, MARKER_RADIUS), np.array(MARKER_COLOUR, np.float32)
    mujoco.mjv_initGeom(scene.geoms[scene.ngeom], sphere, size, place, np.eye(3).ravel(), colour)
    scene.ngeom += 1
