"""A run directory: config.json, metrics.jsonl, checkpoints/, summary.json and figures."""

import dataclasses
import importlib.metadata
import json
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import jax

from metarl_jax.errors import ConfigurationError
from metarl_jax.training.compilation import num_cpus
from metarl_jax.training.logging import write_json
from metarl_jax.training.loop import Experiment

PACKAGES = ("metarl-jax", "jax", "jaxlib", "flax", "optax", "mujoco", "mujoco-mjx", "numpy")


def claim(run_dir: str | None, algorithm: str, env: str) -> Path:
    """Create the directory of a new run.

    Raises:
      ConfigurationError: it is there already and not empty.
    """
    if run_dir is None:
        base = Path("runs") / f"{algorithm}-{env}-{time.strftime('%Y%m%d-%H%M%S')}"
        candidates = [base, *(base.with_name(f"{base.name}-{i}") for i in range(2, 100))]
    else:
        candidates = [check_free(run_dir)]
    for path in candidates:
        try:
            path.mkdir(parents=True, exist_ok=run_dir is not None)
            return path.absolute()
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigurationError(f"--run_dir: cannot create {path}: {error.strerror}") from error
    raise ConfigurationError(f"too many runs named {base}")


def check_free(run_dir: str) -> Path:
    """The path, if a new run may write there; raises `ConfigurationError` otherwise."""
    path = Path(run_dir)
    if (path / "config.json").exists():
        raise ConfigurationError(f"--run_dir: {path} holds a run: use --resume={path}, or name another directory")
    if path.exists() and not path.is_dir():
        raise ConfigurationError(f"--run_dir: {path} is not a directory")
    if path.exists() and not all(_is_empty_start(inside) for inside in path.iterdir()):
        raise ConfigurationError(f"--run_dir: {path} is not empty")
    return path


def _is_empty_start(path: Path) -> bool:
    """Whether this is all that a run leaves which was killed before it could say what it is."""
    return path.name == "checkpoints" and path.is_dir() and not any(path.iterdir())


def describe(path: Path, algorithm: str, config: Any, experiment: Experiment) -> None:
    """Write config.json: everything that is needed to repeat the run, and to read its results.

    A resumed run writes it anew, because its budget and its machine may have changed.
    """
    spec = experiment.spec
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, resume=None))
    names = ("name", "families", "subtasks", "horizon", "dt", "stationary")
    content = {
        "algorithm": algorithm,
        "config": dataclasses.asdict(config),
        "data_checksum": experiment.data_checksum,
        "scores_of": experiment.normalizer.source if experiment.normalizer else None,
        "environment": {name: getattr(spec, name) for name in names},
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "commit": commit(),
        "devices": [d.device_kind for d in jax.devices()],
        "cpu_cores": num_cpus(),
        "machine": platform.machine(),
    }
    write_json(path / "config.json", content)


def check_data(path: Path | str, checksum: str | None) -> None:
    """Raise `ConfigurationError` if the stored data with this checksum is not what the run in `path` began with."""
    before = read(path, "--resume").get("data_checksum")  # there is none in runs of earlier versions
    if before not in (None, checksum):
        raise ConfigurationError(
            f"{path} has learnt from other data than is in its file now (checksum {before}, not {checksum}): put that "
            "file back, or start a new run"
        )


def read(path: Path | str, flag: str) -> dict[str, Any]:
    """The config.json of a run.

    Raises:
      ConfigurationError: there is none; `flag` is what the user gave the path with.
    """
    file = Path(path) / "config.json"
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{flag}: {path} is not a run directory (no readable config.json)") from error
    if not isinstance(content, dict) or not {"algorithm", "config", "environment"} <= set(content):
        raise ConfigurationError(f"{flag}: {path} is not a run directory (its config.json is another program's)")
    return content


def fill(default: Any, values: dict[str, Any], path: Path | str) -> Any:
    """The dataclass `default` with the values of a config.json, nested ones included.

    Raises:
      ConfigurationError: a field is not known, so another version of the code wrote the file.
    """
    fields = {f.name: getattr(default, f.name) for f in dataclasses.fields(default)}
    if unknown := sorted(set(values) - set(fields)):
        raise ConfigurationError(f"{path} was written by another version: unknown field {unknown[0]!r}")
    new = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(fields[name]):
            new[name] = fill(fields[name], value, path)
        else:
            new[name] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(default, **new)


def flatten(config: Any) -> dict[str, Any]:
    """Values by the names of their flags: `group.field`, or `field` where the group is annotated to have no prefix."""
    flat: dict[str, Any] = {}
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not dataclasses.is_dataclass(value):
            flat[field.name] = value
            continue
        notes = getattr(hints[field.name], "__metadata__", ())
        prefix = "" if any(getattr(note, "name", None) == "" for note in notes) else f"{field.name}."
        flat |= {prefix + name: inner for name, inner in flatten(value).items()}
    return flat


def portable(argument: str) -> str:
    """A command's argument; of an absolute path, alone or as a flag's value, the last name: folders say nothing
    elsewhere.
    """
    flag, equals, value = argument.rpartition("=")
    return f"{flag}{equals}{Path(value).name}" if Path(value).is_absolute() else argument


def short(paths: Sequence[str]) -> list[str]:
    """As many last names of each path as it takes to tell them apart; paths that are given twice stay the same."""
    whole = [Path(path).absolute().parts for path in paths]
    for count in range(1, max(map(len, whole), default=0) + 1):
        names = ["/".join(parts[-count:]) for parts in whole]
        if len(set(names)) == len(set(whole)):
            return names
    return list(paths)


def version(package: str) -> str | None:
    """Of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Of the source tree, if the code runs from one; `+` marks uncommitted changes."""
    root = Path(__file__).parent.parent
    try:
        tracked = ["git", "ls-files", "--error-unmatch", __file__]  # not where it is installed inside another project's
        subprocess.run(tracked, cwd=root, capture_output=True, check=True)
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=root, capture_output=True, check=False)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if dirty.returncode else "")
