"""The account that preprocess gives of a dataset: numbers, tables, warnings, names in private."""

import logging
from collections import Counter

import pandas as pd
from PIL import Image

from mammo.data.checks import WARNING, Finding, findings_table
from mammo.data.identity import write_private
from mammo.data.making import Made, list_privately
from mammo.data.partition import RISKS, warm_up_table
from mammo.data.release import Release
from mammo.data.sheet import contact_sheet
from mammo.data.split_file import write_split_file
from mammo.run import Result, Run

LOG = logging.getLogger("mammo")
_DIM = 0.25  # a brightest pixel below it looks like 12 bits stored in 16, which reach 0.06


def give_account(tracked: Run, made: Made, release: Release, group_by: str) -> Result:
    """Log and upload what `made` is, tell what looks wrong, and hand the dataset on."""
    left_out = release.left_out + made.intake.left_out
    _keep_names(tracked, made)
    _say_notes(tracked, made, release, left_out, group_by)
    _say_pixels(made)
    _say_splits(tracked, made)
    _say_findings(tracked, made.findings)
    _say_rejected(tracked, made, left_out)
    metrics = _metrics(made)
    tracked.metrics(metrics)
    _tables(tracked, made)
    Image.fromarray(contact_sheet(made.data)).save(tracked.folder / "preview.png")
    tracked.artifacts(tracked.folder / "preview.png")
    tracked.artifacts(made.data.folder, "dataset")
    return Result({"dataset": tracked.uri("dataset")}, metrics, made.data.digest)


def _keep_names(tracked: Run, made: Made) -> None:
    """Write who is who to the private folder, for the owner of the release."""
    ids = made.data.manifest[["group_id", "exam_id", "image_id"]].itertuples(index=False)
    rows = [
        (*known, record.patient, record.exam, record.image, ";".join(map(str, record.paths)))
        for known, record in zip(ids, made.intake.kept, strict=True)
    ]
    columns = ("group_id", "exam_id", "image_id", "patient", "exam", "image", "files")
    write_private(tracked.work, f"ids-{made.data.digest}.csv", columns, rows)


def _say_notes(
    tracked: Run, made: Made, release: Release, left_out: Counter[str], group_by: str
) -> None:
    """Tell how patients were told apart, and what the release says of itself."""
    notes = {"group": group_by, **release.notes}
    if "synthetic_origin" in made.data.about:
        notes["group"] = "none (generated images, each alone)"
    if left_out:
        counted = [f"{count} {reason}" for reason, count in sorted(left_out.items())]
        notes["left_out"] = ", ".join(filter(None, [notes.get("left_out"), *counted]))
    tracked.tags({f"mammo.{name}": text for name, text in notes.items()})
    for name, text in notes.items():
        LOG.info("preprocess: %s: %s", name, text)
    if group_by in RISKS:
        LOG.warning("preprocess: %s", RISKS[group_by])


def _say_pixels(made: Made) -> None:
    """Warn of chest walls at the other side, and of a range that is hardly used."""
    intake = made.intake
    if intake.disagreements:
        LOG.warning(
            "preprocess: the chest wall of %d of %d images is not at the side that header or "
            "laterality tell; the pixels were followed (tables/orientation.csv)",
            intake.disagreements,
            len(made.data),
        )
    if intake.peak < _DIM and made.data.about["intensity"]["policy"] != "percentile":
        LOG.warning(
            "preprocess: the brightest pixel is %.3f of the range; a smaller depth in bigger "
            "words? --intensity percentile uses the whole range",
            intake.peak,
        )


def _say_splits(tracked: Run, made: Made) -> None:
    """Tell what a reader of the splits must know; the file that another run can follow."""
    for note in made.divided.notes:
        LOG.warning("preprocess: %s", note)
    if len(made.divided.missing):
        tracked.table("missing_patients", made.divided.missing)
    frame = made.data.manifest
    if frame["warmup"].any():
        tracked.table("warmup", warm_up_table(frame, positive=made.data.classes.positive))
    write_split_file(frame, tracked.folder / "splits.csv", salt=made.data.about["salt"])
    tracked.artifacts(tracked.folder / "splits.csv")


def _say_findings(tracked: Run, findings: list[Finding]) -> None:
    """Warn of what the cheap checks found; `mammo doctor` looks at the pictures too."""
    for finding in findings:
        if finding.severity == WARNING:
            LOG.warning("preprocess: %s: %s", finding.name, finding.text)
    tracked.table("findings", findings_table(findings))


def _say_rejected(tracked: Run, made: Made, left_out: Counter[str]) -> None:
    """Count reasons in tables; the names of files that cannot be used stay in private."""
    reasons = Counter(reason for _, reason in made.rejected)
    for name, counted in (("rejected", reasons), ("left_out", left_out)):
        rows = sorted(counted.items())
        tracked.table(name, pd.DataFrame(rows, columns=["reason", "images"]))
    if made.rejected:
        path = list_privately(tracked, made.rejected)
        count = len(made.rejected)
        LOG.warning("preprocess: %d images left out; their names are in %s", count, path)


def _metrics(made: Made) -> dict[str, float]:
    frame, classes = made.data.manifest, made.data.classes
    return {
        "images": float(len(frame)),
        "patients": float(frame.loc[~frame["is_synthetic"], "group_id"].nunique()),
        "rejected": float(len(made.rejected)),
        **{f"count/{name}": float((frame["label"] == name).sum()) for name in classes.names},
        "images_per_second": made.images_per_second,
        "images_decoded": float(made.images_decoded),
    }


def _tables(tracked: Run, made: Made) -> None:
    """Images and patients by split and class; chest walls as told and as seen."""
    by = ["split", "fold", "label"]
    groups = made.data.manifest.groupby(by)["group_id"]
    tracked.table("splits", groups.agg(images="size", patients="nunique").reset_index())
    walls = [(*key, count) for key, count in sorted(made.intake.walls.items())]
    columns = ["laterality", "view", "expected_wall", "seen_wall", "images"]
    tracked.table("orientation", pd.DataFrame(walls, columns=columns))
