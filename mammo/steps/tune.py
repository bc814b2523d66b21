"""Search real_percentage, loss and sampler (or any space) for the best validation metric."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammo.classifiers.weights import weights_digest
from mammo.errors import ConfigError, MammoError
from mammo.run import Pruned, Result, Run
from mammo.settings import Count, PositiveInt, one_of
from mammo.tuning import (
    PRUNERS,
    SEARCHES,
    anchors,
    counts,
    figures,
    left_behind,
    open_study,
    read_space,
    spread,
    suggest,
)

if TYPE_CHECKING:
    import optuna

    SearchName = str
    PrunerName = str
else:
    SearchName = one_of(SEARCHES)
    PrunerName = one_of(PRUNERS)

LOG = logging.getLogger("mammo")
INPUTS = {"data": "dataset", "synthetic": "dataset"}
SEVERAL = ("synthetic",)
NESTED = {"train_classifier": "train_classifier"}
WIRED = {"train_classifier": ("data", "synthetic")}
METRICS = ("val/auc", "val/pr_auc", "val/balanced_accuracy", "val/f1", "val/loss")


def check(settings: Mapping[str, Any]) -> None:
    space = read_space(str(settings["space"]), synthetic=bool(settings["synthetic"]))
    steps = settings.get("train_classifier", {})
    unknown = sorted(set(space) - set(steps)) if steps else []
    if unknown:
        raise ConfigError(f"space: {unknown[0]!r} is no setting of train_classifier")
    if "real_percentage" in space and not settings["synthetic"]:
        raise ConfigError("space has real_percentage but synthetic is empty; give a dataset to mix")
    if settings["metric"] not in METRICS:
        known = ", ".join(METRICS)
        raise ConfigError(
            f"metric {settings['metric']!r} cannot be searched; choose one of {known}"
        )
    if steps.get("folds", "none") == "all" or "," in str(steps.get("seeds", "")):
        raise ConfigError(
            "train_classifier.folds and .seeds: a trial is one training; give one fold, one seed"
        )
    if settings.get("workers", 1) != 1:
        raise ConfigError(f"workers {settings['workers']} is not available; use 1")


def source_digest(settings: Mapping[str, Any]) -> str:
    """Digest of the space and the weights' file: other contents under one path are another run."""
    space = json.dumps(read_space(str(settings["space"]), synthetic=True), sort_keys=True)
    weights = settings.get("train_classifier", {}).get("weights", "none")
    return hashlib.sha256((space + weights_digest(weights)).encode()).hexdigest()


def run(
    tracked: Run,
    *,
    data: str,
    synthetic: str = "",
    n_trials: PositiveInt = 20,
    space: str = "",
    study_name: str = "",
    storage: str = "",
    workers: PositiveInt = 1,
    metric: str = "val/auc",
    search: SearchName = "tpe",
    pruner: PrunerName = "median",
    timeout_s: Count = 0,
    seed: int = 0,
    device: str = "auto",
    step_settings: Mapping[str, Mapping[str, Any]],
) -> Result:
    """Search for the settings of train_classifier with the best validation metric.

    Args:
        data: dataset of real images.
        synthetic: synthetic datasets to mix in, with commas between.
        n_trials: number of trials of the study, those of earlier starts included.
        space: YAML of what varies; empty for real_percentage, loss and sampler.
        study_name: name of the study; an existing one is continued.
        storage: Optuna's storage URL; empty for a file in the work folder.
        workers: processes that take trials.
        metric: validation metric to optimise; test images are never opened.
        search: who proposes the next trial.
        pruner: who stops an unpromising one.
        timeout_s: no new trial after so many seconds; 0 for no limit.
        seed: seed of the search and of every training.
        device: of every training: auto (train_classifier.device), cpu, cuda or cuda:<number>.
    """
    base = {**step_settings.get("train_classifier", {}), "data": data, "synthetic": synthetic}
    dimensions = read_space(space, synthetic=bool(synthetic))
    study = open_study(
        study_name or tracked.folder.name,
        storage or f"sqlite:///{tracked.work / 'studies.db'}",
        search=search,
        pruner=pruner,
        seed=seed,
        maximise=metric != "val/loss",
    )
    for anchor in anchors(dimensions, base) if not study.trials else []:
        study.enqueue_trial(anchor)
    base["seed"] = seed
    if device != "auto":
        base["device"] = device
    for trial in left_behind(study, tracked.folder.name):
        _one_trial(tracked, study, trial, dimensions, base, metric)
    deadline = time.monotonic() + (timeout_s or float("inf"))
    while sum(counts(study).values()) < n_trials and time.monotonic() < deadline:
        trial = study.ask()
        trial.set_user_attr("owner", tracked.folder.name)
        _one_trial(tracked, study, trial, dimensions, base, metric)
        _report_progress(tracked, study, metric)
    return _conclude(tracked, study, dimensions, base, metric)


