"""A study in its storage: made once, joined by who searches the same, each trial told once."""

import math
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from spaces import plan

from mammo.errors import ConfigError
from mammo.run import Pruned
from mammo.search.history import history
from mammo.search.objective import Goal, Objective, Unit, read_folds, read_objective
from mammo.search.outcome import candidates, counts, errors, ranked, trials_table
from mammo.search.plan import Plan
from mammo.search.queue import WORKER
from mammo.search.storage import open_storage
from mammo.search.study import (
    Progress,
    complete,
    fail,
    fill,
    found_study,
    join_study,
    plan_of,
    propose,
    refuse_fewer,
)

MIX: dict[str, Any] = {
    "real_percentage": {"low": 0.0, "high": 1.0},
    "loss": {"choices": ["focal", "ce"]},
}


def memory() -> optuna.storages.InMemoryStorage:
    return optuna.storages.InMemoryStorage()


def test_the_baselines_come_first_with_the_settings_as_given() -> None:
    first = plan(MIX).first()
    assert [each["real_percentage"] for each in first] == [1.0, 0.5, 0.0, 0.25]
    assert {each["loss"] for each in first} == {"ce"}  # the step's default, though not the first


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"loss": {"choices": ["focal", "ce"]}}, [{"loss": "ce"}]),
        ({"loss": {"choices": ["focal", "bce"]}}, [{"loss": "focal"}]),
        ({"lr": {"low": 0.01, "high": 0.1}}, [{"lr": 0.01}]),  # 0.001 is below
        (
            {"real_percentage": {"low": 0.25, "high": 0.75, "step": 0.25}},
            [{"real_percentage": 0.5}, {"real_percentage": 0.25}],
        ),
        ({"real_percentage": {"low": 0.6, "high": 0.9}}, []),
        (
            {
                "loss": {"choices": ["ce", "focal"]},
                "focal_gamma": {"low": 0.0, "high": 4.0, "when": {"loss": ["focal"]}},
            },
            [{"loss": "ce"}],
        ),
    ],
)
def test_a_space_without_a_baseline_has_the_nearest(said: Any, expected: Any) -> None:
    assert plan(said).first() == expected


def test_the_seed_of_a_trial_is_its_classifiers_and_its_fold_the_generators_too() -> None:
    objective = read_objective("val/auc", folds=("2",), seeds=(5,))
    of = plan({"dropout": {"low": 0.0, "high": 0.5}}, objective=objective)
    earlier = {"train_generator": {"lr": 0.1, "seed": 1}, "sample": {"seed": 1}}
    of = replace(of, settings={**earlier, **of.settings})
    found = of.config({"dropout": 0.25}, objective.units()[0])
    assert found["train_generator"] == {"lr": 0.1, "seed": 1, "fold": "2"}
    assert found["sample"] == {"seed": 1}
    training = {"seed": 5, "seeds": "", "folds": "2", "dropout": 0.25, "score_fold": False}
    assert training.items() <= found["train_classifier"].items()


def test_a_plan_is_read_back_as_it_was() -> None:
    said = {"loss": {"choices": ["ce", "focal"]},
            "focal_gamma": {"low": 0.0, "high": 4.0, "step": 0.5, "when": {"loss": ["focal"]}},
            "epochs": {"low": 1, "high": 9}}  # fmt: skip
    objective = read_objective(
        "val/auc", "gpu_hours,synthetic_share:up", folds=("0",), seeds=(1, 2)
    )
    of = plan(said, objective=objective, search="nsga2", pruner="none", seed=3,
              only=({"loss": "ce", "epochs": 2},))  # fmt: skip
    assert Plan.loads(of.dumps()) == of


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (
            plan({**MIX, "loss": {"choices": ["ce"]}}),
            r"has space.loss.choices \[\"focal\", \"ce\"\], th",
        ),
        (plan({"loss": MIX["loss"]}), r"has space.real_percentage.low 0.0, this search has none"),
        (
            plan(MIX, objective=read_objective("val/f1", seeds=(0,))),
            r'has goals.val/auc "maximize", this search has none',
        ),
        (
            plan(MIX, objective=read_objective("val/auc", seeds=(0, 1))),
            r"has seeds \[0\], this search has \[0, 1\]",
        ),
        (
            plan(MIX, objective=read_objective("val/auc", folds=("1",), seeds=(0,))),
            r'has folds \["none"\], this search has \["1"\]',
        ),
        (replace(plan(MIX), inputs={"data": "d2"}), 'has inputs.data "d1", this search has "d2"'),
        (
            replace(plan(MIX), settings={"train_classifier": {"epochs": 3}}),
            "has train_classifier",
        ),
    ],
)
def test_another_search_under_the_same_name_is_refused(other: Plan, expected: str) -> None:
    storage = memory()
    found_study("mix", storage, plan(MIX), n_trials=5)
    with pytest.raises(ConfigError, match=expected) as caught:
        found_study("mix", storage, other, n_trials=5)
    assert str(caught.value).startswith("study mix has ")
    assert "\n" not in str(caught.value)


