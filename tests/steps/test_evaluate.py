"""The evaluate step on tiny datasets whose right answers are known beforehand."""

from dataclasses import dataclass, replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from mammo.data.classes import TASKS, ClassMap
from mammo.data.writer import DatasetWriter
from mammo.errors import ConfigError, DataError
from mammo.evaluation.ranking import auc
from mammo.models import SavedModel, open_model, save_model
from mammo.run import MemoryRun, Reference
from mammo.steps import evaluate

CLASSES = TASKS["malignancy2"]
SIDE = 32


@dataclass
class Brightness:
    """A classifier that reads the label off an image: its mean, to the power `gamma`."""

    saved: SavedModel
    threshold: float = 0.5
    aggregate: str = "mean"

    def tell(self, images):
        mean = images.mean(axis=(1, 2, 3)) ** self.saved.about["gamma"]
        others = len(self.saved.classes.names) - 1
        shares = [(1 - mean) / others] * others
        shares.insert(self.saved.classes.positive_id, mean)
        told = {f"score/{name}": each for name, each in zip(self.names, shares, strict=True)}
        return {**told, "uncertainty": 1 - mean}

    @property
    def names(self):
        return self.saved.classes.names


@pytest.fixture(autouse=True)
def brightness_classifier(monkeypatch):
    def load(folder, device="cpu"):
        return Brightness(open_model(folder, "classifier"))

    monkeypatch.setattr("mammo.classifiers.load_classifier", load)


@pytest.fixture
def drawn():
    """For the tests that look at the pictures."""


@pytest.fixture(autouse=True)
def undrawn(monkeypatch, request):
    """Leave out the drawing of figures, which takes most of a run, where no test looks at them."""

    def leave_out(figure, target, **settings):
        if hasattr(target, "write"):
            target.write(b"")

    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", leave_out)


