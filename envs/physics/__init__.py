"""Physics engines by name."""

import importlib.util
import warnings
from collections.abc import Sequence

import jax

from envs.errors import ConfigurationError, choose
from envs.physics import models
from envs.physics.base import Physics, PhysicsState
from envs.physics.host import spare_a_thread

spare_a_thread()  # before JAX begins to compute

ENGINES = ("auto", "native", "mjx", "warp", "warp_staged")
"""`warp_staged` is `warp` whose CUDA graphs have buffers of their own: XLA may move its arrays, a step copies them."""

NVIDIA = ("gpu", "cuda")
"""JAX's names of its platform."""

__all__ = ["ENGINES", "Physics", "PhysicsState", "load", "resolve"]


def _platform() -> str:
    """JAX's name of the default platform, but `rocm` on an AMD GPU, which it calls `gpu` too."""
    return "rocm" if "rocm" in jax.devices()[0].client.platform_version else jax.default_backend()


def resolve(engine: str = "auto", device: str | None = None) -> str:
    """The engine that `auto` means: native on a CPU, warp (if installed, else mjx) on an NVIDIA GPU, else mjx.

    Args:
      engine: one of `ENGINES`.
      device: JAX platform name; None for the default backend's.

    Raises:
      ConfigurationError: unknown engine, warp without its packages or on another accelerator, or staged graphs
        without a GPU.
    """
    choose("physics engine", engine, ENGINES)
    has_warp = importlib.util.find_spec("warp") is not None
    if engine.startswith("warp") and not has_warp:
        raise ConfigurationError(
            f"physics engine {engine!r} needs warp-lang: pip install -e '.[warp]', or --physics=native"
        )
    if engine == "native":
        return engine
    device = device or _platform()
    if engine == "warp_staged" and device not in NVIDIA:
        raise ConfigurationError("physics engine 'warp_staged' needs an NVIDIA GPU: use --physics=native")
    if engine == "warp" and device not in ("cpu", *NVIDIA):
        raise ConfigurationError("physics engine 'warp' needs an NVIDIA GPU or a CPU: use --physics=mjx")
    if engine in ("mjx", "warp") and device == "cpu":
        warnings.warn(f"{engine} is many times slower than native on a CPU: use --physics=native", stacklevel=2)
    if engine == "auto" and device in NVIDIA and not has_warp:
        warnings.warn("warp-lang, which is faster on an NVIDIA GPU, is missing: pip install -e '.[warp]'", stacklevel=2)
    if engine != "auto":
        return engine
    if device == "cpu":
        return "native"
    return "warp" if device in NVIDIA and has_warp else "mjx"


def load(body, engine: str = "auto", variant: str = "fast", varied: Sequence[str] = ()) -> Physics:
    """Load the model of an `envs.bodies.Body` into an engine; simulations differ in its fields `varied`."""
    engine = resolve(engine)
    if body.file is None:
        from envs.bodies import point

        choose("model variant", variant, models.VARIANTS)
        return point.physics()
    model = models.load(body.file, variant, body.timestep)
    module = importlib.import_module(f"envs.physics.{engine.removesuffix('_staged')}")
    options = {"graph_mode": "WARP_STAGED"} if engine == "warp_staged" else {}
    return module.make(model, varied, body.derived, **options)
