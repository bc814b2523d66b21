"""A step in parts, on one machine or by hand: what it makes is what one process makes."""

import shlex
from pathlib import Path

import doors
import pytest
from drawn import digest, status, trained

pytestmark = pytest.mark.doors


def test_parts_in_processes_or_by_hand_draw_what_one_process_draws(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    asked = {"generator": trained(tmp_path), "counts": "benign=6,malignant=14", "steps": 4}
    asked |= {"device": "cpu", "batch_size": 4, "reuse": False}
    alone = doors.here("sample", work_dir=tmp_path / "alone", **asked)
    spread = doors.here("sample", work_dir=tmp_path / "spread", workers=2, **asked)
    assert digest(spread.run_id) == digest(alone.run_id)
    assert "20 of 20 images are there already" in spread.err  # drawn by the processes
    hand = {"work_dir": tmp_path / "hand", "workers": 2, "launcher": "none"}
    line = doors.here("sample", **hand, **asked).line
    assert (line["status"], status(line["run_id"])) == ("SCHEDULED", "SCHEDULED")
    first, second, gather = [shlex.split(each)[3:] for each in line["commands"]]
    early = doors.here(*gather)
    assert early.code == 2 and "part 0 of 2 was ended from outside" in early.err
    assert status(line["run_id"]) == "FAILED"
    for words in (second, first):  # in any order
        assert doors.here(*words).code == 0
    assert doors.here(*gather).code == 0
    assert status(line["run_id"]) == "FINISHED"
    assert digest(line["run_id"]) == digest(alone.run_id)