def write_dataset(
    tmp_path,
    *,
    splits=("train", "val", "test"),
    folds=0,
    seed=0,
    synthetic=False,
    patients=30,
    effect=0.2,
    classes=CLASSES,
    mislabelled="",
    seen=None,
    sides=("", ""),
):
    """Two images a patient, brighter by `effect` when malignant; patients go round the splits.

    The labels of the split `mislabelled` are turned round after the images are drawn.
    """
    rng = np.random.default_rng(seed)
    name = "made" if synthetic else "real"
    writer = DatasetWriter(
        tmp_path / f"{name}-{seed}.partial",
        name=name,
        classes=classes,
        shape=(1, SIDE, SIDE),
        dtype="uint8",
        about={"salt": "s", "split_seed": 0},
    )
    for patient in range(patients):
        label = classes.names[(patient // len(splits)) % len(classes.names)]
        split = "train" if synthetic or folds else splits[patient % len(splits)]
        level = 0.4 + effect * (label == classes.positive) + 0.08 * rng.normal()
        label = classes.names[1 - classes.id_of(label)] if split == mislabelled else label
        for image in range(2):
            pixels = np.clip(level + 0.15 * rng.normal(size=(1, SIDE, SIDE)), 0, 1)
            row = {
                "group_id": f"{name}{seed}-p{patient:03d}",
                "image_id": f"{name}{seed}-p{patient:03d}-{image}",
                "label": label,
                "label_kind": classes.label_kind,
                "laterality": sides[image],
                "split": split,
                "fold": patient // 2 % folds if folds else -1,
                "is_synthetic": synthetic,
                "generator_run_id": "g" if synthetic else "",
            }
            writer.add(np.rint(pixels * 255).astype(np.uint8), row)
    return writer.finish(
        tmp_path / "datasets", generator_training=pd.DataFrame(seen) if seen else None
    )


def write_model(tmp_path, data, *, gamma=1.0, rows=None, name="model", about=None, seen=()):
    import torch

    training = data.manifest if rows is None else data.manifest.iloc[rows]
    return save_model(
        tmp_path / name,
        kind="classifier",
        run_id=name,
        classes=data.classes,
        shape=data.shape,
        weights={"none": torch.zeros(1)},
        training=training,
        settings={"seed": 3},
        about={"gamma": gamma, "salt": data.about["salt"], "fold": "none", **(about or {})},
        generator_training=pd.DataFrame([*seen]),
    )


def training_of(data):
    return np.flatnonzero(data.manifest["split"] == "train")


def run(tmp_path, data, *, bootstrap=50, **settings):
    """Run the step; datasets and models among the settings become inputs."""
    given = {"data": data, **settings}
    inputs = {
        name: [Reference(str(each.folder), each.folder, each.digest, "r")]
        for name, each in given.items()
        if hasattr(each, "digest")
    }
    texts = {name: str(each[0].path) for name, each in inputs.items()}
    number = len(list(tmp_path.glob("eval*")))
    tracked = MemoryRun(tmp_path / f"eval{number}", inputs)
    result = evaluate.run(tracked, **{**settings, **texts}, bootstrap=bootstrap, device="cpu")
    return tracked, result


def test_the_auc_is_that_of_the_patients_mean_score(tmp_path):
    data = write_dataset(tmp_path)
    tracked, result = run(tmp_path, data, model=write_model(tmp_path, data, rows=training_of(data)))
    test = data.manifest[data.manifest["split"] == "test"]
    score = pd.Series(data.images(test.index).mean(axis=(1, 2, 3)), test.index)
    by_patient = score.groupby(test["group_id"]).mean()
    positive = (test["label"] == "malignant").groupby(test["group_id"]).first()
    assert tracked.last["test/auc"] == pytest.approx(auc(positive, by_patient))
    assert tracked.last["test/auc_image"] == pytest.approx(auc(test["label"] == "malignant", score))
    assert tracked.last["test/patients"] == 10
    assert tracked.last["test/auc_low"] <= tracked.last["test/auc"] <= tracked.last["test/auc_high"]
    assert result.metrics["test/auc"] == tracked.last["test/auc"]
    assert tracked.input_datasets == [("real", data.digest, 20, "test")]


def test_every_metric_stands_at_patient_breast_and_image_level(tmp_path):
    data = write_dataset(tmp_path, sides=("L", "R"))
    tracked, _ = run(tmp_path, data, model=write_model(tmp_path, data, rows=training_of(data)))
    table = tracked.tables["metrics"].set_index(["level", "metric"])
    # an image is a breast here, and a patient two of them
    assert [table.loc[(level, "auc"), "rows"] for level in ("patient", "breast", "image")] == [
        *(10, 20, 20)
    ]
    for name in ("auc", "pr_auc", "partial_auc", "sensitivity", "ppv", "pf1", "brier", "ece"):
        assert tracked.last[f"test/{name}_breast"] == tracked.last[f"test/{name}_image"]
        own = table.loc[("patient", name)]
        assert tracked.last[f"test/{name}"] == own["value"]
        assert tracked.last[f"test/{name}_low"] == own["low"]
    predicted = tracked.tables["predictions"]
    test = predicted[predicted["split"] == "test"]
    score, positive = test["score/malignant"], test["label"] == "malignant"
    mass = score[positive].sum()
    expected = 2 * mass / (score.sum() + positive.sum())
    assert tracked.last["test/pf1_image"] == pytest.approx(expected)
    calls = tracked.tables["counts_by_dataset"]
    assert calls["dataset"].tolist() == ["", ""] and calls["patients"].sum() == 10
    kept = pd.read_parquet(tracked.uploaded["predictions.parquet"])
    pd.testing.assert_frame_equal(kept, predicted, check_dtype=False)


def test_images_without_a_side_have_no_breast_level(tmp_path):
    data = write_dataset(tmp_path, sides=("L", ""))
    tracked, _ = run(tmp_path, data, model=write_model(tmp_path, data, rows=training_of(data)))
    assert set(tracked.tables["metrics"]["level"]) == {"patient", "image"}
    assert "10 images do not tell their breast" in report_of(tracked)


def test_the_predictive_values_are_those_of_the_stated_prevalence(tmp_path):
    data = write_dataset(tmp_path, effect=0.1, patients=60)
    model = write_model(tmp_path, data, rows=training_of(data))
    for prevalence in (0.005, 0.3):
        tracked, _ = run(tmp_path, data, model=model, prevalence=prevalence)
        hits = prevalence * tracked.last["test/sensitivity"]
        alarms = (1 - prevalence) * (1 - tracked.last["test/specificity"])
        assert tracked.last["test/ppv"] == pytest.approx(hits / (hits + alarms))


def test_the_temperature_of_validation_mends_the_calibration_and_leaves_the_auc(tmp_path):
    data = write_dataset(tmp_path, patients=90, effect=0.1)
    rows = training_of(data)
    plain, cold = (
        run(tmp_path, data, model=write_model(tmp_path, data, rows=rows, gamma=gamma, name=name))[0]
        for gamma, name in ((1.0, "plain"), (9.0, "cold"))
    )
    # to the ninth power hardly any probability is left: far too sure of benign
    assert cold.last["test/auc"] == pytest.approx(plain.last["test/auc"])
    assert cold.last["test/temperature"] > 1.5
    for name in ("ece", "nll"):
        assert cold.last[f"test/{name}_scaled"] < cold.last[f"test/{name}"]
    scaled = "the calibration error goes from"
    assert scaled in report_of(cold)


def test_without_validation_rows_the_model_keeps_thresholds_and_temperature(tmp_path):
    data, other = write_dataset(tmp_path, splits=("test",)), write_dataset(tmp_path, seed=9)
    about = {"thresholds": {"balanced": 0.5, "specificity_0.9": 0.55}, "temperature": 2.0}
    model = write_model(tmp_path, other, about=about)
    tracked, _ = run(tmp_path, data, model=model, operating="specificity")
    points = tracked.tables["operating_points"].set_index("rule")["threshold"]
    assert points["specificity"] == points["specificity_0.9"] == 0.55
    assert tracked.last["test/temperature"] == 2.0
    assert "test/sensitivity_image" not in tracked.last  # they are a patient's thresholds


def test_a_small_group_is_counted_and_not_judged(tmp_path):
    data = write_dataset(tmp_path, sides=("L", "R"))
    model = write_model(tmp_path, data, rows=training_of(data))
    settings = {"model": model, "groups": "laterality"}
    tracked, _ = run(tmp_path, data, **settings)
    table = tracked.tables["groups"]
    assert table["note"].tolist() == ["fewer than 10 positive and other patients"] * 2
    assert table["positives"].tolist() == [5, 5] and table["auc"].isna().all()
    tracked, _ = run(tmp_path, data, **settings, min_group=5)
    assert tracked.tables["groups"]["auc"].notna().all()
    assert tracked.tables["groups_differ"]["group"].tolist() == ["laterality"]


def test_the_threshold_comes_from_validation_and_ignores_the_test_rows(tmp_path):
    points = []
    for number, mislabelled in enumerate(("", "test", "val")):
        data = write_dataset(tmp_path, mislabelled=mislabelled)
        model = write_model(tmp_path, data, rows=training_of(data), name=f"m{number}")
        points.append(run(tmp_path, data, model=model)[0].tables["operating_points"].iloc[0])
    assert points[0]["threshold"] == points[1]["threshold"] != points[2]["threshold"]
    assert points[0]["sensitivity"] == pytest.approx(1 - points[1]["specificity"])


def test_without_validation_rows_the_models_own_threshold_serves(tmp_path):
    data = write_dataset(tmp_path, splits=("test",))
    other = write_dataset(tmp_path, seed=9)
    model = write_model(tmp_path, other)
    tracked, _ = run(tmp_path, data, model=model)
    assert tracked.tables["operating_points"]["threshold"].tolist() == [0.5]
    with pytest.raises(DataError, match="operating=specificity needs validation rows"):
        run(tmp_path, data, model=model, operating="specificity")


def test_validation_patients_whom_the_model_knows_choose_no_threshold(tmp_path):
    data = write_dataset(tmp_path)
    rows = np.flatnonzero(data.manifest["split"] != "test")
    tracked, _ = run(tmp_path, data, model=write_model(tmp_path, data, rows=rows))
    assert tracked.tables["operating_points"]["threshold"].tolist() == [0.5]  # the model's own


def test_a_better_model_beats_its_baseline_by_the_difference_of_their_aucs(tmp_path):
    data = write_dataset(tmp_path, patients=60, effect=0.1)
    model = write_model(tmp_path, data, rows=training_of(data))
    worse = write_model(tmp_path, data, gamma=-1.0, rows=training_of(data), name="worse")
    tracked, result = run(tmp_path, data, model=model, baseline=worse)
    area = tracked.last["test/auc"]
    assert tracked.last["delta/auc"] == pytest.approx(2 * area - 1)  # gamma -1 turns the order
    assert tracked.last["delta/auc_low"] <= tracked.last["delta/auc"] + 1e-9
    assert result.metrics["delta/p"] < 0.05
    assert len(tracked.tables["predictions_baseline"]) == 40
    table = tracked.tables["comparison"].set_index("metric")
    assert table.loc["auc", "difference"] == pytest.approx(tracked.last["delta/auc"])
    assert table.loc["auc", ["low", "high"]].tolist() == [
        tracked.last["delta/auc_low"],
        tracked.last["delta/auc_high"],
    ]
    assert table.loc["brier", "difference"] == pytest.approx(
        table.loc["brier", "model"] - table.loc["brier", "baseline"]
    )
    assert table.loc[["sensitivity", "specificity"], "p"].notna().all()


def test_predictions_carry_the_promised_columns(tmp_path):
    data = write_dataset(tmp_path)
    tracked, _ = run(tmp_path, data, model=write_model(tmp_path, data, rows=training_of(data)))
    table = tracked.tables["predictions"]
    assert list(table) == [
        *("image_id", "group_id", "dataset", "laterality"),
        *("split", "fold", "seed", "label", "label_id"),
        *("score/benign", "score/malignant", "pred"),
        "uncertainty",  # what else the classifier tells
    ]
    np.testing.assert_allclose(table["uncertainty"], 1 - table["score/malignant"])
    assert table["split"].value_counts().to_dict() == {"val": 20, "test": 20}
    assert set(table["seed"]) == {3}


def test_a_patient_seen_in_training_is_refused(tmp_path):
    data = write_dataset(tmp_path)
    model = write_model(tmp_path, data)  # trained on every row, test included
    with pytest.raises(DataError, match="patient real0-p002 of dataset real was in the training"):
        run(tmp_path, data, model=model)


def test_with_another_salt_the_pixels_are_compared(tmp_path):
    data = write_dataset(tmp_path)
    model = write_model(tmp_path, data, about={"salt": "other"})
    with pytest.raises(DataError, match=r"\(20 such images\)"):
        run(tmp_path, data, model=model)
    clean = write_model(tmp_path, data, rows=training_of(data), about={"salt": "other"}, name="c")
    tracked, _ = run(tmp_path, data, model=clean)
    assert "by pixels alone, for the salts differ" in report_of(tracked)


def seen_by_generator(patient, salt="s", sha256="x"):
    return {"run_id": "g", "salt": salt, "group_id": patient, "sha256": sha256}


def test_a_patient_whom_a_generator_behind_the_model_saw_is_refused(tmp_path):
    """Of another dataset than the model's: the model itself has none of its patients."""
    home, other = write_dataset(tmp_path), write_dataset(tmp_path, seed=1)
    about = {"generators": ["g"]}
    seen = [seen_by_generator("real1-p000"), seen_by_generator("real1-p002")]  # train, test
    model = write_model(tmp_path, home, rows=training_of(home), about=about, seen=seen)
    line = "patient real1-p002 .* training of a generator behind model model"
    with pytest.raises(DataError, match=line):
        run(tmp_path, other, model=model)
    tracked, _ = run(tmp_path, home, model=model)
    assert "by patient and by pixels; its generators likewise" in report_of(tracked)
    # hashed with another salt, the ids tell nothing, and the pixels everything
    tested = other.manifest.query("split == 'test'").iloc[0]
    seen = [seen_by_generator("unknown", "pepper", tested["sha256"])]
    model = write_model(tmp_path, home, rows=training_of(home), about=about, seen=seen, name="p")
    with pytest.raises(DataError, match=rf"image {tested['sha256']} .* a generator behind model p"):
        run(tmp_path, other, model=model)


def test_validation_patients_of_a_generator_choose_no_threshold(tmp_path):
    from mammo.evaluation.predictions import unseen

    data = write_dataset(tmp_path)
    val = np.flatnonzero(data.manifest["split"] == "val")
    seen = [seen_by_generator("real0-p001")]
    model = write_model(tmp_path, data, rows=training_of(data), seen=seen)
    left = data.manifest.iloc[unseen(model, data, val)]["group_id"]
    assert set(data.manifest.iloc[val]["group_id"]) - set(left) == {"real0-p001"}


def test_a_mask_that_a_generator_behind_the_model_drew_around_is_known(tmp_path):
    """And what was not recorded is no mask: rows without one stay."""
    from mammo.evaluation.predictions import refuse_seen, unseen

    data = write_dataset(tmp_path)
    val = np.flatnonzero(data.manifest["split"] == "val")
    data.manifest.loc[val[0], "mask_sha256"] = "its-mask"
    seen = [seen_by_generator("unknown", "pepper", "its-mask"), seen_by_generator("", "", "")]
    model = write_model(tmp_path, data, rows=training_of(data), seen=seen)
    assert set(val) - set(unseen(model, data, val)) == {val[0]}
    with pytest.raises(
        DataError, match=r"mask its-mask .* a generator behind model model \(1 such"
    ):
        refuse_seen(model, data, val)


def test_a_generator_of_unknown_training_is_said(tmp_path, caplog):
    data = write_dataset(tmp_path)
    about = {"generators": ["external:guide"]}
    model = write_model(tmp_path, data, rows=training_of(data), about=about)
    tracked, _ = run(tmp_path, data, model=model)
    assert "what 1 of its generators saw is unknown" in report_of(tracked)
    assert "generators external:guide behind model model" in caplog.text


def test_a_fold_model_is_judged_on_its_scored_fold(tmp_path):
    from mammo.data.splits import training_rows

    data = write_dataset(tmp_path, folds=3)
    part = training_rows(data, fold=1)
    model = write_model(tmp_path, data, rows=part.train, about={"fold": 1})
    tracked, _ = run(tmp_path, data, model=model, split="fold")
    assert tracked.last["fold/patients"] == 10
    predicted = tracked.tables["predictions"]
    scored = set(data.manifest["image_id"].iloc[part.scored])
    assert set(predicted[predicted["split"] == "fold"]["image_id"]) == scored
    inner = set(data.manifest["image_id"].iloc[part.val])
    assert set(predicted[predicted["split"] == "val"]["image_id"]) == inner
    with pytest.raises(DataError, match="has no test rows; preprocess it with test_fraction"):
        run(tmp_path, data, model=model)


def test_a_model_of_other_classes_is_refused(tmp_path):
    data = write_dataset(tmp_path)
    other = write_dataset(tmp_path, seed=5, classes=TASKS["density2"])
    with pytest.raises(DataError, match=r"not_dense/dense .* they must be the same"):
        run(tmp_path, data, model=write_model(tmp_path, other))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"names": ("malignant", "benign")}, "malignant/benign"),
        ({"positive": "benign"}, "positive benign, by pathology"),
        ({"label_kind": "birads"}, "positive malignant, by birads"),
    ],
)
def test_a_class_map_that_differs_in_order_positive_or_kind_of_label_is_refused(
    tmp_path, changed, told
):
    data = write_dataset(tmp_path)
    other = write_dataset(tmp_path, seed=5, classes=replace(CLASSES, **changed))
    model = write_model(tmp_path, data, rows=training_of(data))
    for real, judged in ((data, write_model(tmp_path, other, name="other")), (other, model)):
        with pytest.raises(DataError, match=told) as caught:
            run(tmp_path, real, model=judged)
        assert "\n" not in str(caught.value) and "must be the same" in str(caught.value)


