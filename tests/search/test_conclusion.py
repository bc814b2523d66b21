"""The end of a study: the files, figures and words that it leaves on its run."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from spaces import SETTINGS, plan

from mammo import cli
from mammo.errors import ConfigError
from mammo.run import MemoryRun
from mammo.search.conclusion import conclude
from mammo.search.figures import figures, importance
from mammo.search.finalists import Rerun
from mammo.search.objective import read_objective
from mammo.search.outcome import Candidate, candidates, front
from mammo.search.study import complete, fail, found_study, propose
from studies import searched

pytestmark = pytest.mark.doors

SPACE: dict[str, Any] = {
    "real_percentage": {"low": 0.0, "high": 1.0},
    "loss": {"choices": ["ce", "focal"]},
    "focal_gamma": {"low": 0.5, "high": 4.0, "when": {"loss": ["focal"]}},
    "lr": {"low": 1e-5, "high": 1e-1, "log": True},
    "sample.guidance": {"choices": [1.0, 3.0]},
}
WIRED = {
    "train_classifier": {"data": "runs:/d/dataset", "synthetic": "runs:/s/dataset"},
    "sample": {"generator": "runs:/g/model"},
}


def hill(chosen: Mapping[str, Any], unit: int) -> dict[str, float]:
    """Best at real_percentage 0.5 with focal; guidance changes nothing."""
    off = (chosen["real_percentage"] - 0.5) ** 2 + 0.2 * (chosen["loss"] == "ce")
    return {"best/val/auc": 0.9 - off, "realised_real_percentage": chosen["real_percentage"]}


def study_of(objectives: str = "", n_trials: int = 24) -> Any:
    objective = read_objective("val/auc", objectives, seeds=(0,))
    of = plan(SPACE, objective=objective, search="random", pruner="none")
    of = replace(of, settings={"sample": SETTINGS["sample"], **of.settings})
    return searched(of, hill, n_trials=n_trials), of


def test_the_best_settings_are_a_config_of_their_steps(tmp_path: Path) -> None:
    """Parsed by the command line itself; the trial with the highest value is what comes back."""
    study, of = study_of()
    run = MemoryRun(tmp_path)
    result = conclude(run, study, of, wired=WIRED)
    top = max(candidates(study), key=lambda each: each.value)
    place = run.folder / "study"
    for step, name in (("train_classifier", "best.yaml"), ("sample", "best_sample.yaml")):
        parsed = cli.parse(step, ["--config", str(place / name)])
        expected = {**SETTINGS[step], **WIRED[step], **of.space.by_step(top.chosen).get(step, {})}
        expected |= {"seed": 0}
        assert {key: parsed[key] for key in expected} == expected
    said = json.loads((place / "study.json").read_text())
    assert said["best"] == dict(top.chosen)
    assert said["space"] == of.space.described()
    assert result.metrics["best/val/auc"] == top.value
    assert result.outputs["best"].endswith("study/best.yaml")
    assert list(run.tables["trials"]["val/auc"].dropna()) == pytest.approx(
        [each.value for each in candidates(study)]
    )


def test_of_a_search_over_folds_the_config_trains_them_all(tmp_path: Path) -> None:
    objective = read_objective("val/auc", folds=("0", "1"), seeds=(1, 2))
    of = plan({"dropout": {"choices": [0.0, 0.1]}}, objective=objective, search="grid",
              pruner="none")  # fmt: skip
    study = searched(of, lambda chosen, unit: {"best/val/auc": 0.8}, n_trials=2)
    run = MemoryRun(tmp_path)
    conclude(run, study, of, wired={"train_classifier": {"data": "d"}})
    parsed = cli.parse("train_classifier", ["--config", str(run.folder / "study/best.yaml")])
    assert (parsed["folds"], parsed["seeds"], parsed["score_fold"]) == ("all", "1,2", True)
    from mammo.steps import train_classifier

    train_classifier.check(parsed)


def test_the_note_says_what_was_searched_and_what_came_out(tmp_path: Path) -> None:
    study, of = study_of()
    top = max(candidates(study), key=lambda each: each.value)
    low = min(candidates(study), key=lambda each: each.value)
    other = Candidate(low.chosen, (0.7,), (77,))
    again = [Rerun(other, (0.86, 0.88), True), Rerun(top, (0.80, 0.84), True, winner=True)]
    said = conclude(MemoryRun(tmp_path), study, of, wired=WIRED, reruns=again).note
    for expected in (
        "by random, pruner none: 24 trials complete",
        "val/auc up on the validation patients, seed 0; the test images were not opened",
        "- `real_percentage`: 0 to 1\n",
        "- `lr`: 1e-05 to 0.1, logarithmic",
        "- `focal_gamma`: 0.5 to 4 (where loss is focal)",
        f"| {top.trials[0]} | {top.value:.4g} |",
        f"the winner (trial {top.trials[0]}) gives val/auc 0.8200 (sd 0.0283)",
        f"Winner's curse: {top.value - 0.82:+.4f}",
        "| 77 | 0.7000 | 0.8700 | 0.0141 |",
        "importance, PED-ANOVA",
    ):
        assert expected in said, expected
    assert len(said) < 7000


def test_of_finalists_the_best_on_fresh_seeds_is_the_config(tmp_path: Path) -> None:
    study, of = study_of()
    first, second = sorted(candidates(study), key=lambda each: -each.value)[:2]
    again = [Rerun(second, (0.9,), True), Rerun(first, (0.5,), True, winner=True)]
    run = MemoryRun(tmp_path)
    metrics = conclude(run, study, of, wired=WIRED, reruns=again).metrics
    assert json.loads((run.folder / "study/study.json").read_text())["best"] == second.chosen
    assert metrics["winner/val/auc_mean"] == 0.5  # of the search's own winner
    assert metrics["best/val/auc"] == first.value


def test_figures_are_those_that_make_sense() -> None:
    study, of = study_of()
    drawn = figures(study, of)
    assert list(drawn) == [
        "optimisation_history", "slice", "parallel_coordinate", "importance", "contour"
    ]  # fmt: skip
    few, of_few = study_of(n_trials=3)
    assert list(figures(few, of_few)) == ["optimisation_history"]
    flat = plan({"dropout": {"choices": [0.0, 0.1, 0.2, 0.3, 0.4]}}, search="grid", pruner="none")
    same = searched(flat, lambda chosen, unit: {"best/val/auc": 0.8}, n_trials=5)
    assert list(figures(same, flat)) == ["optimisation_history"]


def test_the_history_draws_the_best_so_far_and_the_slices_every_value() -> None:
    study, of = study_of()
    values = [each.value for each in candidates(study)]
    (axes,) = figures(study, of)["optimisation_history"].axes
    (step, *_) = axes.get_lines()
    assert list(step.get_ydata()) == [max(values[: n + 1]) for n in range(len(values))]
    panels = figures(study, of)["slice"].axes
    shares = panels[0].collections[0].get_offsets()[:, 0]
    assert list(shares) == [each.chosen["real_percentage"] for each in candidates(study)]


def test_what_matters_is_important_and_what_does_not_is_not() -> None:
    study, of = study_of(n_trials=60)
    weights = importance(study, of)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights["real_percentage"] > weights["sample.guidance"]
    assert weights["loss"] > weights["sample.guidance"]
    few, of_few = study_of(n_trials=9)
    assert importance(few, of_few) == {}


def test_several_goals_have_their_front_drawn_and_told(tmp_path: Path) -> None:
    study, of = study_of("synthetic_share")
    run = MemoryRun(tmp_path)
    said = conclude(run, study, of, wired=WIRED).note
    best = front(candidates(study), of.objective)
    assert "pareto_front" in run.figures
    assert "optimisation_history_synthetic_share" in run.figures
    assert "Pareto front" in said
    (axes,) = figures(study, of)["pareto_front"].axes
    drawn = sorted(zip(*axes.get_lines()[1].get_data(), strict=True))
    assert drawn == sorted((each.values[1], each.values[0]) for each in best)
    for each in best:
        assert not [
            other
            for other in candidates(study)
            if other.values[0] > each.values[0] and other.values[1] <= each.values[1]
        ]


def test_when_every_trial_failed_the_most_frequent_reason_is_told(tmp_path: Path) -> None:
    of = plan({"dropout": {"choices": [0.0, 0.1, 0.2]}}, search="grid", pruner="none")
    study = found_study("s", optuna.storages.InMemoryStorage(), of, n_trials=3)
    for reason in ("no image of class benign", "out of memory", "no image of class benign"):
        fail(study, propose(study, of, study.ask()).trial, reason)
    with pytest.raises(ConfigError, match="no trial of study s was completed: no image of class"):
        conclude(MemoryRun(tmp_path), study, of, wired={})


def test_the_note_says_when_the_winner_was_not_trained_again(tmp_path: Path) -> None:
    study, of = study_of()
    second = sorted(candidates(study), key=lambda each: -each.value)[1]
    again = [Rerun(second, (0.86, 0.88), True)]
    run = MemoryRun(tmp_path)
    result = conclude(run, study, of, wired=WIRED, reruns=again, lost={"out of memory": 1})
    assert "on 2 fresh seeds**, the search's winner came to no end." in result.note
    assert f"| {second.trials[0]} | {second.value:.4f} | 0.8700 | 0.0141 |" in result.note
    assert "1 failed: as finalist: out of memory" in result.note
    assert "Winner's curse" not in result.note and "winner/val/auc_mean" not in result.metrics


@pytest.mark.parametrize(
    ("fresh", "told"), [((0.9, 0.7), "better by 0.2000"), ((0.7, 0.75), "worse by 0.0500")]
)
def test_the_note_says_what_the_winner_gives_over_the_baseline(
    fresh: tuple[float, float], told: str, tmp_path: Path
) -> None:
    study, of = study_of()
    top, low = (f(candidates(study), key=lambda each: each.value) for f in (max, min))
    again = [
        Rerun(top, fresh[:1], True, winner=True),
        Rerun(low, fresh[1:], True, baseline=True),
    ]
    again.sort(key=lambda each: -each.mean)
    said = conclude(MemoryRun(tmp_path), study, of, wired=WIRED, reruns=again).note
    what = "real_percentage 1, loss ce, lr 0.001, sample.guidance 1"
    assert f"The baseline (trial 0: {what}) gives" in said
    assert f"val/auc {fresh[1]:.4f} on the same seeds: the winner is {told}." in said
    best = again[0].candidate.trials[0]
    assert f"Best settings (trial {best}, the best on fresh seeds): `mammo train" in said


def test_the_best_settings_have_the_batch_that_fitted_into_memory(tmp_path: Path) -> None:
    """Halved twice in the winner's training, once where it sampled."""
    of = plan({"dropout": {"choices": [0.0, 0.1]}}, search="grid", pruner="none")
    of = replace(of, settings={"sample": SETTINGS["sample"], **of.settings})
    study = found_study("s", optuna.storages.InMemoryStorage(), of, n_trials=2)
    for value, sizes in ((0.8, {"batch_size": 8, "sample.batch_size": 16}), (0.7, {})):
        proposal = propose(study, of, study.ask())
        for name, size in sizes.items():
            proposal.trial.set_user_attr(name, size)
        complete(study, of, proposal, [{"best/val/auc": value}])
    run = MemoryRun(tmp_path)
    conclude(run, study, of, wired=WIRED)
    place = run.folder / "study"
    parsed = cli.parse("train_classifier", ["--config", str(place / "best.yaml")])
    assert parsed["batch_size"] == 8 != SETTINGS["train_classifier"]["batch_size"]
    parsed = cli.parse("sample", ["--config", str(place / "best_sample.yaml")])
    assert parsed["batch_size"] == 16 != SETTINGS["sample"]["batch_size"]
