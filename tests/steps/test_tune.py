"""The search: anchors first, true states, a study that goes on where it stopped."""

import inspect
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import trials
import yaml
from sqlalchemy.exc import OperationalError

from mammo.errors import ConfigError, DataError
from mammo.run import Listener, MemoryRun, Result
from mammo.steps import tune

BASE = {"real_percentage": 1.0, "loss": "ce", "sampler": "random", "epochs": 3}


def hill(settings: Mapping[str, Any], listener: Listener | None) -> Result:
    """A training whose validation AUC is best at real_percentage 0.5 with focal loss."""
    auc = 0.9 - (settings["real_percentage"] - 0.5) ** 2 - 0.1 * (settings["loss"] != "focal")
    for epoch in range(3):
        if listener:
            listener({"val/auc": auc - 0.01 * (2 - epoch)}, epoch)
    return Result({"model": "runs:/x/model"}, {"best/val/auc": auc})


def search(
    folder: Path, train: trials.Training = hill, **settings: Any
) -> tuple[MemoryRun, trials.InThread, Result]:
    run, carried_out = MemoryRun(folder), trials.InThread(train)
    given = {"n_trials": 6, "synthetic": "s", "search": "random", "pruner": "none"} | settings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "TrialProcess", lambda: carried_out)
        result = tune.run(run, data="d", step_settings={"train_classifier": BASE}, **given)
    return run, carried_out, result


@pytest.mark.doors
def test_the_first_trials_are_the_baselines_with_default_settings(tmp_path: Path) -> None:
    _, done, _ = search(tmp_path)
    first = done.given[:4]
    assert [given["real_percentage"] for given in first] == [1.0, 0.5, 0.0, 0.25]
    assert {(given["loss"], given["sampler"]) for given in first} == {("ce", "random")}
    assert {(given["data"], given["synthetic"]) for given in first} == {("d", "s")}


@pytest.mark.doors
def test_the_best_settings_are_a_config_of_train_classifier(tmp_path: Path) -> None:
    run, done, result = search(tmp_path, n_trials=12)
    best = yaml.safe_load((run.folder / "study" / "best.yaml").read_text())
    top = max(done.given, key=lambda given: hill(given, None).metrics["best/val/auc"])
    assert {name: best[name] for name in ("real_percentage", "loss", "sampler", "epochs")} == {
        name: top[name] for name in ("real_percentage", "loss", "sampler", "epochs")
    }
    assert result.metrics["best/val/auc"] == hill(top, None).metrics["best/val/auc"]
    assert run.figures == ["optimisation_history", "slice", "parallel_coordinate", "importance"]


@pytest.mark.doors
def test_a_failed_trial_is_counted_as_failed_and_the_search_goes_on(tmp_path: Path) -> None:
    def answer(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        if settings["real_percentage"] == 0.5:
            raise DataError("needs 6 synthetic images, there are 2")
        return hill(settings, listener)

    _, _, result = search(tmp_path, answer)
    assert (result.metrics["trials/complete"], result.metrics["trials/failed"]) == (5, 1)


@pytest.mark.doors
def test_an_unpromising_trial_is_pruned(tmp_path: Path) -> None:
    def answer(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        run_number = len(seen)
        seen.append(0)
        for epoch in range(3):
            seen[-1] = epoch
            assert listener is not None
            listener({"val/auc": 0.5 if run_number == 5 else 0.8 + 0.01 * run_number}, epoch)
        return Result({}, {"best/val/auc": 0.8})

    seen: list[int] = []
    _, _, result = search(tmp_path, answer, pruner="median")
    assert result.metrics["trials/pruned"] == 1
    assert seen == [2, 2, 2, 2, 2, 1]  # the sixth is stopped in its second epoch


def test_when_every_trial_fails_the_reason_is_told(tmp_path: Path) -> None:
    def answer(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        raise DataError("no image of class benign")

    with pytest.raises(ConfigError, match=r"no trial .* was completed: no image of class benign"):
        search(tmp_path, answer, n_trials=2)


@pytest.mark.doors
def test_a_named_study_is_continued_with_more_trials(tmp_path: Path) -> None:
    search(tmp_path, study_name="mix", n_trials=4)
    _, done, result = search(tmp_path, study_name="mix", n_trials=6)
    assert len(done.given) == 2
    assert result.metrics["trials/complete"] == 6


@pytest.mark.doors
def test_a_study_is_kept_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"sqlite:///{tmp_path}/elsewhere.db"
    monkeypatch.setenv("MAMMO_STORAGE", address)
    search(tmp_path / "work", n_trials=2, study_name="mix")
    assert len(optuna.load_study(study_name="mix", storage=address).trials) == 2
    assert not list((tmp_path / "work").rglob("*.db"))


@pytest.mark.doors
def test_the_parent_has_the_history_of_the_search(tmp_path: Path) -> None:
    """Of trials one after the other: the best so far after each end, and how many there were."""
    run, done, _ = search(tmp_path)
    own = [hill(given, None).metrics["best/val/auc"] for given in done.given]
    said = [(step, value) for name, value, step in run.history if name == "best/val/auc"]
    assert said[:6] == [(n + 1, max(own[: n + 1])) for n in range(6)]
    counted = [(step, value) for name, value, step in run.history if name == "trials/complete"]
    assert counted[:6] == [(n + 1, n + 1) for n in range(6)]


@pytest.mark.doors
def test_no_trial_begins_once_the_time_is_over(tmp_path: Path) -> None:
    def slow(settings: Mapping[str, Any], listener: Listener | None) -> Result:
        time.sleep(1.05)
        return hill(settings, listener)

    _, done, result = search(tmp_path, slow, timeout_s=1)
    assert len(done.given) == 1
    assert result.metrics["trials/complete"] == 1


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"metric": "test/auc"}, "metric 'test/auc' cannot be searched"),
        ({"synthetic": "s", "train_classifier": {"folds": "all"}}, "give tune's folds and seeds"),
        ({"objectives": "val/kid", "pruner": "none"}, "let a setting of train_generator vary"),
        ({"synthetic": "s", "generator": "g"}, "synthetic s and generator g: give the one or"),
    ],
)
def test_a_search_over_what_is_not_there_is_refused(setting: dict[str, Any], expected: str) -> None:
    known = inspect.signature(tune.run).parameters
    settings = {name: each.default for name, each in known.items()} | {"data": "d", **setting}
    with pytest.raises(ConfigError, match=expected):
        tune.check(settings)


