"""The end of a study: figures, tables, the best settings as a config, and the note."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.run import Result, Run
from mammo.search.figures import figures, importance
from mammo.search.finalists import Rerun, finalists_table, winners_curse
from mammo.search.note import note
from mammo.search.outcome import best_first, candidates, counts, errors, front, trials_table
from mammo.search.plan import Plan
from mammo.search.space import TRAINING
from mammo.search.study import repeats
from mammo.search.worker import BATCH, batch_that_fits

if TYPE_CHECKING:
    import optuna

FOLDER = "study"


def conclude(
    tracked: Run,
    study: "optuna.Study",
    plan: Plan,
    *,
    wired: Mapping[str, Mapping[str, Any]],
    reruns: Sequence[Rerun] = (),
    lost: Mapping[str, int] | None = None,
) -> Result:
    """Say what came out of `study` on the parent run.

    `wired` are the settings of each step that the plan leaves out: the references of its inputs.
    Of finalists that were trained again the best one counts, by what they gave then; `lost` are
    the reasons of those that failed.
    """
    objective, tried = plan.objective, candidates(study)
    if not tried:
        why = next(iter(errors(study)), "every trial was pruned or none had time")
        raise ConfigError(
            f"no trial of study {study.study_name} was completed: {why}; mend that and give more "
            "n_trials, or another study_name"
        )
    for name, figure in figures(study, plan).items():
        tracked.figure(name, figure)
    tracked.table("trials", trials_table(study, plan))
    if reruns:
        tracked.table("finalists", finalists_table(reruns, objective.metric))
    best = best_first(tried, objective)
    winner = (reruns[0].candidate if reruns else best[0]).chosen
    write(tracked.folder / FOLDER, study, plan, winner, wired, reruns=reruns)
    tracked.artifacts(tracked.folder / FOLDER, FOLDER)
    total = counts(study)
    metrics = {f"best/{objective.metric}": best[0].value, **total}
    metrics |= winners_curse(reruns, objective.metric)
    tracked.metrics(metrics)
    weights = importance(study, plan)
    failed = errors(study) | {f"as finalist: {why}": count for why, count in (lost or {}).items()}
    said = note(plan, best, total, reruns=reruns, weights=weights, errors=failed)
    outputs = {"study": tracked.uri(FOLDER), "best": tracked.uri(f"{FOLDER}/best.yaml")}
    return Result(outputs, metrics, note=said)


def write(
    folder: Path,
    study: "optuna.Study",
    plan: Plan,
    winner: Mapping[str, Any],
    wired: Mapping[str, Mapping[str, Any]],
    *,
    reruns: Sequence[Rerun] = (),
) -> None:
    """Write study.json, best.yaml, a config of train_classifier, and those of steps before it."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    for step, settings in configs(plan, winner).items():
        name = "best.yaml" if step == TRAINING else f"best_{step}.yaml"
        references = {**wired.get(step, {}), **_made_by(study, winner, step)}
        halved = [batch_that_fits(step, each.user_attrs) for each in repeats(study, winner)]
        settings |= min(filter(None, halved), key=lambda each: each[BATCH], default={})
        text = yaml.safe_dump({**references, **settings, **references}, sort_keys=False)
        (folder / name).write_text(text)
    tried = candidates(study)
    about = {
        "study_name": study.study_name,
        "search": plan.search,
        "pruner": plan.pruner,
        "seed": plan.seed,
        **plan.identity(),
        "best": dict(winner),
        "front": [dict(each.chosen) for each in front(tried, plan.objective)],
        "trials": counts(study),
        "finalists": [
            {
                "chosen": dict(each.candidate.chosen),
                "searched": each.candidate.value,
                "values": list(each.values),
            }
            for each in reruns
        ],
    }
    (folder / "study.json").write_text(json.dumps(about, indent=2) + "\n")


def _made_by(study: "optuna.Study", winner: Mapping[str, Any], step: str) -> dict[str, str]:
    """The references to what the winner's own trial made for `step`: images, or a generator."""
    name = {TRAINING: "synthetic", "sample": "generator"}.get(step, "")
    trial = next(iter(repeats(study, winner)))
    return {name: trial.user_attrs[name]} if name in trial.user_attrs else {}


def configs(plan: Plan, winner: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of each step of a trial with the configuration `winner`, over all its folds."""
    found = plan.config(winner, plan.objective.units()[0])
    folds, seeds = plan.objective.folds, plan.objective.seeds
    training = found[TRAINING]
    training.pop("score_fold", None)
    training["folds"] = folds[0] if len(folds) == 1 else "all"
    training["seeds"] = ",".join(map(str, seeds)) if len(seeds) > 1 else ""
    return found
