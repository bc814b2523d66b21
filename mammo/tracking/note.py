"""The note on top of a run in MLflow: what was run, what came out, and how to run it again."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import isfinite
from statistics import mean, stdev
from typing import Any

from mammo.run import Reference
from mammo.tracking.family import Child, alike, common, counts
from mammo.tracking.links import MOST, charts_page, compare_page, run_page
from mammo.tracking.values import as_text

NOTE = "mlflow.note.content"
LENGTH = 7500  # MLflow keeps 8,000 characters of a tag
ROWS = (40, 30, 20, 10, 0)  # children in the table, fewer where they are too long
FEW = 5  # metrics beside a child
# What a reader looks for first
LEADING = (
    *("test/auc", "delta/auc", "oof/auc", "cv/auc_mean", "fold/auc"),
    *("best/val/auc*", "best/val/kid", "best/val/loss*", "best/*", "fidelity/*/kid"),
    *("fold/*", "test/*", "images", "patients", "realised_real_percentage", "val/*"),
)
_ASIDE = ("_low", "_high", "_floor")  # shown with the value they belong to, or not at all
PHANTOM = (
    "**Phantom data.** The images are drawn by a program: the numbers show that the pipeline runs, "
    "and say nothing of patients."
)
STAND_IN = (
    "**Stand-in features.** The distances between images come from a network with random weights: "
    "they show that the pipeline runs, not how good the images are."
)


def note(
    step: str,
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any],
    inputs: Mapping[str, Sequence[Reference]],
    metrics: Mapping[str, float],
    *,
    experiment_id: str,
    run_id: str,
    family: Sequence[Child] = (),
    stopped: str = "",
    parent_id: str = "",
    said: str = "",
) -> str:
    """Markdown of a run: what the step `said` itself, its metrics, its `family` of children.

    Of one that is not done `stopped` says where it is; `parent_id` is the run that alone can go on
    with it.
    """
    before = [f"**{step}**{_subject(settings, inputs)}", stopped]
    before += _warnings(settings, inputs, metrics)
    before += [verdict(metrics)] if "delta/auc" in metrics else []
    before += [said] if said else []
    before.append(_table(metrics))
    after = "The same command goes on with it:" if stopped else "Run again:"
    after = f"{after}\n\n```sh\n{command(step, settings, defaults)}\n```"
    if stopped and parent_id:
        after = f"Its [parent]({run_page(experiment_id, parent_id)}) goes on with it."
    for rows in ROWS:  # as many children as there is room for
        those = _children(list(family), rows, experiment_id, run_id) if family else []
        text = "\n\n".join(each for each in (*before, *those, after) if each)
        if len(text) <= LENGTH:
            break
    return text[:LENGTH]


def verdict(metrics: Mapping[str, float]) -> str:
    """What the difference to the baseline says, by its interval alone."""
    low, high = metrics.get("delta/auc_low"), metrics.get("delta/auc_high")
    told = f"AUC differs from the baseline's by {metrics['delta/auc']:+.3f}"
    if low is None or high is None:
        return f"{told}; without an interval it shows nothing."
    if low <= 0 <= high:
        return f"{told} (95 % {low:+.3f} to {high:+.3f}): **no difference is shown.**"
    return f"{told} (95 % {low:+.3f} to {high:+.3f}): **{'better' if low > 0 else 'worse'}.**"


def command(step: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The command line that asks for the same: every setting that is not its default."""
    words = []
    for name, value in _flat(settings).items():
        text = as_text(value)
        if name == "run_name" and text == step:  # as it would be called anyway
            continue
        if name not in ("work_dir", "reuse") and text != as_text(_flat(defaults).get(name, "")):
            words.append(f"--{name} {shlex.quote(text)}")
    return " ".join([f"mammo {step}", *words])


def leading(names: Iterable[str], most: int = FEW) -> list[str]:
    """The first of `names` that a reader looks for."""
    known = sorted(name for name in names if not name.endswith(_ASIDE))
    found: list[str] = []
    for pattern in (*LEADING, "*"):
        found += [name for name in known if fnmatchcase(name, pattern) and name not in found]
    return found[:most]