def test_rows_of_one_class_only_are_refused_before_any_is_predicted(tmp_path, monkeypatch):
    data = write_dataset(tmp_path, patients=6)  # one test patient of each class
    frame = data.manifest
    benign = frame[(frame["split"] == "test") & (frame["label"] == "benign")]
    writer = DatasetWriter(
        tmp_path / "one.partial",
        name="one",
        classes=CLASSES,
        shape=(1, SIDE, SIDE),
        dtype="uint8",
        about={"salt": "s", "split_seed": 0},
    )
    for number, row in enumerate(benign.to_dict("records")):
        writer.add(np.full((1, SIDE, SIDE), number, np.uint8), row)
    alone = writer.finish(tmp_path / "datasets")
    model = write_model(tmp_path, data, rows=training_of(data))
    monkeypatch.setattr(Brightness, "tell", None)  # nothing is predicted
    with pytest.raises(
        DataError, match="0 of the 2 test images of dataset one are malignant; both"
    ):
        run(tmp_path, alone, model=model)
    assert not list(tmp_path.glob("eval*/run/*"))


def test_three_classes_have_a_macro_auc_and_each_their_own(tmp_path):
    classes = TASKS["normal_benign_malignant"]
    data = write_dataset(tmp_path, classes=classes, patients=54)
    tracked, _ = run(tmp_path, data, model=write_model(tmp_path, data, rows=training_of(data)))
    each = [tracked.last[f"test/auc/{name}"] for name in classes.names]
    assert tracked.last["test/auc"] == pytest.approx(np.mean(each))
    assert tracked.last["test/auc/malignant"] > 0.9
    # normal, benign, malignant are grades: a call costs the square of its distance
    table = tracked.tables["confusion"].iloc[:, 1:].to_numpy()
    place = np.arange(3)
    cost = (place[:, None] - place) ** 2
    chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    expected = 1 - (cost * table).sum() / (cost * chance).sum()
    assert tracked.last["test/kappa"] == pytest.approx(expected)
    each = tracked.tables["classes"].set_index("class")
    assert each.loc["malignant", "auc"] == pytest.approx(tracked.last["test/auc/malignant"])


