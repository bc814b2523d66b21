"""Verify and regenerate, from a trained generator to a file and back, as a user calls them."""

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import doors
import numpy as np
import pydicom
import pytest
from generator_data import SIDE, TINY, run_on, write_data
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mammo.data import provenance
from mammo.data.classes import TASKS
from mammo.data.dataset import Dataset
from mammo.data.writer import DatasetWriter
from mammo.steps import sample, train_generator

pytestmark = pytest.mark.doors
HOME = ("MLFLOW_TRACKING_URI", "MAMMO_HOME")


@dataclass(frozen=True)
class World:
    """A generator and a dataset that it drew, both in a tracking store."""

    home: dict[str, str]
    generator: str  # run ids
    sample: str
    drawn: Dataset


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, _empty_store: Path) -> World:
    """Two classes in two views, guided, so that all that is told of an image counts."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copyfile(_empty_store, folder / "mlflow.db")
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        place = f"file://{folder}/mlruns/0"
        database.execute("UPDATE experiments SET artifact_location = ?", (place,))
    home = {HOME[0]: f"sqlite:///{folder}/mlflow.db", HOME[1]: str(folder / "home")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in home.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        data = write_data(folder, views=True)
        trained = doors.here(
            "train_generator", data=data.folder, epochs=2, conditions="view", **TINY
        )
        drawn = doors.here(
            "sample", generator=trained.run_id, counts="malignant=3,benign=2", guidance=2.0,
            guidance_interval="0.1,0.9", guidance_rescale=0.3, steps=3, first_seed=4, device="cpu",
        )  # fmt: skip
        digest = _digest(folder / "home")
        return World(
            home, trained.run_id, drawn.run_id, Dataset(folder / "home" / "datasets" / digest)
        )


def _digest(home: Path) -> str:
    return next(path.name for path in sorted((home / "datasets").iterdir()))


@pytest.fixture
def there(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world, with the store and the work folder that it was made in."""
    for name, value in world.home.items():
        monkeypatch.setenv(name, value)
    return world


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, with no store and no datasets."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in HOME:
        monkeypatch.delenv(name)
    yield folder
    assert not (folder / "mlflow.db").exists() and not (folder / "mlruns").exists()


@pytest.fixture
def png(there: World, tmp_path: Path) -> Path:
    """Image 3, drawn again into a file."""
    path = tmp_path / "image.png"
    assert doors.here("regenerate", there.sample, "3", output=path).code == 0
    return path


def altered(path: Path, copy: Path, **changes: Any) -> Path:
    """The PNG with `changes` in its record, or with one pixel changed where there are none."""
    found = provenance.read(path)
    assert found.record is not None
    pixels = found.pixels[0].copy()
    if not changes:
        pixels[0, 0] ^= 1
    info = PngInfo()
    info.add_itxt(provenance.KEYWORD, json.dumps({**found.record, **changes}))
    Image.fromarray(pixels).save(copy, pnginfo=info)
    return copy


def test_every_image_is_drawn_again_to_the_bit(there: World) -> None:
    frame = there.drawn.manifest
    assert set(frame["view"]) == {"CC", "MLO"}  # told, and different ones
    for index in range(len(frame)):
        done = doors.here("regenerate", there.sample, str(index))
        line = frame.iloc[index]
        seed = line["sample_seed"]
        assert done.out == (
            f"image {index} of dataset {there.drawn.digest} ({line['label']}, seed {seed}): "
            "the same pixels\n"
        )
        assert done.code == 0


def test_a_file_leads_back_to_its_run(there: World, png: Path) -> None:
    done = doors.here("verify", str(png))
    label = there.drawn.manifest["label"][3]
    assert done.out == (
        f"{png}: synthetic, {label}, by run {there.sample}: image 3 of dataset "
        f"{there.drawn.digest}; its pixels are as they were drawn; the tracking server knows that "
        "run\n"
    )
    assert done.code == 0


