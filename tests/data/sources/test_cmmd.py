"""CMMD: labels by breast, two collections in one, a table that comes on its own."""

from pathlib import Path

import pydicom
import pytest
from dicoms import half_breast, write_dicom
from goldens import expected, told
from pydicom.dataset import Dataset
from releases_b import CMMD_TABLE, cmmd

from mammo.data.release import Release, select
from mammo.data.sources import open_adapter
from mammo.errors import DataError


def read(folder: Path, task: str = "malignancy2") -> Release:
    return open_adapter("cmmd").read(folder, task=task, options={})


def test_the_other_breast_never_takes_its_neighbours_label(tmp_path: Path) -> None:
    cmmd(tmp_path)
    release = read(tmp_path)
    sides = {each.laterality for each in release.records if each.patient == "D2-0001"}
    assert sides == {"L"}
    assert release.left_out == {"of a breast that the table does not label": 2}
    assert len(read(tmp_path, "view").records) == 9  # its views are known all the same


@pytest.mark.parametrize(
    ("meaning", "value", "view"),
    [
        ("Medio-Lateral Oblique", "", "MLO"),
        ("", "399368009", "MLO"),
        ("", "R-10242", "CC"),
        ("cranio-caudal exaggerated laterally", "R-1024A", ""),
    ],
)
def test_views_by_meaning_or_code(tmp_path: Path, meaning: str, value: str, view: str) -> None:
    cmmd(tmp_path)
    code = Dataset()
    code.CodeMeaning, code.CodeValue = meaning, value
    file = next(tmp_path.rglob("1-9.dcm"))
    write_dicom(
        file, half_breast(), PatientID="D2-0002", ImageLaterality="R", ViewCodeSequence=[code]
    )
    found = [each.view for each in read(tmp_path).records if each.patient == "D2-0002"]
    assert found == [view]


def test_a_patient_with_a_benign_and_a_malignant_breast(tmp_path: Path) -> None:
    cmmd(tmp_path)
    both = [each for each in read(tmp_path).records if each.patient == "D1-0002"]
    assert {each.laterality: each.label for each in both} == {"L": "benign", "R": "malignant"}


def test_a_breast_with_two_labels_has_none(tmp_path: Path) -> None:
    cmmd(tmp_path, [*CMMD_TABLE, ("D1-0001", "R", 44, 2, "mass", "Malignant", None)])
    release = read(tmp_path)
    assert "D1-0001" not in {each.patient for each in release.records}
    assert release.left_out["of a breast with two labels"] == 2


def test_subtypes_are_those_of_malignant_breasts_of_d2(tmp_path: Path) -> None:
    cmmd(tmp_path)
    release = read(tmp_path, "cmmd_subtype4")
    assert [(each.patient, each.view, each.label) for each in release.records] == [
        ("D2-0001", "CC", "luminal_a"),
        ("D2-0001", "MLO", "luminal_a"),
        ("D2-0002", "MLO", "triple_negative"),
    ]
    assert release.classes.names == ("luminal_a", "luminal_b", "her2", "triple_negative")


def test_one_of_the_two_collections_alone(tmp_path: Path) -> None:
    cmmd(tmp_path)
    release = read(tmp_path)
    select(release, subsets=frozenset({"D1"}), exclude=frozenset())
    assert {each.patient for each in release.records} == {"D1-0001", "D1-0002"}
    assert "--subset D1" in release.notes["subsets"]
    assert "SIGMOID" in release.notes["intensity"]


def test_files_that_are_not_of_the_collection_are_named(tmp_path: Path) -> None:
    cmmd(tmp_path)
    (tmp_path / "CMMD/broken.dcm").write_bytes(b"no DICOM")
    assert [name for name, _ in read(tmp_path).rejected] == ["CMMD/broken.dcm"]


def test_a_file_that_is_there_twice_is_taken_once(tmp_path: Path) -> None:
    cmmd(tmp_path)
    file = next(path for path in sorted(tmp_path.rglob("1-9.dcm")))
    (tmp_path / "CMMD/copy.dcm").write_bytes(file.read_bytes())
    release = read(tmp_path)
    assert len(release.records) == 7
    assert release.left_out["twice in the folder"] == 1


def test_without_its_table_the_collection_has_no_labels(tmp_path: Path) -> None:
    cmmd(tmp_path)
    table = tmp_path / "CMMD_clinicaldata_revision.xlsx"
    table.rename(tmp_path / "other.xlsx")
    with pytest.raises(DataError, match=r"no CMMD_clinicaldata_revision\.xlsx.* download it"):
        read(tmp_path)


def test_a_table_saved_as_csv_is_read_too(tmp_path: Path) -> None:
    cmmd(tmp_path)
    (tmp_path / "CMMD_clinicaldata_revision.xlsx").unlink()
    lines = [",".join("" if cell is None else str(cell) for cell in row) for row in CMMD_TABLE]
    (tmp_path / "CMMD_clinicaldata_revision.csv").write_text("\n".join(lines) + "\n")
    assert told(read(tmp_path).records, tmp_path) == expected("cmmd")


def test_a_table_without_sides_is_refused(tmp_path: Path) -> None:
    cmmd(tmp_path, [row[:1] + row[2:] for row in CMMD_TABLE])
    with pytest.raises(DataError, match="no column 'LeftRight'"):
        read(tmp_path)


def test_a_patient_is_told_by_the_folder_where_the_header_names_none(tmp_path: Path) -> None:
    cmmd(tmp_path)
    expected = [(each.patient, each.laterality, each.view) for each in read(tmp_path).records]
    for path in sorted(tmp_path.rglob("*.dcm")):
        data = pydicom.dcmread(path)
        data.PatientID = ""
        (meaning,) = (code.CodeMeaning for code in data.ViewCodeSequence)
        data.ViewPosition = {"cranio-caudal": "CC", "medio-lateral oblique": "MLO"}[meaning]
        data.Laterality = data.ImageLaterality
        del data.ViewCodeSequence, data.ImageLaterality
        data.save_as(path)
    records = read(tmp_path).records
    assert [(each.patient, each.laterality, each.view) for each in records] == expected


def test_a_table_with_semicolons_below_the_folder_is_read(tmp_path: Path) -> None:
    cmmd(tmp_path)
    (tmp_path / "CMMD_clinicaldata_revision.xlsx").unlink()
    lines = [";".join("" if cell is None else str(cell) for cell in row) for row in CMMD_TABLE]
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/CMMD_clinicaldata_revision_CSV.csv").write_text("\n".join(lines) + "\n")
    assert told(read(tmp_path).records, tmp_path) == expected("cmmd")
