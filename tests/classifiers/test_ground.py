"""What a classifier starts from: heads, stochastic depth, and the weights of another classifier."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "steps"))

from classifier_data import picture, tracked, train, write
from safetensors.torch import load_file

from mammo.classifiers import load_classifier
from mammo.classifiers.backbone import build
from mammo.classifiers.plans import FINETUNES
from mammo.errors import ConfigError, DataError
from mammo.evaluation.predictions import unseen
from mammo.models import open_model
from mammo.run import Reference

SHAPE = (1, 32, 32)


def test_s0_29_the_head_of_system_0_is_its_four_layers():
    torch.manual_seed(0)
    network = build("test_resnet", shape=SHAPE, classes=3, dropout=0.3, head="batch_norm")
    layers = list(network.head)
    assert [type(each) for each in layers] == [nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]
    assert layers[2].p == 0.3 and network.dropout.p == 0.0
    features = torch.randn(5, layers[0].num_features)
    network.eval()
    norm, last = layers[0], layers[3]
    norm.running_mean.normal_()
    scaled = (features - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    expected = scaled.clamp_min(0) @ last.weight.T + last.bias
    torch.testing.assert_close(network.classify(features), expected)


def test_the_head_of_system_0_starts_with_every_class_as_likely_and_still_learns():
    network = build("test_resnet", shape=SHAPE, classes=2, head="batch_norm")
    FINETUNES["head"](network, lr=1.0)
    logits = network.classify(torch.randn(4, network.last_layer.in_features))
    assert logits.tolist() == [[0.0, 0.0]] * 4
    logits[:, 0].sum().backward()
    assert network.last_layer.weight.grad.abs().sum() > 0


def test_a_model_with_that_head_is_loaded_again(tmp_path):
    data = write(tmp_path / "datasets")
    run = tracked(tmp_path, data)
    train(run, head="batch_norm", dropout=0.3)
    val = pd.read_parquet(run.folder / "val.parquet")
    rows = data.manifest.index[data.manifest["split"] == "val"]
    scores = load_classifier(run.folder / "model").predict(data.images(rows))
    np.testing.assert_allclose(scores, val[["score/benign", "score/malignant"]], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "attribute"),
    [("convnext_atto", "drop_prob"), ("resnet18", "drop_prob"), ("torchvision/convnext_tiny", "p")],
)
def test_an_image_skips_the_last_block_with_the_chance_that_is_asked(name, attribute):
    network = build(name, shape=(3, 64, 64), classes=2, drop_path=0.4)
    kinds = ("DropPath", "StochasticDepth")
    chances = [
        float(getattr(each, attribute))
        for each in network.body.modules()
        if type(each).__name__ in kinds
    ]
    assert chances[-1] == pytest.approx(0.4) and chances == sorted(chances)
    images = torch.rand(1, 3, 64, 64).repeat(16, 1, 1, 1)
    features = network.eval().features(images)
    torch.testing.assert_close(features, features[:1].expand_as(features))


def test_a_network_without_blocks_to_skip_is_named():
    with pytest.raises(ConfigError, match="does not apply to model_name 'vgg11'"):
        build("vgg11", shape=(3, 64, 64), classes=2, drop_path=0.4)


def test_an_image_size_that_the_backbone_cannot_take_is_refused_before_training(tmp_path):
    run = tracked(tmp_path, write(tmp_path / "datasets"))
    with pytest.raises(ConfigError, match=r"'inception_v3' does not take images of \(1, 32, 32\)"):
        train(run, model_name="inception_v3")
    assert not list(run.folder.rglob("*.ckpt"))


def started(folder, data, parent, **settings):
    """A run whose weights are those of the run `parent`."""
    run = tracked(folder, data)
    model = parent.folder / "model"
    run.inputs["weights"] = [Reference("runs:/x/model", model, "digest", "x")]
    return run, train(run, weights=str(model), **settings)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A run on one data set, and another data set of other patients under the same salt."""
    folder = tmp_path_factory.mktemp("parent")
    run = tracked(folder, write(folder / "datasets"))
    train(run)
    return run


def others(folder, start=100):
    """Patients that the parent has not seen."""
    rows = small.real_rows({"benign": [2] * 12, "malignant": [2] * 12})
    for number, row in enumerate(rows):
        row["image_id"] = f"other-{number}"
        row["group_id"] = f"other-{row['group_id']}"
    return write(folder, rows=rows)


