"""Judge a classifier by patient and synthetic images by their distance to real ones."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.evaluation import AGGREGATES, OPERATING
from mammo.run import Result, Run
from mammo.settings import Count, Fraction, PositiveInt, one_of

if TYPE_CHECKING:
    from mammo.classifiers import Classifier
    from mammo.classifiers.saliency import Saliency
    from mammo.data.dataset import Dataset
    from mammo.evaluation.evidence import Evidence
    from mammo.evaluation.report import Report

    SplitName = str
    AggregateName = str
    OperatingName = str
    FidelitySplit = str
else:
    SplitName = one_of(["train", "val", "test", "fold"])
    AggregateName = one_of(["", *AGGREGATES])
    OperatingName = one_of(OPERATING)
    FidelitySplit = one_of(["train", "val", "test", "all"])

INPUTS = {"model": "model", "baseline": "model", "data": "dataset", "synthetic": "dataset"}
PARQUET = ("patients", "predictions", "predictions_baseline")  # also written so
LOG = logging.getLogger("mammo")


def check(settings: Mapping[str, Any]) -> None:
    from mammo.evaluation.extractors import check_extractor
    from mammo.evaluation.groups import GROUPS

    if not settings["model"] and not settings["synthetic"]:
        raise ConfigError("model and synthetic are both empty; give one of them, or both")
    if settings["baseline"] and not settings["model"]:
        raise ConfigError(
            f"baseline {settings['baseline']!r} has nothing to compare with; give model as well"
        )
    if settings["saliency"] and not settings["model"]:
        raise ConfigError(
            f"saliency {settings['saliency']} has no classifier to look into; give model as well"
        )
    check_extractor(settings["extractor"])
    strange = sorted(set(_listed(str(settings["groups"]))) - set(GROUPS))
    if strange:
        raise ConfigError(f"groups {strange[0]!r}; choose of {', '.join(GROUPS)}")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def source_digest(settings: Mapping[str, Any]) -> str:
    """Hash of the extractor's weights: other weights under the same path are another run."""
    from mammo.evaluation.extractors import weights_sha256

    return weights_sha256(settings["extractor"]) if settings["synthetic"] else ""


def run(
    tracked: Run,
    *,
    data: str,
    model: str = "",
    baseline: str = "",
    synthetic: str = "",
    split: SplitName = "test",
    aggregate: AggregateName = "",
    operating: OperatingName = "balanced_accuracy",
    specificity: Fraction = 0.9,
    prevalence: Fraction = 0.005,
    groups: str = "dataset,subset,age,race,ethnicity",
    saliency: Count = 0,
    min_group: Count = 10,
    bootstrap: PositiveInt = 2000,
    extractor: str = "random",
    fidelity_split: FidelitySplit = "train",
    max_images: PositiveInt = 2000,
    batch_size: PositiveInt = 32,
    seed: int = 0,
    device: str = "auto",
) -> Result:
    """Judge a classifier on held-out patients, and synthetic images against real ones.

    Args:
        data: the dataset of real images (path, run id or runs:/<id>/dataset).
        model: the classifier to judge; empty to look at synthetic images alone.
        baseline: a second classifier that the first is compared with, on the same patients.
        synthetic: the dataset of synthetic images; empty to judge a classifier alone.
        split: rows that judge: test, val, train, or fold (the fold the model was not trained on).
        aggregate: from images to patient: mean, max or none; empty takes the model's own.
        operating: what the threshold is chosen for, always on validation patients.
        specificity: specificity that the threshold keeps on validation with operating=specificity.
        prevalence: share of positives where PPV and NPV are to hold; 0.005 is screening.
        groups: columns whose values are judged apart where the data has them; empty for none.
        saliency: Grad-CAM maps of so many right and wrong calls of each class; 0 for none.
        min_group: fewest patients of a side that a group's numbers may rest on.
        bootstrap: draws of patients behind every interval.
        extractor: features of the fidelity metrics: random (a stand-in) or NAME@WEIGHTS.
        fidelity_split: real images that synthetic ones are compared with: a split, or all.
        max_images: at most so many real and so many synthetic images in the fidelity metrics.
        batch_size: images at a time.
        seed: seed of bootstrap draws and subsets.
        device: auto, cpu, cuda or cuda:<number>.
    """
    from mammo.data.dataset import Dataset
    from mammo.evaluation.evidence import Evidence
    from mammo.training import choose_device

    real = Dataset(tracked.inputs["data"][0].path)
    place = str(choose_device(device))
    evidence = Evidence()
    if model:
        from mammo.evaluation.performance import Plan, classifier_evidence

        judged = _classifier(tracked, "model", place)
        tracked.tags({"mammo.model_digest": judged.saved.digest})  # a run may hold several models
        lens = _lens(judged) if saliency else None
        found = classifier_evidence(
            real,
            judged,
            _classifier(tracked, "baseline", place) if baseline else None,
            Plan(
                split=split,
                aggregate=aggregate,
                operating=operating,
                specificity=specificity,
                prevalence=prevalence,
                groups=_listed(groups),
                min_group=min_group,
                draws=bootstrap,
                batch_size=batch_size,
                seed=seed,
            ),
        )
        evidence.add(found)
        if lens is not None:
            from mammo.evaluation.cases import saliency_evidence

            seen = found.tables["predictions"]
            seen = seen[seen["split"] == split]  # not those that chose the threshold
            looked = saliency_evidence(
                real, seen, lens.maps, layer=lens.layer, count=saliency, views_of=judged.views_of
            )
            evidence.add(looked)
        context = {"val": "validation", "train": "training"}.get(split, "test")
        tracked.input(real.name, real.digest, found.rows, context)
    if synthetic:
        from mammo.evaluation.extractors import load_extractor
        from mammo.evaluation.likeness import fidelity_evidence

        made = Dataset(tracked.inputs["synthetic"][0].path)
        found = fidelity_evidence(
            real,
            made,
            load_extractor(extractor),
            split=fidelity_split,
            max_images=max_images,
            batch_size=batch_size,
            seed=seed,
            device=place,
        )
        evidence.add(found)
        tracked.input(made.name, made.digest, found.rows, "synthetic")
    return _record(tracked, real, evidence, seed=seed)


