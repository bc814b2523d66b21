"""`mammo withdraw PATIENT_HASH`: what was made from a patient's images, and must be retired."""

import json as json_format
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mammo.commands import call
from mammo.errors import ConfigError, DataError, TrackingError
from mammo.lineage import WITHDRAWN, Graph, Node

if TYPE_CHECKING:
    from mammo.tracking import Tracking

LOG = logging.getLogger("mammo")
KINDS = {
    "preprocess": "dataset",
    "mix": "mixed dataset",
    "sample": "synthetic set",
    "train_generator": "generator",
    "train_classifier": "classifier",
    "evaluate": "evaluation",
    "tune": "study",
    "promote": "promotion",
    "main": "pipeline",
}
# What tells whose images there are: the file, and its column of patients
OF_DATASETS = ("dataset/manifest.parquet", "dataset/generator_training.parquet")
OF_MODELS = ("model/training.parquet", "model/generator_training.parquet")


@dataclass(frozen=True)
class Affected:
    """A run or a registered version, and what it has to do with the patient."""

    kind: str
    name: str  # a run id, or models:/<name>/<version>
    why: str


def command(arguments: Sequence[str]) -> int:
    return call("withdraw", run, arguments)


def run(patient_hash: str, *, dry_run: bool = False, json: bool = False) -> int:
    """List what was made from the images of PATIENT_HASH, and mark it as withdrawn.

    PATIENT_HASH is a group_id of a manifest. Every dataset, generator, synthetic set, classifier,
    evaluation and registered version downstream is listed and tagged mammo.withdrawn; versions get
    a note too. No step takes what is tagged. --dry_run only lists; --json prints one JSON object.
    Ends with an error where a dataset or model could not be looked into.
    """
    from mammo.driver import work_folder
    from mammo.tracking import Registry, Tracking

    if not patient_hash.strip() or "," in patient_hash:
        raise ConfigError(f"patient {patient_hash!r} is no hash; give a group_id of a manifest")
    tracking = Tracking()
    registry = Registry(tracking, work_folder(""))
    why, unseen = _found(tracking, registry.graph, patient_hash)
    rows = [
        Affected(KINDS.get(node.step, node.step), node.run_id, why[node.run_id])
        for node in _in_order(registry.graph, set(why))
    ]
    versions = [each for row in rows for each in registry.versions(row.name)]
    rows += [Affected("registered version", each.uri, f"of run {each.run_id}") for each in versions]
    if not dry_run:
        for run_id in why:
            _mark(tracking, run_id, patient_hash)
        for version in versions:
            held = version.tags.get(WITHDRAWN, "")
            registry.tag(version, {WITHDRAWN: _with(held, patient_hash)})
            registry.note(version, f"WITHDRAWN with patient {patient_hash}: do not use.")
    said = {
        "patient": patient_hash,
        "dry_run": dry_run,
        "affected": [asdict(each) for each in rows],
    }
    _tell({**said, "unseen": unseen}, rows, json=json)
    if unseen:
        first, reason = next(iter(unseen.items()))
        raise TrackingError(
            f"{len(unseen)} datasets and models could not be looked into, so the list is not "
            f"whole: {first}: {reason}; mend the artifact store and run the same command again"
        )
    return 0


def _tell(said: dict[str, Any], rows: list[Affected], *, json: bool) -> None:
    if json:
        print(json_format.dumps({**said, "affected": [asdict(each) for each in rows]}), flush=True)
        return
    if rows:
        print(pd.DataFrame(rows).to_string(index=False, justify="left"))
    what = "would be withdrawn" if said["dry_run"] else "are withdrawn"
    print(f"{len(rows)} {what} with patient {said['patient']}", flush=True)


def _found(
    tracking: "Tracking", graph: Graph, patient: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Why each run is affected, and why one could not be looked into, by id.

    DataError where the patient is nowhere.
    """
    told: dict[str, str] = {}
    unseen: dict[str, str] = {}
    looked = 0
    for node in graph.nodes.values():
        paths = _files(node)
        looked += bool(paths)
        try:
            if words := _look(tracking, node, paths, patient):
                told[node.run_id] = words
        except (TrackingError, OSError, ValueError) as error:  # no answer, or no table
            unseen[node.run_id] = str(error).splitlines()[0]
    if not told and not unseen:
        raise DataError(
            f"patient {patient!r} is in none of the {looked} datasets and models of this store; "
            "give the group_id of a manifest, as this store's work folder hashed it"
        )
    for root in list(told):
        for run_id in graph.descendants(root):
            told.setdefault(run_id, "made from one of these, without the patient's own images")
    for run_id in list(told):
        parent = graph.nodes[run_id].parent_id
        while parent in graph.nodes:
            told.setdefault(parent, "shows results of one of these")
            parent = graph.nodes[parent].parent_id
    return told, unseen


def _files(node: Node) -> tuple[str, ...]:
    if node.step in ("preprocess", "mix", "sample"):
        return OF_DATASETS
    return OF_MODELS if node.step.startswith("train_") else ()


def _look(tracking: "Tracking", node: Node, paths: Sequence[str], patient: str) -> str:
    """What the run's output has to do with the patient, in words; empty for nothing."""
    for path, rows in _tables(tracking, node, paths):
        mine = int((rows["group_id"] == patient).sum())
        if not mine:
            continue
        if path.endswith("generator_training.parquet"):
            return "has images of a generator that was trained on the patient"
        if path in OF_DATASETS:
            splits = sorted(set(rows.loc[rows["group_id"] == patient, "split"]))
            return f"holds {mine} images of the patient ({', '.join(splits)})"
        return f"was trained on {mine} images of the patient"
    return ""


def _tables(
    tracking: "Tracking", node: Node, paths: Sequence[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    folder = paths[0].rpartition("/")[0] if paths else ""
    there = tracking.artifacts(node.run_id, folder) & set(paths) if paths else set()
    if paths and not there and node.status == "FINISHED":
        LOG.warning("%s %s has no table of its patients any more", node.step, node.run_id)
    for path in sorted(there, key=paths.index):
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch) / Path(path).name
            tracking.download(node.run_id, path, place)
            yield path, pd.read_parquet(place)


def _in_order(graph: Graph, run_ids: set[str]) -> list[Node]:
    """The runs as the pipeline makes them: by step, then by id."""
    steps = list(KINDS)
    nodes = [graph.nodes[each] for each in run_ids]
    places = {node.step: steps.index(node.step) if node.step in steps else 99 for node in nodes}
    return sorted(nodes, key=lambda node: (places[node.step], node.run_id))


def _mark(tracking: "Tracking", run_id: str, patient: str) -> None:
    held = tracking.get(run_id).data.tags.get(WITHDRAWN, "")
    tracking.server.ask(tracking.client.set_tag, run_id, WITHDRAWN, _with(held, patient))


def _with(held: str, patient: str) -> str:
    """The patients of a tag, with one more."""
    return ",".join(sorted({*filter(None, held.split(",")), patient}))
