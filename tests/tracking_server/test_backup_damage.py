"""A damaged backup is refused before a store is asked for anything; a cut stream is no backup."""

import gzip
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import keeping_stores
import pytest
from keeping import copies, folder, frames
from keeping.folder import Damaged
from keeping.reach import Refused, Stack

assert keeping_stores.KEEP.exists()
DUMP = b"""COPY public.runs (run_uuid, name) FROM stdin;
a\tone
b\ttwo\\nlines
\\.

COPY public.tags (key) FROM stdin;
\\.

-- PostgreSQL database dump complete
"""
CONTENT = b"weights"
KEY = "mlflow/1/aa/artifacts/model.safetensors"
PLACE = hashlib.sha256(CONTENT).hexdigest()


class Unreachable(Stack):
    """A stack that fails the test when it is asked for anything."""

    def process(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a store was asked")


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A whole backup of one object and two tables."""
    place = tmp_path / "backup"
    path = folder.object_path(place, PLACE)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    dump = folder.write_dump(io.BytesIO(DUMP), place / "databases" / "mlflow.sql.gz")
    assert dump["rows"] == {"public.runs": 2, "public.tags": 0}
    said = {"made": "2026-01-01T00:00:00Z", "database": "mlflow", "databases": {"mlflow": dump}}
    said["objects"] = [{"key": KEY, "sha256": PLACE, "bytes": len(CONTENT)}]
    folder.write_manifest(place, said)
    assert copies.verify(str(place))["objects"][0]["key"] == KEY
    return place


def truncate_object(place: Path) -> None:
    folder.object_path(place, PLACE).write_bytes(CONTENT[:-1])


def change_object(place: Path) -> None:
    folder.object_path(place, PLACE).write_bytes(b"Weights")


def lose_object(place: Path) -> None:
    folder.object_path(place, PLACE).unlink()


def change_dump(place: Path) -> None:
    path = place / "databases" / "mlflow.sql.gz"
    size = path.stat().st_size
    path.write_bytes(gzip.compress(DUMP.replace(b"one", b"two"), 3))
    path.write_bytes(path.read_bytes().ljust(size, b"\0")[:size])


def change_manifest(place: Path) -> None:
    path = place / "manifest.json"
    path.write_text(path.read_text().replace("model.safetensors", "other.safetensors"))


def cut_manifest(place: Path) -> None:
    path = place / "manifest.json"
    path.write_text(path.read_text()[:-20])


def lose_manifest(place: Path) -> None:
    (place / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate_object, f"object {KEY} has 6 bytes, not 7"),
        (change_object, f"object {KEY} has another content"),
        (lose_object, f"object {KEY} is missing"),
        (change_dump, "database mlflow has another content"),
        (change_manifest, "manifest.json was changed since it was written"),
        (cut_manifest, "manifest.json cannot be read"),
        (lose_manifest, "is no backup: it has no manifest.json"),
    ],
)
def test_a_damaged_backup_is_refused_before_anything_is_written(backup, damage, said):
    damage(backup)
    with pytest.raises(Damaged, match=re.escape(said)):
        copies.restore(Unreachable(), str(backup))


def test_a_manifest_of_a_later_program_is_not_guessed_at(backup, monkeypatch):
    said = json.loads((backup / "manifest.json").read_text())
    del said["digest"]
    monkeypatch.setattr(folder, "FORMAT", 2)
    folder.write_manifest(backup, {key: said[key] for key in said if key != "format"})
    monkeypatch.undo()
    with pytest.raises(Damaged, match="format 2, this program reads 1"):
        copies.restore(Unreachable(), str(backup))


def test_a_dump_that_pg_dump_did_not_end_is_no_dump(tmp_path):
    (tmp_path / "databases").mkdir()
    with pytest.raises(Damaged, match="ended before the dump"):
        folder.write_dump(io.BytesIO(DUMP[:-20]), tmp_path / "databases" / "mlflow.sql.gz")


def test_a_backup_never_takes_the_place_of_another(backup):
    with pytest.raises(Refused, match="exists already; a backup overwrites nothing"):
        copies.backup(Unreachable(), str(backup))


def test_what_is_cut_short_leaves_no_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt), copies.writing(tmp_path / "backup") as partial:
        (partial / "databases").mkdir()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_objects_come_through_a_pipe_as_they_were_sent():
    def cut() -> Any:
        yield b"half"
        raise frames.Broken("it ends after 4 of 8 bytes")

    big = bytes(range(256)) * 10_000
    pipe = io.BytesIO()
    frames.send(pipe, {"key": "big"}, [big[:7], b"", big[7:]])
    frames.send(pipe, {"key": "empty"})
    frames.send(pipe, {"key": "cut"}, cut())
    frames.finish(pipe)
    pipe.seek(0)
    found = []
    for header, content in frames.receive(pipe):
        pieces = list(iter(lambda c=content: c.read(1000), b""))
        assert all(len(piece) == 1000 for piece in pieces[:-1])
        found.append((header["key"], b"".join(pieces), content.error))
    assert found == [("big", big, ""), ("empty", b"", ""), ("cut", b"half", cut_words())]
    whole = pipe.getvalue()
    for end in (len(whole) - 3, len(whole) - 20, 100, 10):
        with pytest.raises(frames.Broken, match="the stream ended"):
            for _, content in frames.receive(io.BytesIO(whole[:end])):
                content.read()
    with pytest.raises(frames.Broken, match="another digest"):
        for _, content in frames.receive(io.BytesIO(whole.replace(b"half", b"hald"))):
            content.read()


def cut_words() -> str:
    return "it ends after 4 of 8 bytes"