def test_another_engine_may_go_on_with_it() -> None:
    storage = memory()
    found_study("mix", storage, plan(MIX), n_trials=5)
    again = found_study("mix", storage, plan(MIX, search="qmc", seed=7), n_trials=5)
    assert len(again.trials) == 5


def test_a_study_of_another_program_is_refused() -> None:
    storage = memory()
    optuna.create_study(study_name="mix", storage=storage).optimize(lambda trial: 0.0, n_trials=1)
    with pytest.raises(ConfigError, match="study mix was not made by mammo tune"):
        found_study("mix", storage, plan(MIX), n_trials=5, patience_s=0)
    with pytest.raises(ConfigError, match="no study is called mux; the storage has mix"):
        join_study("mux", storage)


def test_who_died_over_the_making_is_stood_in_for() -> None:
    storage, of = memory(), plan(MIX)
    begun = optuna.create_study(study_name="mix", storage=storage, directions=["maximize"])
    begun.enqueue_trial(of.first()[0])
    study = found_study("mix", storage, of, n_trials=6, patience_s=0)
    waiting = [each.system_attrs.get("fixed_params") for each in study.trials]
    assert waiting == [*of.first(), None, None]
    assert plan_of(study) == of


def _found(address: str, start: Any, told: Any) -> None:
    storage = open_storage(address)
    start.wait()
    told.put(len(found_study("mix", storage, plan(MIX), n_trials=7).trials))


@pytest.mark.doors
def test_of_eight_processes_that_start_together_one_makes_the_study(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/studies.db"
    context = multiprocessing.get_context("spawn")
    start, told = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_found, args=(address, start, told)) for _ in range(8)]
    for each in processes:
        each.start()
    assert [told.get(timeout=120) for _ in processes] == [7] * 8
    for each in processes:
        each.join()
    study, _ = join_study("mix", open_storage(address))
    fixed = [each.system_attrs.get("fixed_params") for each in study.trials]
    assert fixed == [*plan(MIX).first(), None, None, None]


def test_a_configuration_proposed_again_has_other_seeds_and_its_mean_counts() -> None:
    objective = read_objective("val/auc", seeds=(4, 6))
    of = plan({"loss": {"choices": ["ce"]}}, objective=objective, search="random", pruner="none")
    study = found_study("s", memory(), of, n_trials=3)
    given = iter([[0.6, 0.8], [0.9, 0.9], [0.2, 0.4]])  # means 0.7, 0.9, 0.3
    told = []
    for expected in ((4, 6), (7, 9), (10, 12)):
        proposal = propose(study, of, study.ask())
        assert tuple(unit.seed for unit in proposal.units) == expected
        measured = [{"best/val/auc": value} for value in next(given)]
        told.append(complete(study, of, proposal, measured)[0])
    assert told == pytest.approx([0.7, 0.8, (0.7 + 0.9 + 0.3) / 3])
    (only,) = candidates(study)
    assert only.trials == (0, 1, 2)
    assert only.value == pytest.approx((0.7 + 0.9 + 0.3) / 3)
    assert list(trials_table(study, of)["val/auc"]) == pytest.approx([0.7, 0.9, 0.3])
    assert list(trials_table(study, of)["seeds"]) == ["4 6", "7 9", "10 12"]


def test_two_that_run_the_same_configuration_at_once_have_different_seeds() -> None:
    of = plan({"loss": {"choices": ["ce"]}}, search="random", pruner="none")
    study = found_study("s", memory(), of, n_trials=4)
    proposals = [propose(study, of, study.ask()) for _ in range(4)]
    assert {each.units[0].seed for each in proposals} == {0, 1, 2, 3}


def _proposed(address: str, start: Any, told: Any) -> None:
    study, of = join_study("one", open_storage(address))
    start.wait()
    told.put([propose(study, of, study.ask()).units[0].seed for _ in range(3)])


@pytest.mark.doors
def test_no_two_of_many_processes_have_the_same_seed(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/studies.db"
    of = plan({"loss": {"choices": ["ce"]}}, search="random", pruner="none")
    found_study("one", open_storage(address), of, n_trials=12)
    context = multiprocessing.get_context("spawn")
    start, told = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_proposed, args=(address, start, told)) for _ in range(4)]
    for each in processes:
        each.start()
    seeds = [seed for _ in processes for seed in told.get(timeout=120)]
    for each in processes:
        each.join()
    assert len(set(seeds)) == 12


