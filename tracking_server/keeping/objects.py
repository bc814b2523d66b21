"""The bucket's objects into a backup and back, through the pipes of keep.py beside the store."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from keeping import folder as backups
from keeping import frames
from keeping.folder import Damaged, object_path
from keeping.reach import Stack


def fetch(stack: Stack, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Every object of the bucket, as the manifest names it, and those that could not be read.

    One that has not changed since the newest backup beside `folder` becomes a second name of the
    file there, after its digest was compared.
    """
    former, known = _former(folder.parent)
    found, unreadable = [], []
    arriving = folder / "arriving"
    with tempfile.TemporaryFile() as names:
        names.writelines(json.dumps(each).encode() + b"\n" for each in known.values())
        names.seek(0)
        export = stack.store("store", "export")
        with stack.process(export, stdin=names, stdout=subprocess.PIPE) as process:
            for header, content in frames.receive(process.stdout):
                if header.pop("same", False):
                    each = known[header["key"]]
                    target = _place(folder, each["sha256"])
                    if not target.exists():
                        target.hardlink_to(object_path(former, each["sha256"]))
                    found.append(each)
                    continue
                with arriving.open("wb") as file:
                    shutil.copyfileobj(content, file, frames.PIECE)
                if content.error:
                    unreadable.append(f"{header['key']} ({content.error})")
                    continue
                arriving.rename(_place(folder, content.sha256))
                found.append({**header, "sha256": content.sha256, "bytes": content.bytes})
    arriving.unlink(missing_ok=True)
    return found, unreadable


def bring(stack: Stack, folder: Path, objects: list[dict[str, Any]]) -> None:
    """Put a backup's objects into the empty bucket."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with stack.process(stack.store("store", "import"), **pipes) as process:
        for each in objects:
            with object_path(folder, each["sha256"]).open("rb") as file:
                frames.send(process.stdin, each, iter(lambda f=file: f.read(frames.PIECE), b""))
        frames.finish(process.stdin)


def _place(folder: Path, sha256: str) -> Path:
    target = object_path(folder, sha256)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _former(parent: Path) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The newest whole backup in `parent`, and by key its objects whose files are still right."""
    found = []
    for path in parent.glob("*/manifest.json"):
        try:
            found.append((backups.read_manifest(path.parent), path.parent))
        except Damaged:
            continue
    found = [each for each in found if "objects" in each[0]]
    if not found:
        return parent, {}
    said, former = max(found, key=lambda each: (each[0]["made"], each[1]))
    wrong = {each["key"] for each in said["objects"] if backups.fault(former, each)}
    return former, {each["key"]: each for each in said["objects"] if each["key"] not in wrong}
