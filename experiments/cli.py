"""From a command line to a run: presets, flags, resume, and one-line errors."""

import contextlib
import dataclasses
import difflib
import errno
import io
import itertools
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import tyro

import envs
from experiments import rundir
from metarl_jax.errors import ConfigurationError
from metarl_jax.training import compilation, guard, interrupt, loop, report

ALGORITHMS = {name: f"experiments.{name}" for name in ("moss", "timrl", "cemrl", "er_trl")}
"""Name in config.json -> module."""
MAY_CHANGE = {"epochs", "minutes", "eval_every", "save_every", "resume", "wandb", "data"}
"""Fields that a resumed run may give new values. A file of data may have moved: its checksum says what it is."""
USAGE = 2
"""Exit code of a wrong input."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system calls a full disk, or a user's full share of it."""
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)
"""What it says of a place where nothing can be written, or not that."""
INTERRUPTED = 130
"""Exit code of a command that Ctrl-C stopped, where that is not a run, which ends in good order."""
UNREAD = 141
"""Exit code of one whose output nobody reads on: what a shell says of a command that SIGPIPE stopped."""


class Algorithm(Protocol):
    """What an experiment's module offers. Its `Config` has `env`, `preset` and a flat `run: RunConfig`."""

    Config: type
    __doc__: str | None
    __file__: str
    presets_for: Callable[[str, str, tuple[str, ...]], Any]
    """(preset, env, options) -> the configuration that flags then override; `options` are the env_options given."""
    build: Callable[..., loop.Experiment]
    """(config, episodes=None) -> what to train; `episodes` in a row per evaluation, None for the configuration's."""


def main(module: Any, argv: Sequence[str] | None = None) -> int:
    """Run the experiment of a module; returns the exit code."""
    return guarded(lambda: _train(module, list(sys.argv[1:] if argv is None else argv)))


