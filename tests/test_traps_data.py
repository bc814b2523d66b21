"""Mistakes seen in published research code, each shown to be impossible here: data."""

from pathlib import Path

import numpy as np
import pytest
import small

from mammo.data.identity import Names
from mammo.data.manifest import check_manifest
from mammo.data.mix_settings import MIXES, MixSettings
from mammo.data.mixed import mix_training
from mammo.data.mixing import mix
from mammo.data.partition import RISKS
from mammo.data.release import Record
from mammo.data.samplers import SAMPLERS
from mammo.data.splits import assign_folds, hold_out, training_rows
from mammo.errors import DataError
from mammo.run import MemoryRun, Reference
from mammo.steps import mix as step


def test_trap_t0b_splits_and_folds_are_by_patient_not_by_image():
    frame = small.frame(small.real_rows({"benign": [4] * 12, "malignant": [4] * 12}))
    split = hold_out(frame, val_fraction=0.2, test_fraction=0.2, seed=0)
    fold = assign_folds(frame, k=4, seed=0)
    assert split.groupby(frame["group_id"]).nunique().eq(1).all()
    assert fold.groupby(frame["group_id"]).nunique().eq(1).all()
    by_image = frame.assign(split=["train", "test"] * 48)
    with pytest.raises(DataError, match="in splits test and train"):
        check_manifest(by_image, small.TWO.names)


def test_trap_t0c_real_percentage_has_one_meaning_a_mode_and_all_counts_are_logged(tmp_path: Path):
    rows = small.real_rows({"benign": [1] * 8, "malignant": [1] * 4})
    held = small.real_rows({"benign": [1], "malignant": [1]}, split="val")
    held = [{**r, "group_id": f"v{r['group_id']}", "image_id": f"v{r['image_id']}"} for r in held]
    real = small.dataset(tmp_path / "datasets", [*rows, *held], name="real")
    made = small.synthetic_rows({"benign": 24, "malignant": 24})
    synthetic = small.dataset(tmp_path / "datasets", made, name="made")
    found = {}
    for mode in sorted(MIXES):
        inputs = {
            name: [Reference(f"runs:/{name}/dataset", each.folder, each.digest)]
            for name, each in (("real", real), ("synthetic", synthetic))
        }
        tracked = MemoryRun(tmp_path / mode, inputs)
        step.run(tracked, real="real", synthetic="made", real_percentage=0.25, mix_mode=mode)
        names = ("real_images", "synthetic_images", "realised_real_percentage")
        found[mode] = tuple(tracked.last[name] for name in names)
        assert tracked.last["count/malignant/synthetic"] == found[mode][1] / 3
    assert found == {
        "append": (3, 3, 0.5),
        "replace": (3, 9, 0.25),
        "target_share": (12, 36, 0.25),
    }


def test_trap_t1a_weights_of_the_sampler_change_what_is_drawn():
    labels = np.repeat([0, 1], [950, 50])
    drawn = SAMPLERS["weighted"](labels, 0, 0)
    # drawing all rows without replacement would give 50; binomial(1000, 0.5) is 500 +- 4 x 16
    assert abs((labels[drawn] == 1).sum() - 500) < 64
    assert len(np.unique(drawn)) < len(labels)


def test_trap_t2a_the_two_breasts_of_a_patient_stay_together():
    rows = [
        {**row, "laterality": "LR"[number % 2], "label": "benign"}
        for number, row in enumerate(small.real_rows({"benign": [2] * 40}))
    ]
    for row in rows:  # cancer in one breast only
        if row["laterality"] == "L" and int(row["group_id"].split("-")[1]) < 20:
            row["label"] = "malignant"
    frame = small.frame(rows)
    for seed in range(5):
        split = hold_out(
            frame, val_fraction=0.2, test_fraction=0.2, seed=seed, positive="malignant"
        )
        assert split.groupby(frame["group_id"]).nunique().eq(1).all()
        # a patient with one malignant breast is a positive patient
        tested = frame[split == "test"]
        assert tested["group_id"].nunique() == 8
        assert (tested["label"] == "malignant").sum() == 4


def test_trap_t2a_breasts_are_groups_on_request_alone_with_the_risk_in_words():
    names = Names(b"salt", "release")
    breasts = [
        Record((Path(f"{side}.png"),), "patient", side, "benign", laterality=side) for side in "LR"
    ]
    assert names.groups(breasts)["group_id"].nunique() == 1
    assert names.groups(breasts, "patient_laterality")["group_id"].nunique() == 2
    assert "two breasts of a patient may be in two splits" in RISKS["patient_laterality"]


def test_trap_t3a_synthetic_images_are_never_validated_or_tested_on(tmp_path: Path):
    rows = small.real_rows({"benign": [1] * 10, "malignant": [1] * 10})
    made = small.synthetic_rows({"benign": 5, "malignant": 5})
    for split in ("val", "test"):
        with pytest.raises(DataError, match=f"is synthetic and in split '{split}'"):
            check_manifest(small.frame([*rows, {**made[0], "split": split}]), small.TWO.names)
    mixed = mix(
        small.frame(rows),
        [small.frame(made)],
        MixSettings(real_percentage=0.5),
        class_names=small.TWO.names,
    )
    assert len(mixed.synthetic) == 10  # drawn after the split, from a pool that is never split
    # a generator that saw an image of the test is found out, whatever its patient is called
    rows = [
        {**row, "split": ("train", "train", "train", "val", "test")[number % 5]}
        for number, row in enumerate(rows)
    ]
    real = small.dataset(tmp_path, rows, name="real")
    tested = real.manifest.query("split == 'test'").iloc[0]
    seen = [{"run_id": "run1", "salt": "other", "group_id": "x", "sha256": tested["sha256"]}]
    synthetic = small.dataset(tmp_path, made, name="made", seen=seen)
    with pytest.raises(DataError, match="generator run1 was trained on 1 of the 8 held-out"):
        mix_training(
            [real],
            [synthetic],
            [training_rows(real, fold="none")],
            MixSettings(real_percentage=0.5),
        )
