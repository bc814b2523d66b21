"""INbreast: the patient in the file's name, BI-RADS as label, outlines in property lists."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from dicoms import half_breast, write_dicom
from releases_a import INBREAST_TABLE, inbreast
from releases_form import picture, text

from mammo.data.release import Release
from mammo.data.sources import open_adapter
from mammo.errors import DataError


def read(folder: Path, task: str = "malignancy2_birads") -> Release:
    return open_adapter("inbreast").read(folder, task=task, options={})


def labels(release: Release) -> Counter[str]:
    return Counter(record.label for record in release.records)


def test_birads_3_and_4_are_left_out_of_two_classes(tmp_path: Path) -> None:
    inbreast(tmp_path)
    two = read(tmp_path)
    assert labels(two) == {"benign": 2, "malignant": 2}
    assert two.left_out == {"without a label of malignancy2_birads": 3, "neither CC nor MLO": 1}
    assert two.classes.label_kind == "birads"
    assert labels(read(tmp_path, "malignancy3_birads")) == {
        "benign": 2, "malignant": 2, "suspicious": 2,
    }  # fmt: skip
    assert labels(read(tmp_path, "malignancy4_birads")) == {
        "benign": 2, "malignant": 2, "suspicious": 2, "probably_benign": 1,
    }  # fmt: skip
    assert labels(read(tmp_path, "birads")) == {"2": 2, "3": 1, "4": 2, "5": 1, "6": 1}


def test_the_patient_is_the_hash_in_the_name(tmp_path: Path) -> None:
    inbreast(tmp_path)
    views = Counter(record.patient for record in read(tmp_path, "view").records)
    assert views == {
        "5530d5782fc89dd7": 2, "98429c0bdf78c0c7": 2, "1e10aef17c9fe149": 2,
        "8d0b9620c53c0268": 1,
    }  # fmt: skip


def test_blanks_after_a_density_are_no_part_of_it(tmp_path: Path) -> None:
    inbreast(tmp_path)
    assert labels(read(tmp_path, "density4")) == {"A": 2, "B": 2, "D": 2}
    assert labels(read(tmp_path, "density2")) == {"not_dense": 4, "dense": 2}


def test_no_date_is_kept(tmp_path: Path) -> None:
    inbreast(tmp_path)
    for record in read(tmp_path, "view").records:
        assert not any(month in repr(record) for month in ("200809", "200810", "200906", "200907"))


def test_the_pectoral_muscle_is_no_lesion(tmp_path: Path) -> None:
    inbreast(tmp_path)
    found = {record.image: record for record in read(tmp_path, "view").records}
    assert found["24055274"].polygons == (((7, 8), (17, 8), (12, 18)),)
    assert found["22670301"].circles == ((9, 12, 2),)  # a single point


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<plist>",
        b"<?xml version='1.0'?><plist version='1.0'><array/></plist>",
        b"<?xml version='1.0'?><plist version='1.0'><dict><key>Images</key><string>x</string>"
        b"</dict></plist>",
        b"<?xml version='1.0'?><!DOCTYPE plist [<!ENTITY a 'b'>]><plist version='1.0'><dict/>"
        b"</plist>",
    ],
)
def test_a_file_of_outlines_that_is_broken_is_listed(tmp_path: Path, content: bytes) -> None:
    inbreast(tmp_path)
    (tmp_path / "AllXML/22670301.xml").write_bytes(content)
    ((name, reason),) = read(tmp_path, "view").rejected
    assert name == "22670301"
    assert reason.startswith("its XML file")


def test_files_that_are_missing_or_of_other_names_are_listed(tmp_path: Path) -> None:
    inbreast(tmp_path)
    (tmp_path / "AllDICOMs/22580192_5530d5782fc89dd7_MG_R_CC_ANON.dcm").unlink()
    write_dicom(tmp_path / "AllDICOMs/more.dcm", half_breast())
    assert read(tmp_path).rejected == [
        ("more.dcm", "its name tells no patient as INbreast's do"),
        ("22580192", "the file is missing"),
    ]


def test_what_is_wrong_with_the_table_is_said(tmp_path: Path) -> None:
    inbreast(tmp_path)
    text(tmp_path / "INbreast.csv", INBREAST_TABLE.replace("Bi-Rads", "BIRADS"))
    message = r"INbreast.csv \(a row for each image\) has no column 'Bi-Rads'; it has Patient ID"
    with pytest.raises(DataError, match=message):
        read(tmp_path)
    again = "removed;removed;L;CC;200810;22670301;1;4a\n"
    text(tmp_path / "INbreast.csv", INBREAST_TABLE + again)
    with pytest.raises(DataError, match="1 values of column 'File Name' stand in several rows"):
        read(tmp_path)
    text(tmp_path / "INbreast.csv", INBREAST_TABLE.replace("Notes", "Müller"), encoding="latin-1")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read(tmp_path)


def test_copies_deeper_down_and_a_table_with_commas_read_the_same(tmp_path: Path) -> None:
    inbreast(tmp_path)
    expected = [(each.image, each.patient, each.label) for each in read(tmp_path).records]
    release = tmp_path / "INbreast Release 1.0"
    for path in sorted((tmp_path / "AllDICOMs").iterdir()):
        picture(release / "AllPNGs" / f"{path.stem}.png")
    shutil.rmtree(tmp_path / "AllDICOMs")
    (tmp_path / "INbreast.csv").unlink()
    text(release / "INbreast.csv", INBREAST_TABLE.replace(";", ","))
    records = read(tmp_path).records
    assert [(each.image, each.patient, each.label) for each in records] == expected
    assert {each.paths[0].suffix for each in records} == {".png"}


def test_of_a_file_and_its_copy_the_file_is_taken(tmp_path: Path) -> None:
    inbreast(tmp_path)
    for path in sorted((tmp_path / "AllDICOMs").iterdir()):
        picture(tmp_path / "8 bits" / f"{path.stem}.png")
    assert {each.paths[0].suffix for each in read(tmp_path).records} == {".dcm"}
