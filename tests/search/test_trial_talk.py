"""What a worker and the process of its trials say to each other, whoever dies in the middle."""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mammo.commands import trial
from mammo.run import Listener, MemoryRun, Pruned, Result
from mammo.search import trial as trials

TRAINING: dict[str, Any] = {"train_classifier": {"data": "d"}}
GENERATOR = {"train_generator": {"data": "d"}, "sample": {"count": 4}}


class Asked(trial.Talk):
    """A worker that has a trial go on, or not."""

    def __init__(self, *, go: bool = True) -> None:
        self.asked: list[dict[str, Any]] = []
        self._go = go

    def ask(self, **message: Any) -> bool:
        self.asked.append(message)
        return self._go


def order(*trainings: Mapping[str, Any]) -> dict[str, Any]:
    named = [{"name": f"seed-{n}", "settings": each} for n, each in enumerate(trainings)]
    return {"metric": "val/auc", "trainings": named}


def answering(folder: Path, **answers: Any) -> MemoryRun:
    run = MemoryRun(folder)
    run.answers = answers
    return run


def training(folder: Path, train: Callable[..., Result], talk: trial.Talk) -> None:
    asked = order(TRAINING)
    run = answering(folder, train_classifier=train)
    trial._training(run, talk, asked, asked["trainings"][0], [], "trial_0")


def test_an_answer_that_comes_after_its_trial_has_died_is_no_order() -> None:
    """Killed while it waited to hear whether to go on: the pipe is the next trial's, too."""
    heard, worker = os.pipe()
    for said in ({"name": "trial_0"}, {"go": True}, {"bury": ["run 0"]}, {"name": "trial_1"}):
        os.write(worker, json.dumps(said).encode() + b"\n")
    os.close(worker)
    orders = list(trial.Talk(heard, -1).orders())
    os.close(heard)
    assert orders == [{"name": "trial_0"}, {"bury": ["run 0"]}, {"name": "trial_1"}]


def test_the_epochs_of_a_training_are_numbered_from_0_for_the_pruner(tmp_path: Path) -> None:
    """A training counts from 1; the median pruner spares what it is told of as epoch 0."""

    def train(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        assert listener is not None
        for epoch in (1, 2, 3):
            listener({"val/auc": 0.1 * epoch}, epoch)
        return Result({}, {"best/val/auc": 0.3})

    talk = Asked()
    training(tmp_path, train, talk)
    assert [each["step"] for each in talk.asked if "epoch" in each] == [0, 1, 2]


def test_a_pruned_trial_is_told_its_epoch_as_its_log_has_it(tmp_path: Path) -> None:
    def train(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        assert listener is not None
        listener({"val/auc": 0.25}, 1)
        raise AssertionError("it goes on")

    with pytest.raises(Pruned, match=r"val/auc 0\.2500 in epoch 1"):
        training(tmp_path, train, Asked(go=False))


def drawn(settings: Mapping[str, Any], listener: Listener | None) -> Result:
    return Result({"dataset": "runs:/s/dataset"}, {})


def several(
    folder: Path, sample: Callable[..., Result], metrics: Any
) -> tuple[dict[str, Any], MemoryRun]:
    """What a trial of two seeds hands on, whose images `sample` draws, and its run."""
    measured = iter(metrics)
    answers = {
        "train_generator": Result({"model": "runs:/g/model"}, {}),
        "sample": sample,
        "train_classifier": lambda given, listener: Result(
            {"model": f"runs:/{given['synthetic']}/model"}, next(measured)
        ),
    }
    both = {**GENERATOR, **TRAINING}
    run = answering(folder, **answers)
    return trial._several(run, Asked(), order(both, both), []), run


def test_images_that_all_seeds_of_a_trial_have_are_handed_on(tmp_path: Path) -> None:
    """The best settings name them; each seed's own model, or images of a fold, they do not."""
    auc = [{"best/val/auc": 0.5}, {"best/val/auc": 0.7}]
    made, _ = several(tmp_path / "once", drawn, auc)
    assert made["synthetic"] == "runs:/s/dataset" and made["generator"] == "runs:/g/model"
    numbers = iter(range(2))

    def each(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        return Result({"dataset": f"runs:/s{next(numbers)}/dataset"}, {})

    assert several(tmp_path / "each", each, auc)[0] == {"generator": "runs:/g/model"}


def test_a_seed_without_the_metric_does_not_end_the_trial(tmp_path: Path) -> None:
    """It is the study that says of what there was no number."""
    run = several(tmp_path, drawn, [{"best/val/auc": 0.5}, {"best/val/loss": 0.7}])[1]
    seen = [value for name, value, _ in run.history if name == "each/best/val/auc"]
    assert seen[0] == 0.5 and math.isnan(seen[1])


IDLE = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for line in sys.stdin:
    print('{"end": 0}', flush=True)
"""


@pytest.mark.doors
def test_a_process_that_has_no_trial_need_not_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is told to stop between two trials ends at once, not after its patience."""
    monkeypatch.setattr(trials, "PATIENCE_S", 5.0)
    process = trials.TrialProcess((sys.executable, "-c", IDLE))
    process.start({"name": "trial_0"})
    while process.receive(1) != {"end": 0}:
        pass
    began = time.monotonic()
    process.stop()
    process.close()
    assert time.monotonic() - began < 4


LEAVES = """
import signal, sys, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
for line in sys.stdin:
    while "wait" in line and not told:
        time.sleep(0.01)
    print('{"end": 0}', flush=True)
    if told:
        time.sleep(0.3)  # an order would be lost here
        break
"""


@pytest.mark.doors
def test_after_a_stop_the_next_trial_is_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    process = trials.TrialProcess((sys.executable, "-c", LEAVES))
    process.start({"name": "ready"})
    while process.receive(1) is None:
        pass
    process.start({"name": "wait"})
    process.stop()
    process.start({"name": "trial_1"})
    said = None
    while said is None:
        said = process.receive(1)
    assert process._process is not None and process._process.poll() is None  # it lives, and waits
    process.close()


@pytest.mark.doors
def test_of_a_bug_the_study_is_told_kind_and_place_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its message may quote the name of a file, and that a patient's."""

    def bug(*_: Any) -> dict[str, str]:
        raise MemoryError("/data/anna_mustermann.dcm")

    said: dict[str, Any] = {}
    talk = Asked()
    monkeypatch.setattr(talk, "say", lambda **message: said.update(message))
    monkeypatch.setattr(trial, "_tracked", bug)
    monkeypatch.setattr(trial, "_stop_alone", lambda talk: None)
    with pytest.raises(MemoryError):
        trial._carry_out(talk, {})
    assert said["memory"] == "train_classifier"
    assert said["failed"].startswith("MemoryError in ") and "anna" not in said["failed"]
