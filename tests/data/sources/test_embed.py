"""EMBED: findings meet files by examination and side, and the gravest finding counts."""

from pathlib import Path

import pytest
from goldens import told
from hypothesis import given
from hypothesis import strategies as st
from releases_b import EMBED_CLINICAL, EMBED_METADATA, EMBED_MODIFIER, embed

from mammo.data.release import Release, select
from mammo.data.sources import embed as adapter
from mammo.data.sources import open_adapter, task_of
from mammo.errors import DataError

CLINICAL, METADATA = "tables/EMBED_OpenData_clinical.csv", "tables/EMBED_OpenData_metadata.csv"


def read(folder: Path, task: str = "malignancy2") -> Release:
    return open_adapter("embed").read(folder, task=task, options={})


def labels(folder: Path, task: str = "malignancy2") -> dict[str, str]:
    """Label by the file's name."""
    return {each.paths[0].name: each.label for each in read(folder, task).records}


def test_a_finding_is_of_its_own_side(tmp_path: Path) -> None:
    embed(tmp_path)
    found = labels(tmp_path)
    assert found["8.1.dcm"] == "malignant"  # left, with a proven cancer at the left
    assert "8.3.dcm" not in found  # right breast of the same examination
    assert labels(tmp_path, "malignancy2_birads")["8.3.dcm"] == "benign"


def test_a_finding_of_side_b_or_of_none_is_of_both_breasts(tmp_path: Path) -> None:
    embed(tmp_path)
    found = labels(tmp_path)
    assert (found["8.4.dcm"], found["8.5.dcm"]) == ("benign", "benign")  # side B
    known = labels(tmp_path, "malignancy2_birads")
    assert (known["8.6.dcm"], known["8.7.dcm"]) == ("malignant", "malignant")  # no side, K


def test_a_specimen_of_one_breast_says_nothing_of_the_other(tmp_path: Path) -> None:
    embed(tmp_path)
    found = labels(tmp_path)
    assert found["8.6.dcm"] == "malignant"  # no side, the specimen (bside) is of the right
    assert "8.7.dcm" not in found


def test_the_gravest_finding_of_the_breast_counts(tmp_path: Path) -> None:
    embed(tmp_path)
    assert labels(tmp_path)["8.8.dcm"] == "malignant"  # 4 benign and 0 invasive
    assert labels(tmp_path, "malignancy3_birads")["8.8.dcm"] == "suspicious"  # B and S


@given(st.permutations("KMSAPBN"), st.integers(1, 7))
def test_the_gravest_assessment_does_not_depend_on_the_order(letters: list[str], take: int) -> None:
    findings = [adapter.Finding("L", "", letter, "", "", 50.0) for letter in letters[:take]]
    order = {"K": "6", "M": "5", "S": "4", "A": "0", "P": "3", "B": "2", "N": "1"}  # gravest first
    gravest = min(letters[:take], key=list(order).index)
    assert adapter._birads(findings, "L") == order[gravest]
    assert adapter._birads(findings, "R") == ""


def test_birads_letters_by_task(tmp_path: Path) -> None:
    embed(tmp_path)
    two = labels(tmp_path, "malignancy2_birads")
    assert set(two) == {"8.3.dcm", "8.4.dcm", "8.5.dcm", "8.6.dcm", "8.7.dcm", "8.16.dcm"}
    assert "8.1.dcm" not in labels(tmp_path, "malignancy4_birads")  # A is not finished
    assert labels(tmp_path, "malignancy4_birads")["8.13.dcm"] == "probably_benign"


def test_high_risk_lesions_are_neither_and_known_cancer_is_cancer(tmp_path: Path) -> None:
    embed(tmp_path)
    found = labels(tmp_path)
    assert "8.13.dcm" not in found  # path_severity 2
    assert found["8.16.dcm"] == "malignant"  # K without a recorded specimen


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    embed(tmp_path)
    assert read(tmp_path, "view").left_out == {
        "of a view other than CC and MLO": 1,
        "neither 2D nor C-view": 1,
        "without a side": 1,
        "of a man": 1,
        "twice in the table": 1,
    }
    assert read(tmp_path).left_out["of a breast without a finding in the clinical table"] == 1