def test_a_trial_that_is_gone_on_with_keeps_its_configuration_and_seeds() -> None:
    of = plan({"dropout": {"low": 0.0, "high": 1.0}}, search="random", pruner="none")
    study = found_study("s", memory(), of, n_trials=3)
    trial = study.ask()
    before = propose(study, of, trial)
    other, _ = join_study("s", study._storage, worker="another")
    after = propose(other, of, optuna.Trial(other, trial._trial_id))
    assert (after.chosen, after.units) == (before.chosen, before.units)


def test_a_value_that_is_no_number_is_a_failure_that_says_so() -> None:
    of = plan({"loss": {"choices": ["ce"]}}, search="random", pruner="none")
    study = found_study("s", memory(), of, n_trials=2)
    complete(study, of, propose(study, of, study.ask()), [{"best/val/auc": math.nan}])
    fail(study, propose(study, of, study.ask()).trial, "no image of class benign")
    assert counts(study) == {"trials/complete": 0, "trials/pruned": 0, "trials/failed": 2}
    assert errors(study) == {"val/auc is nan": 1, "no image of class benign": 1}


def test_an_epoch_that_a_dead_worker_reported_is_not_reported_again() -> None:
    of = plan({"dropout": {"low": 0.0, "high": 1.0}}, search="random", pruner="median")
    study = found_study("s", memory(), of, n_trials=1)
    proposal = propose(study, of, study.ask())
    Progress(of, proposal).epoch({"val/auc": 0.7}, 0)
    resumed = Progress(of, proposal)
    resumed.epoch({"val/auc": 0.6}, 0)
    resumed.epoch({"val/auc": 0.8}, 1)
    resumed.epoch({"train/loss": 0.1}, 2)
    assert study.trials[0].intermediate_values == {0: 0.7, 1: 0.8}


@pytest.mark.parametrize("pruner", ["median", "hyperband", "wilcoxon"])
def test_what_is_no_number_is_no_reason_to_prune(pruner: str) -> None:
    """The trial fails, and says why."""
    objective = read_objective("val/auc", folds=tuple("01234"), seeds=(0,))
    of = plan({"loss": {"choices": ["ce"]}}, objective=objective, search="random", pruner=pruner)
    study = found_study("s", memory(), of, n_trials=6)
    for number in range(6):
        proposal = propose(study, of, study.ask())
        measured = [{"best/val/auc": 0.8}] * 5 if number < 5 else [{}] * 5
        report = Progress(of, proposal)
        for each in measured:
            report.training(each)
        complete(study, of, proposal, measured)
    assert errors(study) == {"val/auc is nan": 1}


def test_an_unpromising_epoch_ends_the_trial() -> None:
    of = plan({"dropout": {"choices": [0.0, 0.1, 0.2, 0.3, 0.4]}}, search="grid", pruner="median")
    study = found_study("s", memory(), of, n_trials=5)
    for number in range(5):
        proposal = propose(study, of, study.ask())
        report = Progress(of, proposal)
        report.epoch({"val/auc": 0.5 if number == 4 else 0.8}, 0)
        if number == 4:
            with pytest.raises(Pruned, match=r"val/auc 0.5000 at 1"):
                report.epoch({"val/auc": 0.5}, 1)
            break
        report.epoch({"val/auc": 0.8}, 1)
        complete(study, of, proposal, [{"best/val/auc": 0.8}])


