"""Probes: D1 and D2 of a CMMD-like release fire, a fair release does not, chance stays chance."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures import cmmd_rows
from small import frame

from mammo.doctor.probe import FIRES, Probe, background_features, metadata_features, probe

HOW: dict[str, Any] = {"task": "malignancy2", "cropped": True, "stretched": False}


def test_the_two_parts_of_cmmd_fire() -> None:
    rows = frame(cmmd_rows(240, confounded=True))
    found = probe("metadata", metadata_features(rows, **HOW), rows, "malignant")
    assert found.low > FIRES
    (finding,) = found.findings()
    assert (finding.severity, finding.name) == ("warning", "metadata probe")


def test_the_number_of_views_alone_fires() -> None:
    """The subset hidden: how many images a patient has tells it as well."""
    rows = frame(cmmd_rows(240, confounded=True)).assign(subset="")
    found = probe("metadata", metadata_features(rows, **HOW), rows, "malignant")
    assert found.low > FIRES


def test_a_fair_release_does_not_fire() -> None:
    rows = frame(cmmd_rows(240, confounded=False))
    found = probe("metadata", metadata_features(rows, **HOW), rows, "malignant")
    assert found.low < 0.5 < found.high
    assert found.findings() == []


@pytest.mark.doors
@pytest.mark.parametrize("pixels", [False, True])
def test_the_interval_covers_chance_when_labels_are_shuffled(pixels: bool) -> None:
    """A 95 % interval, so at least 36 of 40 draws (P < 0.01 for fewer); two images a patient."""
    covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(80), 2)
        labels = np.where(rng.permutation(80) < 40, "benign", "malignant")[patient]
        rows = pd.DataFrame(
            {"group_id": patient.astype(str), "image_id": np.arange(160).astype(str)}
        ).assign(label=labels)
        if pixels:
            values = rng.normal(size=(80, 256))[patient] + 0.5 * rng.normal(size=(160, 256))
        else:
            values = rng.integers(0, 4, (80, 6))[patient].astype(float)
        found = probe("metadata", pd.DataFrame(values), rows, "malignant", seed=seed)
        covered += found.low <= 0.5 <= found.high
    assert covered >= 36


def test_metadata_hold_nothing_that_a_reader_decides() -> None:
    rows = frame(cmmd_rows(40, confounded=True))
    rows = rows.assign(density="A", age=np.arange(len(rows)), mask_sha256=rows["image_id"])
    rows["pixel_mm"] = np.arange(len(rows)) / 10
    features = metadata_features(rows, **HOW)
    words = ("birads", "density", "age", "mask", "pixel_mm", "label")
    assert not [name for name in features if name.split()[0] in words]
    assert "pixel_mm" in metadata_features(rows, **(HOW | {"cropped": False}))
    assert "view MLO" in features
    assert not [n for n in metadata_features(rows, **(HOW | {"task": "view"})) if "view" in n]


def test_a_stretched_grey_scale_is_no_metadata() -> None:
    rows = frame(cmmd_rows(40, confounded=True))
    rows["grey_high"] = np.arange(len(rows), dtype=float)
    assert "grey_high" in metadata_features(rows, **HOW)
    assert "grey_high" not in metadata_features(rows, **(HOW | {"stretched": True}))


def test_a_bright_background_of_one_class_fires() -> None:
    rows = frame(cmmd_rows(120, confounded=False))
    level = np.where(rows["label"] == "benign", 0.02, 0.05)
    rows["background"] = level + np.random.default_rng(0).normal(0, 0.005, len(rows))
    borders = np.zeros((len(rows), 12), np.float32)
    found = probe("background", background_features(rows, borders, cropped=True), rows, "malignant")
    assert found.auc > 0.99
    assert found.findings()[0].severity == "warning"


def test_thumbnails_that_tell_the_class_are_a_note() -> None:
    (finding,) = Probe("thumbnails", 256, 100, 0.9, 0.8, 0.95).findings()
    assert finding.severity == "note"


def test_three_classes_are_scored_by_the_mean_over_classes() -> None:
    rows = frame(cmmd_rows(90, confounded=False))
    number = rows["group_id"].str[1:].astype(int)
    rows["label"] = np.array(["normal", "benign", "malignant"])[number % 3]
    features = pd.DataFrame({"told": number % 3 + 0.0})
    assert probe("metadata", features, rows, "malignant").auc == 1.0


def test_what_cannot_be_measured_says_why() -> None:
    rows = frame(cmmd_rows(12, confounded=False))
    few = probe("metadata", metadata_features(rows, **HOW), rows, "malignant")
    assert np.isnan(few.auc)
    assert "fewer than 10 patients" in few.why_not
    same = frame(cmmd_rows(60, confounded=False))
    none = probe("metadata", pd.DataFrame({"a": np.ones(len(same))})[[]], same, "malignant")
    assert "nothing of it varies" in none.why_not
    assert few.findings() == none.findings() == []
