"""RSNA's challenge: labels by breast, implants, odd views, and its PNG copies."""

import shutil
from pathlib import Path

import pytest
from releases_b import RSNA_TABLE, rsna, rsna_pngs
from releases_form import picture

from mammo.data.release import Release, select
from mammo.data.sources import open_adapter
from mammo.errors import DataError


def read(folder: Path, task: str = "malignancy2") -> Release:
    return open_adapter("rsna").read(folder, task=task, options={})


def test_odd_views_are_counted_and_the_meaning_of_benign_is_told(tmp_path: Path) -> None:
    rsna(tmp_path)
    release = read(tmp_path)
    assert release.left_out == {"of a view other than CC and MLO": 2}
    assert "none found" in release.notes["labels"]


def test_implants_are_flagged_and_left_out_on_request(tmp_path: Path) -> None:
    rsna(tmp_path)
    release = read(tmp_path)
    select(release, subsets=frozenset(), exclude=frozenset({"implant"}))
    assert "10011" not in {each.patient for each in release.records}
    assert release.left_out["implant (exclude)"] == 1


def test_nothing_that_follows_from_the_label_is_kept(tmp_path: Path) -> None:
    rsna(tmp_path)
    assert all(not each.extra for each in read(tmp_path).records)


def test_density_and_view(tmp_path: Path) -> None:
    rsna(tmp_path)
    found = {each.image: each.label for each in read(tmp_path, "density2").records}
    assert found == {"10011_220375232": "dense", "10025_882603593": "not_dense"}
    assert [each.label for each in read(tmp_path, "view").records] == [
        "CC", "MLO", "CC", "MLO", "CC", "MLO",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["{patient}_{image}.png", "{patient}/{image}.png", "{image}.png"])
def test_the_png_layout_with_four_columns(tmp_path: Path, name: str) -> None:
    rsna_pngs(tmp_path, name=name)
    found = {each.image: each for each in read(tmp_path).records}
    assert len(found) == 8  # without a column `view` no view can be left out
    assert found["10006_1864590858"].label == "malignant"
    assert (
        found["10006_1864590858"].paths[0].name
        == Path(name.format(patient="10006", image="1864590858")).name
    )
    assert {each.patient for each in found.values()} == {"10006", "10011", "10025"}


def test_a_missing_file_is_listed(tmp_path: Path) -> None:
    rsna(tmp_path)
    (tmp_path / "train_images/10006/462822612.dcm").unlink()
    release = read(tmp_path)
    assert release.rejected == [("train_images/10006/462822612.dcm", "the file is missing")]
    assert len(release.records) == 5


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (RSNA_TABLE.replace("cancer,biopsy", "target,biopsy"), "no column 'cancer'"),
        (RSNA_TABLE.replace("61.0,1,1,1", "61.0,2,1,1"), "cancer '2' in row 4; 0 or 1"),
        (RSNA_TABLE.replace("882603593", "562340703"), "stand in several rows of the train.csv"),
        (RSNA_TABLE.replace("1,10025,562", "1,../10025,562"), "leads out of source"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, table: str, message: str) -> None:
    rsna(tmp_path)
    (tmp_path / "train.csv").write_text(table.replace(",LMO,", ",MLO,"))
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_a_folder_without_images_has_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(RSNA_TABLE)
    release = read(tmp_path)
    assert {reason for _, reason in release.rejected} == {"the file is missing"}
    assert len(release.rejected) == 6


@pytest.mark.parametrize("place", ["{patient}/{image}.jpg", "pngs/{patient}_{image}.png"])
def test_pictures_may_lie_anywhere_beside_the_table(tmp_path: Path, place: str) -> None:
    rsna(tmp_path)
    expected = [(each.image, each.label, each.view) for each in read(tmp_path).records]
    for path in sorted((tmp_path / "train_images").rglob("*.dcm")):
        picture(tmp_path / place.format(patient=path.parent.name, image=path.stem))
    shutil.rmtree(tmp_path / "train_images")
    (tmp_path / "csv").mkdir()
    (tmp_path / "train.csv").rename(tmp_path / "csv/train.csv")
    assert [(each.image, each.label, each.view) for each in read(tmp_path).records] == expected
