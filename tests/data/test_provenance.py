"""Provenance in files: every synthetic image says what it is, no real one does, changes show."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from preprocessed import dataset_of, preprocessed
from small import synthetic_rows
from test_export import made, read

from mammo.data import provenance
from mammo.data.dataset import Dataset
from mammo.data.layouts import LAYOUTS, export, open_layout
from mammo.data.pixels import read_pixels
from mammo.data.provenance import Origins, agrees, hash_of, of_planes, save
from mammo.errors import ConfigError, DataError

SAMPLING = {"guidance": 2.0, "steps": 30, "sampler": "ddim", "run_id": "f" * 32}
PARENT = {"run_id": "0123456789abcdef", "digest": "d" * 32, "kind": "generator"}
ABOUT = {"sampling": SAMPLING, "parents": [PARENT]}
FORMATS = ("png", "dcm", "nii.gz", "npy")


def pictures(folder: Path) -> list[Path]:
    """Files of images below `folder`, in order."""
    suffixes = (".png", ".dcm", ".nii.gz")
    return sorted(path for path in folder.rglob("*") if path.name.endswith(suffixes))


def row_of(data: Dataset, number: int) -> Any:
    return next(data.manifest.iloc[[number]].itertuples(index=False))


def saved(folder: Path, data: Dataset, kind: str) -> Path:
    """The first synthetic image of `data` in a file of its own."""
    number = int(np.flatnonzero(data.manifest["is_synthetic"])[0])
    pixels = data.raw([number])[0]
    planes = [f"image {place}" for place in range(1, len(pixels) + 1)]
    path = folder / f"image.{kind}"
    save(path, pixels, of_planes(Origins(data).record(row_of(data, number)), pixels, planes))
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_file_of_a_synthetic_image_tells_its_origin_and_no_real_one_does(
    tmp_path: Path, layout: str, channels: int, dtype: str
) -> None:
    form = open_layout(layout)
    if channels > 1 and "channels" not in form.HOLDS:
        return
    data = made(tmp_path, synthetic=4, dtype=dtype, shape=(channels, 12, 9), about=ABOUT)
    export(data, form, tmp_path / "out")
    frame = data.manifest
    told: list[tuple[str, str]] = []
    for path in pictures(tmp_path / "out"):
        found = provenance.read(path)
        if found.record is None:
            continue
        assert found.marked and agrees(found.record, found.pixels)
        index = found.record["index"]
        line = frame.iloc[index]
        assert line["is_synthetic"] and found.record["dataset"] == data.digest
        for name in ("image_id", "label", "generator_run_id"):
            assert found.record[name] == line[name]
        assert found.record["image_sha256"] == line["sha256"]
        assert found.record["kind"] == "synthetic image"
        assert found.record["run_id"] == "f" * 32
        assert found.record["generator_digest"] == "d" * 32
        assert found.record["sampling"]["guidance"] == 2.0
        told += [(line["image_id"], plane) for plane in found.record["planes"] if plane != "mask"]
    synthetic = frame.loc[frame["is_synthetic"], "image_id"]
    wanted = [(name, f"image {place + 1}") for name in synthetic for place in range(channels)]
    assert sorted(told) == sorted(wanted)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "dicom"])
def test_files_of_real_images_hold_no_word_of_it(tmp_path: Path, layout: str) -> None:
    data = made(tmp_path, synthetic=0)
    export(data, open_layout(layout), tmp_path / "out")
    import gzip

    files = pictures(tmp_path / "out")
    assert len(files) >= 8
    for path in files:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        assert b"synthetic" not in content.lower() and b"mammo" not in content.lower()


def test_a_real_row_has_no_record(tmp_path: Path) -> None:
    data = made(tmp_path, synthetic=1)
    with pytest.raises(AssertionError, match="is real"):
        Origins(data).record(row_of(data, 0))


def test_dicom_says_that_it_is_synthetic_by_every_standard_means(tmp_path: Path) -> None:
    data = made(tmp_path, synthetic=2, about=ABOUT)
    export(data, open_layout("dicom"), tmp_path / "out")
    with pydicom.config.strict_reading():  # every value of its VR
        files = [pydicom.dcmread(path) for path in pictures(tmp_path / "out")]
        for file in files:
            file.walk(lambda _, element: element.value)
    assert len(files) == 2
    assert len({file.SOPInstanceUID for file in files}) == 2
    for file in files:
        assert file.SOPClassUID.name == "Secondary Capture Image Storage"
        assert list(file.ImageType) == ["DERIVED", "SECONDARY", "SYNTHETIC"]
        assert (file.SyntheticData, file.ConversionType, file.Modality) == ("YES", "SYN", "OT")
        assert "generator of run 0123456789abcdef" in file.DerivationDescription
        (maker,) = file.ContributingEquipmentSequence
        assert maker.Manufacturer == "mammo"
        assert maker.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert file.PatientName == "SYNTHETIC" and file.PatientID.startswith("SYNTHETIC-")
        assert not file.PatientBirthDate and not file.StudyDate
        assert file.private_block(0x99, "MAMMO PROVENANCE")[1].VR == "UT"


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_dicom_is_read_again_pixel_for_pixel(tmp_path: Path, dtype: str) -> None:
    data = made(tmp_path, synthetic=3, dtype=dtype, masks=False)
    written = export(data, open_layout("dicom"), tmp_path / "out")
    assert written.written == {"DICOM": 3}
    found = read(
        tmp_path / "work", tmp_path / "out", dataset="folder", synthetic_origin="elsewhere",
        crop="none", intensity="none", image_size="12x9",
    )  # fmt: skip
    old = data.manifest[data.manifest["is_synthetic"]]
    assert sorted(found.manifest["sha256"]) == sorted(old["sha256"])


@pytest.mark.parametrize("layout", ["class_folders_masks", "class_folders_nifti", "dicom"])
def test_a_synthetic_file_among_real_ones_does_not_pass_for_a_patient(
    tmp_path: Path, layout: str
) -> None:
    """Under an innocent name, in a folder of real images."""
    data = made(tmp_path, synthetic=1, masks=False, patients=4)
    source = tmp_path / "source"
    export(data, open_layout("class_folders_masks"), tmp_path / "real")
    shutil.copytree(tmp_path / "real" / "original", source)
    export(data, open_layout(layout), tmp_path / "out")
    (drawn,) = [p for p in pictures(tmp_path / "out") if provenance.read(p).record is not None]
    name = "".join(drawn.suffixes[-2:]) if drawn.suffix == ".gz" else drawn.suffix
    shutil.copy(drawn, source / "benign" / f"another{name}")
    asked = {
        "dataset": "folder", "source": str(source), "val_fraction": 0.0, "test_fraction": 0.0,
        "crop": "none", "intensity": "none", "image_size": "12x9",
    }  # fmt: skip
    with pytest.raises(DataError, match="it says that it is a synthetic image; leave it out, or"):
        preprocessed(tmp_path / "strict", **asked)
    tracked = preprocessed(tmp_path / "work", strict=False, **asked)
    found = dataset_of(tracked)
    assert not set(found.manifest["sha256"]) & set(data.manifest["sha256"][[len(data) - 1]])
    assert len(found) == len(data) - 1
    assert tracked.last["rejected"] == 1


def test_dicom_of_real_images_is_refused_and_those_of_a_mix_are_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no synthetic image, and layout dicom holds no others"):
        export(made(tmp_path / "real"), open_layout("dicom"), tmp_path / "none")
    data = made(tmp_path, synthetic=2)
    export(data, open_layout("dicom"), tmp_path / "out")
    assert len(pictures(tmp_path / "out")) == 2


def test_the_same_images_give_the_same_files(tmp_path: Path) -> None:
    data = made(tmp_path, synthetic=2, about=ABOUT)
    for name in ("one", "two"):
        export(data, open_layout("dicom"), tmp_path / name)
    contents = [[p.read_bytes() for p in pictures(tmp_path / name)] for name in ("one", "two")]
    assert contents[0] == contents[1]


def test_of_a_mix_the_dataset_that_drew_the_image_is_named(tmp_path: Path) -> None:
    ours = made(tmp_path / "real", masks=False)
    theirs = made(tmp_path / "drawn", seed=1, synthetic=3, masks=False, about=ABOUT)
    rows = theirs.placed()[theirs.manifest["is_synthetic"].to_numpy()]
    mixed = Dataset.view(ours, pd.concat([ours.placed(), rows], ignore_index=True), [theirs])
    record = Origins(mixed).record(row_of(mixed, len(mixed) - 1))
    assert (record["dataset"], record["index"]) == (theirs.digest, len(theirs) - 1)
    assert record["run_id"] == "f" * 32


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_file_of_its_own_is_read_back(tmp_path: Path, kind: str, dtype: str) -> None:
    data = made(tmp_path, synthetic=1, dtype=dtype, masks=False)
    path = saved(tmp_path, data, kind)
    found = provenance.read(path)
    assert found.record is not None and agrees(found.record, found.pixels)
    np.testing.assert_array_equal(found.pixels, data.raw([found.record["index"]])[0])
    assert hash_of(found.pixels) == data.manifest["sha256"].iloc[found.record["index"]]
    shown = read_pixels(path, intensity="none").stored if kind != "npy" else found.pixels[0]
    np.testing.assert_array_equal(np.squeeze(shown), found.pixels[0])


def test_several_channels_do_not_go_into_one_png(tmp_path: Path) -> None:
    data = made(tmp_path, synthetic=1, shape=(2, 9, 9), masks=False)
    for kind in ("png", "dcm"):
        with pytest.raises(ConfigError, match=r"holds 1 channel, the image has 2; use \.nii\.gz"):
            saved(tmp_path, data, kind)
    assert provenance.read(saved(tmp_path, data, "nii.gz")).pixels.shape == (2, 9, 9)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    return saved(folder, made(folder, synthetic=1, patients=2, masks=False), "png")


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(row=st.integers(0, 11), column=st.integers(0, 8), change=st.integers(1, 65535))
def test_any_pixel_that_changes_is_noticed(
    written: Path, row: int, column: int, change: int
) -> None:
    found = provenance.read(written)
    assert found.record is not None
    changed = found.pixels.copy()
    changed[0, row, column] ^= np.uint16(change)  # another bit is another value
    assert not agrees(found.record, changed)
    # with a hash of its own it still is no image of the dataset
    assert not agrees({**found.record, "sha256": hash_of(changed)}, changed)


def test_a_widened_image_is_still_that_of_its_dataset(tmp_path: Path) -> None:
    """A mix of two depths stores 8 bits as 16: 255 becomes 65535."""
    data = made(tmp_path, synthetic=1, dtype="uint8", masks=False)
    number = len(data) - 1
    pixels = data.raw([number])[0].astype(np.uint16) * 257
    record = of_planes(Origins(data).record(row_of(data, number)), pixels, ["image 1"])
    assert record["sha256"] != record["image_sha256"] and agrees(record, pixels)


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        '{"kind": "synthetic image"}',
        "GOOD " * 2,
        '{"kind": "another"}',
        "[" * 5000,
    ],
)
def test_what_is_no_record_is_told(tmp_path: Path, text: str) -> None:
    info = PngInfo()
    info.add_itxt(provenance.KEYWORD, text)
    Image.new("L", (4, 4)).save(tmp_path / "x.png", pnginfo=info)
    with pytest.raises(DataError, match="its provenance is damaged"):
        provenance.read(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", "../../secret"),
        ("run_id", "../x"),
        ("label", "a\x1b[2Jb"),
        ("label", "x" * 301),
        ("index", "0"),
        ("index", True),
        ("planes", ["image 1", "other"]),
        ("planes", ["image 2"]),
        ("planes", 3),
    ],
)
def test_a_record_cannot_lead_elsewhere_or_write_on_the_terminal(
    tmp_path: Path, name: str, value: Any
) -> None:
    data = made(tmp_path, synthetic=1, masks=False)
    record = provenance.read(saved(tmp_path, data, "png")).record
    assert record is not None
    info = PngInfo()
    info.add_itxt(provenance.KEYWORD, json.dumps({**record, name: value}))
    Image.new("L", (4, 4)).save(tmp_path / "x.png", pnginfo=info)
    with pytest.raises(DataError, match="its provenance is damaged"):
        provenance.read(tmp_path / "x.png")


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "x.npy").write_bytes(b"nothing")
    np.save(tmp_path / "flat.npy", np.zeros(3))
    for name in ("x.png", "x.npy", "flat.npy", "absent.png"):
        with pytest.raises(DataError):
            provenance.read(tmp_path / name)


def test_rows_that_came_from_elsewhere_say_so(tmp_path: Path) -> None:
    from small import dataset

    rows = synthetic_rows({"benign": 1}, run_id="external:guidance-3")
    data = dataset(tmp_path, rows)
    record = Origins(data).record(row_of(data, 0))
    assert record["generator_run_id"] == "external:guidance-3"
    assert (record["run_id"], record["generator_digest"]) == ("", "")
