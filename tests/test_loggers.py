"""Loggers beside MLflow: what a run logs arrives there too, and no key leaves the environment."""

import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mammo.errors import ConfigError
from mammo.loggers import LOGGERS, WRITERS, check_logger, logged_by
from mammo.run import MemoryRun, Reference

KEY = "0123456789abcdef0123456789abcdef01234567"


def scalars(folder):
    """Every metric in the event files of `folder`: name, value, step."""
    read = EventAccumulator(str(folder))
    read.Reload()
    return [
        (name, each.value, each.step)
        for name in read.Tags()["scalars"]
        for each in read.Scalars(name)
    ]


def test_a_continued_run_adds_to_the_same_folder(tmp_path):
    tracked = MemoryRun(tmp_path)
    for step in (1, 2):
        with logged_by("tensorboard", tracked, {}) as logged:
            logged.metrics({"val/loss": 0.5 * step}, step)
    found = scalars(tracked.uploaded["tensorboard"])
    assert found == [("val/loss", 0.5, 1), ("val/loss", 1.0, 2)]


def test_what_is_no_metric_and_no_image_goes_to_the_run_alone(tmp_path):
    tracked = MemoryRun(tmp_path)
    with logged_by("tensorboard", tracked, {}) as logged:
        logged.tags({"a": "b"})
        assert logged.folder == tracked.folder
        assert logged.uri("model") == tracked.uri("model")
    assert tracked.logged_tags == {"a": "b"}


def test_settings_that_are_files_are_told_by_their_names(tmp_path):
    path = tmp_path / "anna@home" / "alexnet.pth"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    tracked = MemoryRun(tmp_path / "run")
    settings = {"perceptual": str(path), "extractor": f"resnet18@{path}", "loss": "mse=1"}
    with logged_by("tensorboard", tracked, settings):
        pass
    (written,) = tracked.uploaded["tensorboard"].iterdir()
    content = written.read_bytes()
    assert b"| perceptual | alexnet.pth |" in content
    assert b"| extractor | resnet18@alexnet.pth |" in content
    assert b"| loss | mse=1 |" in content
    assert b"anna" not in content


def test_a_failed_run_uploads_nothing_and_keeps_its_files(tmp_path):
    tracked = MemoryRun(tmp_path)
    with pytest.raises(ZeroDivisionError), logged_by("tensorboard", tracked, {}) as logged:
        logged.metrics({"val/loss": 1.0}, 1)
        raise ZeroDivisionError
    assert tracked.uploaded == {}
    assert len(list((tracked.folder / "tensorboard").iterdir())) == 1


@pytest.fixture
def offline(monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def records(content):
    """Whole records of a .wandb file: a log of LevelDB with a header of seven bytes."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # no record begins in the last bytes of a block
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def of_wandb(folder):
    """Rows that were logged and settings, as they stand in the file of an offline run."""
    from wandb.proto import wandb_internal_pb2 as messages

    (path,) = Path(folder).rglob("*.wandb")
    rows, told = [], {}
    for data in records(path.read_bytes()):
        record = messages.Record.FromString(data)
        items = record.history.item
        each = {item.key or "/".join(item.nested_key): item.value_json for item in items}
        rows += [each] if each else []
        told |= {item.key: item.value_json for item in record.run.config.update}
    return rows, told


@pytest.mark.doors
def test_wandb_needs_no_network_and_no_key(tmp_path, offline):
    tracked = MemoryRun(tmp_path, {"data": [Reference("/secret/place", tmp_path, "abc")]})
    with logged_by("wandb", tracked, {"lr": 0.5, "data": "/secret/place"}) as logged:
        logged.metrics({"val/loss": 0.25}, 3)
        logged.image("samples/benign", np.zeros((4, 4), np.uint8), 3)
    rows, told = of_wandb(tracked.uploaded["wandb"])
    assert (rows[0]["val/loss"], rows[0]["epoch"]) == ("0.25", "3")
    assert rows[1]["samples/benign/_type"] == '"image-file"'
    assert told["lr"] == "0.5"
    assert told["data"] == '["abc"]'
    assert tracked.last == {"val/loss": 0.25}
    assert [path for path in tracked.uploaded["wandb"].rglob("*") if path.is_symlink()] == []


@pytest.mark.doors
@pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_KEY"])
def test_a_key_is_in_no_file_of_the_run(tmp_path, offline, name):
    offline.setenv(name, KEY)
    offline.setenv("WANDB_MODE", "offline")
    tracked = MemoryRun(tmp_path)
    with logged_by("wandb", tracked, {"lr": 0.5}) as logged:
        logged.metrics({"val/loss": 0.25}, 3)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert not any(KEY.encode() in path.read_bytes() for path in files)
    assert tracked.logged_params == {}


def test_a_logger_whose_package_is_missing_is_one_line(monkeypatch):
    check_logger("wandb")
    monkeypatch.setattr("mammo.loggers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="logger 'wandb' needs the package wandb") as caught:
        check_logger("wandb")
    assert "\n" not in str(caught.value)
    check_logger("mlflow")


def test_every_logger_but_the_tracker_has_a_writer():
    assert set(LOGGERS) - {"mlflow"} == set(WRITERS)