def test_what_is_measured() -> None:
    objective = read_objective(
        "val/loss", "synthetic_share,gpu_hours", folds=("0", "2"), seeds=(5,)
    )
    assert objective.directions == ["minimize", "minimize", "minimize"]
    assert objective.units() == (Unit("0", 5), Unit("2", 5))
    assert [each.name for each in objective.units()] == ["fold-0-seed-5", "fold-2-seed-5"]
    measured = [
        {"best/val/loss": 0.4, "realised_real_percentage": 0.25, "hours": 0.5},
        {"best/val/loss": 0.6, "hours": 1.5},  # nothing mixed: all real
    ]
    assert objective.values(measured) == [0.5, 0.375, 2.0]
    fidelity = read_objective("val/auc", "val/kid", seeds=(0,))
    assert fidelity.directions == ["maximize", "minimize"]
    of_both = {"best/val/auc": 0.8, "best/val/kid": 9.0, "train_generator/val/kid": 0.02}
    assert fidelity.values([of_both]) == [0.8, 0.02]
    turned = read_objective("val/auc", "val/auc, synthetic_share:up", seeds=(0,))
    assert turned.goals == (Goal("val/auc", True), Goal("synthetic_share", True))
    assert Objective.of(objective.described()) == objective


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("test/auc", ""), "metric 'test/auc' cannot be searched; choose one of val/auc"),
        (("val/auc", "test/auc"), "objectives 'test/auc' cannot be a goal"),
        (("val/auc", "gpu_hours:less"), "objectives 'gpu_hours:less' cannot be a goal"),
    ],
)
def test_a_goal_is_a_validation_metric_or_a_cost(asked: tuple[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        read_objective(*asked, seeds=(0,))


def test_folds_are_none_all_or_numbers() -> None:
    assert read_folds("none", ("0", "1")) == ("none",)
    assert read_folds("all", ("0", "1")) == ("0", "1")
    assert read_folds("1, 0", ("0", "1")) == ("1", "0")
    for wrong, expected in (("first", "should be none, all or"), ("0,0", "twice"), ("", "should")):
        with pytest.raises(ConfigError, match=expected):
            read_folds(wrong, ("0", "1"))
    with pytest.raises(ConfigError, match="folds '3' names fold 3, the dataset has 0, 1"):
        read_folds("3", ("0", "1"))
    with pytest.raises(ConfigError, match="folds 'all' is asked of a dataset that has no folds"):
        read_folds("all", ())


def fixed(study: optuna.Study) -> list[Any]:
    """What each trial was told to try, None where it is to be proposed."""
    return [each.system_attrs.get("fixed_params") for each in study.trials]


def test_more_trials_bring_the_baselines_that_there_was_no_room_for() -> None:
    of = plan(MIX)
    study = found_study("mix", memory(), of, n_trials=2)
    fill(study, of, 6)
    assert fixed(study) == [*of.first(), None, None]
    fill(study, of, 6)
    assert len(study.trials) == 6


def test_a_grid_that_is_continued_has_its_other_points_once_each() -> None:
    said = {"dropout": {"choices": [0.0, 0.1, 0.2, 0.3]}}
    of = plan(said, search="grid", pruner="none")
    storage = memory()
    study = found_study("grid", storage, of, n_trials=2)
    complete(study, of, propose(study, of, study.ask()), [{"best/val/auc": 0.5}])
    fill(study, of, 3)
    fill(study, of, 100)
    assert sorted(each["dropout"] for each in fixed(study)) == [0.0, 0.1, 0.2, 0.3]


def test_a_grid_goes_on_where_another_engine_was() -> None:
    """Four trials of which two are points of the grid: the two that are left come."""
    said = {"dropout": {"choices": [0.0, 0.1, 0.2, 0.3]}}
    earlier, of = plan(said, search="random", pruner="none"), plan(said, search="grid")
    storage = memory()
    study = found_study("mix", storage, earlier, n_trials=2)
    tried = []
    for _ in range(2):
        proposal = propose(study, earlier, study.ask())
        tried.append(proposal.chosen["dropout"])
        complete(study, earlier, proposal, [{"best/val/auc": 0.5}])
    study = found_study("mix", storage, of, n_trials=10)
    fill(study, of, 10)
    new = [each["dropout"] for each in fixed(study)[2:]]
    assert sorted({*tried, *new}) == [0.0, 0.1, 0.2, 0.3] and not {*tried} & {*new}


def test_fewer_trials_than_wait_are_refused() -> None:
    of = plan(MIX)
    study = found_study("mix", memory(), of, n_trials=6)
    with pytest.raises(ConfigError, match=r"n_trials 4: study mix has 6 trials, 6 of which wait"):
        refuse_fewer(study, 4)
    for trial in range(6):
        fail(study, propose(study, of, study.ask()).trial, f"reason {trial}")
    refuse_fewer(study, 4)  # all are over: there is nothing that nobody asked for
    fill(study, of, 4)
    assert len(study.trials) == 6


def test_workers_go_on_with_the_engine_of_the_last_start() -> None:
    storage = memory()
    found_study("mix", storage, plan(MIX), n_trials=5)
    found_study("mix", storage, plan(MIX, search="random", pruner="none", seed=7), n_trials=5)
    study, of = join_study("mix", storage, worker=3)
    assert (of.search, of.pruner, of.seed) == ("random", "none", 7)
    assert isinstance(study.sampler, optuna.samplers.RandomSampler)
    assert isinstance(study.pruner, optuna.pruners.NopPruner)


def test_a_trial_whose_trainings_are_all_done_is_complete_however_it_compares() -> None:
    """Two folds: the fifth trial is as good as the others on the first, and bad on the last."""
    objective = read_objective("val/auc", folds=("0", "1"), seeds=(0,))
    of = plan({"dropout": {"choices": [0.0, 0.1, 0.2, 0.3, 0.4]}}, objective=objective,
              search="grid", pruner="median")  # fmt: skip
    study = found_study("s", memory(), of, n_trials=5)
    for number in range(5):
        proposal = propose(study, of, study.ask())
        report, measured = Progress(of, proposal), []
        for value in (0.8, 0.1) if number == 4 else (0.8, 0.9):
            measured.append({"best/val/auc": value - 0.05 * (number == 4)})
            report.training(measured[-1])
        complete(study, of, proposal, measured)
    assert counts(study) == {"trials/complete": 5, "trials/pruned": 0, "trials/failed": 0}
    assert study.trials[4].value == pytest.approx(0.4)


def test_a_trial_that_was_given_back_keeps_its_seeds_for_itself() -> None:
    of = plan({"loss": {"choices": ["ce"]}}, search="random", pruner="none")
    study = found_study("s", memory(), of, n_trials=2)
    first = propose(study, of, study.ask())
    waits = study._storage.get_trial(first.trial._trial_id)
    other = study.ask()
    # as a worker that stops leaves it; Optuna itself takes no trial back
    waits.state = optuna.trial.TrialState.WAITING
    study._storage._studies[study._study_id].trials[0] = waits
    assert propose(study, of, other).units[0].seed != first.units[0].seed


def test_the_goal_that_is_no_number_is_named() -> None:
    objective = read_objective("val/auc", "val/loss", seeds=(0,))
    of = plan({"loss": {"choices": ["ce"]}}, objective=objective, search="random", pruner="none")
    study = found_study("s", memory(), of, n_trials=1)
    measured = {"best/val/auc": 0.8, "best/val/loss": math.inf}
    complete(study, of, propose(study, of, study.ask()), [measured])
    assert errors(study) == {"val/loss is inf": 1}


def test_a_setting_that_waits_for_another_brings_no_baseline_twice() -> None:
    said = {
        "mix_mode": {"choices": ["replace", "append"]},
        "real_percentage": {"low": 0.0, "high": 1.0, "when": {"mix_mode": ["append"]}},
    }
    assert plan(said).first() == [{"mix_mode": "replace"}]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (MIX, {"real_percentage": 1.0, "loss": "ce"}),
        ({"loss": MIX["loss"]}, {"loss": "ce"}),
        ({"real_percentage": {"low": 0.25, "high": 0.75}}, None),
        ({"real_percentage": {"low": 0.6, "high": 0.9}}, None),
    ],
)
def test_a_baseline_has_real_images_alone_where_their_share_varies(
    said: Any, expected: Any
) -> None:
    assert plan(said).baseline == expected


