"""Folders of classes: real and generated ones, samples, masks, patients, what is missing."""

import logging
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicoms import half_breast, write_dicom
from releases_form import picture

from mammo.data.release import Record, Release
from mammo.data.sources import check_request, open_adapter
from mammo.errors import ConfigError, DataError


def release(folder: Path, task: str = "malignancy2", **options: str) -> Release:
    check_request("folder", task, options)
    return open_adapter("folder").read(folder, task=task, options=options)


def read(folder: Path, task: str = "malignancy2", **options: str) -> list[Record]:
    return release(folder, task, **options).records


def labels(records: list[Record]) -> list[str]:
    return [record.label for record in records]


def volume(path: Path, shape: tuple[int, ...] = (6, 5, 1)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)), path)
    return path


def test_a_folder_a_class(tmp_path: Path) -> None:
    for name in ("benign/a_1.png", "benign/a_2.png", "malignant/s/b_1.png", "malignant/.no.png"):
        picture(tmp_path / "original" / name)
    picture(tmp_path / "synthetic_guide3" / "benign" / "x.png")
    records = read(tmp_path, patient_pattern=r"([a-z]+)_\d")
    assert labels(records) == ["benign", "benign", "malignant"]
    assert [record.patient for record in records] == ["a", "a", "b"]
    assert len({record.patient for record in read(tmp_path)}) == 3
    with pytest.raises(DataError, match="finds no patient in 3 of 3 paths"):
        read(tmp_path, patient_pattern=r"(\d{9})")
    with pytest.raises(ConfigError, match="has 0 groups; 1 is needed"):
        read(tmp_path, patient_pattern="a")


def test_the_first_volume_of_a_sample_is_the_image(tmp_path: Path) -> None:
    for name in ("benign/s1/b.nii.gz", "benign/s1/a.nii.gz", "benign/s2/slice.nii.gz",
                 "malignant/x.nii.gz", "malignant/y.nii"):  # fmt: skip
        volume(tmp_path / "original" / name)
    found = release(tmp_path)
    names = [str(each.paths[0].relative_to(tmp_path / "original")) for each in found.records]
    assert names == [
        "benign/s1/a.nii.gz", "benign/s2/slice.nii.gz", "malignant/x.nii.gz", "malignant/y.nii",
    ]  # fmt: skip
    assert found.left_out == {"beside the first volume of a sample": 1}


def test_several_pictures_of_a_sample_are_several_images(tmp_path: Path) -> None:
    for name in ("benign/s/1.png", "benign/s/2.png", "malignant/t/1.png"):
        picture(tmp_path / name)
    assert len(read(tmp_path)) == 3


@pytest.mark.parametrize("name", ["synthetic_guide8.0", "synthetic", "augmented_vae"])
def test_generated_images_are_not_taken_for_patients(tmp_path: Path, name: str) -> None:
    for label in ("benign", "malignant"):
        volume(tmp_path / name / label / "0001/slice.nii.gz")
    message = f"{name} holds generated images .* synthetic_origin"
    with pytest.raises(ConfigError, match=message):
        read(tmp_path)
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / name)
    assert labels(read(tmp_path / name, synthetic_origin="guidance 8 on EMBED")) == [
        "benign", "malignant",
    ]  # fmt: skip


def test_real_images_are_never_imported_as_generated_ones(tmp_path: Path) -> None:
    """Else those of test patients would become training images."""
    for part in ("original", "synthetic_guide3.0"):
        volume(tmp_path / part / "benign/0001/slice.nii.gz")
    with pytest.raises(ConfigError, match="source holds the real images too"):
        read(tmp_path, synthetic_origin="guidance 3")


def test_a_missing_class_is_said_and_no_crash(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture(tmp_path / "benign/1.png")
    with caplog.at_level(logging.WARNING, "mammo"):
        assert labels(read(tmp_path)) == ["benign"]
    assert "no folder holds images of class malignant" in caplog.text


def test_masks_go_with_their_image(tmp_path: Path) -> None:
    for name in ("x.png", "x_mask.png", "x_mask_1.png", "y.png"):
        picture(tmp_path / "benign" / name)
    volume(tmp_path / "malignant/s/z.nii.gz")
    volume(tmp_path / "malignant/s/z_mask.nii.gz")
    records = {each.paths[0].name: each for each in read(tmp_path)}
    assert [path.name for path in records["x.png"].masks] == ["x_mask.png", "x_mask_1.png"]
    assert [path.name for path in records["z.nii.gz"].masks] == ["z_mask.nii.gz"]
    assert records["y.png"].masks == () and len(records) == 3


def test_names_of_folders_are_classes_or_mapped_to_them(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/2.png", "bird/3.png"):
        picture(tmp_path / name)
    made = release(tmp_path, "label", positive="cat", label_kind="follow-up").classes
    assert (made.names, made.positive, made.label_kind) == (
        ("bird", "cat", "dog"), "cat", "follow-up",
    )  # fmt: skip
    found = release(tmp_path, class_map="malignant=cat,benign=dog,leave_out=bird")
    assert labels(found.records) == ["malignant", "benign"]
    assert found.left_out == {"of a class that is left out (leave_out)": 1}


def test_folders_named_after_patients_are_not_shown(tmp_path: Path) -> None:
    """The folder above or below the one with classes was given: its names are not classes."""
    for name in ("Mustermann_Jane/1.png", "Doe_John/2.png"):
        picture(tmp_path / name)
    for options in ({}, {"class_map": "malignant=1,benign=0"}):
        with pytest.raises(DataError, match="2 of 2") as caught:
            read(tmp_path, **options)
        assert not any(name in str(caught.value) for name in ("Jane", "John", "Doe"))


def test_the_patient_id_of_dicom_files_is_the_patient(tmp_path: Path) -> None:
    for number, who in enumerate(("p", "p", "q")):
        folder = tmp_path / ("benign" if number else "malignant")
        folder.mkdir(exist_ok=True)
        write_dicom(folder / f"{number}.dcm", half_breast(), PatientID=who)
    found = release(tmp_path)
    assert sorted(each.patient for each in found.records) == ["p", "p", "q"]
    assert found.notes["group"] == "PatientID of the headers"


def test_a_link_out_of_the_source_is_rejected(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = picture(tmp_path_factory.mktemp("outside") / "secret.png")
    picture(tmp_path / "benign/1.png")
    (tmp_path / "malignant").mkdir()
    (tmp_path / "malignant/2.png").symlink_to(outside)
    found = release(tmp_path)
    assert found.rejected == [("malignant/2.png", "a link that leads out of source; copy the file")]
    assert labels(found.records) == ["benign"]


def test_a_loop_of_folders_ends(tmp_path: Path) -> None:
    picture(tmp_path / "benign/1.png")
    picture(tmp_path / "malignant/1.png")
    (tmp_path / "benign/again").symlink_to(tmp_path)
    assert len(read(tmp_path)) == 2


def test_images_beside_the_class_folders_are_counted(tmp_path: Path) -> None:
    picture(tmp_path / "stray.png")
    with pytest.raises(DataError, match="1 images but no class folders"):
        read(tmp_path)
    picture(tmp_path / "benign/1.png")
    assert release(tmp_path).left_out == {"beside the class folders": 1}