def _subject(settings: Mapping[str, Any], inputs: Mapping[str, Sequence[Reference]]) -> str:
    """Of what: the datasets and models that went in, with links, and the network by name."""
    made_of = [
        f"{name} {_named(each)}" for name, references in inputs.items() for each in references
    ]
    if not made_of and settings.get("dataset"):
        made_of = [f"dataset {settings['dataset']}"]
    kinds = [str(settings[name]) for name in ("generator", "model_name") if settings.get(name)]
    network = [] if "generator" in inputs else kinds[:1]
    return "".join(f", {each}" for each in [*network, *made_of])


def _named(reference: Reference) -> str:
    name = f"{_data_of(reference)} ({reference.digest[:12]})".strip()
    return f"[{name}](#/runs/{reference.run_id})" if reference.run_id else name


def _data_of(reference: Reference) -> str:
    """Name of the dataset that a reference is, or that its model was made of."""
    for file, key in (("dataset.json", "name"), ("model.json", "data_name")):
        if (reference.path / file).is_file():
            return str(json.loads((reference.path / file).read_text()).get(key, ""))
    return ""


def _warnings(
    settings: Mapping[str, Any],
    inputs: Mapping[str, Sequence[Reference]],
    metrics: Mapping[str, float],
) -> list[str]:
    names = [_data_of(each) for references in inputs.values() for each in references]
    names.append(str(settings.get("dataset", "")))
    found = [PHANTOM] if any("phantom" in name.lower() for name in names) else []
    random = any(name.startswith("fidelity/random") for name in metrics)
    measured = any(name.endswith("val/kid") for name in metrics)
    if random or (measured and settings.get("extractor") == "random"):
        found.append(STAND_IN)
    return found


def _table(metrics: Mapping[str, float]) -> str:
    finite = {name: value for name, value in metrics.items() if isfinite(value)}
    rows = [f"| {name} | {_told(finite, name)} |" for name in leading(finite, 8)]
    return "\n".join(["| metric | value |", "|---|---|", *rows]) if rows else ""


def _told(metrics: Mapping[str, float], name: str) -> str:
    """A value to four digits, with its interval where it has one."""
    text = f"{metrics[name]:.4g}"
    base = name.removesuffix("_mean")
    low, high = (metrics.get(f"{base}{end}") for end in ("_low", "_high"))
    return text if low is None or high is None else f"{text} ({low:.4g} to {high:.4g})"


def _children(family: list[Child], most: int, experiment_id: str, run_id: str) -> list[str]:
    """How many, one row each, mean and sd where they are of one step, and where to compare them."""
    counted = ", ".join(
        f"{number:.0f} {name.partition('/')[2]}" for name, number in counts(family).items()
    )
    shared = common(family)
    names = leading(shared)
    rows = ["| run | step | status | " + " | ".join(names or ["metrics"]) + " |"]
    rows.append("|" + "---|" * rows[0].count("|", 1))
    for each in family[:most]:
        own = names or leading(each.metrics, 3)
        values = [f"{each.metrics[name]:.4g}" if name in each.metrics else "" for name in own]
        if not names:
            values = [", ".join(f"{name} {value}" for name, value in zip(own, values, strict=True))]
        page = run_page(experiment_id, each.run_id)
        name = f"[{each.name}]({page})" if each.run_id else each.name
        rows.append(f"| {name} | {each.step} | {each.status} | " + " | ".join(values) + " |")
    if names and len(shared[names[0]]) > 1:
        for label, measure in (("mean", mean), ("sd", stdev)):
            cells = " | ".join(f"{measure(shared[name]):.4g}" for name in names)
            rows.append(f"| **{label}** | | | {cells} |")
    more = f"\n\n… and {len(family) - most} more" if len(family) > most else ""
    places = [f"[charts of the children]({charts_page(experiment_id, run_id)})"]
    known = [each.run_id for each in alike(family)]
    if 1 < len(known) <= MOST:
        places.append(f"[side by side]({compare_page(experiment_id, known)})")
    return [f"Children: {counted}; {', '.join(places)}.", "\n".join(rows) + more]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
