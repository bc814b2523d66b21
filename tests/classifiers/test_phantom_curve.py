"""What a classifier learns of phantoms lies between chance and the ideal observer, and why."""

import importlib
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from doors import ROOT
from preprocessed import dataset_of, preprocessed

from mammo.data.identity import private_folder
from mammo.data.phantom_release import write_release
from mammo.evaluation.ranking import bootstrap_auc


@pytest.fixture
def curve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """studies/phantom_curve.py, with a work folder and a tracking store of its own."""
    monkeypatch.syspath_prepend(ROOT / "studies")
    monkeypatch.setenv("MAMMO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    return importlib.import_module("phantom_curve")


@pytest.mark.slow
def test_the_auc_rises_with_contrast_from_a_half_to_near_the_ideal_observer(
    curve: ModuleType,
) -> None:
    size = {"patients": 4000, "seed": 5}
    none, middle, high = (curve.point(contrast, **size) for contrast in (0.0, 1.0, 3.0))
    assert none.low <= 0.5 <= none.high
    assert none.ideal == none.expected == 0.5
    assert none.high < middle.low < middle.high < high.low
    for each in (middle, high):
        assert each.auc < each.ideal
        # the observer is the ideal one: d' is 1.5 at contrast 1 (1,200 test patients)
        assert each.ideal == pytest.approx(each.expected, abs=0.02)
    assert middle.short.low > 0  # below by more than the chance of patients
    assert high.short.auc <= 0.03
    shuffled = curve.point(3.0, **size, permute=True)
    assert shuffled.low <= 0.5 <= shuffled.high


@pytest.mark.parametrize("permute", [False, True])
def test_permuted_labels_are_told_by_no_observer_and_the_true_ones_by_the_ideal(
    curve: ModuleType, permute: bool
) -> None:
    release = curve.released(2.0, patients=300, seed=3, permute=permute)
    data = dataset_of(
        preprocessed(
            release.parent, dataset="phantom", source=str(release), image_size="32", crop="none"
        )
    )
    labels = data.manifest[["group_id", "image_id", "label"]]
    ideal = curve.ideally_scored(data, labels, 2.0)
    low, high = bootstrap_auc(ideal, "malignant")
    assert (labels["label"] == "malignant").sum() == 150
    best = 0.9831  # Phi(3 / sqrt 2)
    assert low <= (0.5 if permute else best) <= high


def test_the_two_breasts_of_a_phantom_patient_never_meet_across_a_split(tmp_path: Path) -> None:
    write_release(tmp_path / "release", patients=25, image_size=32)
    asked = {"task": "normal_benign_malignant", "image_size": "32"}
    tracked = preprocessed(
        tmp_path / "work", dataset="phantom", source=str(tmp_path / "release"), **asked
    )
    (names,) = private_folder(tracked.work).glob("ids-*.csv")  # patients by the release's names
    rows = dataset_of(tracked).manifest.merge(pd.read_csv(names), on="image_id")
    breasts = rows.groupby("patient")["laterality"].unique().map(sorted).map("".join)
    assert breasts.tolist() == ["LR"] * 25
    assert set(rows["split"]) == {"train", "val", "test"}
    assert rows.groupby("patient")["split"].nunique().eq(1).all()
