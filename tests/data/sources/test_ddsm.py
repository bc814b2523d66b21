"""DDSM: a case's status is not both breasts', outlines are chain codes."""

from collections import Counter
from pathlib import Path

import pytest
from releases_a import ddsm
from releases_form import picture, text

from mammo.data.release import Release
from mammo.data.sources import open_adapter
from mammo.data.sources.ddsm import follow_chain, read_overlay
from mammo.errors import DataError

OVERLAY = """\
TOTAL_ABNORMALITIES 2
ABNORMALITY 1
LESION_TYPE MASS SHAPE OVAL MARGINS CIRCUMSCRIBED
ASSESSMENT 3
SUBTLETY 4
PATHOLOGY {first}
TOTAL_OUTLINES 2
BOUNDARY
10 20 2 2 4 4 6 6 0 0 #
\tCORE
11 21 4 0 #
ABNORMALITY 2
LESION_TYPE CALCIFICATION TYPE PLEOMORPHIC DISTRIBUTION CLUSTERED
ASSESSMENT 4
SUBTLETY 3
PATHOLOGY {second}
TOTAL_OUTLINES 1
BOUNDARY
30 40 1 3 5 7 #
"""
CASE = """\
ics_version 1.0
filename B-3024-1
DATE_OF_STUDY 2 7 1995
PATIENT_AGE 42
FILM
FILM_TYPE REGULAR
DENSITY 4
DATE_DIGITIZED 7 22 1997
DIGITIZER LUMISYS
SELECTED
LEFT_CC LINES 96 PIXELS_PER_LINE 64 BITS_PER_PIXEL 12 RESOLUTION 50 OVERLAY
RIGHT_CC LINES 96 PIXELS_PER_LINE 64 BITS_PER_PIXEL 12 RESOLUTION 50 NON_OVERLAY
"""


def read(folder: Path, task: str = "malignancy2") -> Release:
    return open_adapter("ddsm").read(folder, task=task, options={})


def original(folder: Path, first: str = "BENIGN", second: str = "MALIGNANT") -> Path:
    """A case of the original in pictures half as large as its scans; returns its folder."""
    case = folder / "cancers/cancer_01/case3024"
    for side in ("LEFT", "RIGHT"):
        picture(case / f"B_3024_1.{side}_CC.LJPEG.png", shape=(48, 32))
    text(case / "B-3024-1.ics", CASE)
    text(case / "B_3024_1.LEFT_CC.OVERLAY", OVERLAY.format(first=first, second=second))
    return case


def test_only_the_breast_with_the_lesion_has_the_status_of_its_case(tmp_path: Path) -> None:
    ddsm(tmp_path)
    release = read(tmp_path)
    assert Counter((each.patient, each.laterality, each.label) for each in release.records) == {
        ("C_0029", "L", "benign"): 2,
        ("A_1001", "R", "malignant"): 2,  # seen in one view, but both show the breast
    }
    assert release.left_out == {
        "of a breast with no proven lesion, in a case with one": 4,
        "without a label of malignancy2": 4,
    }
    assert len(read(tmp_path, "view").records) == 12


def test_density_0_is_none(tmp_path: Path) -> None:
    ddsm(tmp_path)
    found = read(tmp_path, "density2")
    assert {each.patient: each.label for each in found.records} == {
        "C_0029": "dense", "A_1001": "not_dense",
    }  # fmt: skip
    assert found.left_out == {"without a label of density2": 4}


def test_the_folders_tell_the_same_as_the_table(tmp_path: Path) -> None:
    ddsm(tmp_path)
    told = [(each.image, each.label, each.masks) for each in read(tmp_path).records]
    (tmp_path / "DataWMask.xlsx").unlink()
    assert [(each.image, each.label, each.masks) for each in read(tmp_path).records] == told


def test_the_copy_in_png_is_found_by_the_table_of_jpegs(tmp_path: Path) -> None:
    ddsm(tmp_path)
    for path in sorted(tmp_path.rglob("*.jpg")):
        path.rename(path.with_suffix(".png"))
    records = read(tmp_path).records
    assert len(records) == 4
    assert {path.suffix for each in records for path in (*each.paths, *each.masks)} == {".png"}


def test_an_overlay_tells_pathology_and_outlines(tmp_path: Path) -> None:
    original(tmp_path)
    release = read(tmp_path)
    (record,) = release.records  # the other breast has no overlay
    assert (record.image, record.label) == ("B_3024_1.LEFT_CC", "malignant")
    assert (record.patient, record.age, record.density) == ("B_3024", 42, "D")
    assert record.pixel_mm == 0.1  # 50 um at twice the size
    assert record.polygons == (  # halved: the picture is 32 wide, its scan was 64
        ((5, 10), (6, 10), (6, 11), (5, 11)),
        ((15, 20), (15.5, 19.5), (16, 20), (15.5, 20.5)),
    )
    assert release.left_out == {"of a breast with no proven lesion, in a case with one": 1}