def test_what_was_known_after_each_end_is_the_best_mean_of_a_configuration() -> None:
    """One lucky trial of ce, 0.9, is 0.6 with the next seed; focal gives 0.7."""
    of = plan({"loss": {"choices": ["ce", "focal"]}}, search="grid", pruner="none")
    study = found_study("s", memory(), of, n_trials=2)
    study.enqueue_trial({"loss": "ce"})
    given = {"ce": iter([0.9, 0.3]), "focal": iter([0.7])}
    while len(study.get_trials(states=(optuna.trial.TrialState.WAITING,))):
        proposal = propose(study, of, study.ask())
        value = next(given[str(proposal.chosen["loss"])])
        complete(study, of, proposal, [{"best/val/auc": value}])
    known = [each for _, each in history(study, of.objective)]
    assert [each["best/val/auc"] for each in known] == pytest.approx([0.9, 0.9, 0.7])
    assert known[-1]["trials/val/auc_mean"] == pytest.approx((0.9 + 0.3 + 0.7) / 3)
    assert [each for _, each in history(study, of.objective, since=2)] == known[2:]
    assert ranked(candidates(study), of.objective)[0].value == known[-1]["best/val/auc"]


def test_the_table_of_trials_does_not_name_machines() -> None:
    of = plan({"loss": {"choices": ["ce"]}}, search="random", pruner="none")
    study = found_study("s", memory(), of, n_trials=1)
    trial = study.ask()
    trial.set_user_attr(WORKER, "dr_mustermann/1:23:ab")
    complete(study, of, propose(study, of, trial), [{"best/val/auc": 0.5}])
    assert "mustermann" not in trials_table(study, of).to_csv()