def _one_trial(
    tracked: Run,
    study: "optuna.Study",
    trial: "optuna.Trial",
    dimensions: Mapping[str, Any],
    base: Mapping[str, Any],
    metric: str,
) -> None:
    """Train once with proposed settings and tell the study how it ended."""
    import optuna

    chosen = suggest(trial, dimensions)
    reported = set(study.trials[trial.number].intermediate_values)

    def listen(values: Mapping[str, float], step: int | None) -> None:
        if metric in values and step is not None and step not in reported:
            trial.report(float(values[metric]), step)
            if trial.should_prune():
                raise Pruned(f"{metric} {values[metric]:.4f} at epoch {step}")

    given = {**base, **chosen}
    name = f"trial_{trial.number}"
    try:
        result = tracked.launch("train_classifier", given, name=name, listener=listen)
    except Pruned as reason:
        LOG.info("tune: trial %d pruned: %s", trial.number, reason)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except MammoError as error:
        LOG.warning("tune: trial %d failed: %s", trial.number, error)
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        value = result.metrics[f"best/{metric}"]
        trial.set_user_attr("model", result.outputs.get("model", ""))
        study.tell(trial, value)
        LOG.info("tune: trial %d %s: %s %.4f", trial.number, chosen, metric, value)


def _report_progress(tracked: Run, study: "optuna.Study", metric: str) -> None:
    progress = counts(study)
    done = int(sum(progress.values()))
    if progress["trials/complete"]:
        progress[f"best/{metric}"] = study.best_value
        progress |= spread(study, metric)
    tracked.metrics(progress, step=done)


def _conclude(
    tracked: Run,
    study: "optuna.Study",
    dimensions: Mapping[str, Any],
    base: Mapping[str, Any],
    metric: str,
) -> Result:
    """Figures, table and best settings of the study as artifacts of the parent."""
    import yaml

    total = counts(study)
    if not total["trials/complete"]:
        reasons = [
            trial.user_attrs["error"] for trial in study.trials if "error" in trial.user_attrs
        ]
        why = reasons[-1] if reasons else "every trial was pruned or none had time"
        raise ConfigError(f"no trial of study {study.study_name} was completed: {why}")
    for name, figure in figures(study).items():
        tracked.figure(name, figure)
    frame = study.trials_dataframe(attrs=("number", "value", "state", "duration", "params"))
    tracked.table("trials", frame)
    folder = tracked.folder / "study"
    folder.mkdir(exist_ok=True)
    best = {**base, **{name: study.best_params[name] for name in dimensions}}
    (folder / "best.yaml").write_text(yaml.safe_dump(dict(best), sort_keys=False))
    about = {"study_name": study.study_name, "metric": metric, "space": dict(dimensions)}
    (folder / "study.json").write_text(json.dumps({**about, "best": study.best_params}, indent=2))
    tracked.artifacts(folder, "study")
    metrics = {f"best/{metric}": float(study.best_value), **total}
    outputs = {"study": tracked.uri("study"), "best": tracked.uri("study/best.yaml")}
    return Result(outputs, metrics)
