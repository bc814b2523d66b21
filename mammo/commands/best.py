"""`mammo best RUN ...`: the best epoch of each training in one table, and what sets them apart."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo.commands import call
from mammo.errors import ConfigError, DataError
from mammo.evaluation import better

if TYPE_CHECKING:
    import pandas as pd

    from mammo.tracking import Registry, Tracking

TRAININGS = ("train_classifier", "train_generator")
# Of test/ and fold/, where the model was judged
JUDGED = (
    *("auc", "auc_low", "auc_high", "pr_auc", "balanced_accuracy", "sensitivity", "specificity"),
    *("f1", "brier", "ece"),
)
UNTELLING = {
    "run_name",
    "reuse",
    "offline",
    "work_dir",
    "launcher",
    "cluster",
    "monitor",
}  # settings that are no cause
_RUN_ID = re.compile(r"(?:runs:/)?([0-9a-f]{32})(?:/.*)?")


def command(arguments: Sequence[str]) -> int:
    return call("best", run, arguments)


def run(*runs: str, monitor: str = "", output: str = "") -> int:
    """Print the best epoch of RUNS: ids of trainings, or names of MLflow experiments, a row each.

    The children of a run over folds or seeds have a row each. The best epoch is the one whose
    weights were kept, by the run's own monitor; with --monitor val/loss, say, it is the best by
    that for all (the earliest of equally good ones). Beside it stand the validation metrics of
    that epoch, what evaluations of the model and its scored fold said, and the settings that are
    not the same in all rows. --output names a CSV of the whole table.
    """
    import pandas as pd

    from mammo.driver import work_folder
    from mammo.tracking import Registry, Tracking

    if output and Path(output).expanduser().exists():
        raise ConfigError(f"output {output} exists already; name a new file")
    tracking = Tracking()
    found = [each for word in runs for each in _trainings(tracking, word)]
    found = list({each.info.run_id: each for each in found}.values())
    registry = Registry(tracking, work_folder(""))
    rows = [_row(tracking, each, monitor, _judged(registry, each.info.run_id)) for each in found]
    settings = _differing([_settings(each) for each in found])
    table = pd.concat([pd.DataFrame(rows), pd.DataFrame(settings)], axis=1)
    table = table.dropna(axis=1, how="all")
    if output:
        place = Path(output).expanduser()
        place.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(place, index=False)
    print(markdown(table))
    print(json.dumps({"runs": len(table), "output": output}), flush=True)
    return 0


def markdown(table: "pd.DataFrame") -> str:
    """`table` as Markdown, numbers to four significant digits, nothing where there is none."""
    lines = ["| " + " | ".join(table) + " |", "|" + "---|" * len(table.columns)]
    for row in table.itertuples(index=False):
        lines.append("| " + " | ".join(map(_told, row)) + " |")
    return "\n".join(lines)


def _told(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return str(value).replace("|", "\\|")


def _trainings(tracking: "Tracking", word: str) -> list[Any]:
    """The runs with epochs that `word` stands for: a run or its children, or an experiment's."""
    match = _RUN_ID.fullmatch(word)
    if not match:
        runs = [each for each in tracking.experiment(word) if _has_epochs(each)]
        if not runs:
            raise DataError(f"experiment {word!r} holds no training with an epoch; name another")
        return runs
    tags = tracking.get(match[1]).data.tags
    chosen = tracking.get(tags.get("mammo.reused") or tags.get("mammo.continues") or match[1])
    runs = [chosen, *reversed(tracking.children(chosen.info.run_id))]
    runs = [each for each in runs if _has_epochs(each)]
    if not runs:
        step = chosen.data.tags.get("mammo.step", "no step of mammo")
        raise DataError(f"run {match[1]} ({step}) has no epochs; give one of {_either()}")
    return runs


def _has_epochs(run: Any) -> bool:
    of_epochs = any(name in run.data.metrics for name in ("train/loss", "val/loss"))
    return run.data.tags.get("mammo.step") in TRAININGS and of_epochs


def _either() -> str:
    return " or ".join(TRAININGS)


def _row(
    tracking: "Tracking", run: Any, monitor: str, judged: Mapping[str, float]
) -> dict[str, Any]:
    """A run's best epoch with its validation metrics, and `judged`: what evaluations found."""
    run_id, metrics = run.info.run_id, run.data.metrics
    own = monitor or _monitor(_settings(run), metrics)
    history = tracking.history(run_id, own)
    if not history:
        raise DataError(f"run {run_id} has no metric {own}; it has {', '.join(sorted(metrics))}")
    kept = metrics.get(f"best/{own}")
    at = _best(history, own)
    if not monitor and kept in history.values():  # a gain below min_delta is none
        at = next(epoch for epoch, value in sorted(history.items()) if value == kept)
    found = {"run": run.info.run_name, "run_id": run_id, "monitor": own, "epoch": at}
    found["epochs"] = max(history)
    found[own] = history[at]
    for name in sorted(metrics):
        if name.startswith("val/") and name != own:
            found[name] = tracking.history(run_id, name).get(at, float("nan"))
    measured = metrics | judged
    wanted = [f"{kind}/{name}" for kind in ("fold", "test") for name in JUDGED]
    return found | {name: measured[name] for name in wanted if name in measured}


def _judged(registry: "Registry", run_id: str) -> dict[str, float]:
    """Metrics of the newest evaluation of the model on each split: never of two datasets."""
    found: dict[str, float] = {}
    seen = set[str]()
    for each in registry.evaluations(run_id):
        found |= {} if each.split in seen else each.metrics
        seen.add(each.split)
    return found


def _monitor(settings: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """What chose the run's epoch; a generator's `auto` is the one of its metrics that it has."""
    first = settings.get("monitor", "auto").partition(",")[0].strip()
    if first != "auto":
        return first
    return "val/loss" if "val/loss" in metrics else "val/kid"


def _best(history: Mapping[int, float], metric: str) -> int:
    """The epoch of the best value, the earliest of equally good ones."""
    sign = -1 if better(metric) == "min" else 1
    known = {epoch: value for epoch, value in sorted(history.items()) if value == value}
    return max(known, key=lambda epoch: (sign * known[epoch], -epoch)) if known else min(history)


def _settings(run: Any) -> dict[str, str]:
    """The settings that a run was really made with."""
    params = dict(run.data.params)
    for name in [name for name in params if name.startswith("effective.")]:
        params[name.removeprefix("effective.")] = params.pop(name)
    return params


def _differing(settings: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    names = sorted(set().union(*settings) - UNTELLING)
    differ = [name for name in names if len({each.get(name) for each in settings}) > 1]
    return [{name: each.get(name, "") for name in differ} for each in settings]