def test_s1_1_a_classifier_starts_from_the_backbone_of_another(tmp_path, parent):
    data = others(tmp_path / "datasets")
    run, _ = started(tmp_path, data, parent, finetune="head", epochs=1)
    ours, theirs = (
        load_file(each.folder / "model" / "weights.safetensors") for each in (run, parent)
    )
    body = [name for name in ours if name.startswith("body.")]
    assert body and all(torch.equal(ours[name], theirs[name]) for name in body)
    assert torch.equal(ours["mean"], theirs["mean"]) and torch.equal(ours["sd"], theirs["sd"])
    said = open_model(run.folder / "model", "classifier").about["weights"]
    assert said["source"] == f"classifier {parent.id}" and len(said["sha256"]) == 64


def test_its_patients_count_as_seen_by_the_new_one(tmp_path, parent):
    data = others(tmp_path / "datasets")
    run, _ = started(tmp_path, data, parent, epochs=1)
    model = open_model(run.folder / "model", "classifier")
    before = open_model(parent.folder / "model", "classifier").training
    own = data.manifest[data.manifest["split"] == "train"]
    assert set(model.training["group_id"]) == {*before["group_id"], *own["group_id"]}
    assert model.about["train_images"] == len(own)
    theirs = write(tmp_path / "parents")
    left = unseen(model, theirs, theirs.manifest.index.to_numpy())
    expected = theirs.manifest.index[~theirs.manifest["group_id"].isin(before["group_id"])]
    assert sorted(left) == sorted(expected)


def test_a_classifier_that_saw_held_out_patients_is_refused(tmp_path):
    data = write(tmp_path / "datasets", folds=3)
    parent = tracked(tmp_path / "parent", data)
    train(parent, folds="0", val_fraction=0.25)
    with pytest.raises(
        DataError, match=r"was trained on \d+ of the 12 held-out patients"
    ) as caught:
        started(tmp_path / "child", data, parent, folds="1", val_fraction=0.25)
    assert "\n" not in str(caught.value)
    run, _ = started(tmp_path / "same", data, parent, folds="0", val_fraction=0.25)
    assert run.last["fold/auc"] >= 0


def test_another_network_is_refused(tmp_path, parent):
    data = others(tmp_path / "datasets")
    with pytest.raises(ConfigError, match="is a test_resnet, model_name is 'resnet18'; use the sa"):
        started(tmp_path, data, parent, model_name="resnet18")


def test_a_backbone_of_one_channel_serves_three_with_the_same_answer_to_grey(tmp_path, parent):
    weights = load_file(parent.folder / "model" / "weights.safetensors")
    body = {k.removeprefix("body."): v for k, v in weights.items() if k.startswith("body.")}
    about = json.loads((parent.folder / "model" / "model.json").read_text())["normalisation"]
    told = (about["mean"], about["sd"])
    one, three = (
        build(
            "test_resnet",
            shape=(channels, 32, 32),
            classes=2,
            weights=body,
            normalisation=told,
        ).eval()
        for channels in (1, 3)
    )
    image = torch.from_numpy(picture("a", "malignant").astype(np.float32) / 255)[None]
    torch.testing.assert_close(
        one.features(image), three.features(image.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.doors
def test_s0_35_the_parent_is_an_input_of_the_run_that_goes_on_from_it(store, tmp_path):
    from doors import here

    from mammo.tracking import Tracking

    data = write(tmp_path / "datasets").folder
    fast = {"data": data, "model_name": "test_resnet", "epochs": 1, "monitor": "val/auc,val/loss"}
    parent = here("train_classifier", work_dir=tmp_path / "work", **fast)
    assert parent.code == 0, parent.err
    for weights in (parent.run_id, f"runs:/{parent.run_id}/models/best-val-loss"):
        child = here("train_classifier", weights=weights, work_dir=tmp_path / "work", **fast)
        assert child.code == 0, child.err
        tags = Tracking().get(child.run_id).data.tags
        assert tags["mammo.input.weights"] == parent.run_id
    wrong = here("train_classifier", weights="0" * 32, work_dir=tmp_path / "work", **fast)
    assert wrong.code == 2 and wrong.err.strip().count("\n") == 0
