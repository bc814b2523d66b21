"""The winner trained again: how much too good the best of many noisy values looks."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from scipy import integrate, stats
from spaces import plan

from mammo.search.finalists import (
    Rerun,
    finalist_name,
    finalist_plan,
    finalists_table,
    fresh_seeds,
    reruns,
    winners_curse,
)
from mammo.search.objective import Objective, read_objective
from mammo.search.outcome import Candidate, candidates, ranked
from mammo.search.study import fail, found_study, propose
from studies import searched

LEVELS: dict[str, Any] = {"dropout": {"choices": [0.0, 0.1, 0.2, 0.3]}}


def test_of_pure_noise_the_curse_is_the_expected_maximum() -> None:
    """20 configurations that are all the same, noise sd 0.02: E[max of 20] = 1.867 sd."""
    expected, _ = integrate.quad(
        lambda x: x * 20 * stats.norm.pdf(x) * stats.norm.cdf(x) ** 19, -8, 8
    )
    assert expected == pytest.approx(1.867, abs=1e-3)
    objective, draw = read_objective("val/auc", seeds=(0,)), np.random.default_rng(0)
    curses = []
    for _ in range(400):
        tried = [
            Candidate({"n": n}, (value,), (n,))
            for n, value in enumerate(0.8 + 0.02 * draw.standard_normal(20))
        ]
        winner = ranked(tried, objective)[0]
        again = tuple(0.8 + 0.02 * draw.standard_normal(3))
        curses.append(Rerun(winner, again, maximise=True).curse)
    # sd of one estimate: that of a maximum (0.525 sd) and of a mean of three
    error = 0.02 * (0.525**2 + 1 / 3) ** 0.5 / 400**0.5
    assert np.mean(curses) == pytest.approx(0.02 * expected, abs=4 * error)


def test_without_noise_there_is_no_curse() -> None:
    found = Rerun(Candidate({}, (0.9,), (0,)), (0.9, 0.9), maximise=True)
    assert (found.curse, found.mean, found.sd) == (0.0, 0.9, 0.0)


def test_a_loss_that_comes_out_higher_was_too_good_too() -> None:
    found = Rerun(Candidate({}, (0.3,), (0,)), (0.4,), maximise=False)
    assert found.curse == pytest.approx(0.1)
    assert found.sd is None


def level(chosen: Mapping[str, Any], unit: int) -> dict[str, float]:
    return {"best/val/auc": 0.7 + chosen["dropout"]}


@pytest.mark.doors
def test_the_best_are_trained_again_on_seeds_that_the_search_never_had() -> None:
    objective = read_objective("val/auc", folds=("0", "1"), seeds=(3, 4))
    of = plan(LEVELS, objective=objective, search="grid", pruner="median")
    storage = optuna.storages.InMemoryStorage()
    study = searched(of, level, n_trials=4, study=found_study("s", storage, of, n_trials=4))
    again_plan = finalist_plan(study, of, finalists=2, seeds=2)
    assert again_plan.first() == [{"dropout": 0.3}, {"dropout": 0.2}, {"dropout": 0.0}]
    assert again_plan.objective.seeds == fresh_seeds(objective, 2) == (10_004, 10_005)
    assert len(again_plan.objective.units()) == 4
    again = found_study(finalist_name("s", again_plan), storage, again_plan, n_trials=50)
    assert len(again.trials) == 3  # those, the baseline and no others
    less = {0.3: 0.2, 0.2: 0.0, 0.0: 0.25}

    def lower(chosen: Mapping[str, Any], unit: int) -> dict[str, float]:
        """Fold 0: 0.5 and 0.6; fold 1: 0.7 and 0.8; less for the winner and the baseline."""
        return {"best/val/auc": 0.5 + 0.1 * unit - less[chosen["dropout"]]}

    searched(again_plan, lower, n_trials=3, study=again)
    found = reruns(study, of, again, again_plan)
    assert [each.candidate.chosen["dropout"] for each in found] == [0.2, 0.3, 0.0]
    assert [each.baseline for each in found] == [False, False, True]
    assert found[0].values == pytest.approx((0.6, 0.7))  # a seed is the mean of its folds
    said = winners_curse(found, "val/auc")
    assert said == pytest.approx(
        {
            "winner/val/auc_searched": 1.0, "winner/val/auc_mean": 0.45,
            "winner/val/auc_curse": 0.55, "winner/val/auc_sd": 0.1 / 2**0.5,
            "baseline/val/auc_mean": 0.4, "winner/val/auc_gain": 0.05,
            "winner/val/auc_gain_sd": 0.0,
        }
    )  # fmt: skip
    table = finalists_table(found, "val/auc")
    assert list(table["searched - re-run"]) == pytest.approx([0.9 - 0.65, 0.55, 0.7 - 0.4])


def test_fresh_seeds_are_fresh_however_far_apart_those_of_the_search_are() -> None:
    """Seeds 0 and 4999: the third trial of a configuration has 10000 already."""
    objective = read_objective("val/auc", seeds=(0, 4999))
    used = {unit.seed for again in range(1000) for unit in objective.units(again)}
    assert 10_000 in used
    assert not used & set(fresh_seeds(objective, 5))


def test_without_a_baseline_on_real_images_there_is_no_gain() -> None:
    """The share of real images ends at 0.9: the settings nearest to it are no baseline."""
    said = {"real_percentage": {"low": 0.3, "high": 0.9, "step": 0.2}}
    of = plan(said, search="grid", pruner="none")
    storage = optuna.storages.InMemoryStorage()

    def rising(chosen: Mapping[str, Any], unit: int) -> dict[str, float]:
        return {"best/val/auc": chosen["real_percentage"]}

    study = searched(of, rising, n_trials=4, study=found_study("s", storage, of, n_trials=4))
    again_plan = finalist_plan(study, of, finalists=1, seeds=2)
    assert again_plan.first() == [{"real_percentage": 0.9}]
    again = found_study(finalist_name("s", again_plan), storage, again_plan, n_trials=1)
    found = reruns(study, of, searched(again_plan, rising, n_trials=1, study=again), again_plan)
    said_of = winners_curse(found, "val/auc")
    assert said_of["winner/val/auc_mean"] == pytest.approx(0.9)
    assert "winner/val/auc_gain" not in said_of


def test_the_second_is_not_passed_off_as_a_winner_that_failed() -> None:
    of = plan(LEVELS, search="grid", pruner="none")
    storage = optuna.storages.InMemoryStorage()
    study = searched(of, level, n_trials=4, study=found_study("s", storage, of, n_trials=4))
    again_plan = finalist_plan(study, of, finalists=2, seeds=1)
    again = found_study(finalist_name("s", again_plan), storage, again_plan, n_trials=3)
    winner = propose(again, again_plan, again.ask())
    assert winner.chosen == {"dropout": 0.3}
    fail(again, winner.trial, "out of memory")
    found = reruns(study, of, searched(again_plan, level, n_trials=2, study=again), again_plan)
    assert [each.candidate.chosen["dropout"] for each in found] == [0.2, 0.0]
    assert winners_curse(found, "val/auc") == {}


def test_repeats_of_a_configuration_cure_its_luck() -> None:
    """One lucky trial, three sober ones of the same settings: their mean ranks it below another."""
    of = plan({"dropout": {"choices": [0.0, 0.1]}}, search="random", pruner="none")
    given = {0.0: iter([0.99, 0.5, 0.5, 0.5] + [0.5] * 20), 0.1: iter([0.8] * 24)}
    study = searched(of, lambda chosen, unit: {"best/val/auc": next(given[chosen["dropout"]])},
                     n_trials=12)  # fmt: skip
    assert study.best_trial.user_attrs["own_values"] == [0.99]
    assert ranked(candidates(study), of.objective)[0].chosen == {"dropout": 0.1}


def test_of_equals_the_earlier_one_is_the_best() -> None:
    objective: Objective = read_objective("val/auc", seeds=(0,))
    tried = [Candidate({"n": n}, (0.8,), (n,)) for n in random.Random(0).sample(range(9), 9)]
    assert ranked(tried, objective)[0].trials == (0,)
