"""The gates of a promotion: each says in words what it found, or raises with its reason.

A gate takes a Case and, keyword-only, what the policy asks of it. The default policies beside this
file explain each.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pandas as pd

from mammo.data.dataset import Dataset
from mammo.errors import CheckpointError, DataError
from mammo.evaluation.predictions import evaluated_rows, fold_of, refuse_seen, unrecorded
from mammo.lineage import COMMIT, DIRTY, WITHDRAWN
from mammo.models import SavedModel, open_model
from mammo.promotion.case import SPLIT, Case

# Of a stored model beside the files that it signs: what MLflow reads, and what it leaves there.
BESIDE = {
    *("model.json", "MLmodel", "input_example.json", "serving_input_example.json"),
    "registered_model_meta",
}
LOADER = "mammo.serving"
Bounds = Mapping[str, float]


def manifest(case: Case) -> str:
    """Every hash of the stored model, and that nothing in it makes MLflow load anything else."""
    if case.reference.path != case.stored:
        open_model(case.reference.path, case.kind)
    saved = case.saved
    if saved.digest != case.reference.digest:
        raise CheckpointError(
            f"the stored model has digest {saved.digest}, the one named {case.reference.digest}; "
            f"name {case.uri}"
        )
    tagged = case.registrar.digest_of(case.run_id)
    if case.path == "model" and tagged not in ("", saved.digest):
        raise CheckpointError(
            f"the stored model has digest {saved.digest}, its run recorded {tagged}: it was "
            "exchanged; train it again"
        )
    strange = sorted(
        str(each.relative_to(case.stored))
        for each in case.stored.rglob("*")
        if each.is_file() and each.name not in {*BESIDE, *saved.about["files"]}
    )
    if strange:
        raise CheckpointError(f"the stored model holds {strange[0]}, which is no part of it")
    _check_loader(case.stored / "MLmodel")
    return f"{len(saved.about['files'])} files as they were saved, digest {saved.digest}"


def _check_loader(path: Path) -> None:
    """Refuse an MLmodel file that names code of its own."""
    import yaml

    flavors = (yaml.safe_load(path.read_text()) or {}).get("flavors", {}) if path.exists() else {}
    ours = flavors.get("python_function", {})
    known = {"data", "env", "loader_module", "python_version"}
    if set(flavors) != {"python_function"} or ours.get("loader_module") != LOADER:
        raise CheckpointError(f"{path.name} of the stored model does not load with {LOADER}")
    if set(ours) - known:
        raise CheckpointError(
            f"{path.name} of the stored model names {min(set(ours) - known)}, which mammo never "
            "writes; train it again"
        )


def lineage(case: Case, *, outside: list[str]) -> str:
    """Every input leads to a run of this store, every end is a preprocess run."""
    missing, told = [], []
    for run_id in case.behind:
        node = case.graph.nodes.get(run_id)
        if node is None:
            missing.append(f"run {run_id} is not one of mammo's")
            continue
        if node.status != "FINISHED":
            missing.append(f"{case.named(run_id)} is {node.status}")
        sources = case.graph.sources(run_id)
        if not sources and node.step != "preprocess":
            missing.append(f"{case.named(run_id)} names no input")
        for setting, other in sources:
            if other in case.graph.nodes:
                continue
            if setting in outside:
                told.append(f"{setting} {other[:12]} from outside")
            else:
                missing.append(f"{setting} {other[:32]} of {case.named(run_id)} is of no run here")
    if missing:
        raise DataError(
            f"the lineage is not complete: {', '.join(missing)}; make it again from a release, "
            "each step in this tracking store"
        )
    return ", ".join([f"{len(case.behind)} runs, all finished", *told])


def withdrawn(case: Case) -> str:
    """Nothing behind the model or its evaluation was withdrawn."""
    for run_id in _runs(case):
        if patients := case.marks(run_id).get(WITHDRAWN):
            raise DataError(
                f"{case.named(run_id)} was withdrawn with patient {patients}; train again without"
            )
    return "nothing behind it was withdrawn"


def commit(case: Case, *, dirty: str, unknown: str) -> str:
    """The code of every run was committed."""
    changed, silent, commits = [], [], set[str]()
    for run_id in _runs(case):
        marks = case.marks(run_id)
        if not marks.get(COMMIT) or marks.get(DIRTY) not in ("true", "false"):
            silent.append(case.named(run_id))
        elif marks[DIRTY] == "true":
            changed.append(case.named(run_id))
        else:
            commits.add(marks[COMMIT][:12])
    reasons = []
    if changed and dirty == "refuse":
        reasons.append(
            f"code that is in no commit made {', '.join(changed)}: commit it and run them again"
        )
    if silent and unknown == "refuse":
        reasons.append(
            f"the commit of {', '.join(silent)} is unknown: run them from a git checkout of mammo"
        )
    if reasons:
        raise DataError("; ".join(reasons))
    counts = f"; {len(changed)} of a changed tree, {len(silent)} unknown"
    return f"commit {', '.join(sorted(commits)) or 'none'}{counts * bool(changed or silent)}"


def _runs(case: Case) -> list[str]:
    """The runs behind the model, and its evaluation where it has one."""
    with suppress(DataError):  # the gates of the evaluation say so
        return [*case.behind, case.evaluation.run_id]
    return case.behind


def leaks(case: Case, *, unknown: str) -> str:
    """No patient who judges was in any training behind the model."""
    data = case.data
    rows = evaluated_rows(data, _judging(data, case.saved), case.saved.about)
    how = refuse_seen(case.saved, data, rows)
    for run_id in case.behind[1:]:
        ancestor = _ancestor(case, run_id)
        if ancestor is not None:
            refuse_seen(ancestor, data, rows)
    silent = unrecorded(case.saved)
    if silent and unknown == "refuse":
        raise DataError(
            f"what generators {', '.join(silent)} were trained on is not recorded, so nobody can "
            f"tell whether they saw test patients of {data.name}; leave their images out"
        )
    return f"no test patient of {data.name} was in a training behind it: compared {how}"


def _judging(data: Dataset, saved: SavedModel) -> str:
    has_test = (data.manifest["split"] == SPLIT).any()
    return SPLIT if has_test or fold_of(saved.about) == "none" else "fold"


def _ancestor(case: Case, run_id: str) -> SavedModel | None:
    """What another model behind this one was trained on, without its weights; None for no model."""
    import json

    if not case.graph.nodes[run_id].step.startswith("train_"):
        return None
    about = case.part(run_id, "model.json")
    if about is None:
        return None
    said = json.loads(about.read_text())
    for name in said["files"]:
        if name.endswith(".parquet"):
            case.part(run_id, name)
    return SavedModel(about.parent, said)


def evaluation(case: Case, *, patients: int) -> str:
    """The model was judged on all test rows of the dataset."""
    frame, data = case.predictions, case.data
    rows = evaluated_rows(data, SPLIT, case.saved.about)
    if set(frame["image_id"]) != set(data.manifest["image_id"].iloc[rows]):
        raise DataError(
            f"evaluation {case.evaluation.run_id} judged {len(frame)} images, the test rows of "
            f"{data.name} are {len(rows)} others; evaluate it again"
        )
    count = frame["group_id"].nunique()
    if count < patients:
        raise DataError(f"it was judged on {count} test patients, policy asks for {patients}")
    return f"judged on {count} test patients of {data.name} by run {case.evaluation.run_id}"


def bounds(case: Case, **asked: Bounds) -> str:
    """Metrics of the evaluation lie within their bounds; one that was never measured does not."""
    return within(case.evaluation.metrics, asked)


def within(metrics: Mapping[str, float], asked: Mapping[str, Bounds]) -> str:
    reasons, told = [], []
    for metric, ends in asked.items():
        for bound, limit in ends.items():
            value = metrics.get(metric)
            if value is None:
                reasons.append(f"{metric} was never measured, policy asks for {bound} {limit:.4g}")
            elif (value >= limit) if bound == "min" else (value <= limit):
                told.append(f"{metric} {value:.4g} ({bound} {limit:.4g})")
            else:  # nan is in no bounds
                reasons.append(f"{metric} is {value:.4g}, policy asks for {bound} {limit:.4g}")
    if reasons:
        raise DataError("; ".join(reasons))
    return ", ".join(told) or "no bound is asked"


def subgroups(
    case: Case,
    *,
    metric: str,
    min: float,  # as in the policy's file
    below: float,
    required: list[str],
) -> str:
    """The metric in each group of images that was judged apart."""
    metrics = case.evaluation.metrics
    name = re.compile(rf"{SPLIT}/([^/]+)/([^/]+)/{re.escape(metric)}")
    found = {
        f"{match[1]} {match[2]}": value
        for key, value in sorted(metrics.items())
        if (match := name.fullmatch(key))
    }
    whole = metrics.get(f"{SPLIT}/{metric}", float("nan"))
    reasons = [
        f"{column} was not judged apart: add it to evaluate's --groups, or find more patients"
        for column in required
        if not any(each.startswith(f"{column} ") for each in found)
    ]
    for group, value in found.items():
        if not value >= min:
            reasons.append(f"{metric} of {group} is {value:.3f}, policy asks for {min:.3f}")
        elif whole - value > below:
            reasons.append(
                f"{metric} of {group} is {value:.3f}, more than {below:.3f} below the {whole:.3f} "
                "of all"
            )
    if reasons:
        raise DataError("; ".join(reasons))
    lowest = pd.Series(found).idxmin() if found else ""
    if not found:
        return "no group has enough patients to be judged apart"
    return f"{len(found)} groups, the lowest {metric} {found[lowest]:.3f} of {lowest}"


def likeness(case: Case, *, images: int) -> str:
    """A dataset sampled from the generator was compared with the real images."""
    run_id, data = case.evaluation.run_id, case.data
    kids = [name for name in case.evaluation.metrics if re.fullmatch(r"fidelity/.+/kid", name)]
    if not kids:
        raise DataError(f"evaluation {run_id} measured no KID; evaluate with --synthetic")
    (made,) = case.evaluation.inputs["synthetic"]
    count = len(Dataset(case.registrar.dataset(case.registrar.digest_of(made) or made)))
    if count < images:
        raise DataError(f"it was judged by {count} sampled images, policy asks for {images}")
    return f"judged by {count} sampled images against {data.name}, by run {run_id}"


def privacy(case: Case, *, absent: str, bounds: Mapping[str, Bounds]) -> str:
    """What the audit of the sampled images found."""
    audited = {k: v for k, v in case.evaluation.metrics.items() if k.startswith("privacy/")}
    if audited:
        return within(audited, bounds)
    if absent == "refuse":
        raise DataError(
            f"no audit: evaluation {case.evaluation.run_id} has no metric privacy/…; audit the "
            "sampled images, or let the policy say privacy: {absent: allow}"
        )
    return "no audit: whether it repeats training images was not looked at"