def guarded(command: Callable[[], int]) -> int:
    """Turn wrong inputs, and places that take no file, into one line and exit code 2; show warnings as one line too.

    Where nobody reads the output any more, as after `| head`, it ends without a word.
    """
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        code = command()
        sys.stdout.flush()  # what has no reader says so now, not after the end
        return code
    except (ConfigurationError, envs.ConfigurationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        if not interrupt.unread(interrupt.STDOUT):
            raise
        interrupt.silence(interrupt.STDOUT)
        return UNREAD
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in NOT_WRITABLE:
            print(f"error: {error.strerror}{where}: name another place", file=sys.stderr)
            return USAGE
        if error.errno not in DISK_FULL:
            raise
        print(
            f"error: {error.strerror}{where}: free some; a run goes on from its last save with --resume, a collection "
            "by the same command",
            file=sys.stderr,
        )
        return USAGE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def command(config_type: type, action: Callable[[Any], int | None], argv: Sequence[str] | None = None) -> int:
    """Do what flags say that fill a configuration; returns the exit code. Help begins with the module's docstring."""
    given = list(sys.argv[1:] if argv is None else argv)
    description = sys.modules[config_type.__module__].__doc__
    return guarded(lambda: action(parse(config_type, given, description=description)) or 0)


def _train(module: Algorithm, argv: list[str]) -> int:
    compilation.configure()
    name = Path(module.__file__).stem
    config = configure(module, argv)
    config.run.check()
    if config.run.resume is None and config.run.run_dir is not None:
        rundir.check_free(config.run.run_dir)  # before the environment takes its time to build
    experiment = module.build(config)
    what = "stored data" if experiment.data_checksum else "a replay"
    rows = rundir.flatten(config).get("replay_rows")
    guard.check_memory(experiment.trainer.replay_bytes, rows, "--replay_rows", what)
    if config.run.resume is not None:
        path = Path(config.run.resume).absolute()
        rundir.check_data(path, experiment.data_checksum)
        if experiment.data_checksum and config.data != rundir.read(path, "--resume")["config"]["data"]:
            rundir.describe(path, name, config, experiment)
            print(f"{path} finds its data in {config.data} from now on")
            if report.is_final(path):
                return 0
    else:
        path = rundir.claim(config.run.run_dir, name, config.env)
    return loop.run(
        experiment,
        config.run,
        path,
        _commands(
            name, path, watch=not experiment.data_checksum and "analytic" not in experiment.description["engine"]
        ),
        lambda: rundir.describe(path, name, config, experiment),
    )


def _commands(name: str, path: Path, watch: bool) -> dict[str, str]:
    """What to type next; `watch`: the run can be filmed."""
    where = shlex.quote(str(path))
    commands = {
        "resume (add --minutes or --epochs, in total, to extend)": f"python -m experiments.{name} --resume={where}",
        "evaluate": f"python -m experiments.evaluate --run={where} --episodes=3",
        "draw": f"python -m experiments.plot --runs {where}",
    }
    return commands | ({"watch": f"python -m experiments.render --run={where}"} if watch else {})


def configure(module: Algorithm, argv: list[str]) -> Any:
    """The configuration of a command line.

    Defaults come from the preset for the environment, or from the run that is resumed; flags override them.

    Raises:
      ConfigurationError: an unknown flag, a value of the wrong type, or flags that exclude each other.
    """
    given = {name: peek(argv, name) for name in ("preset", "env", "env_options", "resume", "run_dir")}
    if given["resume"]:
        return _resumed(module, argv, given["resume"][0], bool(given["run_dir"]))
    plain = module.Config()
    preset, env = ((given[name] or [getattr(plain, name)])[0] for name in ("preset", "env"))
    return parse(module.Config, argv, _limited(argv, module.presets_for(preset, env, tuple(given["env_options"]))))


def _limited(argv: list[str], default: Any) -> Any:
    """`default` without its limit on the run's length if flags give another one alone."""
    given = [name for name in ("epochs", "minutes") if peek(argv, name)]
    limits = {"epochs": None, "minutes": None} if len(given) == 1 else {}
    return dataclasses.replace(default, run=dataclasses.replace(default.run, **limits))


def _resumed(module: Algorithm, argv: list[str], resume: str, has_run_dir: bool) -> Any:
    if has_run_dir:
        raise ConfigurationError("--resume and --run_dir exclude each other: a resumed run stays in its directory")
    content = rundir.read(resume, "--resume")
    name = Path(module.__file__).stem
    if content["algorithm"] != name:
        raise ConfigurationError(f"--resume: {resume} holds a run of {content['algorithm']}, not of {name}")
    before = rundir.fill(module.Config(), content["config"], resume)
    config = parse(module.Config, argv, _limited(argv, before))
    old, new = rundir.flatten(before), rundir.flatten(config)
    may_change = MAY_CHANGE if content.get("data_checksum") else MAY_CHANGE - {"data"}
    if changed := [n for n in old if n not in may_change and old[n] != new[n]]:
        field = changed[0]
        raise ConfigurationError(f"--resume: {field} is {old[field]} in {resume} and cannot become {new[field]}")
    return config


def peek(argv: list[str], name: str) -> list[str]:
    """The values of a flag, before anything else is parsed; of its last occurrence, as in tyro.

    What follows `--flag=value` up to the next flag belongs to it too.
    """
    values: list[str] = []
    for i, token in enumerate(argv):
        flag, equals, rest = token.partition("=")
        if flag.replace("-", "_") == f"__{name}":
            following = itertools.takewhile(lambda t: not t.startswith("--"), argv[i + 1 :])
            values = [rest, *following] if equals else list(following)
    return values


def parse_options(options: Sequence[str], flag: str = "--env_options") -> dict[str, Any]:
    """`name=value` strings as keyword arguments; numbers become numbers.

    Raises:
      ConfigurationError: there is no `=`.
    """
    parsed: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise ConfigurationError(f"{flag}: {option!r} is not name=value")
        parsed[name] = value
        for kind in (float, int):
            with contextlib.suppress(ValueError):
                parsed[name] = kind(value)
    return parsed


def check_counts(**counts: int | Sequence[int]) -> None:
    """Raise `ConfigurationError` for a count below 1, or none of several."""
    for name, given in counts.items():
        values = (given,) if isinstance(given, int) else given
        if not values or min(values) < 1:
            raise ConfigurationError(f"--{name} must be at least 1, got {' '.join(map(str, values)) or 'none'}")


def parse(config_type: type, argv: list[str], default: Any = None, description: str | None = None) -> Any:
    """Parse flags, `--like_this` or `--like-this`, into a nested frozen dataclass."""
    errors = io.StringIO()
    options = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(errors):
            config, unknown = tyro.cli(
                config_type,
                prog="python -m {0.parent.name}.{0.stem}".format(Path(sys.argv[0])),
                description=description,
                args=argv,
                config=(tyro.conf.FlagConversionOff,),
                use_underscores=True,
                return_unknown_args=True,
                **options,
            )
    except SystemExit as stop:
        if stop.code:
            raise ConfigurationError(_one_line(errors.getvalue())) from None
        raise
    if unknown:
        given = unknown[0].partition("=")[0]
        near = difflib.get_close_matches(given.strip("-").replace("-", "_"), rundir.flatten(config), n=1, cutoff=0.5)
        hint = f"did you mean --{near[0]}?" if near else "see --help"
        raise ConfigurationError(f"unknown argument {given}: {hint}")
    return config


def _one_line(box: str) -> str:
    """The message inside the box that tyro prints: below its title, above the next rule."""
    words: list[str] = []
    for line in box.splitlines()[1:]:
        text = line.strip("│ ")
        if text.startswith("Got errors") or (words and not re.search(r"\w", text)):
            break
        if re.search(r"\w", text):
            words += text.split()
    message = " ".join(words).removeprefix("Error parsing ")
    return re.sub(r"^Missing from .*?: ", "missing ", message) or "wrong arguments, see --help"
