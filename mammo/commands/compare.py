"""`mammo compare RUNS BASELINES`: two families of runs over the same folds, seeds and patients."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from mammo.commands import call
from mammo.errors import ConfigError, DataError
from mammo.evaluation import AGGREGATES

PREDICTIONS = "predictions.parquet"
TABLES = ("runs.csv", "comparison.csv", "pooled.csv")


def command(arguments: Sequence[str]) -> int:
    return call("compare", run, arguments)


def run(
    runs: str,
    baselines: str,
    *,
    output: str = "",
    positive: str = "",
    aggregate: str = "mean",
    bootstrap: int = 2000,
    seed: int = 0,
) -> int:
    """Compare RUNS with BASELINES: runs of train_classifier or evaluate, several with commas.

    Each may also be a folder with predictions.parquet, or such a file. Prints every metric over
    the folds and seeds of both, and the AUC of the pooled patients; --output also gets runs.csv,
    comparison.csv and pooled.csv. --positive names the positive class where it is not malignant
    and not the last one; --aggregate makes a patient's score: mean, max or none.
    """
    from mammo.evaluation import families

    if aggregate not in AGGREGATES:
        raise ConfigError(f"aggregate {aggregate!r} is not one of {', '.join(AGGREGATES)}")
    if bootstrap < 1:
        raise ConfigError(f"bootstrap {bootstrap} is no number of draws; give 1 or more")
    _refuse_existing(output)
    ours, theirs = _family(runs), _family(baselines)
    positive = _positive(ours, theirs, positive)
    tables = [families.of_runs(each, positive, aggregate) for each in (ours, theirs)]
    table = families.paired(*tables)
    keys = tables[0].merge(tables[1], on=families.RUN)[families.RUN]
    mine, others = (each.merge(keys, on=families.RUN) for each in (ours, theirs))
    pooled = families.pooled(mine, others, positive, aggregate, draws=bootstrap, seed=seed)
    if (mine["split"] == "val").all():
        print("these are validation rows, which chose the epoch: both look too good")
    print(table.to_string(index=False, float_format="%.4g"))
    told = f"{pooled.auc:+.4f} (95 % {pooled.low:+.4f} to {pooled.high:+.4f})"
    print(f"AUC of the pooled patients: {told}, p = {pooled.p:.2g}")
    if output:
        place = Path(output).expanduser()
        place.mkdir(parents=True, exist_ok=True)
        named = zip(("model", "baseline"), tables, strict=True)
        every = pd.concat([each.assign(family=name) for name, each in named])
        for name, each in zip(TABLES, (every, table, pd.DataFrame([asdict(pooled)])), strict=True):
            each.to_csv(place / name, index=False)
    found = {f"delta/{name}": value for name, value in asdict(pooled).items()}
    print(json.dumps({"pairs": len(keys), **found}), flush=True)
    return 0


def _refuse_existing(output: str) -> None:
    """ConfigError where a table of an earlier comparison would be overwritten."""
    there = [name for name in TABLES if output and (Path(output).expanduser() / name).exists()]
    if there:
        raise ConfigError(f"output {output} holds {there[0]} already; name another folder")


def _family(text: str) -> pd.DataFrame:
    """Predictions of all the runs that `text` names, without those that chose thresholds."""
    frames = [_predictions(each.strip()) for each in text.split(",") if each.strip()]
    if not frames:
        raise ConfigError(f"runs {text!r} name none; give a run id, or several with commas")
    every = pd.concat(frames, ignore_index=True)
    chosen = every["split"] == "val"
    every = every[~chosen] if not chosen.all() else every
    twice = every.duplicated(["image_id", "fold", "seed"])
    if twice.any():
        row = every[twice].iloc[0]
        raise DataError(
            f"{text} scores image {row['image_id']} twice with fold {row['fold']} and seed "
            f"{row['seed']}; name each run once, and a parent or its children"
        )
    return every.reset_index(drop=True)


def _predictions(reference: str) -> pd.DataFrame:
    place = Path(reference).expanduser()
    if place.exists():
        file = place / PREDICTIONS if place.is_dir() else place
        if not file.is_file():
            raise DataError(f"{place} has no {PREDICTIONS}; give the folder or file that has it")
        return _checked(_read(file), reference)
    if place.is_absolute() or place.suffix:
        raise DataError(f"{reference} does not exist; give a run, a folder or {PREDICTIONS}")
    from mammo.tracking import Tracking

    tracking = Tracking()
    run_id = reference.removeprefix("runs:/").partition("/")[0]
    tags = tracking.get(run_id).data.tags
    run_id = tags.get("mammo.reused") or tags.get("mammo.continues") or run_id
    if not tracking.has_artifact(run_id, PREDICTIONS):
        raise DataError(
            f"run {run_id} holds no {PREDICTIONS}; give one of evaluate, or of train_classifier "
            "with folds"
        )
    with tempfile.TemporaryDirectory() as folder:
        tracking.download(run_id, PREDICTIONS, Path(folder) / PREDICTIONS)
        found = sorted(Path(folder).rglob("*.parquet"))[0]
        return _checked(pd.read_parquet(found), reference)


def _read(file: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:  # pyarrow's own are of these kinds
        line = str(error).splitlines()[0]
        raise DataError(f"{file} is no table of predictions ({line}); give {PREDICTIONS}") from None


def _checked(frame: pd.DataFrame, whose: str) -> pd.DataFrame:
    wanted = ["image_id", "group_id", "split", "fold", "seed", "label", "label_id"]
    missing = sorted(set(wanted) - set(frame))
    if missing:
        raise DataError(f"the predictions of {whose} lack the columns {', '.join(missing)}")
    if not any(str(name).startswith("score/") for name in frame):
        raise DataError(f"the predictions of {whose} lack the columns score/<class>")
    return frame


def _positive(ours: pd.DataFrame, theirs: pd.DataFrame, given: str) -> str:
    """The positive class; DataError where the two have other classes."""
    from mammo.evaluation.ranking import classes_of

    names = classes_of(ours)
    if names != classes_of(theirs):
        raise DataError(
            f"the runs' classes are {'/'.join(names)}, the baselines' "
            f"{'/'.join(classes_of(theirs))}; they must be the same"
        )
    if given and given not in names:
        raise ConfigError(f"positive {given!r} is not one of {', '.join(names)}")
    return given or ("malignant" if "malignant" in names else names[-1])
