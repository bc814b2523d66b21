"""Strategies of training work from the step's settings to a saved model, and resume to its bits."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from classifier_data import tracked, train, write
from doors import here
from safetensors.torch import load_file

from mammo.classifiers import load_classifier
from mammo.errors import ConfigError
from mammo.run import MemoryRun

pytestmark = pytest.mark.doors  # whole trainings


def same(first: MemoryRun, second: MemoryRun) -> bool:
    one, other = (
        load_file(run.folder / "model" / "weights.safetensors") for run in (first, second)
    )
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "settings",
    [
        {
            **{"loss": "eql", "eql_gamma": 0.5, "sampler": "ratio", "sampler_ratio": 2.0},
            **{"blend": "mixup", "class_augment": "malignant=strong"},
        },
        {
            **{"loss": "bce", "uncertainty": "attenuation", "uncertainty_draws": 5},
            **{"sampler": "one_positive", "augment": "randaugment", "erasing": 0.3},
        },
        {
            **{"loss": "eql_weights", "eql_gamma": 0.5, "sampler": "weighted"},
            **{"blend": "cutmix", "augment": "u24_all"},
        },
    ],
    ids=lambda settings: settings["loss"],
)
def test_every_loss_sampler_and_augmentation_learns_and_resumes_to_the_same_bits(
    tmp_path, settings
):
    data = write(tmp_path / "datasets")
    whole, cut = tracked(tmp_path / "whole", data), tracked(tmp_path / "cut", data)
    given = {**settings, "epochs": 5, "lr": 3e-3, "monitor": "train/loss", "patience": 0}
    train(whole, **given)
    metrics = MemoryRun.metrics

    def killed(self, values, step=None):
        if step == 4:
            raise KeyboardInterrupt
        metrics(self, values, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryRun, "metrics", killed)
        with pytest.raises(KeyboardInterrupt):
            train(cut, **given)
    train(tracked(tmp_path / "cut", data), **given)
    assert same(whole, cut)
    best = max(value for name, value, _ in whole.history if name == "val/auc")
    assert best > 0.9  # the spot is found; the metric of a random network is 0.5


@pytest.mark.parametrize("finetune", ["full", "head"])
def test_uncertainty_is_told_for_each_image_and_by_the_saved_model_too(tmp_path, finetune):
    data = write(tmp_path / "datasets", folds=3)
    run = tracked(tmp_path, data)
    path = tmp_path / "w.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    given = {"folds": "1", "val_fraction": 0.25, "epochs": 1, "weights": str(path)}
    train(run, uncertainty="attenuation", finetune=finetune, **given)
    scored = pd.read_parquet(run.folder / "predictions.parquet")
    rows = data.manifest.set_index("image_id").index.get_indexer(scored["image_id"])
    classifier = load_classifier(run.folder / "model")
    told = pd.DataFrame(classifier.tell(data.images(rows)))
    names = [f"{kind}/{name}" for kind in ("score", "logit") for name in data.classes.names]
    assert list(told) == [*names, "uncertainty"]
    np.testing.assert_allclose(told, scored[told.columns], rtol=1e-4, atol=1e-5)
    scores = classifier.predict(data.images(rows))
    np.testing.assert_allclose(scores, scored[["score/benign", "score/malignant"]], atol=1e-5)
    with torch.no_grad():
        outputs = classifier.network(torch.from_numpy(data.images(rows)))
    variance = outputs[:, 2:].double().exp().sum(dim=1)  # of the log-odds
    np.testing.assert_allclose(scored["uncertainty"], variance.sqrt(), rtol=1e-4)


def test_a_classifier_without_uncertainty_tells_none(tmp_path):
    data = write(tmp_path / "datasets")
    run = tracked(tmp_path, data)
    train(run, epochs=1)
    val = pd.read_parquet(run.folder / "val.parquet")
    assert "uncertainty" not in val
    # its logits are those of its scores
    odds = np.log(val["score/malignant"] / val["score/benign"])
    np.testing.assert_allclose(val["logit/malignant"] - val["logit/benign"], odds, atol=1e-4)
    assert "uncertainty" not in load_classifier(run.folder / "model").tell(data.images([0]))


def test_a_frozen_backbone_learns_from_images_where_they_are_blended(tmp_path):
    """Features computed once would never see a blend."""
    path = tmp_path / "w.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    data = write(tmp_path / "datasets")
    runs = []
    for blend in ("none", "mixup"):
        runs.append(tracked(tmp_path / blend, data))
        train(runs[-1], finetune="head", weights=str(path), blend=blend, epochs=1)
    assert not same(*runs)


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_batch(tmp_path):
    run = tracked(tmp_path, write(tmp_path / "datasets"))
    line = r"loss is not finite in batch \d of epoch 1; lower lr"
    with pytest.raises(ConfigError, match=line):
        train(run, lr=1e30, optimizer="sgd", weight_decay=0.0)
    assert not (run.folder / "model").exists()


@pytest.mark.doors
def test_strategies_are_options_of_the_command_line_and_reach_the_evaluation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAMMO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    made = {"dataset": "phantom", "patients": 24, "image_size": 32, "val_fraction": 0.25}
    data = here("preprocess", **made).uri
    fast = {"data": data, "model_name": "test_resnet", "epochs": 2, "batch_size": 8}
    augmented = {"augment": "randaugment", "erasing": 0.2, "blend": "mixup_cutmix"}
    sampled = {"sampler": "ratio", "sampler_ratio": 2, "class_augment": "malignant=strong"}
    equalized = here("train_classifier", loss="eql", eql_gamma=0.5, **sampled, **augmented, **fast)
    attenuated = here("train_classifier", loss="bce", uncertainty="attenuation", **fast)
    judged = here("evaluate", model=attenuated.uri, baseline=equalized.uri, data=data, bootstrap=50)
    folder = mlflow.artifacts.download_artifacts(f"runs:/{judged.run_id}/tables")
    table = pd.read_csv(Path(folder) / "predictions.csv")
    assert (table["uncertainty"] > 0).all()
    assert "uncertainty" not in pd.read_csv(Path(folder) / "predictions_baseline.csv")
