"""Opened datasets mixed: nothing held out is touched or has been seen, and all is explained."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mammo.data.classes import ClassMap
from mammo.data.dataset import Dataset
from mammo.data.guards import Checked
from mammo.data.mix_settings import MIXES, MixSettings
from mammo.data.mixed import Mixed, mix_training, write_mix
from mammo.data.phantom import draw_patient, render
from mammo.data.splits import training_rows
from mammo.data.writer import DatasetWriter
from mammo.errors import DataError

NAMES = ("benign", "malignant")


def hold_out_rows() -> list[dict]:
    """Per class: 4 training patients of 2 images, one validation and one test patient."""
    rows = small.real_rows({name: [2] * 6 for name in NAMES})
    split = {4: "val", 5: "test"}
    return [{**r, "split": split.get(int(r["group_id"][-1]), "train")} for r in rows]


@pytest.fixture
def real(tmp_path: Path):
    return small.dataset(tmp_path, hold_out_rows(), name="real")


def mixed(data, synthetic, fold="none", **asked) -> Mixed:
    reals = data if isinstance(data, list) else [data]
    rows = [training_rows(each, fold=fold, val_fraction=0.25) for each in reals]
    return mix_training(reals, synthetic, rows, MixSettings(**{"real_percentage": 0.5, **asked}))


def test_a_mix_on_the_fly_reads_the_pixels_of_each_source(real, tmp_path):
    one = small.dataset(tmp_path, small.synthetic_rows({"benign": 9}, "run1"), name="one")
    two = small.dataset(tmp_path, small.synthetic_rows({"malignant": 9}, "run2"), name="two")
    made = mixed(real, [one, two])
    assert len(made.partition.train) == 16
    frame = made.data.manifest.iloc[made.partition.train]
    assert frame.groupby(["label", "is_synthetic"]).size().tolist() == [4, 4, 4, 4]
    stored = made.data.raw(made.partition.train)
    for image_id, found in zip(frame["image_id"], stored, strict=True):
        np.testing.assert_array_equal(found, small.pixels(image_id))
    names = np.asarray(NAMES)[made.data.label_ids()[made.partition.train]]
    assert names.tolist() == frame["label"].tolist()


def test_a_mix_on_the_fly_leaves_held_out_rows_where_they_were(real, tmp_path):
    synthetic = small.dataset(tmp_path, small.synthetic_rows({"benign": 9, "malignant": 9}))
    made = mixed(real, [synthetic])
    before = training_rows(real, fold="none")
    np.testing.assert_array_equal(made.partition.val, before.val)
    pd.testing.assert_frame_equal(
        made.data.manifest.iloc[before.val].drop(columns="shard"),
        real.manifest.iloc[before.val].drop(columns="shard"),
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Dataset, Dataset]:
    folder = tmp_path_factory.mktemp("both")
    rows = small.synthetic_rows({"benign": 160, "malignant": 160})
    return small.dataset(folder, hold_out_rows(), name="real"), small.dataset(folder, rows)


@settings(max_examples=100, deadline=None)
@given(
    asked=st.fixed_dictionaries(
        {
            "mix_mode": st.sampled_from(sorted(MIXES)),
            "real_percentage": st.sampled_from([0.1, 0.3, 0.5, 1.0]),
            "class_real_percentage": st.sampled_from(["", "malignant=0.4", "benign=1"]),
            "synthetic_multiplier": st.sampled_from([0.5, 1.0, 3.0]),
        },
        optional={
            "majority_to_minority_ratio": st.just(1.5),
            "synthetic_per_class": st.just(155),
        },
    ),
    seed=st.integers(0, 99),
)
def test_no_mix_touches_a_row_that_validates_or_tests(both, asked, seed):
    real, synthetic = both
    before = training_rows(real, fold="none")
    made = mix_training([real], [synthetic], [before], MixSettings(**asked), seed=seed)
    frame = made.data.manifest
    pd.testing.assert_frame_equal(
        frame.iloc[: len(real)].drop(columns="shard"), real.manifest.drop(columns="shard")
    )
    assert made.partition.val.tolist() == before.val.tolist()
    assert made.partition.scored.tolist() == before.scored.tolist()
    trained = made.partition.train
    assert set(trained[trained < len(real)]) <= set(before.train)
    assert frame["is_synthetic"].iloc[trained[trained >= len(real)]].all()
    assert (frame["split"].iloc[trained] == "train").all()


def synthetic_set(folder: Path, seen: list[dict], **asked):
    rows = small.synthetic_rows({"benign": 9, "malignant": 9})
    return small.dataset(folder, rows, name="made", seen=seen, **asked)


def test_a_generator_that_saw_training_patients_alone_is_accepted(real, tmp_path):
    made = mixed(real, [synthetic_set(tmp_path, small.seen_by("run1", ["benign-0", "benign-1"]))])
    assert made.generators == Checked(by_patient=["run1"])
    assert set(made.data.generator_training["group_id"]) == {"benign-0", "benign-1"}


@pytest.mark.parametrize("patient", ["benign-4", "malignant-5"])  # validation, test
def test_a_generator_that_saw_a_held_out_patient_is_refused(real, tmp_path, patient):
    seen = small.seen_by("run1", ["benign-0", patient])
    with pytest.raises(DataError, match=rf"generator run1 .* 1 of the 4 held-out .*{patient}"):
        mixed(real, [synthetic_set(tmp_path, seen)])


def test_a_generator_of_another_fold_is_refused(tmp_path):
    rows = small.real_rows({name: [1] * 8 for name in NAMES})
    rows = [{**row, "fold": int(row["group_id"][-1]) % 4} for row in rows]
    data = small.dataset(tmp_path, rows)
    trained = data.manifest.iloc[training_rows(data, fold=1, val_fraction=0.25).train]
    made = synthetic_set(tmp_path, small.seen_by("run1", trained["group_id"].tolist()))
    assert len(mixed(data, [made], fold=1).partition.train) == len(trained)
    for other in (0, 2, 3):
        with pytest.raises(DataError, match=r"generator run1 was trained on [1-9]"):
            mixed(data, [made], fold=other)


def test_across_salts_pixels_are_compared_and_it_is_said(real, tmp_path, caplog):
    caplog.set_level("INFO", "mammo")
    seen = small.seen_by("run1", ["benign-4"], salt="other")
    made = mixed(real, [synthetic_set(tmp_path, seen)])
    assert made.generators.by_pixels == ["run1"]
    assert "pixel hashes were compared instead" in caplog.text
    held_out = real.manifest[real.manifest["split"] == "val"].iloc[0]
    seen[0]["sha256"] = held_out["sha256"]
    with pytest.raises(DataError, match=rf"patient {held_out['group_id']}, split 'val'"):
        mixed(real, [synthetic_set(tmp_path, seen)])


def test_a_generator_whose_training_is_not_recorded_is_reported(real, tmp_path, caplog):
    made = mixed(real, [synthetic_set(tmp_path, [])])
    assert made.generators.unknown == ["run1"]
    assert "run1 (or the makers of their masks) were trained on is not recorded" in caplog.text


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"shape": (1, 8, 9)}, r"are 1x8x9, those of real 1x8x8"),
        (
            {"classes": ClassMap("malignancy2", ("malignant", "benign"), "malignant", "pathology")},
            r"classes of synthetic dataset made are \['malignant', 'benign'\]",
        ),
        (
            {"classes": ClassMap("malignancy2", NAMES, "malignant", "birads")},
            r"label_kind of synthetic dataset made is 'birads', that of real 'pathology'",
        ),
        (
            {"classes": ClassMap("malignancy2", NAMES, "benign", "pathology")},
            r"positive of synthetic dataset made is 'benign'",
        ),
    ],
)
def test_a_synthetic_set_that_does_not_go_with_the_real_one_is_refused(
    real, tmp_path, asked, message
):
    with pytest.raises(DataError, match=message):
        mixed(real, [synthetic_set(tmp_path, [], **asked)])


def test_real_images_offered_as_synthetic_are_refused(real, tmp_path):
    with pytest.raises(DataError, match=r"synthetic dataset real holds 24 real images"):
        mixed(real, [real])


def other_rows(prefix: str = "b") -> list[dict]:
    return [
        {**r, "group_id": f"{prefix}{r['group_id']}", "image_id": f"{prefix}{r['image_id']}"}
        for r in hold_out_rows()
    ]


def test_several_real_datasets_train_together_and_keep_their_splits(real, tmp_path):
    other = small.dataset(tmp_path, other_rows(), name="other", dtype="uint8")
    seen = small.seen_by("run1", ["benign-0", "bmalignant-1"])
    synthetic = small.dataset(
        tmp_path, small.synthetic_rows({"benign": 20, "malignant": 20}), name="made", seen=seen
    )
    made = mixed([real, other], [synthetic], real_percentage=0.25)
    frame = made.data.manifest
    train = frame.iloc[made.partition.train]
    assert (~train["is_synthetic"]).sum() == 8  # a quarter of 4 patients x 2 images x 2 x 2
    assert len(train) == 32
    val = frame.iloc[made.partition.val]["group_id"]
    assert set(val) == {"benign-4", "malignant-4", "bbenign-4", "bmalignant-4"}
    rows = made.partition.val[[0, -1]]  # of the 16-bit and of the 8-bit dataset
    deep, flat = (
        small.pixels(frame["image_id"][row], dtype=kind)
        for row, kind in zip(rows, ("uint16", "uint8"), strict=True)
    )
    np.testing.assert_array_equal(made.data.raw(rows), [deep, flat.astype(np.uint16) * 257])
    assert made.data.name == "real+other"
    assert [each["name"] for each in made.said["inputs"]] == ["real", "other", "made"]
    taken = pd.DataFrame(made.said["sources"]).groupby("source")["taken"].sum()
    assert taken[[0, 1]].sum() == 8
    assert taken[2] == 24


def test_folds_of_several_real_datasets_are_those_of_each(tmp_path):
    rows = small.real_rows({name: [1] * 8 for name in NAMES})
    rows = [{**row, "fold": int(row["group_id"][-1]) % 4} for row in rows]
    others = [{**r, "group_id": f"b{r['group_id']}", "image_id": f"b{r['image_id']}"} for r in rows]
    one, two = (
        small.dataset(tmp_path, each, name=name) for each, name in ((rows, "one"), (others, "two"))
    )
    made = mixed([one, two], [], fold="2", real_percentage=1.0)
    ids = made.data.manifest["image_id"]
    for part in ("train", "val", "scored"):
        alone = [
            set(
                each.manifest["image_id"].iloc[
                    getattr(training_rows(each, fold=2, val_fraction=0.25), part)
                ]
            )
            for each in (one, two)
        ]
        assert set(ids.iloc[getattr(made.partition, part)]) == alone[0] | alone[1]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"shape": (1, 8, 9)}, "images of dataset other are 1x8x9, those of real 1x8x8"),
        ({"salt": "pepper"}, "dataset other are hashed with another salt or group_by"),
        (
            {"classes": ClassMap("malignancy2_birads", NAMES, "malignant", "birads")},
            "label_kind of dataset other is 'birads', that of real 'pathology'; mix data of one",
        ),
        (
            {"about": {"intensity": {"policy": "percentile"}}},
            "dataset other has intensity percentile",
        ),
    ],
)
def test_real_datasets_that_do_not_go_together_are_refused(real, tmp_path, asked, message):
    other = small.dataset(tmp_path, other_rows(), name="other", **asked)
    with pytest.raises(DataError, match=message):
        mixed([real, other], [], real_percentage=1.0)


def test_a_training_image_that_another_dataset_tests_on_is_refused(real, tmp_path):
    test = next(row for row in hold_out_rows() if row["split"] == "test")
    # the same pixels (they follow from the image id) under another patient, in training
    copy = {**test, "group_id": "someone", "split": "train"}
    other = small.dataset(tmp_path, [*other_rows(), copy], name="other")
    with pytest.raises(DataError, match="1 validation or test images of dataset real train in dat"):
        mixed([real, other], [], real_percentage=1.0)
    patient = {**test, "image_id": "another view", "split": "train"}
    other = small.dataset(tmp_path, [*other_rows(), patient], name="other")
    with pytest.raises(DataError, match="1 validation or test patients of dataset real train in"):
        mixed([other, real], [], real_percentage=1.0)
    with pytest.raises(DataError, match="is there twice"):
        mixed([real, real], [], real_percentage=1.0)


def breasts(folder: Path, name: str, patients: dict[str, tuple[str, np.ndarray]]) -> Dataset:
    """A dataset of one picture (128, 96) in [0, 1] and split for each patient."""
    writer = DatasetWriter(
        folder / f"{name}.partial",
        name=name,
        classes=small.TWO,
        shape=(1, 128, 96),
        dtype="uint16",
        about={"salt": "salt"},
    )
    for number, (patient, (split, picture)) in enumerate(patients.items()):
        row = {"group_id": patient, "image_id": f"{patient}-image", "split": split}
        row |= {"label": NAMES[number % 2], "label_kind": small.TWO.label_kind}
        writer.add(np.rint(picture[None] * 65535).astype(np.uint16), row)
    return writer.finish(folder / "datasets")


def smaller(picture: np.ndarray) -> np.ndarray:
    """`picture` as another release may have it: at 85 % of the size, on black, with other greys."""
    scaled = Image.fromarray(picture).resize((82, 109), Image.Resampling.BILINEAR)
    out = np.zeros_like(picture)
    out[:109, :82] = np.asarray(scaled) ** 1.2
    return out


def test_a_resized_copy_of_a_held_out_image_of_another_dataset_is_warned_of(tmp_path, caplog):
    """Patient 1 trains here and is held out there under another name; patient 2 trains in both."""

    def phantom(number):
        return render(draw_patient(number, seed=5), "L", "MLO", image_size=128)[0]

    splits = ["train", "train", "train", "val"]
    one = {f"a{n}": (split, phantom(n)) for n, split in enumerate(splits)}
    other = {f"b{n}": (split, phantom(20 + n)) for n, split in enumerate(splits)}
    other["copy"] = ("test", smaller(one["a1"][1]))
    other["twin"] = ("train", smaller(one["a2"][1]))
    first, second = breasts(tmp_path, "first", one), breasts(tmp_path, "second", other)
    mixed([first, second], [], real_percentage=1.0)
    (line,) = caplog.messages
    assert line.startswith(
        "1 training images of dataset first look like held-out images of dataset second "
        "(a1-image like copy-image; similarity of at least 0.75): if they are copies,"
    )
    assert f"mammo doctor {first.digest} --against {second.digest}" in line


def test_a_generator_of_one_dataset_that_saw_a_test_patient_of_another_is_refused(real, tmp_path):
    other = small.dataset(tmp_path, other_rows(), name="other")
    made = synthetic_set(tmp_path, small.seen_by("run1", ["benign-0", "bbenign-5"]))
    assert len(mixed(real, [made]).partition.train) == 16
    with pytest.raises(DataError, match=r"run1 was trained on 1 of the 8 held-out .*real\+other"):
        mixed([real, other], [made])


def test_images_of_an_external_generator_are_counted_and_warned_about(real, tmp_path, caplog):
    rows = small.synthetic_rows({"benign": 9, "malignant": 9}, "external:guide")
    made = mixed(real, [small.dataset(tmp_path, rows, name="guide")])
    assert made.generators == Checked(external=["external:guide"], external_images=8)
    assert made.said["generators"]["external_images"] == 8
    assert "8 SYNTHETIC IMAGES COME FROM ELSEWHERE (external:guide)" in caplog.text


def test_an_external_copy_of_a_held_out_image_is_refused(real, tmp_path):
    rows = small.synthetic_rows({"benign": 9, "malignant": 9}, "external:guide")
    rows[0]["image_id"] = "benign-5-0"  # pixels follow from the id: those of a test image
    copied = small.dataset(tmp_path, rows, name="guide")
    with pytest.raises(DataError, match="1 synthetic images are held-out images of dataset real"):
        mixed(real, [copied], real_percentage=0.0, mix_mode="append", synthetic_multiplier=1.125)


def test_mix_json_says_what_was_asked_of_each_class_and_dataset_and_what_came(real, tmp_path):
    one, two = (
        small.dataset(tmp_path, small.synthetic_rows({"benign": 9, "malignant": 9}, run), name=run)
        for run in ("run1", "run2")
    )
    made = mixed(real, [one, two], class_real_percentage="malignant=1", synthetic_weights="3,1")
    for path in write_mix(made, tmp_path):
        assert path.exists()
    said = json.loads((tmp_path / "mix.json").read_text())
    assert said["settings"]["class_real_percentage"] == "malignant=1"
    assert said["settings"]["real_percentage"] == 0.5
    assert said["settings"]["seed"] == 0
    assert said["inputs"] == [
        {"source": number, "kind": kind, "name": each.name, "digest": each.digest}
        for number, (kind, each) in enumerate(
            [("real", real), ("synthetic", one), ("synthetic", two)]
        )
    ]
    assert said["sources"] == [
        {"source": source, "label": label, "available": there, "requested": taken, "taken": taken}
        for source, label, there, taken in (
            (0, "benign", 8, 4),
            (0, "malignant", 8, 8),
            (1, "benign", 9, 3),
            (1, "malignant", 9, 0),
            (2, "benign", 9, 1),
            (2, "malignant", 9, 0),
        )
    ]
    assert said["realised_real_percentage"] == 0.75
    assert said["generators"]["unknown"] == ["run1", "run2"]


def test_two_phases_are_the_mix_and_then_its_real_images(real, tmp_path):
    made = mixed(real, [synthetic_set(tmp_path, [])], real_percentage=0.25)
    write_mix(made, tmp_path)
    phases = pd.read_csv(tmp_path / "phases.csv")
    first, second = (phases[phases["phase"] == number] for number in (1, 2))
    frame = made.data.manifest.iloc[made.partition.train]
    assert first["image_id"].tolist() == frame["image_id"].tolist()
    assert first["source"].value_counts().to_dict() == {"made": 12, "real": 4}
    assert second["image_id"].tolist() == frame.loc[~frame["is_synthetic"], "image_id"].tolist()
    assert set(second["source"]) == {"real"}


def test_the_synthetic_images_of_another_dataset_can_be_used(real, tmp_path):
    """S0.27: the generator was trained on another release, whose patients are others."""
    made = synthetic_set(tmp_path, small.seen_by("run1", ["elsewhere-1", "elsewhere-2"]))
    found = mixed(real, [made], real_percentage=0.0)
    assert found.generators == Checked(by_patient=["run1"])
    assert isinstance(found.data, Dataset)
    assert found.data.manifest.iloc[found.partition.train]["is_synthetic"].all()
