"""Folds and seeds at once: processes of their own, the same bits, nothing lost when one ends."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "steps"))

from classifier_data import tracked, train, write
from safetensors.torch import load_file

from mammo.errors import ConfigError, DataError
from mammo.run import MemoryRun, Stopped
from mammo.training.children import Task, in_processes
from mammo.training.devices import device_of

SETTINGS = {"folds": "all", "val_fraction": 0.25}


def weights(run):
    return load_file(run.folder / "model" / "weights.safetensors")


def same(one, other):
    left, right = weights(one), weights(other)
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """A run whose folds were trained one after the other, with its dataset and its result."""
    folder = tmp_path_factory.mktemp("apart")
    data = write(folder / "datasets", folds=3)
    run = tracked(folder, data)
    return run, data, train(run, **SETTINGS)


@pytest.mark.doors
def test_folds_at_once_are_the_folds_one_after_the_other_to_the_bit(tmp_path, apart):
    whole, data, expected = apart
    run = tracked(tmp_path, data)
    result = train(run, jobs=2, **SETTINGS)
    assert result.metrics == expected.metrics and result.digest == expected.digest
    assert sorted(run.children) == sorted(whole.children)
    for name, child in run.children.items():
        other = whole.children[name]
        assert same(child, other)
        assert child.status == "FINISHED"
        assert child.input_datasets == other.input_datasets
        assert child.uploaded.keys() == other.uploaded.keys()
        assert set(child.figures) == set(other.figures)
        timeless = [each for each in child.history if each[0] != "images_per_second"]
        assert timeless == [each for each in other.history if each[0] != "images_per_second"]


@pytest.mark.doors
def test_a_family_that_is_stopped_goes_on_with_what_is_left(tmp_path, apart):
    whole, data, expected = apart
    run = tracked(tmp_path, data)
    metrics = MemoryRun.metrics

    def stopped(self, values, step=None):
        metrics(self, values, step)
        if "fold-2" in str(self.folder) and step == 1:
            raise Stopped(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryRun, "metrics", stopped)
        with pytest.raises(Stopped):
            train(run, jobs=2, **SETTINGS)
    assert not multiprocessing.active_children()
    again = tracked(tmp_path, data)
    result = train(again, jobs=2, **SETTINGS)
    assert "fold-2-seed-0" in again.children and len(again.children) < 3
    for name, child in again.children.items():
        assert same(child, whole.children[name])
    assert result.metrics == expected.metrics


def fails(run, slot):
    run.params({"slot": slot})
    raise DataError("the labels are upside down; turn them")


def ends(run, slot):
    os.kill(os.getpid(), signal.SIGKILL)


def waits(run, slot):
    run.params({"slot": slot})
    time.sleep(600)


class Deaf(Exception):
    """Takes two words and tells pickle of one, so that it cannot be read back."""

    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


def breaks(run, slot):
    raise Deaf("the left", "the right one differ")


def holds_a_lock(run, slot):
    error = ValueError("held")
    error.lock = threading.Lock()
    raise error


def tells(run, slot):
    run.metrics({"value": 3.0}, 7)
    return slot


def tasks(parent, *works):
    return [
        Task(lambda number=number: parent.child(str(number), "step"), work)
        for number, work in enumerate(works)
    ]


@pytest.mark.doors
def test_what_a_process_logs_is_in_its_run_and_slots_are_shared(tmp_path):
    parent = MemoryRun(tmp_path)
    found = {number: slot for number, _, slot in in_processes(tasks(parent, *[tells] * 3), 2)}
    assert set(found) == {0, 1, 2} and set(found.values()) <= {0, 1}
    for child in parent.children.values():
        assert child.history == [("value", 3.0, 7)] and child.status == "FINISHED"


@pytest.mark.doors
@pytest.mark.parametrize(
    ("work", "error", "line"),
    [
        (fails, DataError, "the labels are upside down; turn them"),
        (ends, ConfigError, "exit code"),
        (breaks, RuntimeError, r"test_children\.Deaf: the left and the right one differ \(.*line"),
        (holds_a_lock, RuntimeError, r"builtins\.ValueError: held \(.*test_children\.py, line"),
    ],
)
def test_one_that_fails_ends_the_others_and_its_reason_is_raised(tmp_path, work, error, line):
    parent = MemoryRun(tmp_path)
    begun = time.monotonic()
    with pytest.raises(error, match=line) as caught:
        list(in_processes(tasks(parent, waits, work), 2))
    assert time.monotonic() - begun < 300  # of the 600 that the other one waits
    assert "\n" not in str(caught.value)
    assert [child.status for child in parent.children.values()] == ["FAILED", "FAILED"]
    assert not multiprocessing.active_children()
    assert threading.active_count() < 20


def test_jobs_without_several_runs_are_refused(tmp_path, apart):
    with pytest.raises(ConfigError, match="jobs 2 has one run to share"):
        train(tracked(tmp_path, apart[1]), jobs=2)


def test_processes_are_dealt_out_over_the_gpus_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_of("auto", slot) for slot in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [device_of(device, 1) for device in ("cpu", "cuda:0")] == ["cpu", "cuda:0"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device_of("auto", 1) == "auto"
