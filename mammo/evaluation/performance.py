"""What is found about a classifier: judged by patient on held-out rows, and against a baseline."""

import math

import pandas as pd
from matplotlib.figure import Figure

from mammo.data.dataset import Dataset
from mammo.errors import DataError
from mammo.evaluation import figures, ranking
from mammo.evaluation.evidence import Evidence
from mammo.evaluation.groups import by_group, metrics_of
from mammo.evaluation.predictions import (
    Predicts,
    evaluated_rows,
    predict,
    refuse_other_classes,
    refuse_seen,
    unseen,
    validation_rows,
)
from mammo.evaluation.report import Section, Tile
from mammo.evaluation.verdict import Verdict, choose_thresholds, detectable_difference, judge

CAPTIONS = {
    "roc": "Sensitivity against 1 − specificity; patients are drawn for the band",
    "precision_recall": "Precision against recall; prevalence is what guessing gets",
    "confusion": "Patients by true class and by what they were called",
    "scores": "Scores of patients by their true class",
    "reliability": "Observed share against predicted probability",
}


def classifier_evidence(
    data: Dataset,
    classifier: Predicts,
    baseline: Predicts | None,
    *,
    split: str,
    aggregate: str,
    operating: str,
    specificity: float,
    groups: list[str],
    draws: int,
    batch_size: int,
    seed: int,
) -> Evidence:
    """Judge `classifier` on `split` of `data`, and against `baseline` on the same patients."""
    positive = data.classes.positive
    rows = evaluated_rows(data, split, classifier.saved.about)
    guards = []
    for each in (classifier, baseline):
        if each is not None:
            refuse_other_classes(each.saved, data)
            guards += [refuse_seen(each.saved, data, rows)] if split != "train" else []
    how = aggregate or classifier.aggregate
    images = predict(classifier, data, rows, split=split, batch_size=batch_size)
    thresholds, validation, source = _thresholds(
        data, classifier, how, operating, specificity=specificity, batch_size=batch_size
    )
    verdict = judge(
        images, thresholds, positive, headline=operating, aggregate=how, draws=draws, seed=seed
    )
    other, against = None, None
    if baseline is not None:
        other = predict(baseline, data, rows, split=split, batch_size=batch_size)
        against = ranking.aggregate(other, positive, how)
    if split == "val" and validation:
        verdict.notes.append("The threshold was chosen on these very patients: it looks too good.")
    if split == "train":
        verdict.notes.append("These are the rows the model was trained on: no measure of quality.")
    drawn = _figures(verdict, against, data, seed=seed)
    found = _verdict_evidence(verdict, data, drawn, split=split, source=source)
    found.rows = len(rows)
    found.tables["predictions"] = pd.concat([images, *validation], ignore_index=True)
    found.facts = {
        "Split": f"{split}: {len(rows)} images of {verdict.metrics['patients']:.0f} patients",
        "From images to patient": how,
        "Intervals": f"95 %, {draws} draws of patients within each label",
        "Seen in training": f"none; compared {guards[0]}" if guards else "yes: the training rows",
    }
    apart = by_group(
        images,
        data.manifest,
        groups,
        positive=positive,
        threshold=verdict.outcome.threshold,
        aggregate=how,
        draws=draws,
        seed=seed,
    )
    if len(apart):
        found.add(_groups(apart, split))
    if other is not None and against is not None:
        found.tables["predictions_baseline"] = other
        found.add(_comparison(verdict, against, positive, draws=draws, seed=seed))
    return found


def _thresholds(
    data: Dataset,
    classifier: Predicts,
    how: str,
    operating: str,
    *,
    specificity: float,
    batch_size: int,
) -> tuple[dict[str, float], list[pd.DataFrame], str]:
    """Threshold by rule, the validation predictions that chose it, and where they came from."""
    rows = validation_rows(data, classifier.saved.about)
    rows = unseen(classifier.saved, data, rows)  # scores of patients it knows are too good
    if len(rows):
        frame = predict(classifier, data, rows, split="val", batch_size=batch_size)
        found = choose_thresholds(
            frame, data.classes.positive, aggregate=how, specificity=specificity
        )
        patients = frame["group_id"].nunique()
        return found, [frame], f"chosen on {patients} validation patients of {data.name}"
    if operating != "balanced_accuracy":
        raise DataError(
            f"operating={operating} needs validation rows, dataset {data.name} has none; "
            "use operating=balanced_accuracy, for which the model keeps a threshold"
        )
    kept = {"balanced_accuracy": classifier.threshold}
    return kept, [], "kept from the validation patients of the model's own training"


