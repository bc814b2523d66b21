"""One examination of a dataset: all checks in their order, and what they found."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mammo.data.checks import (
    FATAL,
    SEVERITIES,
    SITES,
    Finding,
    association,
    check_rows,
    cross_table,
    findings_table,
)
from mammo.data.dataset import Dataset
from mammo.data.duplicates import Pair
from mammo.doctor.pictures import glance, picture_findings, removed_marks
from mammo.doctor.probe import Probe, background_features, metadata_features, probe
from mammo.doctor.twins import cluster_ids, cross_findings, find_pairs, twin_findings
from mammo.errors import DataError

LOG = logging.getLogger("mammo")


@dataclass(frozen=True)
class Examination:
    """What was found in `data`; rows of findings count on into `other` from len(data)."""

    data: Dataset
    other: Dataset | None
    findings: list[Finding]  # fatal first
    probes: list[Probe]
    pairs: list[Pair]  # within data
    tables: dict[str, pd.DataFrame]  # by caption
    seconds: float

    @property
    def fatal(self) -> int:
        return sum(finding.severity == FATAL for finding in self.findings)

    def to_json(self) -> dict[str, object]:
        """Everything but pictures, with image ids (hashed) for rows."""
        manifests = [each.manifest for each in (self.data, self.other) if each is not None]
        ids = np.concatenate([each["image_id"].to_numpy(str) for each in manifests]).tolist()
        groups = cluster_ids(len(self.data), [pair for pair in self.pairs if pair.copies])
        return {
            "dataset": self.data.name,
            "digest": self.data.digest,
            "against": self.other.digest if self.other is not None else "",
            "images": len(self.data),
            "seconds": round(self.seconds, 1),
            "findings": [
                {
                    "severity": each.severity,
                    "name": each.name,
                    "text": each.text,
                    "count": each.count,
                    "images": [[ids[row] for row in rows] for rows in each.rows],
                }
                for each in self.findings
            ],
            "probes": [_plain(each) for each in self.probes],
            "near_duplicates": [
                {
                    "first": ids[pair.first],
                    "second": ids[pair.second],
                    "similarity": round(pair.similarity, 4),
                    "mirrored": pair.mirrored,
                    "copies": pair.copies,
                }
                for pair in self.pairs
            ],
            "clusters": {ids[row]: number for row, number in groups.items()},
            "tables": {name: table.to_dict("records") for name, table in self.tables.items()},
        }


def examine(data: Dataset, other: Dataset | None = None, *, seed: int = 0) -> Examination:
    """Examine the real images of `data`, and compare them with those of `other`."""
    started = time.monotonic()
    frame = data.manifest
    rows = np.flatnonzero(~frame["is_synthetic"]).tolist()
    if not rows:
        raise DataError(f"dataset {data.name} holds no real image; the doctor examines real ones")
    LOG.info("doctor: looking at %d images", len(rows))
    seen = glance(data, rows)
    cropped = data.about.get("crop", "breast") != "none"
    LOG.info("doctor: looking for near-duplicates")
    pairs = find_pairs(data, rows)
    twins = twin_findings(frame, pairs)
    # the doctor's look finds equal pixels too: what the rows say of them is said once
    known = {finding.name for finding in twins}
    checked = [each for each in check_rows(frame, data.classes.names) if each.name not in known]
    real = frame.iloc[rows].reset_index(drop=True)
    LOG.info("doctor: probing for shortcuts")
    probes = _probe(data, real, seen.borders, seen.thumbnails, cropped=cropped, seed=seed)
    findings = [
        *twins,
        *checked,
        *picture_findings(seen.looks, cropped=cropped),
        *removed_marks(frame.iloc[rows]),
        *(finding for each in probes for finding in each.findings()),
    ]
    if other is not None:
        findings += cross_findings(data, other, find_pairs(data, rows, other))
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    tables = {"Findings": findings_table(findings), **_tables(real, probes)}
    return Examination(data, other, findings, probes, pairs, tables, time.monotonic() - started)


def _probe(
    data: Dataset,
    real: pd.DataFrame,
    borders: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    thumbnails: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    *,
    cropped: bool,
    seed: int,
) -> list[Probe]:
    stretched = data.about.get("intensity", {}).get("policy") == "percentile"
    kinds = {
        "metadata": metadata_features(
            real, task=data.classes.task, cropped=cropped, stretched=stretched
        ),
        "background": background_features(real, borders, cropped=cropped),
        "thumbnails": pd.DataFrame(thumbnails).astype(float),
    }
    positive = data.classes.positive
    return [probe(name, values, real, positive, seed=seed) for name, values in kinds.items()]


def _tables(real: pd.DataFrame, probes: Sequence[Probe]) -> dict[str, pd.DataFrame]:
    by = ["split", "fold", "label"]
    counts = real.groupby(by).agg(images=("image_id", "size"), patients=("group_id", "nunique"))
    counts["share of the split"] = counts["images"] / counts.groupby(level=[0, 1])[
        "images"
    ].transform("sum")
    probed = [
        (each.name, each.features, each.images, each.auc, each.low, each.high, each.why_not)
        for each in probes
    ]
    names = ["probe", "features", "images", "AUC", "low", "high", "not measured because"]
    tables = {
        "Images and patients by split, fold and class": counts.reset_index(),
        "Probes: AUC with its 95 % interval": pd.DataFrame(probed, columns=names),
    }
    related = []
    for column in (*SITES, "laterality", "view", "flags"):
        table = cross_table(real, column)
        if table.shape[1] > 1:
            related.append((column, *association(table)))
            tables[f"Patients by class and {column}"] = table.reset_index()
    if related:
        columns = ["column", "Cramer's V", "p (chi-square)"]
        tables["How class and columns go together"] = pd.DataFrame(related, columns=columns)
    return tables


def _plain(each: Probe) -> dict[str, object]:
    """A probe for JSON, which has no nan."""
    numbers = {
        name: None if np.isnan(value) else round(value, 4)
        for name, value in (("auc", each.auc), ("low", each.low), ("high", each.high))
    }
    return {
        "name": each.name,
        "features": each.features,
        "images": each.images,
        "why_not": each.why_not,
        **numbers,
    }
