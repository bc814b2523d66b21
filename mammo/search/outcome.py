"""What came out of a study: counts, the best configuration, tables and files."""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from mammo.search.plan import Plan

if TYPE_CHECKING:
    import optuna


def counts(study: "optuna.Study") -> dict[str, float]:
    """Finished trials by state."""
    from optuna.trial import TrialState

    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return {
        "trials/complete": float(states.count(TrialState.COMPLETE)),
        "trials/pruned": float(states.count(TrialState.PRUNED)),
        "trials/failed": float(states.count(TrialState.FAIL)),
    }


def spread(study: "optuna.Study", metric: str) -> dict[str, float]:
    """Mean and sd of the metric over the complete trials, the sd where there are two."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = [trial.values[0] for trial in trials]
    found = {f"trials/{metric}_mean": mean(values)} if values else {}
    return found | ({f"trials/{metric}_sd": stdev(values)} if len(values) > 1 else {})


def write_outcome(folder: Path, study: "optuna.Study", plan: Plan, base: Mapping[str, Any]) -> None:
    """Write best.yaml, a config of train_classifier, and study.json."""
    import yaml

    folder.mkdir(exist_ok=True)
    chosen = plan.space.canonical(study.best_params)
    best = {**base, **plan.space.by_step(chosen).get("train_classifier", {})}
    (folder / "best.yaml").write_text(yaml.safe_dump(best, sort_keys=False))
    about = {"study_name": study.study_name, **plan.identity(), "best": chosen}
    (folder / "study.json").write_text(json.dumps(about, indent=2) + "\n")
