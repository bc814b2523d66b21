"""Who proposes and who prunes: each finds a known optimum, and refuses what it cannot do."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from scipy.stats import qmc
from spaces import plan

from mammo.errors import ConfigError
from mammo.search.engines import PRUNERS, SEARCHES, check_engines, make_sampler
from mammo.search.objective import Objective, read_objective
from mammo.search.outcome import candidates, counts, front, ranked
from mammo.search.space import Space
from mammo.search.study import found_study, join_study, propose
from studies import searched

NUMBERS = {"dropout": {"low": 0.0, "high": 1.0}, "lr": {"low": 1e-5, "high": 1e-1, "log": True}}
MIXED = {
    "loss": {"choices": ["ce", "focal"]},
    "focal_gamma": {"low": 0.0, "high": 4.0, "when": {"loss": ["focal"]}},
    "dropout": {"low": 0.0, "high": 1.0, "step": 0.25},
}


def bowl(chosen: Mapping[str, Any], unit: int) -> dict[str, float]:
    """AUC 0.9 at dropout 0.7 and lr 1e-3, less in every other place."""
    off = (chosen["dropout"] - 0.7) ** 2 + (0.2 * (math.log10(chosen["lr"]) + 3)) ** 2
    return {"best/val/auc": 0.9 - off}


@pytest.mark.doors
@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_each_engine_finds_the_optimum_of_a_quadratic(name: str) -> None:
    """Within 0.02 of the optimum, which one point of 25 of the square is."""
    said: dict[str, Any] = NUMBERS
    if name == "grid":
        said = {"dropout": {"low": 0.0, "high": 1.0, "step": 0.1}, "lr": {"choices": [1e-5, 1e-3]}}
    of = plan(said, search=name, pruner="none", seed=1)
    check_engines(name, "none", of.space, of.objective)
    study = searched(of, bowl, n_trials=40)
    best = ranked(candidates(study), of.objective)[0]
    assert best.value > 0.88
    assert counts(study)["trials/complete"] == (22 if name == "grid" else 40)


def test_a_grid_is_every_point_once_and_ends(tmp_path: Any) -> None:
    said = {
        "loss": {"choices": ["ce", "focal"]},
        "focal_gamma": {"choices": [1.0, 3.0], "when": {"loss": ["focal"]}},
        "dropout": {"low": 0.0, "high": 0.5, "step": 0.25},
    }
    of = plan(said, search="grid", pruner="none")
    study = searched(of, lambda chosen, unit: {"best/val/auc": 0.5}, n_trials=100)
    tried = [each.chosen for each in candidates(study)]
    assert len(tried) == counts(study)["trials/complete"] == 3 * (1 + 2)
    assert tried[0] == {"loss": "ce", "dropout": 0.0}  # as the step has it by itself
    for point in of.space.configurations(lambda each: each.grid() or ()):
        assert point in tried


def test_sobol_points_are_scipys_whoever_takes_them() -> None:
    """Trial n has point n, also where several workers ask before any trial has ended."""
    space = Space.of(NUMBERS)
    study = optuna.create_study()
    points = []
    for worker in range(8):
        study.sampler = make_sampler("qmc", space, seed=3, worker=worker)
        chosen = space.suggest(study.ask())
        points.append([chosen["dropout"], (math.log10(chosen["lr"]) + 5) / 4])
    expected = qmc.Sobol(2, scramble=True, seed=3).random(8)
    np.testing.assert_allclose(points, expected, atol=1e-9)


@pytest.mark.parametrize("name", ["tpe", "random", "nsga2", "gp"])
def test_workers_that_ask_at_once_propose_different_points(name: str) -> None:
    space, study = Space.of(NUMBERS), optuna.create_study()
    found = set()
    for worker in ("a", "b", "c"):
        study.sampler = make_sampler(name, space, seed=0, worker=worker)
        found.add(tuple(space.suggest(study.ask()).values()))
    assert len(found) == 3


def test_a_worker_that_joins_again_goes_on_elsewhere_and_the_same_one_does_not() -> None:
    space = Space.of(NUMBERS)

    def first(**place: Any) -> dict[str, Any]:
        study = optuna.create_study()
        study.sampler = make_sampler("random", space, seed=0, **place)
        return space.suggest(study.ask())

    assert first(worker="a", told=0) == first(worker="a", told=0)
    assert first(worker="a", told=0) != first(worker="a", told=4)


@pytest.mark.parametrize("name", ["tpe", "nsga2", "random", "qmc"])
def test_several_objectives_have_the_front_that_is_known(name: str) -> None:
    """AUC and share rise together below 0.5, so there all is front; above AUC falls: none is."""
    objective = read_objective("val/auc", "synthetic_share", seeds=(0,))
    of = plan(
        {"real_percentage": {"low": 0.0, "high": 1.0, "step": 0.125}},
        objective=objective,
        search=name,
        pruner="none",
    )

    def measure(chosen: Mapping[str, Any], unit: int) -> dict[str, float]:
        real = chosen["real_percentage"]
        return {"best/val/auc": 0.9 - (real - 0.5) ** 2, "realised_real_percentage": real}

    study = searched(of, measure, n_trials=24)
    shares = {each.chosen["real_percentage"] for each in front(candidates(study), objective)}
    tried = {each.chosen["real_percentage"] for each in candidates(study)}
    assert shares == {share for share in tried if share >= 0.5}
    assert {0.5, 1.0} <= shares  # both are anchors


def test_the_wilcoxon_pruner_stops_what_loses_on_every_fold() -> None:
    """Five trainings all worse: p = 1/2**n falls below 0.1 with the fourth, and no earlier."""
    objective = read_objective("val/auc", folds=tuple("01234"), seeds=(0,))
    of = plan({"sampler": {"choices": ["random", "weighted"]}}, objective=objective,
              search="grid", pruner="wilcoxon")  # fmt: skip
    seen: dict[str, int] = {}

    def measure(chosen: Mapping[str, Any], unit: int) -> dict[str, float]:
        seen[chosen["sampler"]] = unit + 1
        level = 0.9 if chosen["sampler"] == "random" else 0.8
        return {"best/val/auc": level + 0.03 * unit - 0.001 * unit**2}

    study = searched(of, measure, n_trials=2)
    assert seen == {"random": 5, "weighted": 4}
    assert counts(study) == {"trials/complete": 1, "trials/pruned": 1, "trials/failed": 0}


def test_the_median_pruner_judges_the_mean_so_far() -> None:
    """The fifth trial is below the median after its second of three folds, and is stopped there."""
    objective = read_objective("val/auc", folds=("0", "1", "2"), seeds=(0,))
    of = plan({"dropout": {"choices": [0.0, 0.1, 0.2, 0.3, 0.4]}}, objective=objective,
              search="grid", pruner="median")  # fmt: skip
    seen: list[int] = []

    def measure(chosen: Mapping[str, Any], unit: int) -> dict[str, float]:
        if unit == 0:
            seen.append(0)
        seen[-1] = unit + 1
        return {"best/val/auc": 0.5 if len(seen) == 5 else 0.8}

    searched(of, measure, n_trials=5)
    assert seen == [3, 3, 3, 3, 2]


@pytest.mark.parametrize(
    ("said", "folds", "given", "brackets"),
    [
        ({"dropout": {"choices": [0.0]}}, ("none",), {"epochs": 27}, 4),  # 1, 3, 9, 27 epochs
        ({"dropout": {"choices": [0.0]}}, ("none",), {"epochs": 5, "real_epochs": 4}, 3),
        ({"epochs": {"low": 1, "high": 9}}, ("none",), {"epochs": 27}, 3),
        ({"dropout": {"choices": [0.0]}}, ("0", "1", "2"), {"epochs": 27}, 2),  # 1 or 3 trainings
    ],
)
def test_workers_of_hyperband_have_the_same_brackets(
    said: Any, folds: tuple[str, ...], given: dict[str, int], brackets: int
) -> None:
    """Those that follow from the plan, whatever the trials that each of them has seen."""
    of = plan(said, objective=read_objective("val/auc", folds=folds, seeds=(0,)),
              search="random", pruner="hyperband")  # fmt: skip
    of = replace(of, settings={"train_classifier": {"dropout": 0.0, **given}})
    study = found_study("s", optuna.storages.InMemoryStorage(), of, n_trials=2)
    for last in (1, 2):  # the second trial is longer
        trial = propose(study, of, study.ask()).trial
        for step in range(last):
            trial.report(0.5, step)
        worker, _ = join_study("s", study._storage, worker=last)
        assert not trial.should_prune() and not worker.pruner.prune(worker, worker.trials[last - 1])
        assert {study.pruner._n_brackets, worker.pruner._n_brackets} == {brackets}
        study.tell(trial, 0.5)


ONE = read_objective("val/auc", seeds=(0,))
TWO = read_objective("val/auc", "gpu_hours", seeds=(0,))


@pytest.mark.parametrize(
    ("search", "pruner", "said", "objective", "expected"),
    [
        ("grid", "none", NUMBERS, ONE, "needs choices or steps, and dropout is a range without"),
        (
            "grid",
            "none",
            {"dropout": {"low": 0.0, "high": 1.0, "step": 0.0005}},
            ONE,
            "up to 2001 trials, more than 1000",
        ),
        ("cmaes", "none", MIXED, ONE, "takes ranges of numbers alone, and loss has choices"),
        (
            "cmaes",
            "none",
            {"dropout": {"low": 0.0, "high": 1.0}},
            ONE,
            "needs two settings that vary, there is 1",
        ),
        (
            "cmaes",
            "none",
            NUMBERS,
            TWO,
            "takes one objective, not val/auc",
        ),
        ("tpe", "median", NUMBERS, TWO, "'median' judges one objective, not val/auc, gpu_hours"),
        ("tpe", "wilcoxon", NUMBERS, ONE, "needs 5 folds x seeds, there are 1"),
        ("luck", "none", NUMBERS, ONE, "unknown search 'luck'; choose one of cmaes, gp, grid"),
        ("tpe", "axe", NUMBERS, ONE, "unknown pruner 'axe'"),
    ],
)
def test_what_an_engine_cannot_do_is_one_line(
    search: str, pruner: str, said: Any, objective: Objective, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        check_engines(search, pruner, Space.of(said), objective)


@pytest.mark.doors
@pytest.mark.parametrize("search", [each for each in sorted(SEARCHES) if each != "cmaes"])
@pytest.mark.parametrize("pruner", sorted(PRUNERS))
def test_every_engine_goes_with_conditions_and_every_pruner(search: str, pruner: str) -> None:
    """Every configuration is canonical: focal_gamma where loss is focal, and nowhere else."""
    said = {**MIXED, "focal_gamma": {**MIXED["focal_gamma"], "step": 1.0}}
    objective = read_objective("val/auc", folds=tuple("01234"), seeds=(0,))
    of = plan(said, objective=objective, search=search, pruner=pruner)
    check_engines(search, pruner, of.space, objective)
    study = searched(
        of, lambda chosen, unit: {"best/val/auc": 0.5 + 0.1 * chosen["dropout"]}, n_trials=16
    )
    for trial in study.trials:
        assert ("focal_gamma" in trial.params) == (trial.params["loss"] == "focal")
