"""Search real_percentage, loss and sampler (or any space) for the best validation metric."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mammo.classifiers.recipe import seeds_of
from mammo.classifiers.weights import weights_digest
from mammo.errors import ConfigError, MammoError
from mammo.run import Pruned, Result, Run
from mammo.search.conclusion import conclude
from mammo.search.engines import PRUNERS, SEARCHES, check_engines
from mammo.search.objective import Objective, read_folds, read_objective
from mammo.search.outcome import counts, progress
from mammo.search.plan import Plan
from mammo.search.reading import FIXED, check_space, read_space
from mammo.search.space import TRAINING, TRIAL_STEPS, Space
from mammo.search.storage import default_storage, open_storage
from mammo.search.study import (
    Progress,
    Proposal,
    complete,
    fail,
    found_study,
    propose,
    prune,
)
from mammo.settings import Count, PositiveInt, one_of

if TYPE_CHECKING:
    import optuna

    SearchName = str
    PrunerName = str
else:
    SearchName = one_of(SEARCHES)
    PrunerName = one_of(PRUNERS)

LOG = logging.getLogger("mammo")
INPUTS = {"data": "dataset", "synthetic": "dataset", "generator": "model"}
SEVERAL = ("synthetic",)
NESTED = {step: step for step in TRIAL_STEPS}
WIRED = {
    "train_generator": ("data", "fold"),
    "sample": ("generator",),
    "train_classifier": ("data", "synthetic"),
}
# Settings that do not change what a training computes, and may differ from start to start.
_APART = ("device", "workers", "jobs", "upload_minutes", "logger")


def check(settings: Mapping[str, Any]) -> None:
    """Refuse a space, goals and engines that do not go together."""
    base = {step: settings.get(step, {}) for step in TRIAL_STEPS}
    space = _space(settings)
    objective = _objective(settings, folds=read_folds(settings["folds"], None))
    check_engines(settings["search"], settings["pruner"], space, objective)
    _check_images(settings, space)
    training = base[TRAINING]
    if training.get("folds", "none") != "none" or training.get("seeds", ""):
        raise ConfigError(
            "train_classifier.folds and .seeds: give tune's folds and seeds, over which each "
            "trial is averaged"
        )
    wired = {"data": settings["data"], "synthetic": "given" if _mixes(settings, space) else ""}
    base[TRAINING] = {**training, **wired}
    if training:
        check_space(space, _modules(), {step: base[step] for step in _steps_run(settings, space)})
    if settings.get("workers", 1) != 1:
        raise ConfigError(f"workers {settings['workers']} is not available; use 1")


def source_digest(settings: Mapping[str, Any]) -> str:
    """Digest of the space and the weights' file: other contents under one path are another run."""
    space = json.dumps(_space({**settings, "synthetic": "any"}).described(), sort_keys=True)
    weights = settings.get(TRAINING, {}).get("weights", "none")
    return hashlib.sha256((space + weights_digest(weights)).encode()).hexdigest()


def run(
    tracked: Run,
    *,
    data: str,
    synthetic: str = "",
    generator: str = "",
    n_trials: PositiveInt = 20,
    space: str = "",
    study_name: str = "",
    storage: str = "",
    workers: PositiveInt = 1,
    metric: str = "val/auc",
    objectives: str = "",
    folds: str = "none",
    seeds: str = "",
    search: SearchName = "tpe",
    pruner: PrunerName = "median",
    finalists: Count = 0,
    finalist_seeds: PositiveInt = 3,
    timeout_s: Count = 0,
    seed: int = 0,
    device: str = "auto",
    step_settings: Mapping[str, Mapping[str, Any]],
) -> Result:
    """Search for the settings of train_classifier with the best validation metric.

    Args:
        data: dataset of real images.
        synthetic: synthetic datasets to mix in, with commas between.
        generator: trained generator of which each trial draws its synthetic images instead.
        n_trials: number of trials of the study, those of earlier starts included.
        space: YAML of what varies; empty for real_percentage, loss and sampler.
        study_name: name of the study; an existing one is continued.
        storage: Optuna's storage URL; empty for a file in the work folder.
        workers: processes that take trials.
        metric: validation metric to optimise; test images are never opened.
        objectives: further goals, as synthetic_share,gpu_hours; name:up or name:down turns one.
        folds: none for the hold-out, all, or numbers as 0,1: a trial is the mean over them.
        seeds: of each trial's trainings, as 0,1,2; empty for seed alone.
        search: who proposes the next trial.
        pruner: who stops an unpromising one.
        finalists: best settings that are trained again on fresh seeds; 0 for none.
        finalist_seeds: fresh seeds of each.
        timeout_s: no new trial after so many seconds; 0 for no limit.
        seed: seed of the search and, without seeds, of every training.
        device: of every training: auto (train_classifier.device), cpu, cuda or cuda:<number>.
    """
    settings = {name: value for name, value in locals().items() if name != "tracked"}
    plan = _plan(tracked, settings)
    study = found_study(
        study_name or tracked.folder.name,
        open_storage(storage or default_storage(tracked.work)),
        plan,
        n_trials=n_trials,
    )
    apart = {**step_settings.get(TRAINING, {}), "data": data, "synthetic": synthetic}
    if device != "auto":
        apart["device"] = device
    for trial in _left_behind(study, tracked.folder.name):
        _one_trial(tracked, study, plan, propose(study, plan, trial), apart)
    deadline = time.monotonic() + (timeout_s or float("inf"))
    while sum(counts(study).values()) < n_trials and time.monotonic() < deadline:
        trial = study.ask()
        trial.set_user_attr("owner", tracked.folder.name)
        _one_trial(tracked, study, plan, propose(study, plan, trial), apart)
        found = progress(study, plan.objective)
        tracked.metrics(found, step=int(sum(counts(study).values())))
    return conclude(tracked, study, plan, wired={TRAINING: {"data": data, "synthetic": synthetic}})