def test_trial_states_are_true_in_the_storage(tmp_path: Path) -> None:
    run, _, _ = search(tmp_path, study_name="states")
    study = optuna.load_study(study_name="states", storage=f"sqlite:///{run.work}/studies.db")
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}


@pytest.mark.doors
def test_a_study_is_not_gone_on_with_by_another_yardstick(tmp_path: Path) -> None:
    """A setting that no trial may vary is part of what the trials have in common."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BASE, "aggregate", "mean")
        search(tmp_path, study_name="mix", n_trials=2)
        patch.setitem(BASE, "aggregate", "max")
        with pytest.raises(ConfigError, match=r'has train_classifier.aggregate "mean", this sear'):
            search(tmp_path, study_name="mix", n_trials=2)


def test_what_goes_with_folds_alone_may_be_given(tmp_path: Path) -> None:
    known = inspect.signature(tune.run).parameters
    settings = {name: each.default for name, each in known.items()} | {
        "data": "d",
        "synthetic": "s",
    }
    settings["train_classifier"] = {"val_fraction": 0.2}
    tune.check({**settings, "folds": "all"})
    with pytest.raises(ConfigError, match=r"val_fraction 0\.2 has no effect with folds none"):
        tune.check(settings)


@pytest.mark.doors
def test_a_study_without_a_name_is_its_runs(tmp_path: Path) -> None:
    """Computed again as another run it does not find the trials of the first."""
    kept = f"sqlite:///{tmp_path}/studies.db"
    for name in ("first", "again"):
        _, done, _ = search(tmp_path / name, storage=kept, n_trials=2)
        assert len(done.given) == 2
    assert sorted(optuna.get_all_study_names(kept)) == ["memory-again", "memory-first"]


@pytest.mark.doors
def test_a_storage_that_is_away_does_not_end_who_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With it would go the workers, who wait for the storage."""
    run, _, _ = search(tmp_path, study_name="mix", n_trials=2)

    def away(*_: Any, **__: Any) -> Any:
        raise OperationalError("", {}, Exception("connection refused"))

    settings = {"study_name": "mix", "storage": ""}
    (run.folder / "told").unlink()
    before = len(run.history)
    with monkeypatch.context() as patch:
        patch.setattr(optuna, "load_study", away)
        tune.watch(run, settings)
    assert len(run.history) == before
    tune.watch(run, settings)
    assert ("trials/complete", 2.0, 2) in run.history[before:]


@pytest.mark.doors
def test_other_weights_under_the_same_path_are_another_search(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BASE, "weights", str(weights))
        search(tmp_path, study_name="mix", n_trials=2)
        weights.write_bytes(b"second")
        with pytest.raises(ConfigError, match=r"study mix has inputs.weights"):
            search(tmp_path, study_name="mix", n_trials=2)


@pytest.mark.doors
def test_finalists_are_trained_by_all_workers_also_when_the_time_was_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _, _ = search(tmp_path, study_name="mix", n_trials=3)
    known = inspect.signature(tune.run).parameters
    given = {name: each.default for name, each in known.items() if name != "tracked"}
    given |= {"data": "d", "synthetic": "s", "search": "random", "pruner": "none"}
    given |= {"study_name": "mix", "n_trials": 9, "finalists": 1, "finalist_seeds": 2}
    given |= {"step_settings": {"train_classifier": BASE}, "workers": 2, "launcher": "local"}
    carried_out = trials.InThread(hill)
    monkeypatch.setattr(tune, "TrialProcess", lambda: carried_out)
    assert tune.parts(run, {**given, "train_classifier": BASE, "timeout_s": 1e-9}) == 2
    tune.part(run, 0, 2, **given)
    seeds = [each["seed"] for each in carried_out.given]
    assert sorted(set(seeds)) == [10_000, 10_001]  # no trial was begun, the finalists were


@pytest.mark.doors
def test_a_start_that_asks_for_fewer_trials_than_wait_is_refused(tmp_path: Path) -> None:
    """One that has begun goes on: somebody else may have asked for more meanwhile."""
    run, _, _ = search(tmp_path, study_name="mix", n_trials=2)
    known = inspect.signature(tune.run).parameters
    given = {name: each.default for name, each in known.items() if name != "tracked"}
    given |= {"data": "d", "synthetic": "s", "study_name": "mix", "launcher": "local"}
    given |= {"train_classifier": BASE, "timeout_s": 1}
    assert tune.parts(run, {**given, "n_trials": 5}) == 0
    with pytest.raises(ConfigError, match=r"n_trials 3: study mix has 5 trials, 3 of which wait"):
        tune.parts(run, {**given, "n_trials": 3})
    *_, result = search(tmp_path, study_name="mix", n_trials=3)
    assert result.metrics["trials/complete"] == 5
