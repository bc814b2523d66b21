"""Search real_percentage, loss and sampler (or any space) for the best validation metric."""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mammo.classifiers.recipe import seeds_of
from mammo.classifiers.weights import weights_digest
from mammo.errors import ConfigError
from mammo.run import Result, Run
from mammo.search.conclusion import conclude
from mammo.search.engines import PRUNERS, SEARCHES, check_engines
from mammo.search.finalists import Rerun, finalist_name, finalist_plan, reruns
from mammo.search.history import history
from mammo.search.objective import FIDELITY, Objective, read_folds, read_objective
from mammo.search.outcome import candidates, errors
from mammo.search.plan import Plan
from mammo.search.queue import Queue
from mammo.search.reading import APART, OWNED, check_space, read_space
from mammo.search.space import TRAINING, TRIAL_STEPS, Space
from mammo.search.start import Start
from mammo.search.storage import (
    check_room,
    default_storage,
    given_storage,
    in_plain_words,
    open_storage,
    storage_errors,
)
from mammo.search.study import fill, found_study, join_study, refuse_fewer
from mammo.search.trial import TrialProcess
from mammo.search.worker import Worker
from mammo.settings import Count, PositiveInt, one_of

if TYPE_CHECKING:
    import optuna

    SearchName = str
    PrunerName = str
else:
    SearchName = one_of(SEARCHES)
    PrunerName = one_of(PRUNERS)

LOG = logging.getLogger("mammo")
SPARE_PARTS = True  # what workers left undone, the step itself does
INPUTS = {"data": "dataset", "synthetic": "dataset", "generator": "model"}
SEVERAL = ("synthetic",)
NESTED = {step: step for step in TRIAL_STEPS}
WIRED = {
    "train_generator": ("data", "fold"),
    "sample": ("generator",),
    "train_classifier": ("data", "synthetic"),
}


def check(settings: Mapping[str, Any]) -> None:
    """Refuse a space, goals and engines that do not go together."""
    seed = settings["seed"]
    base = {step: {**settings.get(step, {}), "seed": seed} for step in TRIAL_STEPS}
    space = _space(settings)
    objective = _objective(settings, folds=read_folds(settings["folds"], None))
    check_engines(settings["search"], settings["pruner"], space, objective)
    _check_images(settings, space)
    _check_fidelity(base, space, objective)
    training = base[TRAINING]
    if training.get("folds", "none") != "none" or training.get("seeds", ""):
        raise ConfigError(
            "train_classifier.folds and .seeds: give tune's folds and seeds, over which each "
            "trial is averaged"
        )
    wired = {"data": settings["data"], "synthetic": "given" if _mixes(settings, space) else ""}
    if objective.folds != ("none",):  # any of them, for what goes with folds alone
        wired["folds"] = "0"
    base[TRAINING] = {**training, **wired}
    if TRAINING in settings:
        check_space(space, _modules(), {step: base[step] for step in _steps_run(settings, space)})
    if address := given_storage(str(settings["storage"])):
        check_room(_storage(address), int(settings["workers"]))


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
    halve_batch: bool = False,
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
        storage: Optuna's storage URL; empty for MAMMO_STORAGE or a file in the work folder.
        workers: processes that take trials, a GPU or a share of the cores for each.
        metric: validation metric to optimise; test images are never opened.
        objectives: further goals, as synthetic_share,gpu_hours,val/kid; name:up or :down turns one.
        folds: none for the hold-out, all, or numbers as 0,1: a trial is the mean over them.
        seeds: of each trial's trainings, as 0,1,2; empty for seed alone.
        search: who proposes the next trial.
        pruner: who stops an unpromising one.
        finalists: best settings that are trained again on fresh seeds; 0 for none.
        finalist_seeds: fresh seeds of each.
        halve_batch: train a trial with half the batch where memory runs out, down to one image.
        timeout_s: no new trial after so many seconds; 0 for no limit.
        seed: seed of the search and, without seeds, of every training.
        device: of every training: auto (train_classifier.device), cpu, cuda or cuda:<number>.
    """
    settings = {name: value for name, value in locals().items() if name != "tracked"}
    with in_plain_words(_name(tracked, settings)):
        study, plan = _found(tracked, settings)
        tell = partial(_tell, tracked, study, plan)
        Worker(study, plan, Start.read(study), TrialProcess(), told=tell).work(to_the_end=True)
        tell()
        found, lost = _finalists(study, plan, settings)
        return conclude(tracked, study, plan, wired=_wired(settings), reruns=found, lost=lost)


def parts(tracked: Run, settings: Mapping[str, Any]) -> int:
    """The workers, who find the study as they need it; a single one on this machine is the step."""
    with in_plain_words(_name(tracked, settings)):
        study, _ = _found(tracked, _with_steps(settings))
        refuse_fewer(study, int(settings["n_trials"]))  # but not who ends what was started
        _start(tracked, _with_steps(settings)).write(study)
    workers = int(settings["workers"])
    if settings["launcher"] == "slurm" and _address(tracked, settings).startswith("sqlite"):
        LOG.warning(
            "tune: the study is kept in an SQLite file, which is good for the jobs of one machine; "
            "give storage or MAMMO_STORAGE a PostgreSQL for those of several"
        )
    return workers if settings["launcher"] != "local" or workers > 1 else 0


def part(tracked: Run, number: int, of: int, **settings: Any) -> None:
    """Be worker `number`."""
    storage, name = _storage(_address(tracked, settings)), _name(tracked, settings)
    with in_plain_words(name):
        study, plan = join_study(name, storage, worker=number + 1)
        more = bool(settings["finalists"])  # to do for all, once the last trial is over
        worker = Worker(study, plan, Start.read(study), TrialProcess())
        worker.work(to_the_end=more)
        if more and (worker.is_over or Queue(study).is_over):
            _finalists(study, plan, settings, worker=number + 1)


def watch(tracked: Run, settings: Mapping[str, Any]) -> None:
    """Log how the search goes on while the workers do it."""
    with suppress(*storage_errors()):  # its workers wait for it, too
        study, plan = join_study(_name(tracked, settings), _storage(_address(tracked, settings)))
        _tell(tracked, study, plan)


def _found(tracked: Run, settings: Mapping[str, Any]) -> tuple["optuna.Study", Plan]:
    """The study with all its trials, and with a start, be it an earlier one of this run."""
    plan = _plan(tracked, settings)
    storage, count = _storage(_address(tracked, settings)), int(settings["n_trials"])
    study = found_study(_name(tracked, settings), storage, plan, n_trials=count)
    fill(study, plan, count)
    try:
        mine = Start.read(study).run_id == tracked.id
    except ConfigError:
        mine = False
    if not mine:
        _start(tracked, settings).write(study)
    tracked.tags({"mammo.study": study.study_name})
    return study, plan


def _finalists(
    study: "optuna.Study", plan: Plan, settings: Mapping[str, Any], *, worker: int = 0
) -> tuple[list[Rerun], dict[str, int]]:
    """Train the best settings again with fresh seeds, in a study that all workers share.

    What they gave, and why others gave nothing.
    """
    count = int(settings["finalists"])
    if not (count and candidates(study)):
        return [], {}
    asked = finalist_plan(study, plan, finalists=count, seeds=int(settings["finalist_seeds"]))
    name, storage = finalist_name(study.study_name, asked), study._storage
    again = found_study(name, storage, asked, n_trials=len(asked.only), worker=worker)
    start = replace(Start.read(study), timeout_s=0.0)  # that time was the search's
    start.write(again)
    Worker(again, asked, start, TrialProcess()).work(to_the_end=not worker)
    return reruns(study, plan, again, asked), errors(again)


def _start(tracked: Run, settings: Mapping[str, Any]) -> Start:
    return Start(
        tracked.id,
        str(tracked.folder),
        str(tracked.work),
        _apart(settings),
        timeout_s=float(settings["timeout_s"]),
        halve_batch=bool(settings["halve_batch"]),
        offline=bool(settings.get("offline", False)),
        reuse=bool(settings.get("reuse", True)),
    )


def _apart(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings of each step, with what it works on and with."""
    device, steps = settings["device"], settings["step_settings"]
    chosen = {} if device == "auto" else {"device": device}
    wired = _wired(settings)
    return {step: {**steps.get(step, {}), **own, **chosen} for step, own in wired.items()}


