"""Pretrained files of a setting: in a local folder, or on the hub, whence they come once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mammo.errors import CheckpointError, ConfigError
from mammo.generators.stable.folder import check_files

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")  # owner/name@revision


def fetched(setting: str, name: str, files: Sequence[str], others: Sequence[str] = ()) -> Path:
    """The folder that `name` names, with `files` in it whole; of the hub `others` come too."""
    folder = _folder(setting, name)
    if not folder.is_dir():
        if not HUB_NAME.fullmatch(name):
            raise ConfigError(
                f"{setting} {name!r} is no folder and no name of the hub; give {setting}=<folder> "
                f"with {', '.join(files)} in it, or a name like owner/name"
            )
        folder = _cached(name, files) or _ask(setting, name, files, others)
    check_files(setting, folder, files)
    return folder


def check_there(setting: str, name: str, files: Sequence[str]) -> None:
    """Refuse a folder in which one of `files` is not whole, and what the hub does not give.

    Nothing large is fetched. What is neither is left to who resolves references.
    """
    folder = _folder(setting, name)
    if folder.is_dir():
        check_files(setting, folder, files)
    elif HUB_NAME.fullmatch(name) and not _cached(name, files):
        _ask(setting, name, files, wanted=[each for each in files if each.endswith("config.json")])


def _folder(setting: str, name: str) -> Path:
    """`name` as a path, which may not be there; ConfigError for a file."""
    path = Path(name).expanduser()
    if path.is_file():
        raise ConfigError(
            f"{setting} {path} is a file; give a folder in the layout of diffusers, as "
            "save_pretrained writes it"
        )
    return path


def _cached(name: str, files: Sequence[str]) -> Path | None:
    """The hub's folder in the local cache, if it is there and whole."""
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        folder = Path(
            snapshot_download(repository, revision=revision or None, local_files_only=True)
        )
        check_files("", folder, files)
    except (OSError, ValueError, CheckpointError):
        return None
    return folder


def _ask(
    setting: str,
    name: str,
    files: Sequence[str],
    others: Sequence[str] = (),
    wanted: Sequence[str] = (),
) -> Path:
    """Fetch `files` and `others` of the hub's `name`, or `wanted` alone; the folder they are in."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: its library's
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
    )

    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=list(wanted or (*files, *others)),
            )
        )
    except (OSError, ValueError, HTTPError) as error:  # a proxy's refusal is an HTTPError alone
        answered = isinstance(error, (HfHubHTTPError, ValueError))
        gives = answered and not isinstance(error, LocalEntryNotFoundError)
        parts = ", ".join(dict.fromkeys(each.partition("/")[0] for each in files))
        raise ConfigError(
            f"{setting} {name!r} is not in the local cache and the hub "
            f"{'does not give it' if gives else 'cannot be reached'} ({type(error).__name__}); "
            f"give {setting}=<folder>, a copy of it on this machine with {parts}"
        ) from None
