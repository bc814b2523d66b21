"""Where work is done: in processes of this machine, as jobs of a Slurm cluster, or by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mammo.errors import ConfigError
from mammo.launch.command import Command, End, Launched, Launcher, commands_of
from mammo.launch.local import LAUNCHED_BY, Local
from mammo.launch.order import GATHER, Order
from mammo.launch.profile import Profile, SlurmSettings, at_its_place, read_profile

LAUNCHERS = ("local", "slurm", "none")

__all__ = [
    "GATHER",
    "LAUNCHED_BY",
    "LAUNCHERS",
    "Command",
    "End",
    "Launched",
    "Launcher",
    "Local",
    "Order",
    "Profile",
    "SlurmSettings",
    "at_its_place",
    "check_launcher",
    "commands_of",
    "open_launcher",
    "read_profile",
]


def check_launcher(settings: Mapping[str, Any]) -> None:
    """ConfigError where the launcher of `settings` is unknown, absent, or refuses its profile."""
    name, cluster = str(settings.get("launcher", "local")), str(settings.get("cluster", ""))
    if name not in LAUNCHERS:
        raise ConfigError(f"launcher {name!r} is not known; choose one of {', '.join(LAUNCHERS)}")
    profile = read_profile(cluster)
    if name == "slurm":
        from mammo.launch.slurm import Slurm

        Slurm(profile).check(int(settings.get("nodes", 1)))


def open_launcher(name: str, profile: Profile, folder: Path) -> Launcher:
    """The launcher `name`, with its own files in `folder`."""
    if name == "slurm":
        from mammo.launch.slurm import Slurm

        return Slurm(profile, folder / "jobs")
    return Local()
