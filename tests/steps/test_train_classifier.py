"""train_classifier: one run or a family of them, each choice on validation, the fold read last."""

import json

import classifier_data
import numpy as np
import pandas as pd
import pytest
import small
import torch
from classifier_data import TINY, tracked, train, write
from safetensors.torch import load_file

from mammo.classifiers import load_classifier
from mammo.classifiers.refusals import check_classes
from mammo.data.classes import TASKS
from mammo.errors import CheckpointError, ConfigError, DataError
from mammo.evaluation.calibration import fit_temperature
from mammo.evaluation.operating import outcome
from mammo.evaluation.ranking import aggregate, frame_auc
from mammo.models import open_model
from mammo.run import MemoryRun
from mammo.steps import train_classifier

EPOCH_METRICS = {
    "auc",
    "auc_image",
    "pr_auc",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "f1",
}


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """A finished hold-out run with its dataset and its result."""
    folder = tmp_path_factory.mktemp("held_out")
    data = write(folder / "datasets")
    run = tracked(folder, data)
    return run, data, train(run, epochs=6, lr=3e-3)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A finished run over three folds with its dataset and its result."""
    folder = tmp_path_factory.mktemp("family")
    data = write(folder / "datasets", folds=3)
    run = tracked(folder, data)
    return run, data, train(run, folds="all", val_fraction=0.25)


def weights(run: MemoryRun) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "model" / "weights.safetensors")


def same(first: MemoryRun, second: MemoryRun) -> bool:
    one, other = weights(first), weights(second)
    return all(torch.equal(one[name], other[name]) for name in one)


def test_predictions_tell_how_many_real_images_were_trained_on(family):
    """Of 48 images 16 are scored, and a quarter of the other patients validate: 24 are left."""
    run, _, _ = family
    frame = pd.read_parquet(run.uploaded["predictions.parquet"])
    assert set(frame["trained_on"]) == {24}


def test_a_plain_difference_is_learned(held_out):
    run, _, result = held_out
    assert result.metrics["best/val/auc"] == 1.0
    assert result.outputs == {"model": run.uri("model")}


def test_every_epoch_has_the_metrics_of_the_interface(held_out):
    run, _, _ = held_out
    expected = {"train/loss", "val/loss", *(f"val/{name}" for name in EPOCH_METRICS)}
    for epoch in range(1, 7):
        logged = {name for name, _, step in run.history if step == epoch}
        assert expected <= logged


def test_best_is_the_epoch_with_the_highest_monitored_value(held_out):
    run, _, result = held_out
    history = pd.DataFrame(run.history, columns=["name", "value", "step"]).dropna()
    table = history.pivot_table(index="step", columns="name", values="value")
    chosen = table.loc[table["val/auc"].idxmax()]  # the first of equals
    for name in ("loss", *EPOCH_METRICS):
        assert result.metrics[f"best/val/{name}"] == chosen[f"val/{name}"]


def test_the_model_predicts_its_validation_scores_and_knows_its_threshold(held_out):
    run, data, _ = held_out
    classifier = load_classifier(run.folder / "model")
    val = pd.read_parquet(run.folder / "val.parquet")
    rows = data.manifest.index[data.manifest["split"] == "val"]
    scores = classifier.predict(data.images(rows))
    np.testing.assert_allclose(scores, val[["score/benign", "score/malignant"]], atol=1e-5)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    patients = aggregate(val, "malignant")
    called = patients["score/malignant"] >= classifier.threshold
    assert (called == (patients["label"] == "malignant")).all()  # its auc is 1


def test_the_model_keeps_every_threshold_and_the_temperature_of_its_validation_patients(held_out):
    run, _, _ = held_out
    about = json.loads((run.folder / "model" / "model.json").read_text())
    patients = aggregate(pd.read_parquet(run.folder / "val.parquet"), "malignant")
    positive, score = patients["label"] == "malignant", patients["score/malignant"]
    kept = about["thresholds"]
    rules = {"balanced", "f1", "specificity_0.9", "specificity_0.95", "sensitivity_0.9"}
    assert set(kept) == rules
    assert outcome(positive, score, kept["specificity_0.95"]).specificity >= 0.95
    assert outcome(positive, score, kept["sensitivity_0.9"]).sensitivity >= 0.9
    scores = patients[["score/benign", "score/malignant"]].to_numpy()
    assert about["temperature"] == pytest.approx(fit_temperature(patients["label_id"], scores))


def test_the_run_carries_its_pictures_inputs_and_partition(held_out):
    run, data, _ = held_out
    assert {"curves"} <= set(run.figures)
    assert {"preview.png", "partition.json", "model", "predictions"} <= set(run.uploaded)
    contexts = {context: count for _, _, count, context in run.input_datasets}
    split = data.manifest["split"].value_counts()
    assert contexts == {"training": split["train"], "validation": split["val"]}


def test_a_test_row_is_never_read(tmp_path, held_out):
    run, _, _ = held_out
    assert "test" not in set(pd.read_parquet(run.folder / "val.parquet")["split"])
    assert "scored" not in json.loads((run.folder / "partition.json").read_text())["val"]


def test_a_corrupt_model_is_refused_in_one_line(tmp_path, held_out):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(held_out[0].folder / "model", folder)
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is missing or corrupt"):
        load_classifier(folder)


def test_all_folds_are_children_and_the_parent_pools_them_without_a_model(family):
    run, data, result = family
    assert sorted(run.children) == ["fold-0-seed-0", "fold-1-seed-0", "fold-2-seed-0"]
    assert "model" not in run.uploaded and set(result.outputs) == {"predictions"}
    pooled = pd.read_parquet(run.folder / "predictions.parquet")
    assert sorted(pooled["image_id"]) == sorted(data.manifest["image_id"])
    expected = frame_auc(aggregate(pooled, "malignant"), "malignant")
    assert result.metrics["oof/auc"] == expected
    assert result.metrics["oof/auc_low"] <= expected <= result.metrics["oof/auc_high"]
    table = run.tables["out_of_fold"].set_index("metric")
    assert table.loc["auc", "value"] == expected
    called = []
    for fold, child in enumerate(run.children.values()):
        keeps = json.loads((child.folder / "model" / "model.json").read_text())["thresholds"]
        mine = aggregate(pooled[pooled["fold"] == fold].reset_index(drop=True), "malignant")
        score = mine.loc[mine["label"] == "malignant", "score/malignant"]
        called += score.ge(keeps["balanced"]).tolist()
    assert run.last["oof/sensitivity"] == pytest.approx(np.mean(called))
    folds = [child.last["fold/auc"] for child in run.children.values()]
    assert result.metrics["cv/auc_mean"] == pytest.approx(np.mean(folds))
    assert result.metrics["cv/auc_sd"] == pytest.approx(np.std(folds, ddof=1))
    folds = [child.last["fold/f1"] for child in run.children.values()]
    assert run.last["cv/f1_mean"] == pytest.approx(np.mean(folds))
    assert run.last["cv/f1_sd"] == pytest.approx(np.std(folds, ddof=1))
    assert "cv/f1_mean" not in result.metrics  # the last line keeps to the headline


def test_each_image_is_scored_by_a_model_that_saw_none_of_its_patient(family):
    run, _, _ = family
    for name, child in run.children.items():
        seen = set(pd.read_parquet(child.folder / "model" / "training.parquet")["group_id"])
        scored = pd.read_parquet(child.folder / "predictions.parquet")
        assert set(scored["fold"]) == {int(name.split("-")[1])}
        partition = json.loads((child.folder / "partition.json").read_text())
        assert set(partition["scored"]["patients"]) == set(scored["group_id"])
        validated = set(partition["val"]["patients"])
        assert validated and not (seen & validated)
        assert not (set(scored["group_id"]) & (seen | validated))


def test_what_is_in_the_scored_fold_changes_nothing_but_its_score(tmp_path):
    runs = []
    for name, changed in (("as_is", None), ("black", {1: 0})):
        data = write(tmp_path / name, folds=3, changed=changed)
        runs.append(tracked(tmp_path / f"run_{name}", data))
        train(runs[-1], folds="1", val_fraction=0.25)
    assert same(*runs)
    assert runs[0].last["fold/auc"] != runs[1].last["fold/auc"] == 0.5


def test_several_seeds_on_a_hold_out_are_children_whose_validation_is_averaged(tmp_path):
    data = write(tmp_path / "datasets")
    run = tracked(tmp_path, data)
    result = train(run, seeds="3,4")
    assert sorted(run.children) == ["seed-3", "seed-4"]
    assert not same(*run.children.values())
    each = [child.last["best/val/auc"] for child in run.children.values()]
    assert result.metrics["best/val/auc_mean"] == pytest.approx(np.mean(each))
    assert result.metrics["best/val/auc_sd"] == pytest.approx(np.std(each, ddof=1), nan_ok=True)
    assert not {name for name in result.metrics if name.startswith(("oof", "cv", "fold"))}


@pytest.mark.doors
def test_a_killed_family_computes_no_finished_child_again_and_ends_the_same(tmp_path, family):
    whole, data, expected = family
    run = tracked(tmp_path, data)
    metrics = MemoryRun.metrics

    def killed(self, values, step=None):
        if self.folder.name == "run" and self.folder.parent.name == "fold-1-seed-0" and step == 2:
            raise KeyboardInterrupt
        metrics(self, values, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryRun, "metrics", killed)
        with pytest.raises(KeyboardInterrupt):
            train(run, folds="all", val_fraction=0.25)
    again = tracked(tmp_path, data)
    result = train(again, folds="all", val_fraction=0.25)
    assert sorted(again.children) == ["fold-1-seed-0", "fold-2-seed-0"]
    for name, child in again.children.items():
        assert same(child, whole.children[name])
    assert result.metrics == expected.metrics


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler pickles in ways that jsonargparse warns of
def test_a_compiled_backbone_learns_the_same_and_is_saved_as_any_other(tmp_path):
    from torch._dynamo.utils import counters

    data = write(tmp_path / "datasets")
    plain, compiled = tracked(tmp_path / "plain", data), tracked(tmp_path / "compiled", data)
    train(plain, epochs=1)
    counters.clear()
    train(compiled, epochs=1, compile=True)
    assert counters["stats"]["unique_graphs"] > 0
    for name in ("train/loss", "val/loss"):
        assert compiled.last[name] == pytest.approx(plain.last[name], rel=1e-3)
    one, other = (
        load_file(run.folder / "model" / "weights.safetensors") for run in (plain, compiled)
    )
    assert list(one) == list(other)


def test_synthetic_images_are_mixed_into_the_training_rows_alone(tmp_path):
    data = write(tmp_path / "datasets")
    rows = small.synthetic_rows({"benign": 20, "malignant": 20})
    synthetic = write(tmp_path / "datasets", rows=rows)
    run = tracked(tmp_path, data, synthetic)
    result = train(run, synthetic="s", real_percentage=0.5)
    assert result.metrics["realised_real_percentage"] == 0.5  # which a search may weigh
    split = data.manifest["split"].value_counts()
    assert {context: count for _, _, count, context in run.input_datasets} == {
        "training": split["train"] / 2,
        "synthetic": split["train"] / 2,
        "validation": split["val"],
    }
    seen = pd.read_parquet(run.folder / "model" / "training.parquet")
    assert seen["is_synthetic"].sum() == split["train"] / 2
    model = open_model(run.folder / "model", "classifier")
    assert model.about["generators"] == ["run1"]
    assert model.generator_training.to_dict("records") == small.seen_by("run1", ["elsewhere"])
    assert run.last["realised_real_percentage"] == 0.5
    report = json.loads((run.folder / "mix.json").read_text())
    assert {each["synthetic"] for each in report["classes"]} == {split["train"] / 4}


def test_the_larger_class_is_thinned_without_synthetic_images_too(tmp_path):
    rows = small.real_rows({"benign": [2] * 12, "malignant": [2] * 6})
    data = write(tmp_path / "datasets", rows=rows)
    run = tracked(tmp_path, data)
    train(run, majority_to_minority_ratio=1.0)
    seen = pd.read_parquet(run.folder / "model" / "training.parquet")
    labels = data.manifest.set_index("sha256")["label"][seen["sha256"]]
    # of 6 malignant patients one is tested and two validate (1.2 and 1.5), three train
    assert labels.value_counts().to_dict() == {"benign": 6, "malignant": 6}
    assert (run.last["real_images"], run.last["synthetic_images"]) == (12, 0)


@pytest.mark.doors
def test_the_child_of_a_seed_mixes_what_a_run_of_that_seed_mixes(tmp_path):
    data = write(tmp_path / "datasets")
    rows = small.synthetic_rows({"benign": 20, "malignant": 20})
    synthetic = write(tmp_path / "datasets", rows=rows)
    family = tracked(tmp_path / "family", data, synthetic)
    alone = tracked(tmp_path / "alone", data, synthetic)
    train(family, synthetic="s", real_percentage=0.5, seeds="3,4", epochs=1)
    train(alone, synthetic="s", real_percentage=0.5, seed=4, epochs=1)
    seen = [
        set(pd.read_parquet(run.folder / "model" / "training.parquet")["sha256"])
        for run in (family.children["seed-3"], family.children["seed-4"], alone)
    ]
    assert seen[0] != seen[1] == seen[2]


def test_a_frozen_backbone_stays_as_it_is_its_normalisation_included(tmp_path):
    import timm

    torch.manual_seed(0)
    source = timm.create_model("test_resnet").state_dict()
    torch.save(source, tmp_path / "w.pth")
    data = write(tmp_path / "datasets")
    for augment in ("none", "basic"):
        run = tracked(tmp_path / augment, data)
        train(run, finetune="head", weights=str(tmp_path / "w.pth"), augment=augment)
        found = {name: value for name, value in weights(run).items() if name.startswith("body.")}
        assert {"body.bn1.running_mean", "body.layer1.0.conv1.weight"} <= set(found)
        for name, value in found.items():
            if value.shape == source[name.removeprefix("body.")].shape:
                assert torch.equal(value, source[name.removeprefix("body.")]), name


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"folds": "first"}, "folds 'first' should be none, all or the number"),
        ({"folds": "all"}, "folds 'all' is asked of dataset spots, which has no folds"),
        ({"seeds": "0,x"}, "seeds '0,x' should be numbers with commas"),
        ({"seeds": "1,1"}, "seeds '1,1' names a seed twice"),
        ({"weights": "no.pth"}, "weights 'no.pth' is not a file"),
        ({"finetune": "head"}, "finetune 'head' would keep a random backbone"),
        ({"real_percentage": 0.5}, "real_percentage 0.5 .* needs synthetic images"),
        ({"monitor": "val/acc"}, "unknown monitor 'val/acc'; choose one of .*val/auc"),
        ({"monitor": "val/auc/benign"}, "'val/auc/benign' is no metric of the classes"),
        ({"model_name": "resnot18"}, "unknown model_name 'resnot18'"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        (
            {"loss": "focal", "uncertainty": "attenuation"},
            "uncertainty 'attenuation' does not go with loss 'focal', .*; use loss bce, ce",
        ),
        ({"uncertainty_draws": 3}, "uncertainty_draws 3 has no effect with uncertainty none"),
        ({"focal_gamma": 1.0}, r"focal_gamma 1\.0 has no effect with loss ce; it goes with focal,"),
        ({"loss": "eql", "label_smoothing": 0.1}, r"label_smoothing 0\.1 has no effect with loss"),
        ({"sampler_ratio": 2.0}, r"sampler_ratio 2\.0 has no effect with sampler random"),
        ({"sampler": "ratio", "sampler_ratio": 0.5}, r"sampler_ratio 0\.5 would make the larger"),
        ({"sampler": "one_positive", "batch_size": 1}, "batch_size 1 leaves no room"),
        ({"mixup_alpha": 1.0}, r"mixup_alpha 1\.0 has no effect with blend none; it goes with mix"),
        ({"randaugment_ops": 3}, "randaugment_ops 3 has no effect with augment none"),
        ({"dropout": 1.0}, "dropout 1 leaves no feature"),
        ({"patience": 0, "patience_after": 3}, "patience_after 3 has no effect with patience 0"),
        ({"head": "batch_norm", "batch_size": 1}, "batch_size 1 has no variance for head"),
        (
            {"batch_size": 1},
            "batch_size 1 has no variance .* whose last map of 32 x 32",
        ),
        ({"val_fraction": 0.3}, r"val_fraction 0\.3 has no effect with folds none"),
        (
            {"lr_schedule": "step", "lr_every": 2},
            "lr_every 2 leaves no fall of the rate in 2",
        ),
        ({"lr_schedule": "plateau", "lr_patience": 3}, "lr_patience 3 leaves no fall"),
        ({"lr_schedule": "step", "lr_drop": 1.0}, "lr_drop 1 never lowers the rate"),
        ({"patience_after": 2}, "patience_after 2 leaves no epoch for patience to count in 2"),
        ({"snapshot_every": 3}, "snapshot_every 3 keeps no model in 2 epochs"),
        (
            {"augment": "strong", "class_augment": "benign=none,malignant=flip"},
            "augment 'strong' has no effect: class_augment .* names every class",
        ),
        ({"model_name": "torchvision/googlenet"}, "'torchvision/googlenet' trains with auxiliary"),
        ({"class_augment": "malignant=best"}, "class_augment 'malignant=best'"),
        ({"class_augment": "cancer=basic"}, "class_augment names class 'cancer'; the classes are"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path, settings, line):
    run = tracked(tmp_path, write(tmp_path / "datasets"))
    with pytest.raises(ConfigError, match=line) as caught:
        train(run, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"lr_schedule": "step", "lr_every": 2, "real_epochs": 3},  # the longest phase counts
        {"lr_schedule": "step", "lr_every": 1},
        {"lr_schedule": "plateau"},  # its default of 5 was not asked for
        {"patience_after": 1},
        {"snapshot_every": 2},
        {"folds": "0", "val_fraction": 0.3},
    ],
)
def test_a_setting_that_acts_once_is_taken(settings):
    defaults = train_classifier._defaults()
    train_classifier.check({**defaults, **TINY, "data": "d", **settings})


def test_a_class_without_an_augmentation_of_its_own_keeps_the_common_one():
    settings = {**train_classifier._defaults(), "augment": "strong", "class_augment": "benign=none"}
    check_classes(settings, train_classifier._defaults(), ("benign", "malignant"))


def test_a_class_that_no_validation_image_has_is_not_monitored(tmp_path):
    rows = small.real_rows({"normal": [1] * 2, "benign": [1] * 2, "malignant": [1] * 2})
    classes = TASKS["normal_benign_malignant"]
    for row in rows:
        val = row["label"] != "benign" and row["group_id"].endswith("1")
        row["split"] = "val" if val else "train"
    data = small.dataset(tmp_path / "datasets", rows, classes=classes, shape=(1, 32, 32))
    with pytest.raises(DataError, match="'val/auc/benign': no validation image is benign"):
        train(tracked(tmp_path, data), monitor="val/auc/benign")


def test_validation_rows_of_one_class_are_refused(tmp_path):
    rows = small.real_rows({"benign": [1] * 8}, split="train")
    rows += small.real_rows({"malignant": [1] * 4}, split="train")
    for row in rows[:2]:
        row["split"] = "val"
    data = small.dataset(tmp_path / "datasets", rows, shape=(1, 32, 32))
    run = tracked(tmp_path, data)
    with pytest.raises(DataError, match="validation rows hold only benign; an AUC needs"):
        train(run)


@pytest.mark.doors
def test_a_label_of_images_and_not_of_patients_is_judged_by_image(tmp_path):
    rows = small.real_rows({"benign": [2] * 12})
    for row in rows[1::2]:
        row["label"] = "malignant"
    run = tracked(tmp_path, write(tmp_path / "datasets", folds=2, rows=rows))
    with pytest.raises(DataError, match="which is no label of a patient then; use aggregate none"):
        train(run, folds="0")
    train(run, folds="0", aggregate="none")
    scored = pd.read_parquet(run.folder / "predictions.parquet")
    assert scored.groupby("group_id")["label"].nunique().eq(2).all()
    assert run.last["fold/auc"] == run.last["fold/auc_image"] == frame_auc(scored, "malignant")


def test_a_fold_without_positives_is_told_before_another_fold_is_trained(tmp_path):
    rows = small.real_rows({"benign": [1] * 12, "malignant": [1] * 8}, split="train")
    for place, row in enumerate(rows):
        row["fold"] = place % 3
        if row["label"] == "malignant" and row["fold"] == 2:
            row["fold"] = 0
    data = small.dataset(tmp_path / "datasets", rows, shape=(1, 32, 32))
    run = tracked(tmp_path, data)
    with pytest.raises(DataError, match=r"scored \(fold 2\) rows hold only benign; .* fewer folds"):
        train(run, folds="all")
    assert not run.children


def test_choices_are_shown_on_the_command_line():
    import inspect
    from typing import get_args

    from mammo.classifiers.losses import LOSSES

    parameters = inspect.signature(train_classifier.run).parameters
    assert set(get_args(parameters["loss"].annotation)) == set(LOSSES)
    assert classifier_data.TINY["model_name"] == "test_resnet"
