"""Files on their way: one that is not taken holds back no other, and the newest alone is sent."""

import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import doors
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import TEMPORARILY_UNAVAILABLE, MlflowException

from mammo.tracking import TrackedRun, Tracking, pictures
from mammo.tracking.journal import Journal
from mammo.tracking.parcels import Parcel, Parcels

pytestmark = pytest.mark.doors
LOG_ARTIFACT = MlflowClient.log_artifact


def away(*args: Any, **more: Any) -> None:
    raise MlflowException("too many 503 error responses", error_code=TEMPORARILY_UNAVAILABLE)


def but(name: str) -> Callable[..., None]:
    """log_artifact of a store that never takes a file called `name`."""

    def log_artifact(self: Any, run_id: str, path: str, folder: str | None = None) -> None:
        if Path(path).name == name:
            away()
        LOG_ARTIFACT(self, run_id, path, folder)

    return log_artifact


def tracked_in(tracking: Tracking, folder: Path) -> TrackedRun:
    about: dict[str, Any] = {"folder": folder / "run", "work": folder, "inputs": {}}
    return TrackedRun(tracking, tracking.create_run("given", "evaluate"), **about)


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def stored(run_id: str, folder: Path) -> dict[str, bytes]:
    """Name and content of every artifact of a run."""
    place = Path(MlflowClient().download_artifacts(run_id, "", str(folder)))
    return {each.name: each.read_bytes() for each in place.rglob("*") if each.is_file()}


