"""Phases of a training, and training on less: which rows teach, in which order."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "steps"))

import small
from classifier_data import tracked, train, write
from safetensors.torch import load_file

from mammo.classifiers.module import ClassifierModule
from mammo.data.partition import warm_up
from mammo.errors import ConfigError, DataError
from mammo.run import MemoryRun
from mammo.training import read_checkpoint

pytestmark = pytest.mark.doors  # whole trainings


@pytest.fixture
def shown(monkeypatch):
    """The rows of every training step, by epoch of the run: [(rows, learning rate), ...]."""
    steps = []
    step = ClassifierModule.training_step

    def spy(self, batch, index):
        rate = max(group["lr"] for group in self.optimizers().param_groups)
        state = self.optimizers().optimizer.state
        steps.append((batch["row"].tolist(), rate, len(state)))
        return step(self, batch, index)

    monkeypatch.setattr(ClassifierModule, "training_step", spy)
    return steps


def rows_of(steps):
    return {row for rows, _, _ in steps for row in rows}


def marked(folder):
    """A hold-out of 4 malignant and 12 benign patients with the warm-up of one to one marked."""
    rows = small.real_rows({"benign": [1] * 14, "malignant": [1] * 6})
    splits = ["train"] * 12 + ["val"] * 2 + ["train"] * 4 + ["val"] * 2
    for row, split in zip(rows, splits, strict=True):
        row["split"] = split
    frame = pd.DataFrame(rows)
    frame["fold"] = -1
    subset = warm_up(frame, negatives=1, positive="malignant", seed=0)
    for row, chosen in zip(rows, subset, strict=True):
        row["warmup"] = bool(chosen)
    return small.dataset(folder, rows, shape=(1, 32, 32))


def test_s2_7_the_warm_up_subset_trains_first_and_then_all(tmp_path, shown):
    data = marked(tmp_path / "datasets")
    run = tracked(tmp_path, data)
    train(run, subset_epochs=2, epochs=1, batch_size=4, patience=0)
    subset = set(np.flatnonzero(data.manifest["warmup"]))
    assert len(subset) == 8
    assert len(shown) == 2 * 2 + 4
    assert rows_of(shown[:2]) == rows_of(shown[2:4]) == subset
    assert rows_of(shown[4:]) == set(np.flatnonzero(data.manifest["split"] == "train"))
    assert shown[4][2] == 0  # a fresh optimizer remembers nothing
    epochs = [step for name, _, step in run.history if name == "train/loss"]
    assert epochs == [1, 2, 3]
    about = json.loads((run.folder / "model" / "model.json").read_text())
    assert [(each["phase"], each["images"], each["epochs"]) for each in about["phases"]] == [
        ("subset", 8, 2),
        ("all", 16, 1),
    ]


def test_the_second_phase_starts_from_the_best_weights_of_the_first(tmp_path, monkeypatch):
    starts = []
    begin = ClassifierModule.on_train_epoch_start

    def spy(self):
        if self.current_epoch == 0:
            starts.append({name: each.clone() for name, each in self.state_dict().items()})
        begin(self)

    monkeypatch.setattr(ClassifierModule, "on_train_epoch_start", spy)
    run = tracked(tmp_path, marked(tmp_path / "datasets"))
    train(run, subset_epochs=2, epochs=1)
    first = read_checkpoint(run.folder / "checkpoints-subset" / "best.ckpt")["state_dict"]
    assert all(torch.equal(first[name], starts[1][name]) for name in first)
    assert not torch.equal(starts[0]["trained.head.weight"], starts[1]["trained.head.weight"])


@pytest.fixture
def mixed(tmp_path):
    data = write(tmp_path / "datasets")
    rows = small.synthetic_rows({"benign": 20, "malignant": 20})
    synthetic = write(tmp_path / "datasets", rows=rows)
    return tracked(tmp_path, data, synthetic), data


def test_s0_35_the_real_images_train_last_with_a_fresh_optimizer_and_their_own_rate(mixed, shown):
    run, data = mixed
    settings = {"lr_schedule": "constant", "warm_up": 0, "lr": 0.01, "patience": 0}
    train(
        run,
        synthetic="s",
        real_percentage=0.5,
        epochs=2,
        real_epochs=1,
        real_lr_factor=0.1,
        **settings,
    )
    training = set(np.flatnonzero(data.manifest["split"] == "train"))
    real = [rows_of([each]) <= training for each in shown]
    steps = len(training) // 8 + bool(len(training) % 8)
    last = shown[2 * steps :]
    assert all(real[2 * steps :]) and not all(real[: 2 * steps])
    assert len(rows_of(last)) == len(training) / 2
    assert {rate for _, rate, _ in shown[: 2 * steps]} == {0.01}
    assert [rate for _, rate, _ in last] == [pytest.approx(0.001)] * len(last)
    assert (shown[2 * steps - 1][2] > 0, last[0][2]) == (True, 0)
    about = json.loads((run.folder / "model" / "model.json").read_text())
    said = [(each["phase"], each["synthetic_images"]) for each in about["phases"]]
    assert said == [("all", len(training) / 2), ("real", 0)]


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_run_killed_in_any_phase_ends_with_the_same_bits(mixed, tmp_path, killed_after):
    whole, data = mixed
    settings = {"synthetic": "s", "real_percentage": 0.5, "epochs": 2, "real_epochs": 2}
    train(whole, **settings)
    cut = tracked(tmp_path / "cut", data)
    cut.inputs["synthetic"] = whole.inputs["synthetic"]

    def killed(values, step=None):
        MemoryRun.metrics(cut, values, step)
        if step == killed_after:
            raise KeyboardInterrupt

    cut.metrics = killed
    with pytest.raises(KeyboardInterrupt):
        train(cut, **settings)
    cut.metrics = lambda values, step=None: MemoryRun.metrics(cut, values, step)
    train(cut, **settings)
    one, other = (load_file(each.folder / "model" / "weights.safetensors") for each in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_s0_36_a_share_is_learned_by_heart_and_the_model_says_so(tmp_path, shown, caplog):
    data = write(tmp_path / "datasets")
    run = tracked(tmp_path, data)
    result = train(run, overfit=0.2, epochs=20, lr=3e-3, patience=0)
    train_patients = data.manifest[data.manifest["split"] == "train"]["group_id"].nunique()
    rows = rows_of(shown)
    frame = data.manifest.iloc[sorted(rows)]
    assert frame["group_id"].nunique() == -(-train_patients // 5)
    assert set(frame["split"]) == {"train"} and frame["label"].nunique() == 2
    partition = json.loads((run.folder / "partition.json").read_text())
    assert partition["val"]["images"] == sorted(frame["image_id"])
    assert result.metrics["best/val/auc"] == 1.0
    assert json.loads((run.folder / "model" / "model.json").read_text())["overfit"] == 0.2
    assert "nothing else" in caplog.text


def test_s1_11_a_limit_takes_patients_of_all_classes_and_a_larger_one_takes_them_too(
    tmp_path, shown
):
    data = write(tmp_path / "datasets")
    found = []
    for limit in (4, 8):
        shown.clear()
        train(tracked(tmp_path / str(limit), data), limit=limit, epochs=1)
        found.append(rows_of(shown))
        frame = data.manifest.iloc[sorted(found[-1])]
        patients = frame.drop_duplicates("group_id")["label"].value_counts()
        assert patients.to_dict() == {"benign": limit / 2, "malignant": limit / 2}
    assert found[0] < found[1]


@pytest.mark.parametrize(
    ("settings", "error", "line"),
    [
        ({"subset_epochs": 2}, DataError, "needs a warm-up subset, dataset spots has none; prep"),
        ({"real_epochs": 2}, ConfigError, "0 of 28 training images are synthetic; mix both"),
        ({"real_lr_factor": 0.5}, ConfigError, "real_lr_factor 0.5 does not apply without real"),
        ({"overfit": 0.1, "limit": 3}, ConfigError, "overfit 0.1 takes its own share"),
        (
            {"finetune": "gradual", "weights": "default", "subset_epochs": 1},
            ConfigError,
            "subset_epochs 1 would begin gradual unfreezing anew",
        ),
    ],
)
def test_phases_that_cannot_be_are_refused(tmp_path, settings, error, line):
    run = tracked(tmp_path, write(tmp_path / "datasets"))
    with pytest.raises(error, match=line) as caught:
        train(run, **settings)
    assert "\n" not in str(caught.value)
    assert not list(run.folder.rglob("*.ckpt"))