def test_fidelity_stands_beside_its_floor_under_the_extractors_name(tmp_path):
    data = write_dataset(tmp_path, patients=60)
    near = write_dataset(tmp_path, seed=7, synthetic=True, patients=20)
    far = write_dataset(tmp_path, seed=8, synthetic=True, patients=20, effect=-0.35)
    values = []
    for synthetic in (near, far):
        tracked, result = run(tmp_path, data, synthetic=synthetic)
        values.append(tracked.last["fidelity/random_conv64/kid"])
        names = ("fid", "fid_floor", "kid", "kid_sd", "kid_floor")
        assert set(result.metrics) == {f"fidelity/random_conv64/{name}" for name in names}
        assert 0 < tracked.last["fidelity/ms_ssim_2scales_synthetic"] < 1
    assert values[1] > values[0]
    table = tracked.tables["fidelity"].set_index("metric").loc["fidelity/random_conv64/fid"]
    assert (table["n_real"], table["n_synthetic"], table["dim"]) == (40, 40, 64)
    assert table["stand_in"]
    assert table["note"] == "fewer images than features: mostly bias"
    assert tracked.input_datasets == [("made", far.digest, 40, "synthetic")]


def test_no_generator_is_praised_for_held_out_patients_that_it_has_seen(tmp_path):
    data = write_dataset(tmp_path)
    seen = [seen_by_generator("real0-p000"), seen_by_generator("real0-p002")]  # train, test
    made = write_dataset(tmp_path, seed=7, synthetic=True, seen=seen)
    with pytest.raises(DataError, match=r"generator g was trained on 1 of the 10 held-out"):
        run(tmp_path, data, synthetic=made, fidelity_split="test")
    for split in ("val", "train", "all"):
        run(tmp_path, data, synthetic=made, fidelity_split=split)