def _wired(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each step works on."""
    return {
        "train_generator": {"data": settings["data"]},
        "sample": {"generator": settings["generator"]},
        TRAINING: {"data": settings["data"], "synthetic": settings["synthetic"]},
    }


def _with_steps(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the command line gives them, as `run` takes them."""
    return {**settings, "step_settings": {step: settings.get(step, {}) for step in TRIAL_STEPS}}


def _name(tracked: Run, settings: Mapping[str, Any]) -> str:
    return str(settings["study_name"] or tracked.id)


def _address(tracked: Run, settings: Mapping[str, Any]) -> str:
    return given_storage(str(settings["storage"])) or default_storage(tracked.work)


@cache
def _storage(url: str) -> "optuna.storages.BaseStorage":
    """The storage, opened once in a process."""
    return open_storage(url)


def _tell(tracked: Run, study: "optuna.Study", plan: Plan) -> None:
    """Log what is known after each end of a trial, as far as it is not logged yet."""
    path = tracked.folder / "told"  # how many ends are
    since = int(path.read_text()) if path.is_file() else 0
    for number, known in history(study, plan.objective, since=since):
        tracked.metrics(known, step=number)
        path.write_text(str(number))


def _plan(tracked: Run, settings: Mapping[str, Any]) -> Plan:
    """What is searched, on what; the same for every process that works on it."""
    space = _space(settings)
    objective = _objective(settings, folds=read_folds(settings["folds"], _folds(tracked)))
    check_engines(settings["search"], settings["pruner"], space, objective)
    steps = settings["step_settings"]
    own = {step: steps.get(step, {}) for step in _steps_run(settings, space)}
    weights = weights_digest(steps.get(TRAINING, {}).get("weights", "none"))
    return Plan(
        space=space,
        objective=objective,
        inputs={
            name: ",".join(each.digest for each in references)
            for name, references in tracked.inputs.items()
        }
        | ({"weights": weights} if weights else {}),
        settings={
            step: {
                name: value
                for name, value in given.items()
                if name not in APART and f"{step}.{name}" not in OWNED
            }
            | ({} if step == TRAINING else {"seed": settings["seed"]})
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


def _check_fidelity(
    base: Mapping[str, Mapping[str, Any]], space: Space, objective: Objective
) -> None:
    """Refuse to weigh the images of a generator that no trial trains, or that measures nothing."""
    if FIDELITY not in [each.name for each in objective.goals]:
        return
    if "train_generator" not in space.steps:
        raise ConfigError(
            f"objectives {FIDELITY} is of the generator that a trial trains; let a setting of "
            "train_generator vary"
        )
    if base["train_generator"].get("monitor") != FIDELITY:
        raise ConfigError(
            f"objectives {FIDELITY} needs a generator that measures it; give "
            f"--train_generator.monitor {FIDELITY}"
        )


def _modules() -> dict[str, ModuleType]:
    """The steps that a trial may run."""
    return {step: import_module(f"mammo.steps.{step}") for step in TRIAL_STEPS}
