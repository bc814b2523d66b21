"""Volumes: which slices are taken, what labels them, and what does not fit together."""

from pathlib import Path

import numpy as np
import pytest
from releases_c import nifti as write_nifti
from releases_c import volume
from releases_form import text

from mammo.data.release import Release
from mammo.data.sources import check_request, open_adapter
from mammo.errors import ConfigError, DataError, MammoError


def read(folder: Path, task: str = "label", **options: str) -> Release:
    check_request("nifti", task, options)
    return open_adapter("nifti").read(folder, task=task, options=options)


def told(release: Release) -> list[tuple[str, str]]:
    return [(record.image, record.label) for record in release.records]


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Two patients with four slices; p1 has a lesion in slices 1 and 2, p2 in none."""
    for patient, lesions in (("p1", [1, 2]), ("p2", [])):
        mask = np.zeros((6, 5, 4), np.uint8)
        mask[2:4, 1:3, lesions] = 1
        volume(tmp_path / patient / "bravo.nii.gz", np.full((6, 5, 4), 9, np.uint8))
        volume(tmp_path / patient / "seg.nii.gz", mask)
    return tmp_path


def test_the_mask_is_the_label_where_no_table_tells_one(patients: Path) -> None:
    found = read(patients)
    assert told(found) == [
        ("p1#0", "no_lesion"), ("p1#1", "lesion"), ("p1#2", "lesion"), ("p1#3", "no_lesion"),
        ("p2#0", "no_lesion"), ("p2#1", "no_lesion"), ("p2#2", "no_lesion"), ("p2#3", "no_lesion"),
    ]  # fmt: skip
    assert (found.classes.positive, found.classes.label_kind) == ("lesion", "reader")
    assert [each.slice_index for each in found.records] == [0, 1, 2, 3] * 2
    assert {each.patient for each in found.records} == {"p1", "p2"}
    mapped = read(patients, "malignancy2", class_map="malignant=lesion,benign=no_lesion")
    assert [each.label for each in mapped.records[:2]] == ["benign", "malignant"]


def test_slices_with_a_lesion_or_every_so_many_alone(patients: Path) -> None:
    assert told(read(patients, slices="marked")) == [("p1#1", "lesion"), ("p1#2", "lesion")]
    second = read(patients, slices="2")
    assert [each.image for each in second.records] == ["p1#0", "p1#2", "p2#0", "p2#2"]
    assert second.left_out == {"between the slices taken (slices=2)": 4}
    for wrong in ("0", "-2", "some"):
        with pytest.raises(ConfigError, match=f"slices '{wrong}': give marked, or a number"):
            read(patients, slices=wrong)


def test_empty_slices_are_counted_and_left_out(tmp_path: Path) -> None:
    found = read_release(tmp_path)
    assert found.left_out == {"empty slices": 1}
    assert len(found.records) == 5


def read_release(folder: Path) -> Release:
    return read(folder, **write_nifti(folder).options)


def test_the_folders_above_the_patients_may_be_splits(tmp_path: Path) -> None:
    found = read_release(tmp_path)
    assert {(each.patient, each.split) for each in found.records} == {
        ("Mets_005", "train"),
        ("Mets_011", "test"),
    }


def test_channels_are_files_of_the_patient(tmp_path: Path) -> None:
    (record, *_) = read_release(tmp_path).records
    assert [path.name for path in record.paths] == ["t1_pre.nii.gz", "t1_gd.nii.gz"]
    assert [path.name for path in record.masks] == ["seg.nii.gz"]


def test_a_table_labels_patients_or_slices(patients: Path) -> None:
    options = {"csv": "truth.csv", "patient_column": "who", "label_column": "truth"}
    text(patients / "truth.csv", "who,truth,part\np1,malignant,train\np2,benign,test\n")
    found = read(patients, "malignancy2", split_column="part", **options)
    assert [(each.label, each.split) for each in found.records] == (
        [("malignant", "train")] * 4 + [("benign", "test")] * 4
    )
    text(patients / "truth.csv", "who,slice,truth\np1,3,malignant\np1,0,benign\np2,1,benign\n")
    found = read(patients, "malignancy2", **options)
    assert told(found) == [("p1#0", "benign"), ("p1#3", "malignant"), ("p2#1", "benign")]
    assert found.left_out == {"without a label": 5}
    marked = read(patients, "malignancy2", slices="marked", **options)
    assert marked.records == []


def test_planes_side_by_side_are_one_image(tmp_path: Path) -> None:
    """Two generated images of (H, W, planes): two channels, then the mask."""
    for number, lesion in ((1, 1), (2, 0)):
        voxels = np.ones((6, 5, 3), np.uint8)
        voxels[..., 2] = 0
        voxels[1, 1, 2] = lesion
        volume(tmp_path / f"{number:05d}.nii.gz", voxels)
    found = read(tmp_path, planes="t1_pre,t1_gd,seg")
    assert told(found) == [("00001.nii.gz#0", "lesion"), ("00002.nii.gz#0", "no_lesion")]
    first = found.records[0]
    assert (first.planes, first.slice_index) == ((0, 1, 2), -1)
    assert [path.name for path in (*first.paths, *first.masks)] == ["00001.nii.gz"] * 3
    one = read(tmp_path, planes="t1_pre,t1_gd,seg", channels="t1_gd").records[0]
    assert one.planes == (1, 2)
    text(tmp_path / "truth.csv", "file,truth\n00001.nii.gz,benign\n00002.nii.gz,malignant\n")
    labelled = read(
        tmp_path, "malignancy2", planes="a,b,seg", csv="truth.csv", label_column="truth"
    )
    assert [each.label for each in labelled.records] == ["benign", "malignant"]
    with pytest.raises(ConfigError, match="does not name the channels and seg"):
        read(tmp_path, planes="a,b,seg", channels="c")
    assert read(tmp_path, planes="a,b,c,seg").rejected[0][1] == (
        "it holds 3 planes, the setting planes names more"
    )


def test_files_of_one_image_belong_to_the_patient_of_the_table(tmp_path: Path) -> None:
    rows = "file,who,truth\n"
    for number, who in ((1, "p"), (2, "p"), (3, "q")):
        volume(tmp_path / f"{number}.nii.gz", np.ones((6, 5, 2), np.uint8))
        rows += f"{number}.nii.gz,{who},{'benign' if number % 2 else 'malignant'}\n"
    text(tmp_path / "truth.csv", rows)
    table = {"planes": "bravo,seg", "csv": "truth.csv", "label_column": "truth"}
    found = read(tmp_path, "malignancy2", patient_column="who", **table)
    assert [each.patient for each in found.records] == ["p", "p", "q"]
    assert found.notes["group"] == "patient_column"
    alone = read(tmp_path, "malignancy2", **table)
    assert len({each.patient for each in alone.records}) == 3
    assert alone.notes["group"].startswith("image")  # so that near-duplicates stay together
    with pytest.raises(ConfigError, match="patient_column 'who' has no effect without a table"):
        read(tmp_path, planes="bravo,seg", patient_column="who")
    text(tmp_path / "truth.csv", rows.replace("2.nii.gz,p", "2.nii.gz,"))
    with pytest.raises(DataError, match="row 3 of the table names no patient"):
        read(tmp_path, "malignancy2", patient_column="who", **table)


def test_generated_files_need_their_origin(tmp_path: Path) -> None:
    volume(tmp_path / "generated/00001.nii.gz", np.ones((6, 5, 2), np.uint8))
    with pytest.raises(ConfigError, match="generated holds generated images by its name"):
        read(tmp_path / "generated", planes="bravo,seg")
    found = read(tmp_path / "generated", planes="bravo,seg", synthetic_origin="flow matching")
    assert told(found) == [("00001.nii.gz#0", "lesion")]


def test_what_does_not_fit_together_is_rejected(patients: Path) -> None:
    volume(patients / "p3/bravo.nii.gz", np.ones((6, 5, 4), np.uint8))
    volume(patients / "p4/bravo.nii.gz", np.ones((6, 5, 4), np.uint8))
    volume(patients / "p4/seg.nii.gz", np.ones((6, 5, 3), np.uint8))
    volume(patients / "p5/bravo.nii.gz", np.ones((6, 5, 4), np.uint8))
    (patients / "p5/seg.nii.gz").write_bytes(b"\x1f\x8b\x08\x00 not a volume")
    found = read(patients)
    assert len(found.records) == 8
    assert dict(found.rejected)["p3"].startswith("it has no mask to tell its label")
    assert dict(found.rejected)["p4"] == (
        "its channels and mask differ in size: [(6, 5, 3), (6, 5, 4)]"
    )
    assert "the NIfTI file is" in dict(found.rejected)["p5"]
    text(patients / "truth.csv", "who,truth\np1,benign\np2,malignant\n")
    other = read(
        patients, "malignancy2", channels="bravo,t1_gd", csv="truth.csv", patient_column="who",
        label_column="truth",
    )  # fmt: skip
    assert dict(other.rejected)["p1"] == "1 of its 2 channels have no file"


def test_a_truncated_volume_is_rejected(patients: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 99, (60, 50, 4)).astype(np.uint8)
    path = volume(patients / "p2/bravo.nii.gz", noise)
    volume(patients / "p2/seg.nii.gz", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = read(patients)
    assert [name for name, _ in found.rejected] == ["p2"]
    assert "the NIfTI file is truncated" in found.rejected[0][1]


TABLES = {
    "a contradiction": ("who,truth\np1,benign\np1,malignant\n", "row 3 .* contradicts"),
    "a strange split": ("who,truth,part\np1,benign,Jane\n", "row 2 .* split other than train"),
    "a strange slice": ("who,slice,truth\np1,Jane,benign\n", "row 2 .* no whole number"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_wrong_table_ends_in_one_line(patients: Path, kind: str) -> None:
    content, message = TABLES[kind]
    text(patients / "truth.csv", content)
    options = {"split_column": "part"} if "part" in content else {}
    with pytest.raises(MammoError, match=message) as caught:
        read(
            patients, "malignancy2", csv="truth.csv", patient_column="who", label_column="truth",
            **options,
        )  # fmt: skip
    assert "Jane" not in str(caught.value)


def test_a_slice_beyond_the_volume_is_rejected(patients: Path) -> None:
    text(patients / "truth.csv", "who,slice,truth\np1,4,benign\np2,0,malignant\n")
    found = read(
        patients, "malignancy2", csv="truth.csv", patient_column="who", label_column="truth"
    )
    assert found.rejected == [("p1", "the table names slice 4, it has 4")]
    assert told(found) == [("p2#0", "malignant")]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file there is bravo.nii.gz; name the files"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="needs label_column, and patient_column"):
        read(tmp_path, csv="truth.csv")