def _classifier(tracked: Run, setting: str, device: str) -> "Classifier":
    from mammo.classifiers import load_classifier

    return load_classifier(tracked.inputs[setting][0].path, device=device)


def _lens(classifier: "Classifier") -> "Saliency":
    from mammo.classifiers.saliency import Saliency

    return Saliency(classifier)


def _record(tracked: Run, real: "Dataset", evidence: "Evidence", *, seed: int) -> Result:
    """Log the numbers, figures and tables, and write preview and report."""
    from mammo.evaluation.report import png, render

    tracked.metrics(evidence.metrics)
    for name, figure in evidence.figures.items():
        tracked.figure(name, figure)
    for name, table in evidence.tables.items():
        tracked.table(name, table)
        if name in PARQUET:
            path = tracked.folder / f"{name}.parquet"
            table.to_parquet(path, index=False)
            tracked.artifacts(path)
    report = tracked.folder / "report.html"
    report.write_text(render(_report(tracked, real, evidence, seed=seed)))
    preview = tracked.folder / "preview.png"
    preview.write_bytes(png(next(iter(evidence.figures.values()))))
    for path in (report, preview):
        tracked.artifacts(path)
    for tile in evidence.tiles:
        LOG.info("evaluate: %s %s %s", tile.name, tile.value, tile.note)
    headline = {name: evidence.metrics[name] for name in evidence.headline}
    return Result({"report": tracked.uri("report.html")}, headline)


def _report(tracked: Run, real: "Dataset", evidence: "Evidence", *, seed: int) -> "Report":
    from mammo import __version__
    from mammo.evaluation.report import Report

    classes = real.classes
    inputs = {
        setting: f"{each.uri} (digest {each.digest}, run {each.run_id or 'none: a local folder'})"
        for setting, references in tracked.inputs.items()
        for each in references
    }
    facts = {
        "This run": tracked.id,
        **inputs,
        "Dataset": f"{real.name}, digest {real.digest}",
        "Task": f"{classes.task}: {', '.join(classes.names)}; positive {classes.positive}",
        "Truth by": classes.label_kind,
        **evidence.facts,
        "Seed": str(seed),
        "mammo": __version__,
    }
    subtitle = f"{real.name}: {classes.task}, truth by {classes.label_kind}"
    return Report("Evaluation", subtitle, evidence.tiles, evidence.sections, facts)
