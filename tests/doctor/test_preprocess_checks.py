"""The cheap checks inside `preprocess`, and scenes that stay together where nobody is named."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures import Values, breast
from PIL import Image
from preprocessed import dataset_of, preprocessed

from mammo.data.dataset import Dataset
from mammo.errors import DataError
from mammo.run import MemoryRun

ONE_LESION = ("benign_042", "benign_131", "malignant_051")


def write(folder: Path, pictures: Mapping[str, Values]) -> Path:
    for name, picture in pictures.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(path)
    return folder


def run(work: Path, source: Path, **settings: Any) -> tuple[MemoryRun, Dataset]:
    given = {"dataset": "folder", "source": str(source), "image_size": "96", "crop": "none"}
    tracked = preprocessed(work, **{**given, **settings})
    return tracked, dataset_of(tracked)


@pytest.mark.doors
def test_copies_share_a_group_and_a_split_where_the_release_names_no_patients(
    tmp_path: Path,
) -> None:
    """Ten breasts a class, each there twice: darker, mirrored, moved or as it is."""
    changes = [
        lambda picture: picture,
        lambda picture: picture[:, ::-1],
        lambda picture: picture**1.1,
        lambda picture: np.pad(picture, ((3, 0), (2, 0)))[:-3, :-2],
    ]
    pictures = {}
    for number in range(20):
        place = f"{('benign', 'malignant')[number % 2]}/x{number:02d}"
        pictures[place] = breast(number, height=96)
        pictures[f"{place}again"] = changes[number % 4](pictures[place])
    tracked, data = run(tmp_path / "work", write(tmp_path / "release", pictures))
    rows = data.manifest.assign(twin=np.repeat(np.arange(20), 2))
    assert len(rows) == 40
    assert rows.groupby("twin")["group_id"].nunique().eq(1).all()
    assert rows.groupby("group_id")["twin"].nunique().eq(1).all()
    assert rows.groupby("twin")["split"].nunique().eq(1).all()
    assert rows["split"].nunique() == 3
    assert tracked.logged_tags["mammo.group"].startswith("near-duplicate cluster")


@pytest.mark.doors
@pytest.mark.parametrize("image_size", ["8", "64x48"])
def test_scenes_are_told_by_the_pixels_as_read_whatever_is_stored(
    tmp_path: Path, image_size: str
) -> None:
    """Eight breasts, four with a copy: twelve images, eight groups, also where 8 x 8 are stored."""
    pictures = {}
    for number in range(8):
        place = f"{('benign', 'malignant')[number % 2]}/x{number}"
        pictures[place] = breast(number, height=96)
        if number < 4:
            pictures[f"{place}again"] = pictures[place][:, ::-1] ** 1.1
    source = write(tmp_path / "release", pictures)
    _, data = run(tmp_path / "work", source, image_size=image_size)
    groups = data.manifest["group_id"].to_numpy()
    numbers = [int(name.split("/x")[1][0]) for name in sorted(pictures)]
    np.testing.assert_array_equal(np.equal.outer(groups, groups), np.equal.outer(numbers, numbers))


@pytest.mark.doors
def test_busi_has_the_same_groups_and_folds_at_two_sizes(shared: Path, tmp_path: Path) -> None:
    """benign_042, benign_131 and malignant_051 are one lesion (Pawlowska et al. 2023)."""
    table = (shared / "data" / "busi" / "labels.csv").read_text().splitlines()
    kept = [line for line in table[1:] if int(line.split("_")[1][:3]) % 6 == 0]
    kept += [line for line in table if line.startswith(ONE_LESION) and line not in kept]
    release = tmp_path / "busi"
    release.mkdir()
    for name in ("images256", "masks256"):  # a link may not lead out of the release
        (release / name).mkdir()
        for line in kept:
            file = shared / "data" / "busi" / name / f"{line.split(',')[0]}.png"
            shutil.copy(file, release / name / file.name)
    (release / "labels.csv").write_text("\n".join([table[0], *sorted(kept)]) + "\n")
    found = []
    for size in ("64", "160"):
        settings = {"dataset": "busi", "image_size": size, "crop": "auto", "k_folds": 3}
        settings |= {"task": "normal_benign_malignant", "test_fraction": 0.0, "val_fraction": 0.0}
        rows = run(tmp_path / "work", release, **settings)[1].manifest
        assert len(rows) == len(kept)
        found.append(rows[["group_id", "split", "fold"]])
    pd.testing.assert_frame_equal(*found)
    names = sorted(line.split(",")[0] for line in kept)
    lesion = found[0]["group_id"].iloc[[names.index(name) for name in ONE_LESION]]
    assert lesion.nunique() == 1


@pytest.mark.doors
def test_pictures_that_all_look_alike_are_groups_of_their_own_and_it_is_said(
    tmp_path: Path,
) -> None:
    """Discs that differ by a pixel in size are no twelve frames of one sweep; one has a copy."""
    rows, columns = np.ogrid[:96, :96]
    pictures = {
        f"{('benign', 'malignant')[number % 2]}/x{number:02d}": np.where(
            (rows - 48) ** 2 + (columns - 48) ** 2 < (30 + number // 2) ** 2, 0.5 + number / 50, 0.1
        )
        for number in range(24)
    }
    pictures["benign/y"] = pictures["benign/x00"]
    tracked, data = run(tmp_path / "work", write(tmp_path / "release", pictures))
    assert len(data) == 25
    assert data.manifest["group_id"].nunique() == 24
    assert data.manifest.groupby("sha256")["split"].nunique().eq(1).all()
    assert "all pictures look alike" in tracked.logged_tags["mammo.group"]


def test_a_class_of_one_picture_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    pictures = {f"benign/p{number}_L_CC": breast(0) for number in range(8)}
    pictures |= {f"malignant/p{number + 8}_L_CC": breast(number) for number in range(8)}
    source = write(tmp_path / "release", pictures)
    with pytest.raises(DataError, match="all 8 images of benign have the same pixels"):
        run(tmp_path / "work", source, patient_pattern=r"(p\d+)_")
    assert not list((tmp_path / "work").glob("datasets/*"))


def test_a_copy_under_another_patient_is_a_warning_and_in_the_table(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = {
        f"{('benign', 'malignant')[number % 2]}/p{number}_L_CC": breast(
            2 if number == 6 else number
        )
        for number in range(16)
    }
    source = write(tmp_path / "release", pictures)
    with caplog.at_level(logging.WARNING, "mammo"):
        tracked, _ = run(tmp_path / "work", source, patient_pattern=r"(p\d+)_")
    told = "copies across patients: 2 images have equal pixels and different patients"
    assert told in caplog.text
    found = tracked.tables["findings"]
    assert "copies across patients" in set(found["finding"])
    assert "p6" not in found.to_csv()


def test_too_few_scenes_for_the_splits_are_told_as_such(tmp_path: Path) -> None:
    pictures = {f"benign/x{number}": breast(number, height=96) for number in range(6)}
    pictures |= {
        f"malignant/y{number}": breast(9, height=96) ** (1 + number / 50) for number in range(6)
    }
    line = r"'malignant' has 1 patients, .* \(no patients are named, .* 12 images are 7; name the"
    with pytest.raises(DataError, match=line):
        run(tmp_path / "work", write(tmp_path / "release", pictures))
