"""CDD-CESM: pairs of pictures, several values in a cell, outlines as VIA writes them."""

import math
import re
from collections import Counter
from pathlib import Path

import pytest
from releases_a import CESM_ROWS, cesm
from releases_form import text

from mammo.data.release import Release
from mammo.data.sources import open_adapter
from mammo.errors import ConfigError, DataError

PAIR = "low_energy,subtracted"


def read(folder: Path, task: str = "view", **options: str) -> Release:
    return open_adapter("cesm").read(folder, task=task, options=options)


def labels(release: Release) -> Counter[str]:
    return Counter(record.label for record in release.records)


def test_the_real_copies(shared: Path) -> None:
    folder = shared / "data/cdd-cesm"
    single = read(folder)
    assert len(single.records) == 326  # low-energy pictures
    assert len({record.patient for record in single.records}) == 178
    pairs = read(folder, channels=PAIR).records
    assert len(pairs) == 324
    assert all(
        [part in path.name for part, path in zip(("_DM_", "_CM_"), pair.paths, strict=True)]
        == [True, True]
        for pair in pairs
    )
    assert labels(read(folder, "density4")) == {"A": 4, "B": 110, "C": 161, "D": 26}
    assert labels(read(folder, "density2")) == {"not_dense": 114, "dense": 187}
    assert labels(read(folder, "birads"))["5"] == 114 + 12  # `5$2` counts as 5
    assert labels(read(folder, "malignancy2")) == {"malignant": 326}  # the copies hold no other


def test_the_real_tables_of_the_whole_collection(shared: Path, tmp_path: Path) -> None:
    """2,006 rows and 2,971 outlines; the pictures themselves are stood in for by empty files."""
    tables = shared / "data/cdd-cesm"
    annotations = tables / "full_dataset_annotations_2006_images.csv"
    (tmp_path / "Radiology-manual-annotations.csv").symlink_to(annotations)
    outlines = tmp_path / "Radiology_hand_drawn_segmentations_v2.csv"
    outlines.symlink_to(tables / "full_dataset_polygons.csv")
    for name in re.findall(r'^"(P\d+_[^"]*?) ?",', annotations.read_text(), re.MULTILINE):
        (tmp_path / f"{name}.jpg").touch()
    halves = [read(tmp_path, "normal_benign_malignant", channels=each) for each in PAIR.split(",")]
    assert labels(halves[0]) + labels(halves[1]) == {"normal": 757, "benign": 587, "malignant": 662}
    records = [record for half in halves for record in half.records]
    assert len({record.image for record in records}) == 2006
    assert sum(len(record.polygons) for record in records) == 2028 + 598 + 10
    assert sum(len(record.circles) for record in records) == 331  # the 4 points are no area
    pairs = read(tmp_path, "normal_benign_malignant", channels=PAIR)
    assert labels(pairs) == {"normal": 337, "benign": 335, "malignant": 331}
    # 1,082 rows have no density; of the 924 others two are subtracted pictures'
    assert len(read(tmp_path, "density4").records) == 922
    assert len(read(tmp_path, "density4", channels="subtracted").records) == 922


def test_the_end_of_a_name_tells_repeated_views_apart(tmp_path: Path) -> None:
    cesm(tmp_path)
    again = [each for each in read(tmp_path, channels=PAIR).records if each.patient == "P99"]
    assert [[path.stem for path in each.paths] for each in again] == [
        ["P99_L_DM_MLO", "P99_L_CM_MLO"],
        ["P99_L_DM_MLO_2", "P99_L_CM_MLO_2"],
    ]


def test_a_picture_without_its_pair_is_counted(tmp_path: Path) -> None:
    cesm(tmp_path)
    release = read(tmp_path, channels=PAIR)
    assert release.left_out == {"without low_energy and subtracted": 1}
    assert len(read(tmp_path, channels="low_energy").records) == 6


def test_of_several_grades_the_highest_counts(tmp_path: Path) -> None:
    cesm(tmp_path)
    found = {each.image: each.label for each in read(tmp_path, "birads").records}
    assert found["P2_R_DM_CC"] == "3"  # 3$2
    found = {
        each.image: each.label for each in read(tmp_path, "birads", channels="subtracted").records
    }
    assert found["P2_R_CM_CC"] == "2"  # 2$2$1


