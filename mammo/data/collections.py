"""Public collections of the Imaging Data Commons: what is in them, by the index in the wheel."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mammo.data.sources import ADAPTERS
from mammo.errors import ConfigError
from mammo.settings import Count

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (
    "collection_id",
    "PatientID",
    "SeriesInstanceUID",
    "Modality",
    "SeriesDescription",
    "instanceCount",
    "series_size_MB",
    "license_short_name",
    "source_DOI",
)
_ARCHIVE = "The Cancer Imaging Archive"


def _mammograms(series: "pd.DataFrame", masks: bool) -> "pd.Series":
    return series["Modality"] == "MG"


def _films(series: "pd.DataFrame", masks: bool) -> "pd.Series":
    """Full mammograms of CBIS-DDSM and, with `masks`, the series that hold a lesion's mask.

    246 full mammograms lack a description; their PatientID ends in the view, as
    P_00038_LEFT_CC.dcm. A mask mostly shares its series, whatever that is called, with its crop.
    """
    kind = series["SeriesDescription"].fillna("")
    unnamed = (kind == "") & series["PatientID"].str.fullmatch(r"P_\d{5}_[A-Z]+_[A-Z]+\.dcm")
    wanted = (kind == "full mammogram images") | unnamed
    if masks:
        wanted |= kind == "ROI mask images"
        wanted |= (kind == "cropped images") & (series["instanceCount"] > 1)
    return wanted


@dataclass(frozen=True)
class Collection:
    """What a collection is called, which of its series are wanted, and what the DICOM lacks."""

    id: str  # collection_id of the index
    title: str
    adapter: str  # of mammo.data.sources; empty where none reads it
    by_hand: str  # what must be fetched beside the DICOM, and where it is published
    wanted: Callable[["pd.DataFrame", bool], "pd.Series"] = _mammograms
    masks: bool = False  # whether lesion masks can be asked for
    patient: str = "(.+)"  # group 1 is the person in PatientID


COLLECTIONS: Mapping[str, Collection] = {
    "cbis_ddsm": Collection(
        "cbis_ddsm",
        "Curated Breast Imaging Subset of DDSM, digitized film",
        "cbis_ddsm",
        "the four tables mass_ and calc_case_description_{train,test}_set.csv (pathology, BI-RADS, "
        f"density, split), on the page of the collection CBIS-DDSM at {_ARCHIVE}",
        wanted=_films,
        masks=True,
        patient=r"(P_\d{5})",  # PatientID names subset, side and view as well
    ),
    "cmmd": Collection(
        "cmmd",
        "Chinese Mammography Database",
        "cmmd",
        "CMMD_clinicaldata_revision.xlsx (the label of each breast), "
        f"on the page of the collection CMMD at {_ARCHIVE}",
    ),
    "bcs_dbt": Collection(
        "breast_cancer_screening_dbt",
        "Breast Cancer Screening, digital breast tomosynthesis",
        "bcs_dbt",
        "the tables BCS-DBT-labels, -boxes and -file-paths (CSV, for train, validation and test), "
        f"on the page of the collection Breast-Cancer-Screening-DBT at {_ARCHIVE}",
    ),
    "ea1141": Collection(
        "ea1141",
        "EA1141, abbreviated MRI and tomosynthesis of dense breasts; its mammograms",
        "",
        "the clinical outcomes, on request at the NCTN/NCORP Data Archive of the trial EA1141",
    ),
}


def find(name: str) -> Collection:
    """The collection called `name` here or in the index; ConfigError lists the known ones."""
    found = COLLECTIONS.get(name) or next((c for c in COLLECTIONS.values() if c.id == name), None)
    if found is None:
        raise ConfigError(f"unknown collection {name!r}; choose one of {', '.join(COLLECTIONS)}")
    return found


def index_version() -> str:
    """Version of the installed index, which decides the counts."""
    return str(_index().__version__)


def select(collection: Collection, *, masks: bool, limit: int) -> "pd.DataFrame":
    """The wanted series, one a row, sorted by patient; columns of the index and `person`.

    Of `limit` patients (0 for all) the first by their id.
    """
    import pandas as pd

    if masks and not collection.masks:
        raise ConfigError(f"masks true: {collection.id} has no lesion masks; leave it out")
    if limit < 0:
        raise ConfigError(f"limit {limit}: give a number of patients, or 0 for all")
    series = pd.read_parquet(
        _index().IDC_INDEX_PARQUET_FILEPATH,
        columns=list(_COLUMNS),
        filters=[("collection_id", "==", collection.id)],
    )
    series = series[collection.wanted(series, masks)]
    person = series["PatientID"].str.extract(collection.patient, flags=re.ASCII)[0]
    series = series.assign(
        person=person, bytes=(series["series_size_MB"] * 1e6).round().astype(int)
    )
    series = series.sort_values(["person", "PatientID", "SeriesInstanceUID"], ignore_index=True)
    if limit:
        series = series[series["person"].isin(series["person"].unique()[:limit])]
    if not len(series):
        raise ConfigError(f"the index {index_version()} holds no mammogram of {collection.id}")
    return series


def plan(name: str, *, masks: bool = False, limit: Count = 0) -> list[str]:
    """Say what `mammo data fetch NAME` would bring: counts, size, license. Needs no network.

    NAME is cbis_ddsm, cmmd, bcs_dbt or ea1141; masks: of cbis_ddsm, the lesion masks too;
    limit: patients to take, 0 for all.
    """
    collection = find(name)
    series = select(collection, masks=masks, limit=limit)
    return describe(collection, series)


def describe(collection: Collection, series: "pd.DataFrame") -> list[str]:
    """The lines of a plan."""
    licenses = ", ".join(sorted(series["license_short_name"].unique()))
    rows = {
        "collection": f"{collection.id}: {collection.title}",
        "index": f"idc-index-data {index_version()}",
        "patients": f"{series['person'].nunique():,}",
        "series": f"{len(series):,}",
        "instances": f"{series['instanceCount'].sum():,}",
        "size": size_text(int(series["bytes"].sum())),
        "license": licenses,
        "cite": ", ".join(f"doi:{each}" for each in sorted(series["source_DOI"].unique())),
        "adapter": _reader(collection),
        "by hand": collection.by_hand,
    }
    lines = [f"{name:11} {text}" for name, text in rows.items()]
    if "NC" in licenses:
        lines.append("warning     the license forbids commercial use")
    return lines


def size_text(count: int) -> str:
    """Bytes in decimal units, as the archive counts them."""
    if count >= 1e12:
        return f"{count / 1e12:.2f} TB"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _reader(collection: Collection) -> str:
    if collection.adapter in ADAPTERS:
        return f"{collection.adapter} (mammo preprocess --dataset {collection.adapter})"
    return "none of its own; the adapters csv and folder read DICOM files"


def _index() -> Any:
    """The package that carries the index; ConfigError tells how to install it."""
    try:
        import idc_index_data
    except ImportError:
        raise ConfigError(
            'public collections need the package idc-index; pip install "mammo[idc]"'
        ) from None
    return idc_index_data