def _left_behind(study: "optuna.Study", owner: str) -> list["optuna.Trial"]:
    """Trials of `owner` that a dead process left running, to be gone on with."""
    import optuna

    running = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    return [
        optuna.trial.Trial(study, trial._trial_id)
        for trial in running
        if trial.user_attrs.get("owner") == owner
    ]


def _one_trial(
    tracked: Run,
    study: "optuna.Study",
    plan: Plan,
    proposal: Proposal,
    apart: Mapping[str, Any],
) -> None:
    """Do the trainings of a trial and tell the study how it ended."""
    progress = Progress(plan, proposal)
    name = f"trial_{proposal.number}"
    measured: list[Mapping[str, float]] = []
    try:
        for unit in proposal.units:
            given = {**apart, **plan.config(proposal.chosen, unit)[TRAINING]}
            called = name if len(proposal.units) == 1 else f"{name}_{unit.name}"
            result = tracked.launch(TRAINING, given, name=called, listener=progress.epoch)
            measured.append(result.metrics)
            progress.training(result.metrics)
    except Pruned as reason:
        LOG.info("tune: trial %d pruned: %s", proposal.number, reason)
        prune(study, proposal.trial)
    except MammoError as error:
        LOG.warning("tune: trial %d failed: %s", proposal.number, error)
        fail(study, proposal.trial, str(error))
    else:
        values = complete(study, plan, proposal, measured)
        told = f"{plan.objective.metric} {values[0]:.4f}"
        LOG.info("tune: trial %d %s: %s", proposal.number, dict(proposal.chosen), told)


def _plan(tracked: Run, settings: Mapping[str, Any]) -> Plan:
    """What is searched, on what; the same for every process that works on it."""
    space = _space(settings)
    objective = _objective(settings, folds=read_folds(settings["folds"], _folds(tracked)))
    check_engines(settings["search"], settings["pruner"], space, objective)
    steps = settings["step_settings"]
    own = {step: steps.get(step, {}) for step in _steps_run(settings, space)}
    return Plan(
        space=space,
        objective=objective,
        inputs={
            name: ",".join(each.digest for each in references)
            for name, references in tracked.inputs.items()
        },
        settings={
            step: {
                name: value
                for name, value in given.items()
                if name not in _APART and FIXED.get(f"{step}.{name}") is None
            }
            for step, given in own.items()
        },
        search=settings["search"],
        pruner=settings["pruner"],
        seed=settings["seed"],
    )


def _folds(tracked: Run) -> tuple[str, ...]:
    """The numbers of the dataset's folds."""
    if "data" not in tracked.inputs:
        return ()
    from mammo.data.dataset import Dataset
    from mammo.data.splits import fold_numbers

    return tuple(map(str, fold_numbers(Dataset(tracked.inputs["data"][0].path))))


def _objective(settings: Mapping[str, Any], folds: tuple[str, ...]) -> Objective:
    seeds = seeds_of(settings["seeds"], settings["seed"])
    return read_objective(settings["metric"], settings["objectives"], folds=folds, seeds=seeds)


def _space(settings: Mapping[str, Any]) -> Space:
    mixed = bool(settings["synthetic"] or settings.get("generator"))
    return read_space(str(settings["space"]), synthetic=mixed, modules=_modules())


def _mixes(settings: Mapping[str, Any], space: Space) -> bool:
    """Whether the trials have synthetic images: given ones, or their own."""
    return bool(settings["synthetic"] or set(_steps_run(settings, space)) - {TRAINING})


def _steps_run(settings: Mapping[str, Any], space: Space) -> tuple[str, ...]:
    """The steps of a trial in their order."""
    if "train_generator" in space.steps:
        return TRIAL_STEPS
    return TRIAL_STEPS[1:] if settings["generator"] else (TRAINING,)


def _check_images(settings: Mapping[str, Any], space: Space) -> None:
    """Refuse a space whose trials would have no synthetic images, or two sorts of them."""
    own = [each for each in TRIAL_STEPS[:-1] if each in space.steps]
    generator, synthetic = settings["generator"], settings["synthetic"]
    if synthetic and (generator or own):
        what = f"generator {generator}" if generator else f"{own[0]} in space"
        raise ConfigError(f"synthetic {synthetic} and {what}: give the one or the other")
    if own == ["sample"] and not generator:
        raise ConfigError("space has settings of sample but generator is empty; give a trained one")
    if generator and "train_generator" in own:
        raise ConfigError(
            f"generator {generator}: space has settings of train_generator, so that each trial "
            "trains its own; leave generator out"
        )
    if "real_percentage" in space and not _mixes(settings, space):
        raise ConfigError("space has real_percentage but synthetic is empty; give a dataset to mix")


def _modules() -> dict[str, ModuleType]:
    """The steps that a trial may run."""
    return {step: import_module(f"mammo.steps.{step}") for step in TRIAL_STEPS}
