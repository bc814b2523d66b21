"""A backup on disk: a folder with the databases, the objects under their digests, and a manifest.

manifest.json          what there is, with sha256 of everything, and of itself
databases/NAME.sql.gz  as pg_dump wrote it
objects/ab/abcd…       the content whose sha256 is abcd…
"""

import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FORMAT = 1
_COPY = re.compile(rb"COPY (\S+) \(.*\) FROM stdin;\n")
_END = b"-- PostgreSQL database dump complete\n"


class Damaged(Exception):
    """A backup is not what its manifest says."""


def object_path(folder: Path, sha256: str) -> Path:
    return folder / "objects" / sha256[:2] / sha256


def write_dump(lines: Iterable[bytes], path: Path) -> dict[str, Any]:
    """Compress what pg_dump writes; says its digest and the rows of each table."""
    rows: dict[str, int] = {}
    table, whole = "", False
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wb", compresslevel=3) as file:
        for line in lines:
            file.write(line)
            if table:
                if line == b"\\.\n":
                    table = ""
                else:
                    rows[table] += 1
            elif found := _COPY.fullmatch(line):
                table = found[1].decode()
                rows[table] = 0
            elif line == _END:
                whole = True
    if not whole:
        raise Damaged(f"pg_dump ended before the dump {path.name} was whole")
    return {"sha256": sha256_of(path), "bytes": path.stat().st_size, "rows": rows}


def write_manifest(folder: Path, said: dict[str, Any]) -> None:
    """Write what the backup holds; the last file, and on disk before the folder gets its name."""
    said = {"format": FORMAT, **said}
    text = json.dumps({**said, "digest": _digest(said)}, indent=1) + "\n"
    (folder / "manifest.json").write_text(text)
    os.sync()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a backup; Damaged when it is missing or was changed."""
    path = folder / "manifest.json"
    try:
        said: dict[str, Any] = json.loads(path.read_text())
        digest = said.pop("digest")
    except FileNotFoundError:
        raise Damaged(f"{folder} is no backup: it has no manifest.json") from None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise Damaged(f"{path} cannot be read ({type(error).__name__})") from None
    if digest != _digest(said):
        raise Damaged(f"{path} was changed since it was written")
    if said["format"] != FORMAT:
        raise Damaged(f"{path} has format {said['format']}, this program reads {FORMAT}")
    return said


def faults(folder: Path, said: dict[str, Any]) -> list[str]:
    """What of the backup is missing or has another digest, a line each."""
    found = []
    for name, dump in said["databases"].items():
        reason = _fault(folder / "databases" / f"{name}.sql.gz", dump)
        found += [f"database {name} {reason}"] if reason else []
    for each in said.get("objects", []):
        reason = fault(folder, each)
        found += [f"object {each['key']} {reason}"] if reason else []
    return found


def fault(folder: Path, each: dict[str, Any]) -> str:
    """What is wrong with the file of an object; empty for nothing."""
    return _fault(object_path(folder, each["sha256"]), each)


def _fault(path: Path, said: dict[str, Any]) -> str:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != said["bytes"]:
        return f"has {size} bytes, not {said['bytes']}"
    return "" if sha256_of(path) == said["sha256"] else "has another content"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(said: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
