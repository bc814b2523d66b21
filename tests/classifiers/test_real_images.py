"""Real mammograms and ultrasound through the steps: a frozen backbone must reach its yardstick."""

from pathlib import Path

import doors
import pytest

COMMON = {
    "model_name": "torchvision/mobilenet_v2",
    "finetune": "head",
    "augment": "none",
    "folds": "all",
    "monitor": "val/loss",
    "patience": 0,
    "weight_decay": 0.1,
}
MIAS = {"epochs": 15, "lr": 1e-4, "val_fraction": 0.1}
BUSI = {"epochs": 60, "lr": 1e-3, "dropout": 0.5, "val_fraction": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "folder", "task", "settings", "metric", "least"),
    [
        ("mias", "mini-mias", "density2", MIAS, "oof/auc", 0.88),
        ("busi", "busi", "normal_benign_malignant", BUSI, "oof/auc/malignant", 0.91),
    ],
)
def test_five_folds_reach_what_frozen_features_can(
    shared: Path,
    dataset: str,
    folder: str,
    task: str,
    settings: dict[str, float],
    metric: str,
    least: float,
) -> None:
    data = doors.mammo(
        "preprocess",
        dataset=dataset,
        source=shared / "data" / folder,
        task=task,
        image_size=224,
        k_folds=5,
        test_fraction=0,
    )
    weights = shared / "weights" / "mobilenet_v2-b0353104.pth"
    trained = doors.mammo(
        "train_classifier", data=data.run_id, weights=weights, **COMMON, **settings
    )
    assert trained.metrics[metric] >= least
