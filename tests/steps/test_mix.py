"""The step `mix`: a dataset that points into its parents, exact, explained and still held out."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import small
from PIL import Image

from mammo.data.dataset import Dataset
from mammo.data.splits import assign_folds, training_rows
from mammo.errors import DataError
from mammo.run import MemoryRun, Reference
from mammo.steps import mix

NAMES = ("benign", "malignant")


def refer(data: Dataset) -> Reference:
    return Reference(f"runs:/{data.name}/dataset", data.folder, data.digest, data.name)


def run(
    work: Path, real: Dataset | list[Dataset], *synthetic: Dataset, **asked
) -> tuple[MemoryRun, Dataset]:
    inputs = {"real": [refer(each) for each in (real if isinstance(real, list) else [real])]}
    if synthetic:
        inputs["synthetic"] = [refer(each) for each in synthetic]
    tracked = MemoryRun(work, inputs)
    given = {
        **{name: each.default for name, each in inspect.signature(mix.run).parameters.items()},
        "real": "real",
        "synthetic": ",".join(each.name for each in synthetic),
        **asked,
    }
    mix.check(given)
    result = mix.run(**{**given, "tracked": tracked})
    assert result.outputs == {"dataset": tracked.uri("dataset")}
    return tracked, Dataset(work / "datasets" / result.digest)


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    return tmp_path / "datasets"


@pytest.fixture
def real(datasets: Path) -> Dataset:
    """Per class: 4 training patients of 2 images, one validation and one test patient."""
    rows = small.real_rows({name: [2] * 6 for name in NAMES})
    split = {4: "val", 5: "test"}
    rows = [{**r, "split": split.get(int(r["group_id"][-1]), "train")} for r in rows]
    return small.dataset(datasets, rows, name="real", about={"intensity": "header"})


@pytest.fixture
def synthetic(datasets: Path) -> Dataset:
    rows = small.synthetic_rows({"benign": 9, "malignant": 9})
    seen = small.seen_by("run1", ["benign-0", "malignant-0"])
    return small.dataset(datasets, rows, name="synthetic", seen=seen)


def test_a_mix_copies_no_pixels_and_reads_those_of_its_parents(tmp_path, real, synthetic):
    tracked, data = run(tmp_path, real, synthetic, real_percentage=0.25)
    assert not list(data.folder.glob("*.npy"))
    data.verify()
    assert set(data.manifest["shard"].str.split("/").str[0]) == {real.digest, synthetic.digest}
    assert data.about["parents"] == [
        {"digest": each.digest, "uri": f"runs:/{each.name}/dataset", "name": each.name}
        for each in (real, synthetic)
    ]
    assert [data.about[key] for key in ("salt", "split_seed", "intensity")] == ["salt", 7, "header"]
    assert data.classes == real.classes
    assert set(data.generator_training["group_id"]) == {"benign-0", "malignant-0"}
    assert set(tracked.uploaded) == {"dataset", "preview.png", "mix.json", "phases.csv"}


def test_the_preview_names_class_and_source_of_each_line(tmp_path, real, synthetic):
    tracked, data = run(tmp_path, real, synthetic, real_percentage=0.25)
    shown = np.asarray(Image.open(tracked.uploaded["preview.png"]))[:, :, 0]
    lines = shown.reshape(4, 164, -1)  # two classes, real and synthetic; 160 px and a gap
    assert lines.shape[2] == 90 + mix.PREVIEW * (round(160 * data.shape[2] / data.shape[1]) + 4)
    names = [line[:, :90] for line in lines]
    assert all(name.max() > 100 for name in names)
    assert len({name.tobytes() for name in names}) == 4


def test_metrics_table_and_mix_json_say_what_was_asked_and_realised(tmp_path, real, synthetic):
    tracked, _ = run(tmp_path, real, synthetic, real_percentage=0.25)
    assert tracked.last == {
        "real_images": 4,
        "synthetic_images": 12,
        "realised_real_percentage": 0.25,
        **{f"count/{name}/real": 2 for name in NAMES},
        **{f"count/{name}/synthetic": 6 for name in NAMES},
    }
    said = json.loads(tracked.uploaded["mix.json"].read_text())
    assert said["generators"]["by_patient"] == ["run1"]
    assert said["classes"][0] == {
        "label": "benign",
        "real_in_data": 8,
        "real_available": 8,
        "real_requested": 2,
        "real": 2,
        "synthetic_available": 9,
        "synthetic_requested": 6,
        "synthetic": 6,
    }
    assert tracked.tables["mix"]["synthetic"].tolist() == [6, 6]
    assert tracked.tables["sources"]["taken"].tolist() == [2, 2, 6, 6]
    assert [(name, rows, context) for name, _, rows, context in tracked.input_datasets] == [
        ("real", 16, "training"),
        ("synthetic", 18, "synthetic"),
    ]


def test_held_out_rows_stay_as_they_are(tmp_path, real, synthetic):
    _, data = run(tmp_path, real, synthetic, real_percentage=0.0)
    for split in ("val", "test"):
        before, after = (each.manifest.query(f"split == '{split}'") for each in (real, data))
        assert after["image_id"].tolist() == before["image_id"].tolist()
        assert after["sha256"].tolist() == before["sha256"].tolist()
    assert data.manifest.query("split == 'train'")["is_synthetic"].all()


def test_the_same_settings_are_the_same_dataset_and_another_seed_is_not(tmp_path, real, synthetic):
    digests = [
        run(tmp_path, real, synthetic, real_percentage=0.5, seed=seed)[1].digest
        for seed in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_all_real_images_need_no_synthetic_dataset_and_can_be_mixed_again(
    tmp_path, real, synthetic
):
    _, first = run(tmp_path, real)
    assert first.about["parents"] == [
        {"digest": real.digest, "uri": "runs:/real/dataset", "name": "real"}
    ]
    _, second = run(tmp_path, first, synthetic, real_percentage=0.5)
    second.verify()
    assert {each["digest"] for each in second.about["parents"]} == {real.digest, synthetic.digest}


def test_a_mix_that_already_holds_synthetic_images_is_not_mixed_again(tmp_path, real, synthetic):
    _, first = run(tmp_path, real, synthetic, real_percentage=0.5)
    with pytest.raises(DataError, match=r"already holds 8 synthetic images; mix the real dataset"):
        run(tmp_path, first, synthetic, real_percentage=0.5)


def test_several_synthetic_sets_are_one_pool(tmp_path, datasets, real, synthetic):
    more = small.dataset(
        datasets, small.synthetic_rows({"benign": 8, "malignant": 8}, "run2"), name="more"
    )
    asked = {"real_percentage": 0.0, "mix_mode": "append", "synthetic_multiplier": 2.0}
    _, data = run(tmp_path, real, synthetic, more, **asked)
    frame = data.manifest[data.manifest["is_synthetic"]]
    assert frame["label"].value_counts().to_dict() == {"benign": 16, "malignant": 16}
    assert set(frame["generator_run_id"]) == {"run1", "run2"}
    data.verify()


def test_several_real_datasets_make_one_dataset_that_keeps_their_splits(
    tmp_path, datasets, real, synthetic
):
    rows = [
        {**row, "group_id": f"b{row['group_id']}", "image_id": f"b{row['image_id']}"}
        for row in small.real_rows({name: [1] * 3 for name in NAMES})
    ]
    for row in rows:
        row["split"] = ("train", "val", "test")[int(row["group_id"][-1])]
    other = small.dataset(datasets, rows, name="other", about={"intensity": "header"})
    tracked, data = run(tmp_path, [real, other], synthetic, mix_mode="append")
    data.verify()
    frame = data.manifest
    assert frame.groupby(["split", "is_synthetic"]).size().to_dict() == {
        ("test", False): 4 + 2,
        ("train", False): 16 + 2,
        ("train", True): 18,
        ("val", False): 4 + 2,
    }
    assert [each["name"] for each in data.about["parents"]] == ["real", "other", "synthetic"]
    assert data.about["name"] == "real+other-mix"
    assert [each[0] for each in tracked.input_datasets] == ["real", "other", "synthetic"]
    place = frame.index[frame["image_id"] == "bbenign-1-0"]
    np.testing.assert_array_equal(data.raw(place)[0], small.pixels("bbenign-1-0"))


def test_weights_and_shares_of_classes_reach_the_mix(tmp_path, datasets, real, synthetic):
    more = small.dataset(
        datasets, small.synthetic_rows({"benign": 8, "malignant": 8}, "run2"), name="more"
    )
    _, data = run(
        tmp_path,
        real,
        synthetic,
        more,
        class_real_percentage="benign=0.5,malignant=0",
        synthetic_weights="1,3",
    )
    train = data.manifest.query("split == 'train'")
    assert train.groupby(["label", "generator_run_id"]).size().to_dict() == {
        ("benign", ""): 4,
        ("benign", "run1"): 1,
        ("benign", "run2"): 3,
        ("malignant", "run1"): 2,
        ("malignant", "run2"): 6,
    }


def test_a_mix_for_a_fold_is_a_hold_out_of_that_fold(tmp_path, datasets, synthetic):
    rows = small.real_rows({name: [1] * 10 for name in NAMES})
    fold = assign_folds(small.frame(rows), k=5, seed=0)
    rows = [{**row, "fold": number} for row, number in zip(rows, fold, strict=True)]
    rows += [
        {**row, "group_id": f"t{row['group_id']}", "image_id": f"t{number}", "split": "test"}
        for number, row in enumerate(small.real_rows({name: [1] for name in NAMES}))
    ]
    real = small.dataset(datasets, rows, name="real")
    parts = training_rows(real, fold=2, val_fraction=0.25)
    seen = real.manifest["group_id"].iloc[parts.train].tolist()
    made = small.synthetic_rows({"benign": 9, "malignant": 9})
    synthetic = small.dataset(datasets, made, name="of_fold_2", seen=small.seen_by("run1", seen))
    asked = {"real_percentage": 0.5, "fold": "2", "val_fraction": 0.25}
    _, data = run(tmp_path, real, synthetic, **asked)
    for split, rows_of in (("val", parts.val), ("test", parts.scored)):
        mine = data.manifest[data.manifest["split"] == split]
        assert mine["image_id"].tolist() == real.manifest["image_id"].iloc[rows_of].tolist()
    train = data.manifest[data.manifest["split"] == "train"]
    assert len(train) == len(parts.train)
    kept = set(train.loc[~train["is_synthetic"], "image_id"])
    assert kept < set(real.manifest["image_id"].iloc[parts.train])
    assert data.about["fold"] == 2
    np.testing.assert_array_equal(data.manifest["fold"], -1)
    with pytest.raises(DataError, match="generator run1 was trained on"):
        run(tmp_path, real, synthetic, **{**asked, "fold": "3"})


def test_a_parent_that_lies_elsewhere_is_found_where_it_was(tmp_path, real):
    rows = small.synthetic_rows({"benign": 9, "malignant": 9})
    away = small.dataset(tmp_path / "elsewhere", rows, name="away")
    local = Reference(str(away.folder), away.folder, away.digest)
    tracked = MemoryRun(tmp_path, {"real": [refer(real)], "synthetic": [local]})
    result = mix.run(tracked, real="real", synthetic="away", real_percentage=0.5)
    Dataset(tmp_path / "datasets" / result.digest).verify()


def test_a_killed_run_leaves_nothing_behind_in_the_next(tmp_path, real, synthetic):
    left = tmp_path / "run" / "dataset.partial"
    left.mkdir(parents=True)
    (left / "generator_training.parquet").write_text("half")
    _, data = run(tmp_path, real)
    assert not (data.folder / "generator_training.parquet").exists()
