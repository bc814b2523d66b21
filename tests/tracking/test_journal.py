"""The journal keeps every whole line exactly once, whatever cut it off or filled the disk."""

import errno
import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammo.tracking import journal as module
from mammo.tracking import kept
from mammo.tracking.journal import Busy, Journal
from mammo.tracking.view import entries_in

ABOUT = {"kind": "about", "id": "a" * 32}
TEXTS = st.text(max_size=20)


def entries(journal: Journal) -> list[dict[str, Any]]:
    """All entries of the file behind its first line."""
    found, place = [], 0
    while read := journal.read(place):
        found += [entry for entry, _ in read]
        place = read[-1][1]
    return found[1:]


@settings(max_examples=30, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=6), st.data())
def test_of_a_journal_cut_anywhere_each_whole_line_is_there_once(
    texts: list[str], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        first = Journal(place, ABOUT)
        for text in texts:
            first.append({"kind": "tags", "values": {"word": text}})
        first.close()
        whole = (place / "journal.jsonl").read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        (place / "journal.jsonl").write_bytes(whole[:cut])
        expected = [json.loads(line) for line in whole[:cut].split(b"\n")[:-1]]
        again = Journal(place, ABOUT)
        again.append({"kind": "end"})
        assert again.about == ABOUT
        assert entries(again) == [*expected[1:], {"kind": "end"}]
        assert again.lines == max(1, len(expected)) + 1
        again.close()


def test_a_spoilt_line_says_so_and_hides_no_other(tmp_path: Path) -> None:
    first = Journal(tmp_path / "run", ABOUT)
    first.append({"kind": "end"})
    first.close()
    with (tmp_path / "run" / "journal.jsonl").open("ab") as file:
        file.write(b"\0\0\0\n" + b'{"kind":"reopen"}\n')
    again = Journal(tmp_path / "run")
    assert [entry["kind"] for entry in entries(again)] == ["end", "spoilt", "reopen"]


def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    first = Journal(tmp_path / "run", ABOUT)
    with pytest.raises(Busy):
        Journal(tmp_path / "run")
    first.close()
    assert Journal(tmp_path / "run").about == ABOUT


def test_an_entry_longer_than_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 16)
    journal = Journal(tmp_path / "run", ABOUT)
    for number in range(3):
        journal.append({"kind": "tags", "values": {"word": "x" * 50 * number}})
    assert [len(entry["values"]["word"]) for entry in entries(journal)] == [0, 50, 100]


class Disk:
    """os.write of a disk with `room` bytes left; the last line in is torn, as on a real one."""

    def __init__(self, room: int) -> None:
        self.room, self._write = room, os.write

    def __call__(self, descriptor: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(descriptor, data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 10, 45, 46, 200])
def test_what_a_full_disk_does_not_take_waits_in_memory_and_keeps_its_order(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "run", ABOUT)
    disk = Disk(room)
    monkeypatch.setattr(module.os, "write", disk)
    for number in range(20):
        journal.append({"kind": "tags", "values": {"number": number}})
    on_disk = (tmp_path / "run" / "journal.jsonl").read_bytes()
    assert on_disk.endswith(b"\n")  # no torn line between whole ones
    there = len(entries(journal))
    place = len(on_disk)
    assert [e["values"]["number"] for e in journal.lend(place)] == list(range(there, 20))
    journal.give_back(0)
    disk.room = 10_000
    journal.append({"kind": "end"})
    found = entries(journal)
    assert [entry["values"]["number"] for entry in found[:-1]] == list(range(20))
    assert found[-1] == {"kind": "end"}
    assert (journal.dropped, journal.lines) == (0, 22)


def test_what_memory_does_not_take_either_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "run", ABOUT)
    monkeypatch.setattr(module.os, "write", Disk(0))
    line = len(b'{"kind":"tags","values":{"number":0}}\n')
    monkeypatch.setattr(kept, "IN_MEMORY", 3 * line)
    for number in range(5):
        journal.append({"kind": "tags", "values": {"number": number}})
    assert (journal.dropped, len(journal.lend(journal.end))) == (2, 3)


