"""BUSI: pictures and masks joined by their names, in both layouts."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from releases_a import BUSI, busi, stripe
from releases_form import text

from mammo.data.prepare import Prepared, Recipe, prepare
from mammo.data.release import Release
from mammo.data.sources import open_adapter
from mammo.errors import DataError


def read(folder: Path, task: str = "normal_benign_malignant") -> Release:
    return open_adapter("busi").read(folder, task=task, options={})


def test_the_real_pictures(shared: Path) -> None:
    folder = shared / "data/busi"
    release = read(folder)
    counts = Counter(record.label for record in release.records)
    assert counts == {"normal": 133, "benign": 437, "malignant": 210}
    assert all(bool(record.masks) == (record.label != "normal") for record in release.records)
    assert len({record.patient for record in release.records}) == 780
    assert sum("marked" in record.flags for record in release.records) == 15
    assert "image" in release.notes["group"]
    lesions = read(folder, "malignancy2")
    assert len(lesions.records) == 647
    assert lesions.left_out == {"without a label of malignancy2": 133}


def test_the_release_and_its_copies_give_the_same_records(shared: Path, tmp_path: Path) -> None:
    copies = shared / "data/busi"
    for picture in sorted((copies / "images256").iterdir()):
        label, number = picture.stem.split("_")
        place = tmp_path / label / f"{label} ({int(number)}).png"
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(picture)
        place.with_name(f"{place.stem}_mask.png").symlink_to(copies / "masks256" / picture.name)
    released, copied = read(tmp_path).records, read(copies).records
    bare = {"paths": (), "masks": (), "flags": ()}
    assert [replace(each, **bare) for each in released] == [
        replace(each, **bare) for each in copied
    ]
    assert [len(each.masks) for each in released] == [len(each.masks) for each in copied]


def test_trap_t3e_masks_belong_to_the_picture_of_their_name(tmp_path: Path) -> None:
    """Sorted by their digits, `benign (1)_mask_1` and `benign (11)` would be one picture's."""
    busi(tmp_path)
    by_digits = [int("".join(re.findall(r"\d", f"{name}{mask}"))) for name in BUSI
                 for mask in BUSI[name]]  # fmt: skip
    assert by_digits != sorted(by_digits)
    for record in read(tmp_path).records:
        prepared = prepare(record, Recipe(size=(24, 24), crop="none", dtype="uint8"))
        assert isinstance(prepared, Prepared)
        lesions = np.zeros((1, 24, 24), bool) if prepared.mask is None else prepared.mask > 0
        drawn = prepared.image == 255  # the picture is bright where its lesions are
        np.testing.assert_array_equal(lesions, drawn & (record.label != "normal"))


def test_files_that_cannot_be_placed_are_listed(tmp_path: Path) -> None:
    busi(tmp_path)
    place = tmp_path / "Dataset_BUSI_with_GT/benign"
    stripe(place / "scan.png", columns=(0, 1))
    stripe(place / "malignant (3).png", columns=(0, 1))
    stripe(place / "benign (77)_mask.png", columns=(0, 1))
    assert sorted(read(tmp_path).rejected) == [
        ("benign (77)_mask.png", "a mask without its picture"),
        ("malignant (3).png", "its folder is of another class than its name"),
        ("scan.png", "its name is not one of BUSI, as `benign (1).png`"),
    ]


def test_a_table_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    text(tmp_path / "labels.csv", "image_id,label,mask_px,coloured_px\n../../x,benign,0,0\n")
    with pytest.raises(DataError, match=r"a path in labels.csv is empty or leads out of source"):
        read(tmp_path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    text(tmp_path / "labels.csv", "image_id,label,mask_px\nx,benign,0\n")
    message = r"labels.csv \(a row for each image\) has no column 'coloured_px'; it has image_id"
    with pytest.raises(DataError, match=message):
        read(tmp_path)