def test_spot_views_and_implants_are_flagged(tmp_path: Path) -> None:
    embed(tmp_path)
    release = read(tmp_path)
    flags = {each.paths[0].name: each.flags for each in release.records if each.flags}
    assert flags == {"8.8.dcm": ("magnification", "spot"), "8.9.dcm": ("implant", "spot")}
    select(release, subsets=frozenset(), exclude=frozenset({"magnification", "spot"}))
    assert release.left_out["magnification (exclude)"] == 1
    assert release.left_out["spot (exclude)"] == 1


def test_the_two_kinds_of_picture_are_subsets(tmp_path: Path) -> None:
    embed(tmp_path)
    release = read(tmp_path)
    select(release, subsets=frozenset({"cview"}), exclude=frozenset())
    assert [each.paths[0].name for each in release.records] == ["8.2.dcm"]


def test_density_is_of_the_examination(tmp_path: Path) -> None:
    embed(tmp_path)
    found = labels(tmp_path, "density4")
    assert (found["8.1.dcm"], found["8.7.dcm"], found["8.14.dcm"]) == ("B", "C", "D")
    assert labels(tmp_path, "density2")["8.14.dcm"] == "dense"


def test_race_and_ethnicity_are_told_in_words_of_our_own(tmp_path: Path) -> None:
    embed(tmp_path)
    assert not any(each.extra for each in read(tmp_path).records)  # the table does not tell
    people = {
        "0": "African American  or Black,Non-Hispanic or Latino",
        "2": "Caucasian or White,Hispanic or Latino",
        "3": "Unreported,Mrs Example of Some Street",
    }
    first, *lines = EMBED_CLINICAL.splitlines()
    lines = [f"{line},{people.get(line.partition(',')[0], ',')}" for line in lines]
    head = f"{first},ETHNICITY_DESC,ETHNIC_GROUP_DESC"
    (tmp_path / CLINICAL).write_text("\n".join([head, *lines]) + "\n")
    found = {each.exam: dict(each.extra) for each in read(tmp_path, "view").records}
    assert found["5001"] == {"race": "Black", "ethnicity": "not Hispanic"}
    assert found["5002"] == {"race": "White", "ethnicity": "Hispanic"}
    assert found["5003"] == {"race": "", "ethnicity": ""}


@pytest.mark.parametrize("column", ["RACE_DESC", "ETHNICITY_DESC"])
@pytest.mark.parametrize(
    ("said", "race"),
    [
        ("Caucasian or White", "White"),
        ("African American  or Black", "Black"),
        ("Asian", "Asian"),
        ("American Indian or Alaskan Native", "American Indian"),
        ("Native Hawaiian or Other Pacific Islander", "Pacific Islander"),
        ("Multiple", "multiple"),
        ("Unknown, Unavailable or Unreported", ""),
    ],
)
def test_each_race_of_the_release_has_a_word_under_either_name_of_its_column(
    column: str, said: str, race: str
) -> None:
    """The names by the release's README and by its notebook; the values as both print them."""
    person = adapter._person({column: said, "ETHNIC_GROUP_DESC": "Non-Hispanic or Latino"})
    assert person == {"race": race, "ethnicity": "not Hispanic"}


def test_no_date_of_the_release_is_kept(tmp_path: Path) -> None:
    embed(tmp_path)
    rows = told(read(tmp_path).records, tmp_path)
    assert not any("2013" in value or "2016" in value for row in rows for value in row.values())


def test_the_reduced_tables_do_as_well(tmp_path: Path) -> None:
    embed(tmp_path)
    for name, content in ((CLINICAL, EMBED_CLINICAL), (METADATA, EMBED_METADATA)):
        (tmp_path / name).unlink()
        reduced = content.replace("ROI_coords", "x").replace("BreastImplantPresent", "y")
        reduced = reduced.replace(EMBED_MODIFIER, "z").replace("bside", "w")
        (tmp_path / name.replace(".csv", "_reduced.csv")).write_text(reduced)
    release = read(tmp_path)
    flags = {each.paths[0].name: each.flags for each in release.records}
    assert flags["8.9.dcm"] == ("magnification", "spot")
    assert all(not each.boxes for each in release.records)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("", ()),
        ("()", ()),
        ("nan", ()),
        ("((1, 2, 30, 40),)", ((2, 1, 40, 30),)),
        ("[[1, 2, 30, 40], [5, 6, 7.5, 8]]", ((2, 1, 40, 30), (6, 5, 8, 7.5))),
    ],
)
def test_rois_are_turned_to_x_and_y(text: str, boxes: tuple[tuple[float, ...], ...]) -> None:
    assert adapter._boxes(text) == boxes