@pytest.mark.doors
def test_trap_t0g_no_metric_of_64_features_is_called_plain_fid(tmp_path):
    data = write_dataset(tmp_path)
    tracked, _ = run(tmp_path, data, synthetic=write_dataset(tmp_path, seed=7, synthetic=True))
    named = [name for name in tracked.last if "fid" in name.split("/")[-1]]
    assert named
    assert all("/random_conv64/" in name for name in named)
    assert "stand-in with random weights" in report_of(tracked)


def report_of(tracked):
    return tracked.uploaded["report.html"].read_text()


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href")]


@pytest.mark.doors
def test_the_report_is_one_file_and_shows_everything(tmp_path, drawn):
    data = write_dataset(tmp_path)
    model = write_model(tmp_path, data, rows=training_of(data))
    made = write_dataset(tmp_path, seed=7, synthetic=True)
    tracked, result = run(tmp_path, data, model=model, baseline=model, synthetic=made)
    text = report_of(tracked)
    links = Links()
    links.feed(text)
    assert len(links.found) == 11
    assert all(link.startswith("data:image/png;base64,") for link in links.found)
    assert "http" not in text
    for fact in (data.digest, model.digest, made.digest, tracked.id, "positive malignant"):
        assert fact in text
    assert result.outputs == {"report": tracked.uri("report.html")}
    assert tracked.uploaded["preview.png"].read_bytes().startswith(b"\x89PNG")
    expected = ["roc", "precision_recall", "thresholds", "confusion", "reliability", "scores"]
    expected += ["scores_by_outcome", "uncertainty", "decision", "fidelity_grid", "fidelity"]
    assert tracked.figures == expected