@pytest.mark.parametrize(
    ("first", "second", "label"),
    [
        ("BENIGN", "BENIGN_WITHOUT_CALLBACK", "benign"),
        ("MALIGNANT", "UNPROVEN", "malignant"),
        ("BENIGN_WITHOUT_CALLBACK", "UNPROVEN", "benign"),
    ],
)
def test_the_gravest_proven_abnormality_of_a_cancer_case_counts(
    tmp_path: Path, first: str, second: str, label: str
) -> None:
    original(tmp_path, first, second)
    assert [each.label for each in read(tmp_path).records] == [label]


def test_what_is_not_proven_has_no_label(tmp_path: Path) -> None:
    original(tmp_path, "UNPROVEN", "UNPROVEN")
    assert read(tmp_path).records == []


def test_a_chain_code_starts_at_x_y_and_goes_clockwise_from_up() -> None:
    assert follow_chain(["100", "200", *"01234567"]) == (
        (100, 200), (100, 199), (101, 198), (102, 198), (103, 199), (103, 200), (102, 201),
        (101, 201),
    )  # fmt: skip
    assert follow_chain([*"55222"]) == ((5, 5), (8, 5))  # a straight run has no corners


def test_only_boundaries_are_taken() -> None:
    pathologies, outlines = read_overlay(OVERLAY.format(first="BENIGN", second="UNPROVEN"))
    assert pathologies == ["BENIGN", "UNPROVEN"]
    assert outlines == [
        ((10, 20), (12, 20), (12, 22), (10, 22)),
        ((30, 40), (31, 39), (32, 40), (31, 41)),
    ]


@pytest.mark.parametrize("chain", ["", "5", "5 5 8", "5 5 -1", "5 5 x"])
def test_an_outline_that_is_no_chain_code_is_refused(chain: str) -> None:
    with pytest.raises(DataError, match="its overlay has an outline that is no chain code"):
        follow_chain(chain.split())


def test_a_film_with_a_broken_overlay_is_listed(tmp_path: Path) -> None:
    case = original(tmp_path)
    text(case / "B_3024_1.LEFT_CC.OVERLAY", "TOTAL_ABNORMALITIES 1\nBOUNDARY\n1 2 9 #\n")
    name = "B_3024_1.LEFT_CC.LJPEG.png"
    assert read(tmp_path).rejected == [(name, "its overlay has an outline that is no chain code")]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    ddsm(tmp_path)
    (tmp_path / "Benign/0029/C_0029_1.LEFT_CC.jpg").unlink()
    path = r"Benign\0029\C_0029_1.LEFT_CC.jpg"
    assert read(tmp_path).rejected == [(path, "the file is missing")]
    (tmp_path / "DataWMask.xlsx").unlink()
    text(tmp_path / "DataWMask.csv", "fullPath,View,Side\n")
    with pytest.raises(DataError, match="has no column 'Status'; it has fullPath, View, Side"):
        read(tmp_path)


def test_a_table_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    head = "fullPath,fileName,View,Side,Status,Tumour_Contour,Age,Density\n"
    text(tmp_path / "DataWMask.csv", f"{head}..\\..\\C_0001_1.LEFT_CC.jpg,x,CC,LEFT,Benign,-,1,1\n")
    with pytest.raises(DataError, match="column fullPath of DataWMask is empty or leads out"):
        read(tmp_path)


def test_the_table_may_lie_deeper_and_tell_no_more_than_names_do(tmp_path: Path) -> None:
    expected = {"C_0029_1.LEFT_CC": "benign", "A_1001_1.RIGHT_CC": "malignant"}
    place = tmp_path / "MINI-DDSM-Complete-JPEG-8"
    lines = ["fullPath,Status,Tumour_Contour"]
    for name, label in expected.items():
        status = {"benign": "Benign", "malignant": "Cancer"}[label]
        picture(place / status / f"{name}.jpg")
        picture(place / status / f"{name}_Mask.jpg")
        lines.append(f"{status}\\{name}.jpg,{status},{status}\\{name}_Mask.jpg")
    text(place / "DataWMask.csv", "\n".join(lines) + "\n")
    records = read(tmp_path).records
    assert {each.image: each.label for each in records} == expected
    assert {(each.patient, each.laterality, each.view) for each in records} == {
        ("C_0029", "L", "CC"), ("A_1001", "R", "CC"),
    }  # fmt: skip
