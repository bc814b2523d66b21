"""Fake releases in the layouts of other systems (folder, csv, nifti), and a phantom."""

from pathlib import Path
from zlib import crc32

import nibabel
import numpy as np
from dicoms import half_breast
from numpy.typing import NDArray
from PIL import Image
from releases_form import Builder, Fake, picture, text

from mammo.data.phantom_release import write_release


def volume(path: Path, voxels: NDArray[np.generic]) -> Path:
    """Write `voxels` (H, W[, D]) as the public systems do, with an affine of ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4), dtype=voxels.dtype), path)
    return path


def texture(name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Noise from 20 to 200 that follows from `name`: no two pictures are alike."""
    return np.random.default_rng(crc32(name.encode())).integers(20, 200, shape).astype(np.uint8)


def folder(place: Path) -> Fake:
    """System 0: a folder a sample, real and generated, some with a second volume."""
    for name in ("benign/P1_a/slice.nii.gz", "benign/P1_b/slice.nii.gz", "benign/P2_a/1.nii.gz",
                 "benign/P2_a/2.nii.gz", "malignant/P3_a/slice.nii.gz",
                 "suspicious/P4_a/slice.nii.gz"):  # fmt: skip
        breast = half_breast(level=1) * texture(name, (96, 72))
        volume(place / "original" / name, breast.astype(np.uint8)[..., None])
    volume(place / "synthetic_guide8.0/benign/0001/slice.nii.gz", np.ones((6, 5), np.uint8))
    return Fake(
        options={"patient_pattern": "^(P[0-9]+)_"}, task="malignancy3", tasks=("malignancy3",)
    )


def csv(place: Path) -> Fake:
    """System 2's table with the columns of the screening challenge, and its pictures."""
    below = "input/images_as_pngs/train_images_processed"
    head = "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,density,machine_id\n"
    rows = (
        ("2", "10006", "1864590858", "R", "MLO", "61.0", "0", "0", "", "29"),
        ("2", "10006", "462822612", "L", "CC", "61.0", "0", "0", "", "29"),
        ("1", "10038", "850559196", "L", "AT", "93", "1", "1", "B", "49"),
        ("1", "10042", "294481519", "R", "CC", "", "0", "0", "C", "49"),
    )
    text(place / "input/train.csv", head + "".join(f"{','.join(row)}\n" for row in rows))
    for row in rows:
        path = picture(place / below / f"{row[1]}_{row[2]}.png")
        Image.fromarray(texture(path.name, (24, 18))).save(path)
    return Fake(
        options={
            "csv": "input/train.csv",
            "path_pattern": below + "/{patient_id}_{image_id}.png",
            "patient_column": "patient_id",
            "label_column": "cancer",
            "class_map": "malignant=1,benign=0",
            "laterality_column": "laterality",
            "view_column": "view",
            "keep_columns": "age,density,biopsy",
        },
        task="malignancy2",
        tasks=("malignancy2", "malignancy2_birads"),
    )


def nifti(place: Path) -> Fake:
    """System 4: volumes of two patients, below train and test; slice 0 of the first is empty."""
    for patient, lesions in (("train/Mets_005", (2,)), ("test/Mets_011", (0, 1))):
        image, mask = texture(patient, (6, 5, 3)), np.zeros((6, 5, 3), np.uint8)
        if patient == "train/Mets_005":
            image[..., 0] = 0
        for number in lesions:
            mask[2:4, 1:3, number] = 1
        for name in ("bravo", "t1_pre", "t1_gd"):
            volume(place / patient / f"{name}.nii.gz", image)
        volume(place / patient / "seg.nii.gz", mask)
    return Fake(options={"channels": "t1_pre,t1_gd"}, tasks=("label",))


def phantom(place: Path) -> Fake:
    """A release of phantoms as the adapter makes it."""
    place.rmdir()  # it is written whole or not at all, and never over another
    write_release(place, patients=6, image_size=32)
    return Fake(task="view", tasks=("view", "normal_benign_malignant", "density4"))


RELEASES: dict[str, Builder] = {"folder": folder, "csv": csv, "nifti": nifti, "phantom": phantom}