def test_an_roi_that_cannot_be_read_is_listed_not_executed(tmp_path: Path) -> None:
    embed(tmp_path)
    bad = EMBED_METADATA.replace('"((20, 30, 44, 50),)"', "__import__('os')", 1)
    (tmp_path / METADATA).write_text(bad.replace("(50, 12, 60, 24)", "(50, 12)"))
    assert read(tmp_path).rejected == [
        ("cohort_1/10000001/5001/8.1.dcm", "its ROI_coords hold more than numbers"),
        ("cohort_1/10000001/5001/8.2.dcm", "its ROI_coords hold 6 numbers, no multiple of 4"),
    ]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (CLINICAL, "path_severity", "severity", "no column 'path_severity'"),
        (METADATA, "ImageLateralityFinal", "Side", "no column 'ImageLateralityFinal'"),
        (METADATA, "anon_dicom_path", "path", "has no path of a file in anon_dicom_path"),
        (METADATA, "cohort_1/10000001/5001/8.1", "cohort_1/../../8.1", "leads out of source"),
    ],
)
def test_tables_that_cannot_be_used(
    tmp_path: Path, name: str, old: str, new: str, message: str
) -> None:
    embed(tmp_path)
    file = tmp_path / name
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_missing_files_are_listed_and_missing_tables_refused(tmp_path: Path) -> None:
    embed(tmp_path)
    (tmp_path / "images/cohort_1/10000001/5002/8.4.dcm").unlink()
    assert read(tmp_path).rejected == [("cohort_1/10000001/5002/8.4.dcm", "the file is missing")]
    (tmp_path / METADATA).unlink()
    with pytest.raises(DataError, match=r"has no tables/EMBED_OpenData_metadata\.csv"):
        read(tmp_path)


def test_paths_of_other_folders_are_found_by_patient_examination_and_name(tmp_path: Path) -> None:
    embed(tmp_path)
    expected = sorted((each.paths[0].name, each.label) for each in read(tmp_path).records)
    (tmp_path / "images").rename(tmp_path / "dicoms")
    for name in (CLINICAL, METADATA):
        table = tmp_path / name
        told = table.read_text().replace("/nas/mammo/anon_dicom/cohort_1/", "/elsewhere/")
        (tmp_path / table.name).write_text(told.replace("/nas/mammo/anon_dicom/cohort_2/", "b/"))
        table.unlink()
    assert sorted((each.paths[0].name, each.label) for each in read(tmp_path).records) == expected


def test_a_name_that_several_files_of_the_table_have_stands_for_none(tmp_path: Path) -> None:
    embed(tmp_path)
    table = tmp_path / METADATA
    table.write_text(table.read_text().replace("5001/8.1.dcm", "5001/1.dcm").replace(
        "5002/8.4.dcm", "5002/1.dcm"))  # fmt: skip
    images = tmp_path / "images/cohort_1/10000001"
    (images / "5001/8.1.dcm").rename(images / "5001/1.dcm")
    (images / "5002/8.4.dcm").unlink()
    release = read(tmp_path)
    assert release.rejected == [("cohort_1/10000001/5002/1.dcm", "the file is missing")]


def test_columns_that_the_task_does_not_need_may_be_missing(tmp_path: Path) -> None:
    embed(tmp_path)
    expected = labels(tmp_path, "malignancy2_birads")
    table = tmp_path / CLINICAL
    table.write_text(table.read_text().replace("path_severity", "a").replace("bside", "c"))
    table = tmp_path / METADATA
    table.write_text(table.read_text().replace("spot_mag", "a"))
    assert labels(tmp_path, "malignancy2_birads") == expected
    with pytest.raises(DataError, match="no column 'path_severity'"):
        read(tmp_path)


def test_the_grade_itself_is_a_task_and_0_is_none(tmp_path: Path) -> None:
    embed(tmp_path)
    found = labels(tmp_path, "birads")
    assert "8.1.dcm" not in found  # A: incomplete
    assert (found["8.3.dcm"], found["8.4.dcm"], found["8.6.dcm"]) == ("1", "2", "6")


def test_pathology_and_assessment_are_two_tasks_here() -> None:
    assert task_of("embed", "malignancy2") == "malignancy2"
    assert task_of("embed", "malignancy2_birads") == "malignancy2_birads"
    assert task_of("embed", "malignancy4") == "malignancy4_birads"  # pathology has no such classes
