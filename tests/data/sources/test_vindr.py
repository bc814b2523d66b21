"""VinDr-Mammo: BI-RADS as labels under a name of their own, the official split, boxes."""

from pathlib import Path

import pytest
from releases_b import VINDR_BREASTS, VINDR_FINDINGS, vindr
from releases_form import picture

from mammo.data.classes import TASKS
from mammo.data.release import Release
from mammo.data.sources import check_request, open_adapter, task_of
from mammo.errors import ConfigError, DataError


def read(folder: Path, task: str = "malignancy2_birads") -> Release:
    return open_adapter("vindr").read(folder, task=task, options={})


def labels(folder: Path, task: str) -> dict[str, str]:
    return {each.image: each.label for each in read(folder, task).records}


@pytest.mark.parametrize(
    ("task", "third", "fourth"),
    [
        ("malignancy2_birads", None, None),
        ("malignancy3_birads", None, "suspicious"),
        ("malignancy4_birads", "probably_benign", "suspicious"),
    ],
)
def test_birads_three_and_four_by_task(
    tmp_path: Path, task: str, third: str | None, fourth: str | None
) -> None:
    vindr(tmp_path)
    found = labels(tmp_path, task)
    assert (found.get("1a05"), found.get("1a06")) == (third, fourth)
    assert (found["1a07"], found["1a03"]) == ("benign", "malignant")


def test_an_assessment_is_never_called_pathology(caplog: pytest.LogCaptureFixture) -> None:
    check_request("vindr", "malignancy2", {})
    assert task_of("vindr", "malignancy2") == "malignancy2_birads"
    assert "read as task malignancy2_birads" in caplog.text
    with pytest.raises(ConfigError, match="task 'normal_benign_malignant' has no labels in vindr"):
        check_request("vindr", "normal_benign_malignant", {})
    assert TASKS["malignancy2_birads"].label_kind == "birads"
    assert TASKS["malignancy2_birads"].names == TASKS["malignancy2"].names


def test_birads_density_and_view(tmp_path: Path) -> None:
    vindr(tmp_path)
    assert labels(tmp_path, "birads")["1a06"] == "4"
    assert labels(tmp_path, "density4")["1a01"] == "C"
    density = labels(tmp_path, "density2")
    assert (density["1a01"], density["1a05"], density["1a08"]) == (
        "dense",
        "not_dense",
        "not_dense",
    )
    assert labels(tmp_path, "view")["1a02"] == "MLO"


def test_the_official_split_is_kept_and_holds_whole_studies(tmp_path: Path) -> None:
    vindr(tmp_path)
    splits = {(each.patient, each.split) for each in read(tmp_path, "view").records}
    assert splits == {("0a01", "train"), ("0a02", "test"), ("0a03", "train")}
    table = tmp_path / "breast-level_annotations.csv"
    table.write_text(VINDR_BREASTS.replace("DENSITY A,training", "DENSITY A,validation"))
    with pytest.raises(DataError, match="split 'validation' in row 9; training or test"):
        read(tmp_path)


def test_what_is_no_side_view_or_grade_comes_into_no_record(tmp_path: Path) -> None:
    vindr(tmp_path)
    table = tmp_path / "breast-level_annotations.csv"
    odd = VINDR_BREASTS.replace("1a01,L,CC", "1a01,L,Jane Doe").replace(
        "1a08,R,CC,96,72,BI-RADS 2,DENSITY A", "1a08,Jane,CC,96,72,BI-RADS of Jane,by Jane"
    )
    table.write_text(odd)
    release = read(tmp_path, "view")
    assert release.left_out == {"of a view other than CC and MLO": 1}
    last = release.records[-1]
    assert (last.laterality, last.birads, last.density) == ("", "", "")


def test_an_image_with_two_rows_is_refused(tmp_path: Path) -> None:
    vindr(tmp_path)
    table = tmp_path / "breast-level_annotations.csv"
    table.write_text(VINDR_BREASTS + VINDR_BREASTS.splitlines()[-1] + "\n")
    with pytest.raises(DataError, match="1 values of column 'image_id' stand in several rows"):
        read(tmp_path)


def test_a_box_that_is_no_box_is_refused(tmp_path: Path) -> None:
    vindr(tmp_path)
    (tmp_path / "finding_annotations.csv").write_text(VINDR_FINDINGS.replace("20.25", "top"))
    with pytest.raises(DataError, match="a corner that is no number in row 2"):
        read(tmp_path)


def test_a_missing_file_is_listed_and_a_missing_table_refused(tmp_path: Path) -> None:
    vindr(tmp_path)
    (tmp_path / "images/0a01/1a03.dicom").unlink()
    assert read(tmp_path).rejected == [("images/0a01/1a03.dicom", "the file is missing")]
    (tmp_path / "metadata.csv").unlink()  # the headers tell the vendor as well
    assert {each.vendor for each in read(tmp_path).records} == {""}
    (tmp_path / "finding_annotations.csv").unlink()  # it gives the boxes alone
    assert {each.boxes for each in read(tmp_path).records} == {()}
    (tmp_path / "breast-level_annotations.csv").unlink()
    with pytest.raises(DataError, match=r"has no breast-level_annotations\.csv"):
        read(tmp_path)


def test_a_path_that_leads_out_of_the_release_is_refused(tmp_path: Path) -> None:
    vindr(tmp_path)
    table = tmp_path / "breast-level_annotations.csv"
    table.write_text(VINDR_BREASTS.replace("0a03,5e03,1a08", "../..,5e03,1a08"))
    with pytest.raises(DataError, match="leads out of source"):
        read(tmp_path)


def test_copies_and_tables_in_other_folders_read_the_same(tmp_path: Path) -> None:
    vindr(tmp_path)
    expected = [
        (each.image, each.patient, each.label, each.boxes) for each in read(tmp_path).records
    ]
    for path in sorted((tmp_path / "images").rglob("*.dicom")):
        picture(tmp_path / "png" / path.parent.name / f"{path.stem}.png")
        path.unlink()
    (tmp_path / "csv").mkdir()
    for path in sorted(tmp_path.glob("*.csv")):
        path.rename(tmp_path / "csv" / path.name)
    records = read(tmp_path).records
    assert [(each.image, each.patient, each.label, each.boxes) for each in records] == expected
    assert {each.vendor for each in records} == {"SIEMENS", "Planmed"}


def test_of_a_file_and_its_copy_the_dicom_file_is_meant_and_of_two_copies_none(
    tmp_path: Path,
) -> None:
    vindr(tmp_path)
    (tmp_path / "images").rename(tmp_path / "dicom")
    picture(tmp_path / "png/0a01/1a01.png")
    picture(tmp_path / "small/0a01/1a03.png")
    (tmp_path / "dicom/0a01/1a03.dicom").unlink()
    picture(tmp_path / "png/0a01/1a03.png")
    release = read(tmp_path)
    assert release.rejected == [("images/0a01/1a03.dicom", "the file is there 2 times")]
    assert {each.paths[0].suffix for each in release.records} == {".dicom"}
