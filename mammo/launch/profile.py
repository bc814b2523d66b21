"""Cluster profiles: the paths of a place and what its Slurm is asked for, in one YAML file."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mammo.errors import ConfigError

PROFILES = Path(__file__).parents[1] / "profiles"


@dataclass(frozen=True)
class SlurmSettings:
    """What a job asks for; an empty text or a 0 leaves it to the cluster."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""  # features of a node, as "a100|h100"
    exclude: str = ""  # nodes
    gres: str = ""  # as gpu:a100:1; or plainly
    gpus: int = 0  # of each job
    cpus: int = 1
    memory_gb: float = 0.0
    minutes: int = 60  # time limit of one start
    at_once: int = 0  # tasks of an array that run at a time
    requeues: int = 10  # how often a job whose time is over is put back into the queue
    save_s: int = 90  # before the end of its time that a job is told to save
    setup: tuple[str, ...] = ()  # shell lines before each job, as "module load cuda"
    further: Mapping[str, Any] = field(
        default_factory=dict
    )  # of sbatch, as mail-user; true: a flag

    def asked(self) -> dict[str, Any]:
        """The options of sbatch by their long name."""
        memory = f"{round(self.memory_gb * 1024)}M" if self.memory_gb else ""
        named = {name: getattr(self, setting) for name, setting in _SETTING_OF.items()}
        named |= {"mem": memory, **self.further}
        return {name: value for name, value in named.items() if value}


# where an option of sbatch is set; those of an empty text are the launcher's own
_SETTING_OF = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "exclude": "exclude",
    "gres": "gres",
    "gpus-per-node": "gpus",
    "cpus-per-task": "cpus",
    "mem": "memory_gb",
    "time": "minutes",
}
_TAKEN = _SETTING_OF | {
    **dict.fromkeys(("array", "dependency", "job-name", "ntasks", "ntasks-per-node"), ""),
    **dict.fromkeys(("output", "error", "open-mode", "requeue", "no-requeue", "wrap"), ""),
    "signal": "save_s",
    "nodes": "",
    "gpus": "gpus",
}


@dataclass(frozen=True)
class Profile:
    """A place: a workstation, or a cluster."""

    work_dir: str = ""  # on a disk that all nodes see
    tracking_uri: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)  # folder of a release, by dataset
    slurm: SlurmSettings = field(default_factory=SlurmSettings)


def at_its_place(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with the paths of their profile, where they and the environment name none."""
    profile = read_profile(str(settings.get("cluster", "")))
    placed = dict(settings)
    if profile.work_dir and not (settings.get("work_dir") or os.environ.get("MAMMO_HOME")):
        placed["work_dir"] = profile.work_dir
    if profile.tracking_uri:
        os.environ.setdefault("MLFLOW_TRACKING_URI", profile.tracking_uri)
    if "source" in settings and not settings["source"]:
        placed["source"] = profile.sources.get(str(settings.get("dataset", "")), "")
    return placed


def read_profile(name: str) -> Profile:
    """The profile in a YAML file, or of that name in mammo/profiles; "" leaves all to defaults.

    Environment variables in its texts, as $SCRATCH, are filled in; those of `setup` are left to the
    shell of the job.
    """
    if not name:
        return Profile()
    import yaml

    path = _file_of(name)
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise ConfigError(f"cluster {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"cluster {path} is not YAML") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"cluster {path} is not a mapping of settings to values")
    content = dict(content)
    slurm = _read(SlurmSettings(), content.pop("slurm", None) or {}, path, "slurm.")
    _check(slurm, path)
    found: Profile = _read(Profile(slurm=slurm), content, path, "")
    return found


def _file_of(name: str) -> Path:
    """The file that `name` is the path of, or else the profile of this name."""
    path = Path(name).expanduser()
    if path.exists() or name not in (path.stem, f"profiles/{path.stem}.yaml"):
        return path
    known = {each.stem: each for each in sorted(PROFILES.glob("*.yaml"))}
    if path.stem not in known:
        raise ConfigError(
            f"cluster {name} is no file here and no profile; give a YAML file, or one of "
            f"{', '.join(known)}"
        )
    return known[path.stem]


def _read(standard: Any, content: Any, path: Path, prefix: str) -> Any:
    """`standard` with the values in `content`, each of the kind of the standard one."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"cluster {path}: {prefix.rstrip('.')} is not a mapping")
    kinds = {each.name: getattr(standard, each.name) for each in fields(standard)}
    kinds.pop("slurm", None)
    values = {}
    for name, value in content.items():
        if name not in kinds:
            known = ", ".join([*kinds, *([] if prefix else ["slurm"])])
            raise ConfigError(f"cluster {path}: {prefix}{name} is not known; choose among {known}")
        values[name] = _as(kinds[name], value, f"cluster {path}: {prefix}{name}")
    return replace(standard, **values)


def _as(standard: Any, value: Any, what: str) -> Any:
    """`value` of the kind of `standard`."""
    if isinstance(standard, tuple) and isinstance(value, list) and {*map(type, value)} <= {str}:
        return tuple(value)
    if isinstance(standard, Mapping) and isinstance(value, Mapping):
        return {str(key): _of_a_mapping(each, f"{what}.{key}") for key, each in value.items()}
    if isinstance(standard, str) and type(value) in (str, int):
        return _filled(str(value), what)
    numbers = (int, type(standard)) if isinstance(standard, int | float) else ()
    if type(value) in numbers and 0 <= value < float("inf"):
        return value
    kind = {tuple: "a list of texts", str: "a text", int: "a whole number", float: "a number"}
    wanted = kind.get(type(standard), "a mapping of names to texts")
    raise ConfigError(f"{what} is {value!r}; it must be {wanted}")


def _of_a_mapping(value: Any, what: str) -> Any:
    """A value of a mapping as a text; a true or false stays."""
    if not isinstance(value, str | int | float):
        raise ConfigError(f"{what} is {value!r}; it must be a text, a number, true or false")
    return value if isinstance(value, bool) else _filled(str(value), what)


def _filled(text: str, what: str) -> str:
    """`text` with the variables in it filled in."""
    filled = os.path.expandvars(text)
    absent = re.search(r"\$\{?(\w+)", filled)
    if absent:
        raise ConfigError(f"{what} is {text!r}, and {absent[1]} is not set; export it, or write it")
    return filled


def _check(slurm: SlurmSettings, path: Path) -> None:
    for option in slurm.further:
        if option in _TAKEN:
            mine = _TAKEN[option]
            remedy = f"use slurm.{mine}" if mine else "the launcher sets it itself; leave it out"
            raise ConfigError(f"cluster {path}: slurm.further.{option}: {remedy}")
    for name in ("cpus", "minutes", "save_s"):
        if not getattr(slurm, name):
            raise ConfigError(f"cluster {path}: slurm.{name} is 0; give 1 or more")
    if slurm.gres and slurm.gpus:
        raise ConfigError(
            f"cluster {path}: slurm.gres {slurm.gres} and slurm.gpus {slurm.gpus} both ask for "
            "GPUs; leave one of them out"
        )
    if slurm.save_s >= slurm.minutes * 60:
        raise ConfigError(
            f"cluster {path}: slurm.save_s {slurm.save_s} leaves nothing of slurm.minutes "
            f"{slurm.minutes}; give less"
        )
