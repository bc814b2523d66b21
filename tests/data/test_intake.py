"""A release becomes rows and pixels that do not depend on processes, kills or an old journal."""

import contextlib
import json
import logging
import os
import shutil
import signal
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mammo.data import intake as module
from mammo.data.dataset import sha256_of
from mammo.data.identity import Names
from mammo.data.intake import Chunk, Intake, Preparation, chunk_size, preparation_of, take_in
from mammo.data.journal import Journal, Outcome
from mammo.data.prepare import LeftOut, Recipe, prepare
from mammo.data.progress import Progress
from mammo.data.release import Record
from mammo.errors import ConfigError, DataError

COUNT = 130  # chunks of two
BROKEN = (5, 40, 41, 129)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """PNG files, a few of them broken, each fourth with a mask."""
    folder = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (20, 16), dtype=np.uint8)).save(
            folder / f"Roe{number}.png"
        )
        if number in BROKEN:
            (folder / f"Roe{number}.png").write_bytes(b"\x89PNG")
    Image.fromarray(np.full((20, 16), 255, np.uint8)).save(folder / "mask.png")
    return folder


def records(source: Path, **changed: Any) -> list[Record]:
    return [
        Record(
            (source / f"Roe{number}.png",),
            patient=f"Jane Roe {number // 2}",
            image=f"Roe{number}",
            label=("benign", "malignant")[number % 2],
            masks=(source / "mask.png",) if number % 4 == 0 else (),
            age=40.5 if number % 3 else float("nan"),
            extra={"scanner": f"s{number % 2}"},
            **changed,
        )
        for number in range(COUNT)
    ]


def preparation(folder: Path, given: list[Record], **changed: Any) -> Preparation:
    settings = {"label_kind": "pathology", "strict": False, **changed}
    recipe = settings.pop("recipe", Recipe((16, 16), crop="none", dtype="uint8"))
    names = settings.pop("names", Names(b"salt", "roes"))
    made = preparation_of(folder, given, recipe, names, **settings)
    made.open(folder / "datasets")
    return made


def taken(folder: Path, given: list[Record], *, workers: int = 1, **changed: Any) -> Intake:
    return take_in(given, preparation(folder, given, **changed), workers=workers)


def stored(folder: Path, frame: pd.DataFrame, kind: str = "images") -> list[np.ndarray]:
    names = frame["shard"].str.replace("images", kind)
    folder = folder / "dataset.partial"
    return [np.load(folder / n)[i] for n, i in zip(names, frame["index"], strict=True)]


def test_two_images_of_one_name_are_refused_before_any_is_decoded(
    source: Path, tmp_path: Path
) -> None:
    some = records(source)
    with pytest.raises(DataError, match="1 images of the release have the name of another"):
        preparation_of(
            tmp_path, [*some, some[3]], Recipe((16, 16)), Names(b"salt", "d"), label_kind="reader"
        )


def test_a_maker_that_looks_like_a_person_is_left_empty(source: Path, tmp_path: Path) -> None:
    for place, vendor in (("a", "HOLOGIC, Inc."), ("b", "DOE^JANE")):
        some = records(source, vendor=vendor)[:1]
        recipe = Recipe((16, 16), crop="none", dtype="uint8")
        made = preparation_of(
            tmp_path / place, some, recipe, Names(b"salt", "d"), label_kind="reader"
        )
        made.open(tmp_path)
        kept = take_in(some, made).frame["vendor"].tolist()
        assert kept == ["HOLOGIC, Inc." if place == "a" else ""]


def test_rows_and_pixels_are_those_of_each_record_in_their_order(tmp_path, source):
    given = records(source)
    found = taken(tmp_path, given)
    whole = [number for number in range(COUNT) if number not in BROKEN]
    assert [record.image for record in found.kept] == [f"Roe{number}" for number in whole]
    names = Names(b"salt", "roes")
    assert found.frame["image_id"].tolist() == [names.image(given[n]) for n in whole]
    assert found.frame["group_id"].tolist() == [names.group(given[n]) for n in whole]
    assert found.frame["scanner"].tolist() == [f"s{number % 2}" for number in whole]
    assert found.frame["age"].isna().tolist() == [number % 3 == 0 for number in whole]
    for number, image, sha in zip(
        whole, stored(tmp_path, found.frame), found.frame["sha256"], strict=True
    ):
        expected = prepare(given[number], Recipe((16, 16), crop="none", dtype="uint8"))
        np.testing.assert_array_equal(image, expected.image)
        assert sha == sha256_of(expected.image)
    marked = found.frame["mask_sha256"] != ""
    assert marked.tolist() == [number % 4 == 0 for number in whole]
    for mask in stored(tmp_path, found.frame[marked], "masks"):
        assert mask.max() == 255
    assert [name for name, _ in found.refused] == [str(source / f"Roe{n}.png") for n in BROKEN]
    assert len(np.load(tmp_path / "dataset.partial" / "images-0000.npy")) == len(whole)


