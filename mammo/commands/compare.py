"""`mammo compare RUNS ... BASELINE`: families of runs over the same folds, seeds and patients."""

import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mammo.commands import call
from mammo.errors import ConfigError, DataError
from mammo.evaluation import AGGREGATES

if TYPE_CHECKING:
    from mammo.evaluation.arms import Arms

PREDICTIONS = "predictions.parquet"
TABLES, REPORT = ("runs.csv", "comparison.csv", "pooled.csv"), "report.html"
_NAME = re.compile(r"([\w .-]+)=(.+)")


def command(arguments: Sequence[str]) -> int:
    return call("compare", run, arguments)


def run(
    *runs: str,
    output: str = "",
    positive: str = "",
    aggregate: str = "mean",
    margin: float = 0.01,
    bootstrap: int = 2000,
    seed: int = 0,
) -> int:
    """Compare RUNS, one arm or several, with the baseline that is named last.

    Each is a run of train_classifier or evaluate, several with commas (name=RUN,RUN gives an arm
    its name), or a folder with predictions.parquet, or such a file. Prints every metric over the
    folds and seeds of both, and for the AUC of the pooled patients whether an arm is superior,
    inferior, equivalent within --margin, or whether nothing follows; p is corrected for several
    arms (Holm). --output also gets runs.csv, comparison.csv, pooled.csv and report.html.
    --positive names the positive class where it is not malignant and not the last one;
    --aggregate makes a patient's score: mean, max or none.
    """
    from mammo import __version__
    from mammo.evaluation.arms import against_baseline

    if len(runs) < 2:
        raise ConfigError(f"there is no baseline beside {runs[0]!r}; name it last, after the runs")
    if aggregate not in AGGREGATES:
        raise ConfigError(f"aggregate {aggregate!r} is not one of {', '.join(AGGREGATES)}")
    if bootstrap < 1:
        raise ConfigError(f"bootstrap {bootstrap} is no number of draws; give 1 or more")
    if not 0 < margin < 1:
        raise ConfigError(f"margin {margin:g} is no difference of AUCs; give one, as 0.01")
    _refuse_existing(output)
    *named, (_, last) = _named(runs)
    arms, baseline = {name: _family(text) for name, text in named}, _family(last)
    positive = _positive(arms, baseline, positive)
    draws = {"draws": bootstrap, "seed": seed}
    found = against_baseline(arms, baseline, positive, aggregate, margin=margin, **draws)
    if any((each["split"] == "val").all() for each in arms.values()):
        print("these are validation rows, which chose the epoch: all look too good")
    if output:
        facts = {**dict(named), "baseline": last, "Margin": f"{margin:g}"}
        facts |= {"Intervals": f"95 %, {bootstrap} draws", "mammo": __version__}
        _write(found, Path(output).expanduser(), margin, positive, facts)
    _print(found, margin)
    return 0


def _print(found: "Arms", margin: float) -> None:
    """Every metric, the verdicts, and both as JSON in the last line."""
    from mammo.evaluation.arms import told

    rows = found.pooled.to_dict("records")
    several = len(rows) > 1
    shown = found.metrics if several else found.metrics.filter(regex="^(?!arm|.*_holm)")
    print(shown.to_string(index=False, float_format="%.4g"))
    for row in rows:
        start = f"{row['arm']}: " if several else ""
        print(start + told(row, margin=margin, several=several))
    lines = {row.pop("arm"): _line(row) for row in rows}
    print(json.dumps({"arms": lines} if several else next(iter(lines.values()))), flush=True)


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """What the last line of stdout says of an arm."""
    plain = {name: row.pop(name) for name in ("pairs", "patients", "verdict")}
    known = {name: value if math.isfinite(value) else None for name, value in row.items()}
    return plain | {f"delta/{name}": value for name, value in known.items()}


def _write(found: "Arms", place: Path, margin: float, positive: str, facts: dict[str, str]) -> None:
    from mammo.evaluation.forest import page
    from mammo.evaluation.report import render

    text = render(page(found, margin=margin, positive=positive, provenance=facts))
    place.mkdir(parents=True, exist_ok=True)
    for name, each in zip(TABLES, (found.runs, found.metrics, found.pooled), strict=True):
        each.to_csv(place / name, index=False)
    (place / REPORT).write_text(text)


def _named(words: Sequence[str]) -> list[tuple[str, str]]:
    """Name and runs of every arm, then of the baseline."""
    found = []
    for word in words:
        match = None if Path(word).expanduser().exists() else _NAME.fullmatch(word)
        short = word if len(word) <= 24 else f"{word[:23]}…"
        found.append((match[1], match[2]) if match else (short, word))
    if len(words) == 2 and "=" not in words[0]:
        found[0] = ("model", words[0])
    names = [name for name, _ in found[:-1]]
    for name in names:
        if names.count(name) > 1 or name == "baseline":
            raise ConfigError(
                f"two arms are called {name!r}; give each a name of its own: NAME=RUN"
            )
    return found


def _refuse_existing(output: str) -> None:
    """ConfigError where a table of an earlier comparison would be overwritten."""
    there = [
        name for name in (*TABLES, REPORT) if output and (Path(output).expanduser() / name).exists()
    ]
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


def _positive(arms: Mapping[str, pd.DataFrame], baseline: pd.DataFrame, given: str) -> str:
    """The positive class; DataError where an arm has other classes than the baseline."""
    from mammo.evaluation.ranking import classes_of

    names = classes_of(baseline)
    for arm, frame in arms.items():
        if classes_of(frame) != names:
            raise DataError(
                f"the classes of {arm} are {'/'.join(classes_of(frame))}, the baseline's "
                f"{'/'.join(names)}; they must be the same"
            )
    if given and given not in names:
        raise ConfigError(f"positive {given!r} is not one of {', '.join(names)}")
    return given or ("malignant" if "malignant" in names else names[-1])
