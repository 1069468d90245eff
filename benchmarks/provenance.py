"""Where a figure comes from."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from experiments import rundir


def provenance(module: str) -> dict[str, Any]:
    """Hardware, versions, commit and command of the running benchmark `module`."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")] if cpuinfo.exists() else []
    load = Path("/proc/loadavg")
    return {
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": len(names) or None,
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("jax", "mujoco", "mujoco-mjx", "numpy")},
        "commit": rundir.commit(),
        "command": " ".join(["python -m", module, *map(rundir.portable, sys.argv[1:])]),
        "load_average": load.read_text().split()[0] if load.exists() else None,
    }