@pytest.mark.parametrize("suffix", [".dcm", ".nii.gz", ".npy"])
def test_every_format_can_be_written_and_verified(
    there: World, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"image{suffix}"
    assert doors.here("regenerate", str(there.drawn.folder), "0", output=path).code == 0
    assert doors.here("verify", str(path)).code == 0
    np.testing.assert_array_equal(provenance.read(path).pixels, there.drawn.raw([0])[0])


def test_a_changed_pixel_is_told_with_code_1(png: Path, tmp_path: Path) -> None:
    changed = altered(png, tmp_path / "changed.png")
    done = doors.here("verify", str(png), str(changed), json=True)
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert (first["verdict"], second["verdict"]) == ("verified", "altered")
    assert (second["synthetic"], second["index"]) == (True, 3)
    assert "but its pixels were altered since" in second["line"]
    assert done.code == 1


def test_a_file_without_provenance_is_told_with_code_2(png: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    with Image.open(png) as picture:
        Image.fromarray(np.asarray(picture)).save(plain)
    done = doors.here("verify", str(plain), str(png), str(tmp_path / "absent.png"))
    lines = done.out.splitlines()
    assert lines[0].endswith("nothing in it says whether it is real or synthetic")
    assert "as they were drawn" in lines[1]
    assert lines[2].endswith("cannot be verified: it is no file; give PNG, DICOM, NIfTI, or .npy "
                             "with its .npy.json")  # fmt: skip
    assert done.code == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "other"}, "the dataset has another label at that place"),
        ({"index": 1}, "the dataset has another image_id at that place"),
        ({"index": 9}, "that dataset has 5 images"),
        ({"seed": 1}, "the dataset has another seed at that place"),
        ({"conditions": {"view": "LM"}}, "the dataset has another conditions at that place"),
        ({"sampling": {"guidance": 1.0}}, "the dataset has another sampling at that place"),
        ({"generator_digest": "0" * 32}, "the dataset has another generator_digest at that place"),
        ({"mask_sha256": "0" * 64}, "the dataset has another mask_sha256 at that place"),
    ],
)
def test_a_record_that_lies_is_found_out_by_the_dataset(
    png: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    done = doors.here("verify", str(altered(png, tmp_path / "forged.png", **change)))
    assert f"but {said}; the tracking server knows that run" in done.out
    assert done.code == 1


@pytest.mark.parametrize("lie", [{"channels": 2}, {"planes": ["mask"]}])
def test_changed_pixels_cannot_pass_for_a_part_of_the_image(
    png: Path, tmp_path: Path, lie: dict[str, Any]
) -> None:
    """Of a channel among several, or a mask, the hash of the whole image says nothing."""
    pixels = provenance.read(png).pixels.copy()
    pixels[0, 0, 0] ^= 1
    changed = altered(png, tmp_path / "changed.png")
    told = {"sha256": provenance.hash_of(pixels), **lie}
    with Image.open(changed) as picture:
        record = json.loads(picture.text[provenance.KEYWORD])  # type: ignore[attr-defined]
        info = PngInfo()
        info.add_itxt(provenance.KEYWORD, json.dumps({**record, **told}))
        Image.fromarray(np.asarray(picture)).save(tmp_path / "forged.png", pnginfo=info)
    assert doors.here("verify", str(tmp_path / "forged.png")).code == 1


def test_the_tracking_server_alone_has_the_dataset_too(
    there: World, png: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMMO_HOME", str(tmp_path / "empty"))
    assert doors.here("verify", str(png)).code == 0
    forged = altered(png, tmp_path / "forged.png", label="other")
    assert "another label" in doors.here("verify", str(forged)).out
    unknown = altered(png, tmp_path / "unknown.png", run_id="0" * 32)
    assert "the tracking server does not know that run" in doors.here("verify", str(unknown)).out
    made_another = altered(png, tmp_path / "another.png", run_id=there.generator)
    assert "but the run made another dataset" in doors.here("verify", str(made_another)).out


def test_pixels_are_compared_where_no_server_answers(png: Path, elsewhere: Path) -> None:
    done = doors.here("verify", str(png))
    assert done.out.endswith(
        "as they were drawn; the tracking server was not asked: none answers\n"
    )
    assert done.code == 0
    done = doors.here("verify", str(altered(png, elsewhere / "changed.png")))
    assert done.code == 1
    os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"  # nothing listens there
    try:
        assert "none answers" in doors.here("verify", str(png)).out
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]


def test_dicom_that_lost_its_marks_is_told(there: World, tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    doors.here("regenerate", there.sample, "0", output=path)
    file = pydicom.dcmread(path)
    del file.SyntheticData
    file.save_as(path)
    done = doors.here("verify", str(path))
    assert "but its DICOM attributes no longer say that it is synthetic" in done.out
    assert done.code == 1


def test_dicom_whose_record_an_anonymizer_took_is_still_said_to_be_synthetic(
    there: World, tmp_path: Path
) -> None:
    path = tmp_path / "image.dcm"
    doors.here("regenerate", there.sample, "0", output=path)
    file = pydicom.dcmread(path)
    file.remove_private_tags()
    file.save_as(path)
    done = doors.here("verify", str(path))
    assert "its DICOM attributes say that it is synthetic; it has no record" in done.out
    assert done.code == 2


@pytest.mark.parametrize(
    "change", [{"PhotometricInterpretation": "MONOCHROME1"}, {"RescaleIntercept": "9"}]
)
def test_dicom_that_shows_other_greys_is_told(
    there: World, tmp_path: Path, change: dict[str, str]
) -> None:
    path = tmp_path / "image.dcm"
    doors.here("regenerate", there.sample, "0", output=path)
    file = pydicom.dcmread(path)
    for name, value in change.items():
        setattr(file, name, value)
    file.save_as(path)
    done = doors.here("verify", str(path))
    assert "but its DICOM attributes give its pixels other greys" in done.out
    assert done.code == 1


def test_what_cannot_be_drawn_again_is_told_in_one_line(there: World, tmp_path: Path) -> None:
    (tmp_path / "there.png").touch()
    real = write_data(tmp_path / "real")
    cases: list[tuple[list[str], dict[str, Any], str]] = [
        ([there.sample, "5"], {}, "index '5' is no row of the dataset; give 0 to 4"),
        ([there.sample, "-1"], {}, "index is missing"),
        ([there.sample, "x"], {}, "index 'x' is no row"),
        ([str(real.folder), "0"], {}, "image 0 is real; only synthetic images"),
        ([str(tmp_path / "none"), "0"], {}, "is no dataset"),
        ([there.sample, "0"], {"output": tmp_path / "there.png"}, "exists already"),
        ([there.sample, "0"], {"output": tmp_path / "x.jpg"}, "should end in .png, .dcm"),
        ([there.sample, "0"], {"output": tmp_path / "no" / "x.png"}, "lies in no folder"),
        ([there.sample, "0"], {"generator": there.drawn.folder}, "is no model"),
    ]
    for words, settings, said in cases:
        done = doors.here("regenerate", *words, **settings)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert said in done.err


def test_another_generator_is_refused_by_its_digest(there: World, tmp_path: Path) -> None:
    data = write_data(tmp_path)
    other = doors.here("train_generator", data=data.folder, epochs=1, **TINY)
    done = doors.here("regenerate", there.sample, "0", generator=other.run_id)
    assert done.code == 2
    assert "was drawn by one with" in done.err


def test_an_image_that_comes_out_otherwise_is_described_and_not_written(
    there: World, tmp_path: Path
) -> None:
    """The record of a copy says another number of steps, and another torch."""
    copy = tmp_path / "copy"
    shutil.copytree(there.drawn.folder, copy)
    about = json.loads((copy / "dataset.json").read_text())
    about["sampling"]["steps"] = 2
    about["sampling"]["drawn_on"]["torch"] = "1.0"
    (copy / "dataset.json").write_text(json.dumps(about))
    done = doors.here("regenerate", str(copy), "0", output=tmp_path / "x.png")
    assert done.code == 2 and "is not written" in done.err
    assert f"of {SIDE * SIDE} pixels differ, by at most" in done.out
    assert "torch 1.0 then and" in done.out
    assert not (tmp_path / "x.png").exists()
    assert doors.here("regenerate", str(copy), "0").code == 1
    del about["sampling"]["steps"]
    (copy / "dataset.json").write_text(json.dumps(about))
    done = doors.here("regenerate", str(copy), "0")
    assert done.code == 2
    assert "does not record how its images were drawn (it lacks steps)" in done.err


def masked_data(folder: Path) -> Dataset:
    """16 patients: a bright square on a grey ground, and its mask; malignant ones alone."""
    classes = TASKS["malignancy2"]
    writer = DatasetWriter(
        folder / "masked.partial", name="squares", classes=classes, shape=(1, SIDE, SIDE),
        dtype="uint8", about={"salt": "pepper", "split_seed": 3, "intensity": "window"},
    )  # fmt: skip
    for patient in range(16):
        mask = np.zeros((1, SIDE, SIDE), np.uint8)
        mask[0, 1 + patient % 3 : 4 + patient % 3, 2:5] = 255
        image = np.where(mask > 0, 200, 60 + patient).astype(np.uint8)
        row = {
            "group_id": f"p{patient}", "image_id": f"i{patient}", "label": "malignant",
            "label_kind": classes.label_kind, "split": "val" if patient % 4 == 0 else "train",
        }  # fmt: skip
        writer.add(image, row, mask)
    return writer.finish(folder / "datasets")


def trained(folder: Path, data: Dataset, **settings: Any) -> Path:
    tracked = run_on(folder, "data", data.folder)
    train_generator.run(tracked, data="", **{**TINY, "epochs": 1, **settings})
    return tracked.folder / "model"


@pytest.mark.parametrize("mode", ["mask", "mask_to_image", "unconditional"])
def test_images_of_every_mode_are_drawn_again(tmp_path: Path, mode: str) -> None:
    """Around a mask, the mask as it is stored serves: the second of two stages is done again."""
    data = masked_data(tmp_path)
    learned = {"epochs": 20, "lr": 4e-3, "ema": 0.9} if mode == "mask" else {}
    model = trained(tmp_path / "model", data, mode=mode, **learned)
    tracked = run_on(tmp_path / "drawing", "generator", model)
    if mode == "mask_to_image":
        tracked.inputs = {**tracked.inputs, **run_on(tmp_path / "m", "masks", data.folder).inputs}
    asked = {"mask_area": "0,1", "mask_threshold": 0.4} if mode == "mask" else {}
    sample.run(tracked, generator="", counts="malignant=2", steps=2, device="cpu", **asked)
    drawn = Dataset(tracked.uploaded["dataset"])
    assert (drawn.manifest["mask_sha256"] != "").all() == (mode != "unconditional")
    for index in ("0", "1"):
        done = doors.here("regenerate", str(drawn.folder), index, generator=model)
        assert "the same pixels" in done.out, done.err


def test_help_lists_both_and_a_call_without_a_file_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert doors.here("--help").code == 0
    listed = doors.here("--help").out
    assert "\n  verify " in listed and "\n  regenerate " in listed
    done = doors.here("verify")
    assert done.code == 2
    assert "files is missing; usage: mammo verify FILES ..." in done.err
    assert doors.here("verify", "--help").code == 0
