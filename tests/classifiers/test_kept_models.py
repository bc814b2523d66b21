"""Models that are kept: copies of their epoch, by each metric, the best few and on the way."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "steps"))

from classifier_data import tracked, train, write
from safetensors.torch import load_file

from mammo.classifiers import load_classifier, phases
from mammo.errors import ConfigError
from mammo.run import MemoryRun
from mammo.training import read_checkpoint

pytestmark = pytest.mark.doors  # whole trainings

AUCS = [0.6, 0.9, 0.7, 0.9, 0.8]
F1S = [0.1, 0.2, 0.3, 0.4, 0.4]
SETTINGS = {
    "epochs": 5,
    "monitor": "val/auc, val/f1",
    "top_k": 2,
    "snapshot_every": 2,
    "patience": 0,
}


class Scripted:
    """Judges each epoch by its number: the metrics are known before the training."""

    def __init__(self, run):
        self.run = run

    def __call__(self, frame, classes, how):
        epoch = len(self.run.states)
        return {"auc": AUCS[epoch], "f1": F1S[epoch]}


def scripted(folder, data, monkeypatch, *, killed_after=0, **settings):
    """A run with known metrics, and the weights at the end of each of its epochs."""
    run = tracked(folder, data)
    run.states = []
    monkeypatch.setattr(phases, "judge", Scripted(run))

    def spy(values, step=None):
        MemoryRun.metrics(run, values, step)
        if step and "val/auc" in values:
            run.states.append(None)
            if step == killed_after:
                raise KeyboardInterrupt

    run.metrics = spy
    if killed_after:
        with pytest.raises(KeyboardInterrupt):
            train(run, **SETTINGS, **settings)
        return run
    train(run, **{**SETTINGS, **settings})
    return run


def weights(run, name):
    return load_file(run.folder / name / "weights.safetensors")


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    data = write(folder / "datasets")
    with pytest.MonkeyPatch.context() as patch:
        return scripted(folder, data, patch), data


def trained_for(epochs, folder, data, monkeypatch):
    """The weights after exactly `epochs` of the same training, from a snapshot of that epoch."""
    run = scripted(folder, data, monkeypatch, snapshot_every=epochs, top_k=0, monitor="val/auc")
    return weights(run, f"models/snapshot-{epochs:04d}")


def test_s2_10_there_is_a_model_for_each_metric_the_best_few_and_each_snapshot(kept):
    run, _ = kept
    assert sorted(path.name for path in (run.folder / "models").iterdir()) == [
        "best-val-f1",
        "epoch-0002",  # the two highest of AUCS
        "epoch-0004",
        "snapshot-0002",
        "snapshot-0004",
    ]
    assert {f"models/{name}" for name in ("best-val-f1", "epoch-0002")} <= set(run.uploaded)


def test_each_says_its_epoch_its_metrics_and_its_threshold(kept):
    run, _ = kept
    for name, epoch in (("model", 2), ("models/best-val-f1", 4), ("models/epoch-0004", 4)):
        about = json.loads((run.folder / name / "model.json").read_text())
        assert about["epoch"] == epoch
        assert about["metrics"]["val/auc"] == AUCS[epoch - 1]
        assert about["metrics"]["val/f1"] == F1S[epoch - 1]
        classifier = load_classifier(run.folder / name)
        assert classifier.threshold == about["thresholds"]["balanced"]


def test_the_best_weights_are_a_copy_of_their_epoch_and_not_what_training_made_of_them(
    kept, tmp_path, monkeypatch
):
    """Keeping a reference to the best network would save the last one under its name."""
    run, data = kept
    second = trained_for(2, tmp_path / "two", data, monkeypatch)
    fourth = trained_for(4, tmp_path / "four", data, monkeypatch)
    assert equal(weights(run, "model"), second)
    assert equal(weights(run, "models/best-val-f1"), fourth)
    assert equal(weights(run, "models/epoch-0002"), second)
    last = read_checkpoint(run.folder / "checkpoints" / "last.ckpt")["state_dict"]
    last = {name.removeprefix("trained."): value for name, value in last.items()}
    assert not equal(second, last) and not equal(second, fourth) and not equal(fourth, last)


@pytest.mark.parametrize("killed_after", [3, 4])
def test_a_killed_run_keeps_the_same_models(kept, tmp_path, monkeypatch, killed_after):
    whole, data = kept
    cut = scripted(tmp_path, data, monkeypatch, killed_after=killed_after)
    metrics = list(cut.states)
    again = tracked(tmp_path, data)
    again.states = metrics[: killed_after - 1]
    monkeypatch.setattr(phases, "judge", Scripted(again))

    def count(values, step=None):
        MemoryRun.metrics(again, values, step)
        if step and "val/auc" in values:
            again.states.append(None)

    again.metrics = count
    train(again, **SETTINGS)
    names = sorted(path.name for path in (whole.folder / "models").iterdir())
    assert names == sorted(path.name for path in (again.folder / "models").iterdir())
    for name in ["model", *(f"models/{each}" for each in names)]:
        assert equal(weights(whole, name), weights(again, name)), name


@pytest.mark.parametrize(("after", "epochs"), [(0, 4), (3, 5)])
def test_s2_9_patience_counts_from_the_best_or_from_its_start(
    tmp_path, kept, monkeypatch, after, epochs
):
    run = scripted(
        tmp_path, kept[1], monkeypatch, patience=2, patience_after=after, snapshot_every=0, top_k=0
    )
    assert len(run.states) == epochs  # the best is epoch 2


def test_an_unknown_further_metric_is_refused(tmp_path, kept):
    with pytest.raises(ConfigError, match="unknown monitor 'val/acc'"):
        train(tracked(tmp_path, kept[1]), monitor="val/auc,val/acc")


def test_the_rate_that_is_found_trains_and_is_told(tmp_path, kept):
    run = tracked(tmp_path, kept[1])
    train(run, find_lr=True, epochs=1, lr_schedule="constant", warm_up=0)
    found = run.logged_params["effective.lr"]
    assert 1e-7 < found < 1e-1 and "lr_finder" in run.figures
    assert run.last["lr"] == pytest.approx(found)
    given = tracked(tmp_path / "given", kept[1])
    train(given, lr=found, epochs=1, lr_schedule="constant", warm_up=0)
    assert equal(weights(run, "model"), weights(given, "model"))
    with pytest.raises(ConfigError, match=r"lr 0\.01 is given and find_lr would replace it"):
        train(tracked(tmp_path / "both", kept[1]), find_lr=True, lr=0.01)