def test_pathology_is_that_of_the_channels(tmp_path: Path) -> None:
    cesm(tmp_path)
    low = read(tmp_path, "malignancy2")
    assert {each.image: each.label for each in low.records} == {
        "P1_L_DM_MLO": "malignant", "P2_R_DM_CC": "benign", "P5_R_DM_CC": "benign",
    }  # fmt: skip
    assert low.left_out == {"without a label of malignancy2": 3}
    subtracted = read(tmp_path, "malignancy2", channels="subtracted")
    assert [each.image for each in subtracted.records] == ["P1_L_CM_MLO"]


def test_an_ellipse_becomes_a_polygon_of_its_area(tmp_path: Path) -> None:
    cesm(tmp_path)
    shape = '{""name"":""ellipse"",""cx"":10,""cy"":20,""rx"":4,""ry"":2,""theta"":%s}'
    head = "#filename,region_shape_attributes\n"
    for turned, reach in ((0.0, (4.0, 2.0)), (math.pi / 2, (2.0, 4.0))):
        line = f'P1_L_DM_MLO.jpg,"{shape % turned}"\n'
        text(tmp_path / "Radiology_hand_drawn_segmentations_v2.csv", head + line)
        (corners,) = read(tmp_path).records[0].polygons
        assert max(abs(x - 10) for x, _ in corners) == pytest.approx(reach[0])
        assert max(abs(y - 20) for _, y in corners) == pytest.approx(reach[1])
        area = sum(
            (x * next_y - next_x * y) / 2
            for (x, y), (next_x, next_y) in zip(corners, corners[1:] + corners[:1], strict=True)
        )
        assert area == pytest.approx(math.pi * 4 * 2, rel=0.002)


@pytest.mark.parametrize(
    "shape",
    [
        "{",
        '{""name"":""circle"",""cx"":1}',
        "[1]",
        '{""name"":""polygon"",""all_points_x"":[1],""all_points_y"":[]}',
    ],
)
def test_an_outline_that_is_none_is_named_by_its_row(tmp_path: Path, shape: str) -> None:
    cesm(tmp_path)
    head = "#filename,region_shape_attributes\n"
    text(tmp_path / "Radiology_hand_drawn_segmentations_v2.csv", f'{head}a.jpg,"{shape}"\n')
    with pytest.raises(DataError, match="row 2 of the segmentations is no shape of VIA"):
        read(tmp_path)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="each of low_energy, subtracted at most once"):
        read(tmp_path, channels="red")
    with pytest.raises(DataError, match=r"no labels.csv and no Radiology-manual-annotations.xlsx"):
        read(tmp_path)
    text(tmp_path / "Radiology-manual-annotations.csv", "Image_name,Side\n")
    with pytest.raises(DataError, match="has no column 'Patient_ID'; it has Image_name, Side"):
        read(tmp_path)


def test_a_missing_file_and_a_repeated_row(tmp_path: Path) -> None:
    cesm(tmp_path)
    (tmp_path / "Low energy images of CDD-CESM/P1_L_DM_MLO.jpg").unlink()
    assert read(tmp_path).rejected == [("P1_L_DM_MLO.jpg", "the file is missing")]
    (tmp_path / "again").mkdir()
    cesm(tmp_path / "again", [*CESM_ROWS, CESM_ROWS[0]])
    with pytest.raises(DataError, match="1 values of column 'Image_name' stand in several rows"):
        read(tmp_path / "again")


def test_tables_and_pictures_may_lie_apart_and_deeper(tmp_path: Path) -> None:
    cesm(tmp_path)
    expected = [(each.image, each.label, each.polygons) for each in read(tmp_path).records]
    tables = tmp_path / "tables"
    tables.mkdir()
    for name in ("Radiology-manual-annotations.xlsx", "Radiology_hand_drawn_segmentations_v2.csv"):
        (tmp_path / name).rename(tables / name)
    found = [(each.image, each.label, each.polygons) for each in read(tmp_path).records]
    assert found == expected
    assert any(polygons for _, _, polygons in found)
