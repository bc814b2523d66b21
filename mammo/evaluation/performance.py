"""What is found about a classifier: judged by patient on held-out rows, and against a baseline."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from mammo.data.dataset import Dataset
from mammo.errors import DataError
from mammo.evaluation import comparison, decision, distributions, figures, ranking, sections
from mammo.evaluation.evidence import Evidence
from mammo.evaluation.groups import by_group, interactions
from mammo.evaluation.panel import Asked, Panel
from mammo.evaluation.predictions import (
    Predicts,
    Rows,
    evaluated_rows,
    predict,
    refuse_one_side,
    refuse_other_classes,
    refuse_seen,
    unseen,
    validation_rows,
)
from mammo.evaluation.verdict import Choice, Verdict, choose, judge


@dataclass(frozen=True)
class Plan:
    """How a classifier is to be judged: the settings of evaluate."""

    split: str
    aggregate: str  # empty: the model's own
    operating: str
    specificity: float
    prevalence: float
    groups: list[str]
    min_group: int
    draws: int
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Chosen:
    """What validation rows chose, those predictions, and where they came from in words."""

    choice: Choice
    validation: list[pd.DataFrame]
    source: str


def classifier_evidence(
    data: Dataset, classifier: Predicts, baseline: Predicts | None, plan: Plan
) -> Evidence:
    """Judge `classifier` on `plan.split` of `data`, and against `baseline` on the same patients."""
    rows, seen = _judging_rows(data, [classifier, *([baseline] if baseline else [])], plan)
    how = plan.aggregate or classifier.aggregate
    split, asked = plan.split, _asked(data, plan)
    images = predict(classifier, data, rows, split=split, batch_size=plan.batch_size)
    chosen = _chosen(data, classifier, how, plan)
    verdict = judge(images, chosen.choice, asked, aggregate=how, draws=plan.draws, seed=plan.seed)
    other, against = None, None
    if baseline is not None:
        other = predict(baseline, data, rows, split=split, batch_size=plan.batch_size)
        against = ranking.aggregate(other, asked.positive, how)
    if split == "val" and chosen.validation:
        verdict.notes.append("The threshold was chosen on these very patients: it looks too good.")
    if split == "train":
        verdict.notes.append("These are the rows the model was trained on: no measure of quality.")
    drawn = _figures(verdict, against, chosen.choice, data, plan)
    curve = decision.decision_curve(
        verdict.patients, asked.positive, temperature=chosen.choice.temperature, seed=plan.seed
    )
    drawn["decision"] = decision.decision_figure(curve, asked.positive)
    found = sections.of_verdict(
        verdict, data, drawn, split=split, source=chosen.source, prevalence=plan.prevalence
    )
    found.rows = len(rows)
    found.tables["decision_curve"] = curve
    found.tables["predictions"] = pd.concat([images, *chosen.validation], ignore_index=True)
    found.facts = {
        "Split": f"{split}: {len(rows)} images of {verdict.metrics['patients']:.0f} patients",
        "From images to patient": how,
        "Intervals": f"95 %, {plan.draws} draws of patients within each label",
        "Seen in training": seen,
    }
    found.add(_apart(images, verdict, data, how, plan))
    if baseline is not None and other is not None and against is not None:
        found.tables["predictions_baseline"] = other
        theirs = _chosen(data, baseline, how, plan).choice
        found.add(_compared(verdict, against, chosen.choice, theirs, asked, plan))
    return found


def _judging_rows(data: Dataset, models: list[Predicts], plan: Plan) -> tuple[Rows, str]:
    """Rows that may judge the models, the first of which says them; how that was compared."""
    rows, guards = evaluated_rows(data, plan.split, models[0].saved.about), []
    for each in models:
        refuse_other_classes(each.saved, data)
        refuse_one_side(data, rows, plan.split)
        guards += [refuse_seen(each.saved, data, rows)] if plan.split != "train" else []
    return rows, f"none; compared {guards[0]}" if guards else "yes: the training rows"


def _asked(data: Dataset, plan: Plan) -> Asked:
    classes = data.classes
    return Asked(classes.positive, plan.operating, plan.prevalence, classes.scale)


def _chosen(data: Dataset, classifier: Predicts, how: str, plan: Plan) -> Chosen:
    """Thresholds and temperature of validation rows that the model has not learned from.

    Without such rows they are those that the model keeps.
    """
    about = classifier.saved.about
    rows = validation_rows(data, about)
    rows = unseen(classifier.saved, data, rows)  # scores of patients it knows are too good
    if len(rows):
        frame = predict(classifier, data, rows, split="val", batch_size=plan.batch_size)
        found = choose(frame, data.classes.positive, aggregate=how, specificity=plan.specificity)
        patients = frame["group_id"].nunique()
        return Chosen(found, [frame], f"chosen on {patients} validation patients of {data.name}")
    kept = {**about.get("thresholds", {}), "balanced_accuracy": classifier.threshold}
    wanted = f"specificity_{plan.specificity}"
    if wanted in kept:
        kept["specificity"] = kept[wanted]
    if plan.operating not in kept:
        raise DataError(
            f"operating={plan.operating} needs validation rows, dataset {data.name} has none; "
            "use operating=balanced_accuracy, for which the model keeps a threshold"
        )
    kept.pop("balanced", None)  # the model's own name of it
    choice = Choice({"patient": kept}, float(about.get("temperature", 0)))
    return Chosen(choice, [], "kept from the validation patients of the model's own training")


def _apart(images: pd.DataFrame, verdict: Verdict, data: Dataset, how: str, plan: Plan) -> Evidence:
    """The model in each group of images; nothing where no column has two groups."""
    positive, least = data.classes.positive, plan.min_group
    table = by_group(
        images,
        data.manifest,
        plan.groups,
        positive=positive,
        threshold=verdict.outcome.threshold,
        aggregate=how,
        least=least,
        draws=plan.draws,
        seed=plan.seed,
    )
    if not len(table):
        return Evidence()
    differ = interactions(
        images, data.manifest, plan.groups, positive=positive, aggregate=how, least=least
    )
    return sections.of_groups(table, differ, split=plan.split, least=least)


def _compared(
    verdict: Verdict,
    against: pd.DataFrame,
    choice: Choice,
    theirs: Choice,
    asked: Asked,
    plan: Plan,
) -> Evidence:
    """Every metric of the model minus that of the baseline, each at its own threshold."""
    positive = asked.positive
    first, second = comparison.paired(verdict.patients, against)
    draws, seed = plan.draws, plan.seed
    panels = [
        Panel(frame, asked, each.thresholds["patient"])
        for frame, each in ((first, choice), (second, theirs))
    ]
    table = comparison.differences(*panels, draws=draws, seed=seed)
    found = comparison.compare(first, second, positive, draws=draws, seed=seed)
    truth = (first["label"] == positive).to_numpy()
    calls = [
        (frame[f"score/{positive}"] >= each.thresholds["patient"][asked.headline]).to_numpy()
        for frame, each in ((first, choice), (second, theirs))
    ]
    mcnemar = {
        "sensitivity": comparison.mcnemar_p(*(call[truth] for call in calls)),
        "specificity": comparison.mcnemar_p(*(~call[~truth] for call in calls)),
    }
    return sections.of_comparison(found, table, mcnemar, positive)


def _figures(
    verdict: Verdict,
    against: pd.DataFrame | None,
    choice: Choice,
    data: Dataset,
    plan: Plan,
) -> dict[str, Figure]:
    positive, names = data.classes.positive, data.classes.names
    patients, outcome = verdict.patients, verdict.outcome
    found = {
        "roc": figures.roc_figure(
            patients,
            positive,
            interval=verdict.interval,
            point=(outcome.sensitivity, outcome.specificity),
            baseline=against,
            seed=plan.seed,
        ),
        "precision_recall": figures.pr_figure(patients, positive, seed=plan.seed),
        "thresholds": figures.threshold_figure(patients, positive, threshold=outcome.threshold),
        "confusion": figures.confusion_figure(
            verdict.confusion,
            names,
            title="At the operating point" if len(names) == 2 else "Most probable class",
        ),
        "reliability": figures.reliability_figure(
            patients, positive, verdict.metrics, temperature=choice.temperature
        ),
    }
    return found | distributions.drawn(patients, positive, threshold=outcome.threshold)
