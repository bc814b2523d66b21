"""mini-MIAS as it was released and as smaller copies."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from releases_a import MIAS_INFO, mias
from releases_form import text

from mammo.data.release import Release
from mammo.data.sources import open_adapter
from mammo.errors import DataError

TASKS = ("density2", "malignancy2", "normal_benign_malignant")


def read(folder: Path, task: str = "density2") -> Release:
    return open_adapter("mias").read(folder, task=task, options={})


def labels(release: Release) -> Counter[str]:
    return Counter(record.label for record in release.records)


def test_the_real_films(shared: Path) -> None:
    folder = shared / "data/mini-mias"
    release = read(folder)
    assert labels(release) == {"dense": 112, "not_dense": 210}
    assert len({record.patient for record in release.records}) == 161
    first = release.records[0]
    assert (first.image, first.laterality, first.view, first.density) == ("mdb001", "R", "MLO", "G")
    assert first.circles == ((267.5, 299.5, 98.5),)  # halved: the copies are 512 wide
    assert first.pixel_mm == 0.4
    lesions = read(folder, "malignancy2")
    assert labels(lesions) == {"benign": 63, "malignant": 52}
    assert lesions.left_out == {"without a label of malignancy2": 207}
    three = read(folder, "normal_benign_malignant")
    assert labels(three) == {"normal": 207, "benign": 63, "malignant": 52}
    both = next(each for each in three.records if each.image == "mdb144")
    assert (both.label, len(both.circles)) == ("malignant", 2)


@pytest.mark.parametrize("task", TASKS)
def test_the_release_and_its_copies_give_the_same_records(
    shared: Path, tmp_path: Path, task: str
) -> None:
    copies = shared / "data/mini-mias"
    (tmp_path / "Info.txt").symlink_to(copies / "Info.txt")
    for picture in sorted((copies / "png512").iterdir()):
        (tmp_path / picture.name).symlink_to(picture)
    released = [replace(each, paths=()) for each in read(tmp_path, task).records]
    assert released == [replace(each, paths=()) for each in read(copies, task).records]


def test_dense_is_dense_glandular(tmp_path: Path) -> None:
    mias(tmp_path)
    found = {record.image: record.label for record in read(tmp_path).records}
    assert [name for name, label in found.items() if label == "dense"] == ["mdb003", "mdb004"]
    assert len(found) == 8


def test_a_film_without_its_file_is_listed(tmp_path: Path) -> None:
    mias(tmp_path)
    (tmp_path / "all-mias/mdb002.pgm").unlink()
    assert read(tmp_path).rejected == [("mdb002", "the file is missing")]


@pytest.mark.parametrize(
    "line",
    ["mdb007 X NORM", "mdb007 G CIRC", "mdb007 G NORM B 1 2 3", "mdb007 G CIRC B 12 x 3", "mdb7"],
)
def test_a_line_that_is_no_finding_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    mias(tmp_path)
    text(tmp_path / "Info.txt", f"{MIAS_INFO}{line}\n")
    with pytest.raises(DataError, match=r"^line 14 of Info.txt is no finding as mini-MIAS"):
        read(tmp_path)


def test_a_folder_that_is_no_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no Info.txt \(a row for each finding\)"):
        read(tmp_path)
    text(tmp_path / "labels_per_image.csv", "image_id,tissue,label\n")
    with pytest.raises(DataError, match="has no column 'rois_cls_sev_x_ytop_r'; it has image_id"):
        read(tmp_path)


def test_the_release_may_lie_deeper_and_its_names_be_of_other_letters(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    mias(tmp_path / "plain")
    expected = [replace(each, paths=()) for each in read(tmp_path / "plain").records]
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "plain/all-mias").rename(tmp_path / "unpacked/all-mias")
    (tmp_path / "plain/Info.txt").rename(tmp_path / "unpacked/all-mias/info.TXT")
    picture = tmp_path / "unpacked/all-mias/mdb001.pgm"
    picture.rename(picture.with_name("MDB001.PGM"))
    records = read(tmp_path / "unpacked").records
    assert [replace(each, paths=()) for each in records] == expected
