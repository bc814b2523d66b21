"""Classifiers of several images at once, trained, saved, evaluated, resumed and served."""

import json
import shutil

import mlflow
import numpy as np
import pandas as pd
import pytest
import small
import timm
import torch
from classifier_data import SIDE, tracked, train
from safetensors.torch import load_file

from mammo.classifiers import load_classifier
from mammo.data.classes import TASKS
from mammo.data.dataset import Dataset
from mammo.data.sets import set_keys
from mammo.data.writer import DatasetWriter
from mammo.errors import DataError
from mammo.evaluation.predictions import predict
from mammo.evaluation.ranking import aggregate
from mammo.run import MemoryRun, Reference
from mammo.steps import evaluate
from mammo.tracking.mlmodel import write_mlmodel

pytestmark = pytest.mark.doors  # whole trainings


def patients(folder, *, count: int = 24, more=()) -> Dataset:
    """`count` patients of each class, all images labelled as the patient; one shows the sign.

    Of a malignant patient's three images one has the bright spot, which one changes.
    """
    rows = small.real_rows({"benign": [3] * count, "malignant": [3] * count})
    for row in rows:
        row["laterality"] = "LRR"[int(row["image_id"][-1])]
        number = int(row["group_id"].split("-")[1])
        row["split"] = "test" if number % 6 == 4 else "val" if number % 6 == 5 else "train"
    rows += more
    writer = DatasetWriter(
        folder / "new.partial",
        name="patients",
        classes=TASKS["malignancy2"],
        shape=(1, SIDE, SIDE),
        dtype="uint8",
        about={"salt": "salt", "split_seed": 7},
    )
    for row in rows:
        image = small.pixels(row["image_id"], (1, SIDE, SIDE), "uint8") // 4
        label, number, view = row["image_id"].split("-")[-3:]
        if label == "malignant" and int(view) == int(number) % 3:
            image[:, 10:20, 10:20] += 120
        writer.add(image, row)
    return writer.finish(folder)


@pytest.mark.parametrize("views", ["max", "attention"])
def test_a_patient_s_images_are_trained_saved_judged_and_served_together(tmp_path, views):
    data = patients(tmp_path / "datasets")
    run = tracked(tmp_path, data)
    train(run, views=views, monitor="val/auc,val/loss")
    folder = run.folder / "model"
    classifier = load_classifier(folder)
    assert (classifier.views_of, classifier.saved.about["views"]) == ("patient", views)

    val = pd.read_parquet(run.folder / "val.parquet")
    rows = pd.Index(data.manifest["image_id"]).get_indexer(val["image_id"])
    keys = set_keys(data.manifest.iloc[rows], "patient")
    again = pd.DataFrame(classifier.tell(data.images(rows), keys=keys, batch_size=8))
    np.testing.assert_array_equal(again, val[again.columns])  # the same bits
    assert set(val.groupby("group_id")["score/malignant"].nunique()) == {1}

    test = np.flatnonzero(data.manifest["split"] == "test")
    told = predict(classifier, data, test, split="test", batch_size=4)
    whole = predict(classifier, data, test[::-1].copy(), split="test", batch_size=1000)
    shared = told.merge(whole, on="image_id", suffixes=("", "_whole"))
    scores = [f"score/malignant{each}" for each in ("", "_whole")]
    np.testing.assert_allclose(*(shared[each] for each in scores), rtol=1e-5)
    for how in ("mean", "max"):
        patient = aggregate(told, "malignant", how).set_index("group_id")["score/malignant"]
        # the mean of three equal numbers may be off by its last bit
        ulps = {"mean": 1, "max": 0}[how]
        np.testing.assert_array_max_ulp(
            patient[told["group_id"]].to_numpy(), told["score/malignant"].to_numpy(), maxulp=ulps
        )
    if views == "attention":
        np.testing.assert_allclose(told.groupby("group_id")["attention"].sum(), 1, rtol=1e-6)
    assert ("attention" in told) == (views == "attention")

    inputs = {
        "data": [Reference("runs:/abc/dataset", data.folder, data.digest, "abc")],
        "model": [Reference("runs:/def/model", folder, "digest", "def")],
    }
    judged = MemoryRun(tmp_path / "evaluation", inputs)
    evaluate.run(judged, data="data", model="model", saliency=1, bootstrap=20, device="cpu")
    tested = judged.tables["predictions"].query("split == 'test'")
    np.testing.assert_allclose(tested[scores[0]], told[scores[0]], rtol=1e-5)
    assert "The call is of all images of the patient" in (judged.folder / "report.html").read_text()

    served = shutil.copytree(folder, tmp_path / "served")
    write_mlmodel(served, classifier.saved.about, "r")
    model = mlflow.pyfunc.load_model(str(served))
    images, keys = data.images(test[:7]), [0, 0, 0, 1, 1, 1, 2]
    answer = model.predict(images, params={"sets": keys})
    np.testing.assert_allclose(answer, classifier.predict(images, keys=keys), atol=1e-6)
    assert (answer[0] == answer[1]).all() and (answer[0] != answer[3]).any()
    alone = classifier.predict(images)
    np.testing.assert_allclose(model.predict(images), alone, atol=1e-6)
    assert len(np.unique(alone[:3], axis=0)) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"sampler": "balanced", "loss": "bce", "uncertainty": "attenuation", "head": "batch_norm"},
        {"finetune": "head", "augment": "none"},
        {"finetune": "head", "augment": "basic", "sampler": "ratio", "views_of": "breast"},
        {"finetune": "gradual", "unfreeze_after": 1, "unfreeze_patience": 1, "sampler": "weighted"},
    ],
    ids=["full", "features", "frozen", "gradual"],
)
def test_every_plan_trains_and_resumes_to_the_same_bits(tmp_path, settings):
    path = tmp_path / "w.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    more = small.synthetic_rows({"benign": 3, "malignant": 3})
    for row in more:
        row["image_id"] += "-0"
    data = patients(tmp_path / "datasets", count=12, more=more)
    given = {"epochs": 4, "weights": str(path), "views": "attention", "patience": 0, **settings}
    runs = [tracked(tmp_path / name, data) for name in ("whole", "cut")]
    train(runs[0], **given)

    def killed(values, step=None):
        MemoryRun.metrics(runs[1], values, step)
        if step == 2:
            raise KeyboardInterrupt

    runs[1].metrics = killed
    with pytest.raises(KeyboardInterrupt):
        train(runs[1], **given)
    runs[1].metrics = lambda values, step=None: MemoryRun.metrics(runs[1], values, step)
    train(runs[1], **given)
    one, other = (load_file(run.folder / "model" / "weights.safetensors") for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["pool.gate.weight"].shape[0] == 128
    about = json.loads((runs[0].folder / "model" / "model.json").read_text())
    assert (about["views"], about["views_of"]) == ("attention", given.get("views_of", "patient"))


def test_a_breast_whose_side_nobody_knows_is_refused_before_training(tmp_path):
    from classifier_data import write

    run = tracked(tmp_path, write(tmp_path / "datasets"))
    with pytest.raises(DataError, match="28 of 28 images tell no laterality; use views_of patient"):
        train(run, views="mean", views_of="breast")
    assert not list(run.folder.rglob("*.ckpt"))
