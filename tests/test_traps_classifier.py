"""Mistakes that made published numbers wrong, each shown to be impossible here."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent / "steps"))

from classifier_data import tracked, train, write

from mammo.classifiers.backbone import build
from mammo.classifiers.losses import make_loss
from mammo.classifiers.plans import FINETUNES, OPTIMIZERS
from mammo.training import optimizing
from mammo.training.optimizing import Optimizing


def state(run):
    return load_file(run.folder / "model" / "weights.safetensors")


@pytest.mark.doors
def test_trap_t0a_every_fold_starts_from_a_fresh_model(tmp_path):
    """Fold 1 has the same bits whether folds ran before it or not, so it saw nothing of them."""
    data = write(tmp_path / "datasets", folds=3)
    together, alone = tracked(tmp_path / "all", data), tracked(tmp_path / "one", data)
    train(together, folds="all", val_fraction=0.25)
    train(alone, folds="1", val_fraction=0.25)
    after, before = state(together.children["fold-1-seed-0"]), state(alone)
    assert all(torch.equal(after[name], before[name]) for name in before)
    first = state(together.children["fold-0-seed-0"])
    assert not torch.equal(first["head.weight"], after["head.weight"])


def test_trap_t0h_the_head_trains_at_the_full_rate_and_weight_decay_is_passed():
    network = build("test_resnet", shape=(1, 32, 32), classes=2)
    groups = FINETUNES["full"](network, lr=1e-2, backbone_lr_factor=0.1)
    rates = {id(each): group["lr"] for group in groups for each in group["params"]}
    assert {rates[id(each)] for each in network.head.parameters()} == {1e-2}
    assert {rates[id(each)] for each in network.body.parameters()} == {1e-2 * 0.1}
    assert len(rates) == len(list(network.parameters()))
    assert sorted(OPTIMIZERS) == sorted(optimizing.OPTIMIZERS)
    for name in OPTIMIZERS:
        moved = Optimizing(1.0, optimizer=name, weight_decay=0.3)
        optimizer = moved.mover([dict(group) for group in groups])
        decays = {
            each.ndim > 1: group["weight_decay"]
            for group in optimizer.param_groups
            for each in group["params"]
        }
        assert decays == {True: 0.3, False: 0.0}


@pytest.mark.doors
def test_trap_t0j_the_reported_fold_is_not_the_one_the_epoch_was_chosen_on(tmp_path):
    data = write(tmp_path / "datasets", folds=3)
    run = tracked(tmp_path, data)
    train(run, folds="0", val_fraction=0.25)
    chosen_on = pd.read_parquet(run.folder / "val.parquet")
    reported = pd.read_parquet(run.folder / "predictions.parquet")
    assert not set(chosen_on["group_id"]) & set(reported["group_id"])
    assert set(reported["fold"]) == {0}
    assert set(data.manifest.set_index("image_id").loc[chosen_on["image_id"], "fold"]) == {1, 2}


def test_trap_t2b_the_positive_weight_is_counted_on_training_rows_alone(tmp_path, monkeypatch):
    from mammo.classifiers import phases as module

    seen = []

    def spy(name, settings):
        seen.append(settings["counts"])
        return make_loss(name, settings)

    monkeypatch.setattr(module, "make_loss", spy)
    data = write(tmp_path / "datasets")
    train(tracked(tmp_path, data), loss="bce", epochs=1)
    training = data.manifest[data.manifest["split"] == "train"]["label"].value_counts()
    assert {tuple(each) for each in seen} == {(training["benign"], training["malignant"])}
    assert sum(seen[0]) < len(data)


@pytest.mark.parametrize("epochs", [2])
def test_trap_t2f_training_mode_does_not_thaw_a_frozen_normalisation(epochs):
    from mammo.classifiers.module import ClassifierModule

    network = build("test_resnet", shape=(1, 32, 32), classes=2)
    FINETUNES["head"](network, lr=1e-3)
    loss = make_loss("ce", {"label_smoothing": 0.0})
    module = ClassifierModule(
        network,
        loss,
        augment=lambda images: images,
        judge=lambda rows, scores: {},
        optimizing=Optimizing(1e-3),
        groups=[],
        total_steps=1,
    )
    before = network.body.bn1.running_mean.clone()
    for _ in range(epochs):
        module.train()
        network(torch.rand(4, 1, 32, 32))
    assert network.dropout.training
    np.testing.assert_array_equal(network.body.bn1.running_mean, before)