def test_entries_that_were_sent_from_memory_do_not_come_to_the_disk_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "run", ABOUT)
    disk = Disk(0)
    monkeypatch.setattr(module.os, "write", disk)
    for number in range(3):
        journal.append({"kind": "tags", "values": {"number": number}})
    assert len(journal.lend(journal.end)) == 3
    disk.room = 1000
    journal.append({"kind": "tags", "values": {"number": 3}})  # the lent ones stay where they are
    assert entries(journal) == []
    journal.give_back(2)
    journal.append({"kind": "end"})
    assert [entry.get("values") for entry in entries(journal)] == [
        {"number": 2},
        {"number": 3},
        None,
    ]


@pytest.mark.parametrize("size", [100, kept.LINK_FROM])
def test_a_kept_file_is_as_it_was(size: int, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run", ABOUT)
    source = tmp_path / "weights"
    source.write_bytes(b"a" * size)
    name = journal.keep(source, "weights")
    fresh = tmp_path / "fresh"
    fresh.write_bytes(b"b" * size)
    fresh.replace(source)  # how a checkpoint is written anew
    with journal.files.opened(name) as place:
        assert (place.name, place.read_bytes()) == ("weights", b"a" * size)
        assert (place.stat().st_nlink, place.is_symlink()) == (1, False)
    journal.files.release(name)
    assert list((tmp_path / "run" / "files").iterdir()) == []


def test_a_file_that_a_full_disk_does_not_take_is_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "run", ABOUT)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        name = journal.keep(b"pixels", "image.npy")
        journal.append({"kind": "file", "file": name}, file=name)
        assert entries(journal) == []  # no line tells of a file that is not there
    with journal.files.opened(name) as place:
        assert place.read_bytes() == b"pixels"
    journal.append({"kind": "end"})
    assert [entry["kind"] for entry in entries(journal)] == ["file", "end"]
    assert (tmp_path / "run" / "files" / name).read_bytes() == b"pixels"


def test_a_run_that_is_sent_leaves_nothing_and_takes_no_more(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run", ABOUT)
    journal.append({"kind": "end"})
    assert not journal.retire(1)
    assert journal.retire(2)
    assert not (tmp_path / "run").exists()
    assert not journal.append({"kind": "end"})


def test_an_entry_costs_microseconds(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run", ABOUT)
    values = {f"train/loss_{number}": 0.123456789 * number for number in range(5)}
    took = []
    for step in range(2000):
        start = time.perf_counter()
        journal.append({"kind": "metrics", "values": values, "time": 1, "step": step})
        took.append(time.perf_counter() - start)
    assert sorted(took)[1000] < 100e-6  # on an idle machine 10 to 20


def test_a_journal_that_is_deleted_while_another_process_opens_it_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines would go into a file without a name, and be lost with the process."""
    first = Journal(tmp_path / "run", ABOUT)
    lock = module.fcntl.flock

    def meanwhile(*args: Any) -> None:
        monkeypatch.setattr(module.fcntl, "flock", lock)
        assert first.retire(1)
        lock(*args)

    monkeypatch.setattr(module.fcntl, "flock", meanwhile)
    second = Journal(tmp_path / "run", ABOUT)
    second.append({"kind": "end"})
    assert len((tmp_path / "run" / "journal.jsonl").read_text().splitlines()) == 2


def test_lines_that_are_no_entries_are_spoilt_to_every_reader(tmp_path: Path) -> None:
    first = Journal(tmp_path / "run", ABOUT)
    first.close()
    with (tmp_path / "run" / "journal.jsonl").open("ab") as file:
        file.write(b'7\n["kind"]\n{"kin":1}\n\r\r\n')
    kinds = ["about", *["spoilt"] * 4]
    assert [entry["kind"] for entry in entries_in(tmp_path / "run")] == kinds
    again = Journal(tmp_path / "run")
    assert ([entry["kind"] for entry in entries(again)], again.lines) == (kinds[1:], 5)
