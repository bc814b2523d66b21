"""CSAW-CC: a cancer is on one side and at some time, a row tells both of the whole patient."""

from pathlib import Path

import pytest
from releases_b import CSAW_TABLE, csaw_cc
from releases_form import picture

from mammo.data.release import Release
from mammo.data.sources import open_adapter
from mammo.errors import DataError

TABLE = "CSAW-CC_breast_cancer_screening_data.csv"


def read(folder: Path, task: str = "malignancy2") -> Release:
    return open_adapter("csaw_cc").read(folder, task=task, options={})


def test_a_cancer_is_on_its_own_side_only(tmp_path: Path) -> None:
    csaw_cc(tmp_path)
    sides = {(each.patient, each.laterality): each.label for each in read(tmp_path).records}
    assert sides == {
        ("7", "L"): "malignant",  # found at the screening
        ("7", "R"): "benign",
        ("12", "R"): "malignant",  # found before the next one
        ("12", "L"): "benign",
        ("31", "L"): "benign",
    }


def test_years_before_the_cancer_are_neither(tmp_path: Path) -> None:
    csaw_cc(tmp_path)
    release = read(tmp_path)
    assert "7_2012" not in {each.exam for each in release.records}
    assert release.left_out == {
        "taken more than two years before a cancer": 1,
        "of a view other than CC and MLO": 1,
    }
    assert "7_2012" in {each.exam for each in read(tmp_path, "view").records}


def test_a_case_without_a_side_is_left_out_as_a_whole(tmp_path: Path) -> None:
    csaw_cc(tmp_path)
    (tmp_path / TABLE).write_text(CSAW_TABLE.replace("1,Right,1.0", "1,,1.0"))
    release = read(tmp_path)
    assert "12" not in {each.patient for each in release.records}
    assert release.left_out["of a patient whose cancer has no side or no timing"] == 2


def test_the_age_bands_are_no_ages_and_the_enrichment_is_told(tmp_path: Path) -> None:
    csaw_cc(tmp_path)
    release = read(tmp_path)
    assert all(each.age != each.age for each in release.records)
    assert "10 % of the women" in release.notes["prevalence"]
    assert {name for each in release.records for name in each.extra} == {"percent_density"}


def test_files_are_found_by_name_and_only_once(tmp_path: Path) -> None:
    csaw_cc(tmp_path)
    images = tmp_path / "images"
    (tmp_path / "part_2").mkdir()
    (images / "31_20990909_L_CC_1.dcm").rename(tmp_path / "part_2/31_20990909_L_CC_1.dcm")
    (images / "12_20990909_L_MLO_1.dcm").unlink()
    (tmp_path / "part_2/7_20990909_L_CC_2.dcm").write_bytes(b"")
    release = read(tmp_path)
    assert "31" in {each.patient for each in release.records}
    assert sorted(release.rejected) == [
        ("12_20990909_L_MLO_1.dcm", "the file is missing"),
        ("7_20990909_L_CC_2.dcm", "the file is there 2 times"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rad_timing", "timing", "no column 'rad_timing'"),
        ("7,2014,1,1,Left", "7,2014,1,no,Left", "x_case 'no' in row 3"),
        ("31_20990909_L_ML_1", "31_20990909_L_CC_1", "stand in several rows"),
        (",1.0,Right,CC", ",1.0,both,CC", "imagelaterality .* in row 5"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, old: str, new: str, message: str) -> None:
    csaw_cc(tmp_path)
    (tmp_path / TABLE).write_text(CSAW_TABLE.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_an_examination_without_timing_is_a_negative_one(tmp_path: Path) -> None:
    csaw_cc(tmp_path)
    (tmp_path / TABLE).write_text(CSAW_TABLE.replace("2.0,0.0,3.0", "2.0,0.0,"))
    release = read(tmp_path)
    assert {each.label for each in release.records if each.exam == "7_2012"} == {"benign"}


def test_a_table_of_another_name_and_copies_are_read(tmp_path: Path) -> None:
    csaw_cc(tmp_path)
    expected = [(each.image, each.label) for each in read(tmp_path).records]
    (tmp_path / "tables").mkdir()
    (tmp_path / TABLE).rename(tmp_path / "tables/csaw-cc.csv")
    for path in sorted((tmp_path / "images").iterdir()):
        picture(tmp_path / "pngs" / f"{path.stem}.png")
        path.unlink()
    assert [(each.image, each.label) for each in read(tmp_path).records] == expected