def _verdict_evidence(
    verdict: Verdict, data: Dataset, drawn: dict[str, Figure], *, split: str, source: str
) -> Evidence:
    """Metrics, tables, tiles and the section of a verdict."""
    positive, values = data.classes.positive, verdict.metrics
    several = len(data.classes.names) > 2
    interval = f"95 % {values['auc_low']:.3f} to {values['auc_high']:.3f}"
    counted = f"{values['patients']:.0f} patients"
    rule = "macro mean, one against the rest" if several else f"of {positive}"
    point = f"threshold {verdict.outcome.threshold:.3f}, {source}"
    tiles = [
        Tile(f"AUC ({split})", f"{values['auc']:.3f}", f"{interval}, {counted}, {rule}"),
        Tile("Sensitivity", f"{values['sensitivity']:.3f}", point),
        Tile("Specificity", f"{values['specificity']:.3f}", "at the same threshold"),
    ]
    metrics = {f"{split}/{name}": value for name, value in values.items()}
    summary = pd.DataFrame({"metric": list(metrics), "value": list(metrics.values())})
    names = list(data.classes.names)
    table = pd.DataFrame(verdict.confusion, columns=[f"called {name}" for name in names])
    table.insert(0, "truth", names)
    return Evidence(
        metrics=metrics,
        headline=[f"{split}/{name}" for name in ("auc", "auc_low", "auc_high", "patients")],
        tiles=tiles,
        sections=[
            Section(
                "Classification",
                f"Every number is by patient unless its name says image. The threshold was "
                f"{source}, never on the rows it is judged by.",
                {"Metrics": summary, "Operating points": verdict.operating_points},
                {CAPTIONS[name]: figure for name, figure in drawn.items()},
                verdict.notes,
            )
        ],
        figures=drawn,
        tables={
            "metrics": summary,
            "patients": verdict.patients,
            "operating_points": verdict.operating_points,
            "confusion": table,
        },
    )


def _groups(table: pd.DataFrame, split: str) -> Evidence:
    """The same model in each group of images."""
    text = (
        "The same patients by groups of their images, at the same threshold. A difference between "
        "groups may be one of patients; an AUC needs both sides in a group."
    )
    return Evidence(
        metrics=metrics_of(table, split),
        sections=[Section("By group", text, {"Groups": table})],
        tables={"groups": table},
    )


def _comparison(
    verdict: Verdict, against: pd.DataFrame, positive: str, *, draws: int, seed: int
) -> Evidence:
    """The difference to a baseline with its interval, test and smallest detectable size."""
    found = ranking.compare(verdict.patients, against, positive, draws=draws, seed=seed)
    metrics = {
        "delta/auc": found.auc,
        "delta/auc_low": found.low,
        "delta/auc_high": found.high,
        "delta/p": found.p,
    }
    values = verdict.metrics
    low, high = ranking.bootstrap_auc(against, positive, draws=draws, seed=seed)
    rows = [
        ("this model", values["auc"], values["auc_low"], values["auc_high"], math.nan),
        ("baseline", ranking.frame_auc(against, positive), low, high, math.nan),
        ("difference", found.auc, found.low, found.high, found.p),
    ]
    table = pd.DataFrame(rows, columns=["model", "auc", "low", "high", "p"])
    text = (
        "Both models scored the same patients, drawn together in the bootstrap; p is DeLong's "
        "two-sided test by patient."
    )
    least = detectable_difference(found.low, found.high)
    if least > 0:
        text += (
            f" With these patients a true difference of {least:.3f} would be found with 80 % "
            "power; a smaller one will usually be missed."
        )
    p = f"p = {found.p:.2g}" if found.p >= 0.001 else "p < 0.001"
    return Evidence(
        metrics=metrics,
        headline=list(metrics),
        tiles=[
            Tile(
                "AUC minus baseline",
                f"{found.auc:+.3f}",
                f"95 % {found.low:+.3f} to {found.high:+.3f}, {p}",
            )
        ],
        sections=[Section("Against the baseline", text, {"AUC": table})],
        tables={"comparison": table},
    )


def _figures(
    verdict: Verdict, against: pd.DataFrame | None, data: Dataset, *, seed: int
) -> dict[str, Figure]:
    positive, names = data.classes.positive, data.classes.names
    point = (verdict.outcome.sensitivity, verdict.outcome.specificity)
    two = len(names) == 2
    return {
        "roc": figures.roc_figure(
            verdict.patients,
            positive,
            interval=verdict.interval,
            point=point,
            baseline=against,
            seed=seed,
        ),
        "precision_recall": figures.pr_figure(verdict.patients, positive),
        "confusion": figures.confusion_figure(
            verdict.confusion,
            names,
            title="At the operating point" if two else "Most probable class",
        ),
        "scores": figures.score_figure(
            verdict.patients, positive, threshold=verdict.outcome.threshold
        ),
        "reliability": figures.reliability_figure(
            verdict.patients,
            positive,
            brier=verdict.metrics["brier"],
            ece=verdict.metrics["ece"],
        ),
    }
