"""BCS-DBT: one slice a volume, boxes in a table of their own, three official parts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicoms import half_breast, write_dicom
from releases_b import BCS_FRAMES, bcs_dbt, breast

from mammo.data.prepare import Prepared, Recipe, prepare
from mammo.data.release import Record, Release
from mammo.data.sources import open_adapter
from mammo.errors import DataError


def read(folder: Path, task: str = "malignancy2") -> Release:
    return open_adapter("bcs_dbt").read(folder, task=task, options={})


def test_three_classes_and_their_parts(tmp_path: Path) -> None:
    bcs_dbt(tmp_path)
    release = read(tmp_path, "normal_benign_malignant")
    found = [(each.image.split("_")[-1], each.label, each.split) for each in release.records]
    assert found == [
        ("lcc", "malignant", "train"),
        ("lmlo2", "malignant", "train"),
        ("rcc", "normal", "train"),
        ("rmlo", "benign", "train"),
        ("rcc", "benign", "val"),
        ("lmlo", "malignant", "test"),
    ]
    assert release.left_out == {"actionable: called back, nothing proven": 1}


def test_normal_volumes_are_no_part_of_benign_against_malignant(tmp_path: Path) -> None:
    bcs_dbt(tmp_path)
    assert read(tmp_path).left_out == {
        "actionable: called back, nothing proven": 1,
        "without a class of malignancy2": 1,
    }


def test_a_slice_is_never_chosen_by_whether_there_is_a_lesion(tmp_path: Path) -> None:
    bcs_dbt(tmp_path)
    for task in ("normal_benign_malignant", "view"):
        records = read(tmp_path, task).records
        assert {(each.slice_index, each.boxes) for each in records} == {(-1, ())}


def test_side_and_view_come_from_the_column_view(tmp_path: Path) -> None:
    bcs_dbt(tmp_path)
    found = {each.image.split("_")[-1]: each for each in read(tmp_path, "view").records}
    again = found["lmlo2"]  # taken a second time
    assert (again.laterality, again.view, again.label) == ("L", "MLO", "MLO")
    assert all(each.may_be_turned for each in found.values())


def test_a_volume_that_is_stored_upside_down_is_turned_with_its_boxes(tmp_path: Path) -> None:
    rows = np.linspace(0.5, 1, 96)[:, None]  # brighter towards the feet, so that up is not down
    upright = (half_breast(wall="right", level=3000) * rows).astype(np.uint16)
    write_dicom(tmp_path / "upright.dcm", upright, ImageLaterality="L")  # the header's is wrong
    write_dicom(tmp_path / "turned.dcm", upright[::-1, ::-1], ImageLaterality="L")

    def stored(name: str, **more: Any) -> Prepared:
        path = tmp_path / f"{name}.dcm"
        circle = (60.0, 30.0, 6.0)  # of the upright picture
        record = Record((path,), "p", name, "CC", laterality="R", circles=(circle,), **more)
        result = prepare(record, Recipe(size=(64, 48)))
        assert isinstance(result, Prepared)
        return result

    wanted, found = stored("upright", may_be_turned=True), stored("turned", may_be_turned=True)
    np.testing.assert_array_equal(found.image, wanted.image)
    np.testing.assert_array_equal(found.mask, wanted.mask)
    assert (found.wall, found.expected_wall) == ("right", "right")
    as_it_is = stored("turned")  # of any other release: followed as the pixels show it
    assert (as_it_is.wall, np.array_equal(as_it_is.image, wanted.image)) == ("left", False)


def test_a_turned_volume_is_turned_where_the_whole_picture_is_kept_too(tmp_path: Path) -> None:
    """Its boxes are those of the upright picture, whatever the crop."""
    upright = half_breast(wall="right", level=2000)
    upright[20:28, 50:58] = 4000  # what the box marks
    write_dicom(tmp_path / "upright.dcm", upright)
    write_dicom(tmp_path / "turned.dcm", upright[::-1, ::-1])
    shape = upright.shape
    for name in ("upright", "turned"):
        record = Record(
            (tmp_path / f"{name}.dcm",), "p", name, "CC", laterality="R",
            boxes=((50, 20, 58, 28),), may_be_turned=True,
        )  # fmt: skip
        done = prepare(record, Recipe(size=(shape[0], shape[1]), crop="none", intensity="none"))
        assert isinstance(done, Prepared)
        assert done.mask is not None
        assert done.mask.sum() == 64 * 255
        assert (done.image[done.mask > 0] == done.image.max()).all()


def test_the_slice_of_the_lesion_is_prepared_with_its_boxes(tmp_path: Path) -> None:
    bcs_dbt(tmp_path)
    lesion = next(each for each in read(tmp_path).records if each.image.endswith("lcc"))
    frames = np.split(breast(1, "l", frames=BCS_FRAMES), BCS_FRAMES)
    write_dicom(tmp_path / "slice.dcm", frames[3])
    alone = replace(lesion, paths=(tmp_path / "slice.dcm",), slice_index=-1)
    recipe = Recipe(size=(64, 48))
    found, wanted = prepare(lesion, recipe), prepare(alone, recipe)
    assert isinstance(found, Prepared)
    assert isinstance(wanted, Prepared)
    np.testing.assert_array_equal(found.image, wanted.image)
    assert found.mask is not None
    np.testing.assert_array_equal(found.mask, wanted.mask)
    assert found.mask.any()


def test_files_are_found_by_their_series_where_folders_have_other_names(tmp_path: Path) -> None:
    bcs_dbt(tmp_path)
    old = tmp_path / "Breast-Cancer-Screening-DBT/DBT-P00004/1.9/2.6"
    new = tmp_path / "breast_cancer_screening_dbt/DBT-P00004/1.9/MG_2.6"
    new.parent.mkdir(parents=True)
    old.rename(new)
    paths = {each.patient: each.paths[0] for each in read(tmp_path).records}
    assert paths["DBT-P00004"] == new / "1-1.dcm"


def test_a_part_without_labels_is_left_out(tmp_path: Path) -> None:
    bcs_dbt(tmp_path)
    (tmp_path / "BCS-DBT-labels-test-v2.csv").unlink()
    release = read(tmp_path)
    assert "DBT-P00005" not in {each.patient for each in release.records}
    assert release.left_out["without a label"] == 1


def test_the_latest_version_of_a_table_counts(tmp_path: Path) -> None:
    bcs_dbt(tmp_path)
    table = tmp_path / "BCS-DBT-labels-train-v2.csv"
    swapped = table.read_text().replace("0,0,0,1", "0,0,1,0")
    (tmp_path / "BCS-DBT-labels-train.csv").write_text(swapped)  # the first version
    labels = {each.patient: each.label for each in read(tmp_path).records}
    assert labels["DBT-P00001"] == "malignant"


def test_the_licence_is_told(tmp_path: Path) -> None:
    bcs_dbt(tmp_path)
    assert "CC BY-NC" in read(tmp_path).notes["licence"]


def test_a_missing_volume_is_listed(tmp_path: Path) -> None:
    bcs_dbt(tmp_path)
    (tmp_path / "Breast-Cancer-Screening-DBT/DBT-P00004/1.9/2.6/1-1.dcm").unlink()
    assert [reason for _, reason in read(tmp_path).rejected] == ["the file is missing"]


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("file-paths-train-v2", "classic_path", "path", "no column 'classic_path'"),
        ("labels-train-v2", "Cancer", "Malignant", "no column 'Cancer'"),
        ("boxes-train-v2", ",30,12,16", ",30,?,16", "no whole numbers in row 2"),
        (
            "file-paths-train-v2",
            "Breast-Cancer-Screening-DBT/",
            "/elsewhere/",
            "leads out of source",
        ),
    ],
)
def test_tables_that_cannot_be_used(
    tmp_path: Path, table: str, old: str, new: str, message: str
) -> None:
    bcs_dbt(tmp_path)
    file = tmp_path / f"BCS-DBT-{table}.csv"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no BCS-DBT-file-paths-train-v2\.csv"):
        read(tmp_path)


def test_tables_and_volumes_may_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    bcs_dbt(tmp_path)
    expected = [(each.image, each.label, each.split, each.boxes) for each in read(tmp_path).records]
    for name, moved in (("csv", "BCS-DBT*.csv"), ("manifest-1617905855234", "Breast-Cancer*")):
        (tmp_path / name).mkdir()
        for path in sorted(tmp_path.glob(moved)):
            path.rename(tmp_path / name / path.name)
    found = [(each.image, each.label, each.split, each.boxes) for each in read(tmp_path).records]
    assert found == expected