def test_names_in_the_report_are_escaped(tmp_path):
    classes = ClassMap("<b>task</b>", ("a", "<script>"), "<script>", "reader")
    data = write_dataset(tmp_path, classes=classes)
    tracked, _ = run(tmp_path, data, model=write_model(tmp_path, data, rows=training_of(data)))
    text = report_of(tracked)
    assert "<script>" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text


def test_too_few_images_are_refused(tmp_path):
    data = write_dataset(tmp_path)
    with pytest.raises(DataError, match="fidelity needs 2 synthetic images or more, there are 0"):
        run(tmp_path, data, synthetic=data)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "model and synthetic are both empty"),
        ({"baseline": "b", "synthetic": "s"}, "baseline 'b' has nothing to compare with"),
        ({"model": "m", "extractor": "fid"}, "extractor 'fid' is not random or NAME@WEIGHTS"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(changed, message):
    settings = dict.fromkeys(("model", "baseline", "synthetic", "groups"), "")
    settings |= {"saliency": 0, "extractor": "random", **changed}
    with pytest.raises(ConfigError, match=message):
        evaluate.check(settings)


def test_a_saved_network_is_judged_by_its_own_predictions(tmp_path, monkeypatch):
    from mammo.classifiers.backbone import build
    from mammo.classifiers.predict import load

    monkeypatch.setattr("mammo.classifiers.load_classifier", load)
    data = write_dataset(tmp_path, patients=12)
    network = build("test_resnet", shape=data.shape, classes=2, seed=1)
    frame = data.manifest
    model = save_model(
        tmp_path / "model",
        kind="classifier",
        run_id="m",
        classes=data.classes,
        shape=data.shape,
        weights={name: value.clone() for name, value in network.state_dict().items()},
        training=frame[frame["split"] == "train"],
        settings={},
        about={
            "model_name": "test_resnet",
            "activation": "softmax",
            "aggregate": "mean",
            "thresholds": {"balanced": 0.5},
            "fold": "none",
            "salt": "s",
        },
    )
    tracked, _ = run(tmp_path, data, model=model)
    table = tracked.tables["predictions"].set_index("image_id")
    test = frame.index[frame["split"] == "test"]
    expected = load(model.folder).predict(data.images(test))
    found = table.loc[frame["image_id"].iloc[test], ["score/benign", "score/malignant"]]
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-5)
