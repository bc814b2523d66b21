"""System metrics: what is read is true, they come at their interval, and end no run."""

import threading
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from mammo.errors import ConfigError, TrackingError
from mammo.run import MemoryRun
from mammo.tracking.sampler import EVERY_S, INTERVAL, KEPT, SWITCH, interval_s, readings, sampled


class Watched(MemoryRun):
    """A run that tells when `wanted` samples are there."""

    def __init__(self, folder: Path, wanted: int) -> None:
        super().__init__(folder)
        self.wanted, self.enough = wanted, threading.Event()

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        super().metrics(values, step)
        if len(self.steps) >= self.wanted:
            self.enough.set()

    @property
    def steps(self) -> list[int | None]:
        one = "system/process_memory_megabytes"
        return [step for name, _, step in self.history if name == one]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "true")
    monkeypatch.setenv(INTERVAL, "0.01")


def test_memory_and_disk_are_those_of_the_machine(tmp_path: Path) -> None:
    found = readings(tmp_path)
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(tmp_path))
    used = found["system/system_memory_usage_megabytes"]
    share = found["system/system_memory_usage_percentage"]
    assert 100 * used * 1e6 / memory.total == pytest.approx(share, abs=0.1)
    assert found["system/disk_available_megabytes"] * 1e6 == pytest.approx(disk.free, rel=0.05)
    assert found["system/disk_usage_percentage"] == pytest.approx(disk.percent, abs=2)
    assert 20 < found["system/process_memory_megabytes"] * 1e6 < memory.total


def test_samples_come_at_the_interval_and_a_run_that_is_gone_on_with_counts_on(
    tmp_path: Path, often: None
) -> None:
    first, second = Watched(tmp_path, 3), Watched(tmp_path, 2)
    for run in (first, second):
        with sampled(run):
            assert run.enough.wait(10)
    assert first.steps[:3] == [0, 1, 2]
    assert second.steps[0] == len(first.steps)
    assert all(name.startswith("system/") for name, _, _ in first.history)


def test_none_is_taken_once_the_run_ends(tmp_path: Path, often: None) -> None:
    run = Watched(tmp_path, 1)
    with pytest.raises(ZeroDivisionError), sampled(run):
        assert run.enough.wait(10)
        raise ZeroDivisionError
    assert "mammo-system" not in {thread.name for thread in threading.enumerate()}


def test_a_store_that_takes_no_numbers_ends_the_samples_and_not_the_run(
    tmp_path: Path, often: None, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing(Watched):
        def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
            self.enough.set()
            raise TrackingError("the server is gone")

    run = Refusing(tmp_path, 1)
    with sampled(run):
        assert run.enough.wait(10)
    assert caplog.messages == ["no more system metrics: the server is gone"]


@pytest.mark.parametrize(("text", "steps"), [("", [0, 1]), ("7", [7, 8])])
def test_a_count_that_a_kill_cut_off_starts_anew(
    tmp_path: Path, often: None, text: str, steps: list[int]
) -> None:
    run = Watched(tmp_path, 2)
    (run.folder / KEPT).write_text(text)
    with sampled(run):
        assert run.enough.wait(10)
    assert run.steps[:2] == steps


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [({}, EVERY_S), ({SWITCH: "False"}, 0), ({SWITCH: "true"}, EVERY_S), ({INTERVAL: "5"}, 5)],
)
def test_mlflows_own_variables_decide(environment: dict[str, str], seconds: float) -> None:
    assert interval_s(environment) == seconds


@pytest.mark.parametrize("text", ["often", "0", "-1", "inf", "nan"])
def test_an_interval_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=f"{INTERVAL} '{text}' is no number of seconds above 0"):
        interval_s({INTERVAL: text})
