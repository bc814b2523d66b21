"""What the doctor finds in real releases, against what is published about them."""

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mammo.data.duplicates import Pair, clusters, near_duplicates

pytestmark = pytest.mark.doors

Values = NDArray[np.float32]


def pictures(folder: Path, names: list[str], reduce: int = 1) -> list[Values]:
    read = []
    for name in names:
        with Image.open(folder / name) as image:
            read.append(np.asarray(image.convert("L").reduce(reduce), np.float32) / 255)
    return read


def copies(shown: list[Values]) -> list[Pair]:
    return [pair for pair in near_duplicates(shown.__getitem__, len(shown)) if pair.copies]


def test_busi_has_235_duplicates_and_8_lesions_of_two_classes(shared: Path) -> None:
    """Pawlowska, Karwat & Zolek 2023, Data in Brief 48, 109247."""
    folder = shared / "data" / "busi"
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [f"{row['image_id']}.png" for row in rows]
    groups = clusters(len(rows), copies(pictures(folder / "images256", names)))
    sizes = np.bincount(groups, minlength=len(rows))
    labels = np.array([row["label"] for row in rows])
    mixed = [root for root in np.flatnonzero(sizes > 1) if len(set(labels[groups == root])) > 1]
    assert sizes[sizes > 1].sum() >= 235
    assert len(mixed) == 8
    # one lesion that is there three times, under two classes
    one = [names.index(f"{name}.png") for name in ("benign_042", "benign_131", "malignant_051")]
    assert len(set(groups[one])) == 1


def test_no_two_breasts_of_mias_are_copies(shared: Path) -> None:
    place = shared / "data" / "mini-mias" / "png512"
    names = sorted(path.name for path in place.glob("*.png"))
    assert len(names) == 322
    assert copies(pictures(place, names, reduce=4)) == []