@pytest.mark.doors
def test_processes_and_batches_change_nothing(tmp_path, source, monkeypatch):
    given = records(source)
    one = taken(tmp_path / "one", given)
    monkeypatch.setattr(module, "_BATCH", 3)
    two = taken(tmp_path / "two", given, workers=3)
    pd.testing.assert_frame_equal(one.frame, two.frame)
    for left, right in zip(
        stored(tmp_path / "one", one.frame), stored(tmp_path / "two", two.frame), strict=True
    ):
        np.testing.assert_array_equal(left, right)
    assert (one.refused, one.walls, one.peak) == (two.refused, two.walls, two.peak)


class Killed(BaseException):
    """Stands for a SIGKILL: nothing of ours may catch it."""


def killed_after(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the process dies at its `images` + 1st image."""
    left = [images]

    def mortal(record: Record, recipe: Recipe) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return prepare(record, recipe)

    monkeypatch.setattr(module, "prepare", mortal)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_intake_goes_on_and_decodes_again_no_more_than_a_chunk(
    tmp_path, source, monkeypatch, caplog, workers
):
    given = records(source)
    whole = taken(tmp_path / "whole", given)
    for images in (3, 40, 0, 21):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            killed_after(images, patch)
            taken(tmp_path / "torn", given)
    caplog.set_level(logging.INFO, "mammo")
    torn = taken(tmp_path / "torn", given, workers=workers)
    # whole chunks of two are kept: 2 of 3, 40, 0, 20 of 21
    assert "62 of 130 images are ready from before" in caplog.text
    pd.testing.assert_frame_equal(torn.frame, whole.frame)
    assert torn.refused == whole.refused
    journal = preparation(tmp_path / "torn", given).journal
    # beside the 130: the third, the one that was begun, four times; and the 21st
    assert journal.decoded == COUNT + 1 + 1 + 4


class Mortal(Preparation):
    """A preparation whose process is ended by the system at the twentieth chunk."""

    def __call__(self, chunk: Chunk) -> tuple[int, Outcome]:
        if chunk.number == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(chunk)


def test_after_a_process_died_fewer_of_them_go_on(tmp_path, source):
    given = records(source)
    plain = preparation(tmp_path, given)
    mortal = Mortal(**{each.name: getattr(plain, each.name) for each in fields(plain)})
    with pytest.raises(ConfigError, match="workers 3: the system ended a process"):
        take_in(given, mortal, workers=3)
    found = take_in(given, preparation(tmp_path, given), workers=1)
    assert len(found.frame) == COUNT - len(BROKEN)
    # at most the chunks of the two others were begun and not ended
    assert COUNT <= plain.journal.decoded <= COUNT + 2 * chunk_size(COUNT)


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": Recipe((16, 16), crop="none", dtype="uint16")},
        {"recipe": Recipe((16, 16), crop="none", dtype="uint8", exclude=frozenset({"spot"}))},
        {"names": Names(b"pepper", "roes")},
        {"group_by": "image"},
        {"label_kind": "reader"},
    ],
)
def test_a_journal_of_another_plan_is_not_trusted(tmp_path, source, change):
    taken(tmp_path / "a", records(source))
    changed = taken(tmp_path / "a", records(source), **change)
    pd.testing.assert_frame_equal(
        changed.frame, taken(tmp_path / "b", records(source), **change).frame
    )
    assert preparation(tmp_path / "a", records(source), **change).journal.decoded == COUNT


def test_a_journal_of_other_records_is_not_trusted(tmp_path, source):
    taken(tmp_path, records(source))
    other = taken(tmp_path, records(source, view="CC"))
    assert set(other.frame["view"]) == {"CC"}


def test_a_broken_journal_is_written_again(tmp_path, source):
    given = records(source)
    first = taken(tmp_path, given)
    pages = sorted((tmp_path / "chunks").glob("0*.json"))
    assert len(pages) == COUNT // chunk_size(COUNT)
    pages[3].write_text(pages[3].read_text()[:-20])
    pages[4].write_text(json.dumps({**json.loads(pages[5].read_text()), "plan": "other"}))
    pages[6].unlink()
    pd.testing.assert_frame_equal(taken(tmp_path, given).frame, first.frame)
    assert preparation(tmp_path, given).journal.decoded == COUNT + 3 * chunk_size(COUNT)


def test_a_journal_without_its_pixels_counts_only_while_the_sealed_dataset_is_there(
    tmp_path, source
):
    given = records(source)
    first = taken(tmp_path, given)
    preparation(tmp_path, given).journal.sealing("digest")
    (tmp_path / "datasets" / "digest").mkdir(parents=True)
    (tmp_path / "datasets" / "digest" / "dataset.json").touch()
    (tmp_path / "dataset.partial").rename(tmp_path / "moved")
    pd.testing.assert_frame_equal(taken(tmp_path, given).frame, first.frame)
    assert preparation(tmp_path, given).journal.decoded == COUNT
    assert not (tmp_path / "dataset.partial").exists()
    shutil.rmtree(tmp_path / "datasets")
    pd.testing.assert_frame_equal(taken(tmp_path, given).frame, first.frame)
    assert preparation(tmp_path, given).journal.decoded == COUNT  # counted anew
    assert len(stored(tmp_path, first.frame)) == len(first.frame)


@pytest.mark.parametrize("workers", [1, 3])
def test_strict_ends_at_the_first_refusal_whatever_the_processes(tmp_path, source, workers):
    found = taken(tmp_path, records(source), strict=True, workers=workers)
    assert [name for name, _ in found.refused] == [str(source / "Roe5.png")]
    decoded = preparation(tmp_path, records(source), strict=True).journal.decoded
    assert decoded == 6 if workers == 1 else decoded < COUNT


def test_what_is_left_out_is_counted_and_no_error(tmp_path, source, monkeypatch):
    def without_roe_8(record: Record, recipe: Recipe) -> Any:
        return LeftOut("spot (exclude)") if record.image == "Roe8" else prepare(record, recipe)

    monkeypatch.setattr(module, "prepare", without_roe_8)
    given = [each for each in records(source) if int(each.image[3:]) not in BROKEN]
    found = taken(tmp_path, given, strict=True)
    assert found.left_out == {"spot (exclude)": 1}
    assert found.refused == []
    assert len(found.frame) == len(given) - 1
    images = stored(tmp_path, found.frame)
    assert [sha256_of(image) for image in images] == found.frame["sha256"].tolist()


def test_a_journal_holds_no_name(tmp_path, source):
    taken(tmp_path, records(source))
    for path in (tmp_path / "chunks").iterdir():
        assert "Roe" not in path.read_text()


def test_chunks_are_few_enough_to_share_and_small_enough_to_lose():
    assert [chunk_size(count) for count in (1, 63, 128, 640, 1024, 500_000)] == [
        1,
        1,
        2,
        10,
        16,
        16,
    ]


def test_numbers_and_missing_values_come_back_from_the_journal(tmp_path):
    journal = Journal(tmp_path / "chunks", "plan")
    journal.open(tmp_path / "pixels", tmp_path)
    row = {"image_id": "a", "age": 0.1 + 0.2, "file_bits": np.int64(12), "pixel_mm": float("nan")}
    journal.write(0, Outcome([(7, {**row, "extra": ""})], [(8, "broken")], [], [("", "left")], 0.5))
    found = journal.read(0)
    assert found.rows == [[7, {"image_id": "a", "age": 0.1 + 0.2, "file_bits": 12, "extra": ""}]]
    assert (found.refused, found.peak, len(found)) == ([[8, "broken"]], 0.5, 2)
    assert journal.read(1) is None


def test_progress_tells_rate_and_time_left_of_this_run_alone():
    progress = Progress("preprocess", 1000, done=400)
    progress.advance(120)
    assert progress.line(60.0) == "520 of 1000 images, 2.0 a second, 4 min left"


def test_a_terminal_gets_a_bar_and_a_file_gets_lines(monkeypatch, capsys, caplog):
    caplog.set_level(logging.INFO, "mammo")
    clock = iter(range(0, 1000, 9))
    monkeypatch.setattr("mammo.data.progress.time.monotonic", lambda: float(next(clock)))
    with Progress("preprocess", 8) as progress:
        for _ in range(8):
            progress.advance(1)
    assert capsys.readouterr().err == ""
    lines = [line for line in caplog.messages if line.startswith("preprocess: ")]
    assert 1 <= len(lines) <= 4
    assert all("of 8 images" in line and "min left" in line for line in lines)
    monkeypatch.undo()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress("preprocess", 8))
        progress.advance(8)
    bar = capsys.readouterr().err
    assert "preprocess: 100%" in bar
    assert "8/8" in bar
    assert "image/s" in bar