def test_a_file_that_is_never_taken_holds_back_no_other_and_is_named_at_the_end(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["a", "stuck", "b", "c"]
    with monkeypatch.context() as broken, caplog.at_level(logging.WARNING, "mammo"):
        broken.setattr(MlflowClient, "log_artifact", but("stuck"))
        with Tracking(tmp_path / "home") as tracking:
            tracked = tracked_in(tracking, tmp_path)
            for name in names:
                tracked.artifacts(written(tmp_path, name, name.encode()), "files")
            other = tracked_in(tracking, tmp_path / "other")  # a run that waits behind it
            other.artifacts(written(tmp_path, "d", b"d"))
            tracking.set_status(other.id, "FINISHED")
            assert tracking.outbox.flush(20, other.id)
            tracking.set_status(tracked.id, "FINISHED")
            tracking.close(4)
    assert set(stored(tracked.id, tmp_path / "first")) == {"a", "b", "c"}
    told = [each for each in caplog.messages if "mammo sync" in each]
    assert (
        len(told) == 1 and f"does not take files/stuck of run {tracked.id} (too many 503" in told[0]
    )
    assert len([each for each in caplog.messages if "kept until it does" in each]) == 1
    with monkeypatch.context() as broken:  # neither does sync stop at it, nor send the others again
        broken.setattr(MlflowClient, "log_artifact", but("stuck"))
        again = doors.here("sync")
    assert again.code == 2
    said = f"{tracked.id}: sent nothing; files/stuck is not taken (too many 503 error responses)\n"
    assert again.out == said
    done = doors.here("sync")
    assert (done.code, done.out) == (0, f"{tracked.id}: sent 1 files\n")
    assert stored(tracked.id, tmp_path / "last") == {name: name.encode() for name in names}
    assert MlflowClient().get_run(tracked.id).info.status == "FINISHED"


def test_of_several_versions_that_wait_the_newest_alone_is_kept_and_sent(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []

    def log_artifact(self: Any, run_id: str, path: str, folder: str | None = None) -> None:
        sent.append((folder, Path(path).name, Path(path).read_bytes()))
        LOG_ARTIFACT(self, run_id, path, folder)

    with Tracking(tmp_path / "home") as tracking:
        tracked = tracked_in(tracking, tmp_path)
        with monkeypatch.context() as outage:
            for name in ("log_batch", "log_artifact"):
                outage.setattr(MlflowClient, name, away)
            tracked.tags({"wait": "here"})
            for version in range(20):
                content = bytes([version]) * 1000
                tracked.artifacts(written(tmp_path, "weights", content), "checkpoints/last")
                tracked.artifacts(written(tmp_path, "weights", content), "checkpoints/best")
            kept = [each for each in (tmp_path / "home/spool").rglob("weights") if each.is_file()]
            assert len(kept) == 2
            outage.setattr(MlflowClient, "log_artifact", log_artifact)
            outage.undo()
            outage.setattr(MlflowClient, "log_artifact", log_artifact)
            assert tracking.outbox.flush(30)
        tracking.set_status(tracked.id, "FINISHED")
    newest = bytes([19]) * 1000
    assert sorted(sent) == [(f"checkpoints/{name}", "weights", newest) for name in ("best", "last")]


def test_a_newer_file_takes_the_place_of_one_that_stepped_aside(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run", {"kind": "about", "id": "a" * 32})
    parcels = Parcels(journal)
    entries = []
    for content in (b"old", b"new"):
        name = journal.keep(content, "weights")
        entries.append({"kind": "file", "file": name, "folder": "", "bytes": 3})
    parcels.add(Parcel(entries[0], 2, 100))
    old = parcels.next()
    assert old is not None
    parcels._step_aside(old, "not now")
    parcels.add(Parcel(entries[1], 3, 200))
    assert [each.entry for each in parcels] == [entries[1]]
    assert not (tmp_path / "run" / "files" / entries[0]["file"]).exists()
    assert parcels.places(300) == (199, [])


def test_files_that_a_failing_disk_has_spoilt_are_named_and_the_others_sent(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.full((8, 8), 7, np.uint8)
    with Tracking(tmp_path / "home", offline=True) as tracking:
        tracked = tracked_in(tracking, tmp_path)
        for step in (1, 2):
            tracked.image("samples", image, step)
        tracked.artifacts(written(tmp_path, "short", b"four"))
        tracked.artifacts(written(tmp_path, "whole", b"five!"))
        tracking.set_status(tracked.id, "FINISHED")
    first = min((tmp_path / "home/spool").rglob("image.npy"))
    first.write_bytes(bytes(first.stat().st_size))  # as long as it was, but zeros
    os.truncate(next((tmp_path / "home/spool").rglob("short")), 0)
    done = doors.here("sync")
    assert done.code == 2 and "Traceback" not in done.err
    assert "the tracking server refused file image.npy (its pixels are spoilt" in done.out
    (found,) = MlflowClient().search_runs(["0"])
    assert found.info.status == "FAILED"
    names = stored(found.info.run_id, tmp_path / "got")
    assert names["whole"] == b"five!" and "short" not in names
    assert len([name for name in names if name.endswith(".png")]) == 1
    (kept,) = (tmp_path / "home/spool").rglob("rejected.jsonl")
    reasons = [json.loads(line)["reason"] for line in kept.read_text().splitlines()]
    assert "it has 0 bytes here, 4 when it was logged" in reasons


def test_a_full_disk_of_temporary_files_stops_no_other_file(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Tracking(tmp_path / "home") as tracking:
        tracked = tracked_in(tracking, tmp_path)
        with monkeypatch.context() as disk, caplog.at_level(logging.WARNING, "mammo"):
            disk.setattr(pictures.tempfile, "TemporaryDirectory", full)
            tracked.image("samples", np.zeros((8, 8), np.uint8), 1)
            tracked.artifacts(written(tmp_path, "small", b"small"))
            assert not tracking.outbox.flush(4)
        assert "No space left on device" in tracking.outbox.stuck
        assert not [each for each in caplog.messages if "bug" in each]
        assert set(stored(tracked.id, tmp_path / "first")) == {"small"}
        tracking.set_status(tracked.id, "FINISHED")
    assert len(stored(tracked.id, tmp_path / "last")) == 3


def test_a_read_does_not_wait_again_and_again_for_a_file_that_is_not_taken(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    with Tracking(tmp_path / "home") as tracking:
        tracked = tracked_in(tracking, tmp_path)
        assert tracking.outbox.flush(10)
        with monkeypatch.context() as broken:
            broken.setattr(MlflowClient, "log_artifact", but("stuck"))
            tracked.artifacts(written(tmp_path, "stuck", b"stuck"))
            tracking.outbox.flush(2)
            (parcel,) = tracking.outbox.sender.deliveries[0].parcels
            parcel.since -= 1000
            broken.setattr(tracking.outbox, "flush", lambda wait_s: waits.append(wait_s))
            assert tracking.get(tracked.id).info.run_name == "given"
        tracking.set_status(tracked.id, "FINISHED")
    assert waits == [1.0]
