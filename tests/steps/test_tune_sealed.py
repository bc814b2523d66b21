"""A search reads the pixels of training and validation rows alone, on a hold-out and on folds."""

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import classifier_data
import numpy as np
import pytest
import trials

from mammo.data.dataset import Dataset
from mammo.driver import defaults
from mammo.run import Listener, MemoryRun, Result
from mammo.steps import train_classifier, tune

SPACE = "dropout: [0.0, 0.3]\n"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Rows whose pixels have been read so far."""
    rows: set[int] = set()
    gather = Dataset._gather

    def noted(self: Dataset, asked: Any, kind: str) -> Any:
        rows.update(map(int, np.asarray(asked, int)))
        return gather(self, asked, kind)

    monkeypatch.setattr(Dataset, "_gather", noted)
    return rows


def search(
    folder: Path, data: Dataset, **settings: Any
) -> tuple[MemoryRun, trials.InThread, Result]:
    """The whole step, its trainings real."""
    (folder / "space.yaml").write_text(SPACE)
    run = classifier_data.tracked(folder, data)
    own = (classifier_data.tracked(folder / f"training{number}", data) for number in count())

    def train(given: Mapping[str, Any], listener: Listener | None) -> Result:
        train_classifier.check(given)
        known = {name: given[name] for name in defaults(train_classifier) if name in given}
        result: Result = train_classifier.run(next(own), data="data", **known)
        return result

    done = trials.InThread(train)
    base = {**defaults(train_classifier), **classifier_data.TINY}
    given = {**defaults(tune), "space": str(folder / "space.yaml"), "search": "grid",
             "pruner": "none", "n_trials": 2, **settings}  # fmt: skip
    tune.check({**given, "data": "data", "train_classifier": base})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "TrialProcess", lambda: done)
        result = tune.run(run, data="data", step_settings={"train_classifier": base}, **given)
    return run, done, result


@pytest.mark.doors
def test_the_test_images_of_a_hold_out_are_not_opened(tmp_path: Path, read: set[int]) -> None:
    data = classifier_data.write(tmp_path / "data")
    read.clear()
    _, _, result = search(tmp_path, data)
    split = data.manifest["split"].to_numpy()
    assert result.metrics["trials/complete"] == 2
    assert read == set(np.flatnonzero(split != "test"))
    assert (split == "test").sum() > 0


@pytest.mark.doors
def test_nor_are_those_of_the_fold_that_is_scored(tmp_path: Path, read: set[int]) -> None:
    """Its inner validation patients choose; the fold itself is for who trains the winner."""
    data = classifier_data.write(tmp_path / "data", folds=3)
    read.clear()
    _, done, result = search(tmp_path, data, folds="1")
    fold = data.manifest["fold"].to_numpy()
    assert result.metrics["trials/complete"] == 2
    assert read == set(np.flatnonzero(fold != 1))
    assert {given["score_fold"] for given in done.given} == {False}


@pytest.mark.doors
def test_a_trial_over_two_folds_is_their_mean(tmp_path: Path) -> None:
    data = classifier_data.write(tmp_path / "data", folds=3)
    run, done, result = search(tmp_path, data, folds="0,2", n_trials=1)
    assert [given["folds"] for given in done.given] == ["0", "2"]
    table = run.tables["trials"]
    singles = [
        train_alone(tmp_path / f"alone{fold}", data, fold).metrics["best/val/auc"]
        for fold in ("0", "2")
    ]
    assert table["val/auc"][0] == pytest.approx(np.mean(singles), abs=1e-6)
    assert result.metrics["best/val/auc"] == table["val/auc"][0]


def train_alone(folder: Path, data: Dataset, fold: str) -> Result:
    own = classifier_data.tracked(folder, data)
    result: Result = classifier_data.train(own, folds=fold, seed=0)
    return result
