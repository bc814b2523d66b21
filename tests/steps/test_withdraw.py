"""`mammo withdraw`: all that was made from a patient's images is found, marked and then refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import small

from mammo.cli import main
from mammo.data.dataset import Dataset
from mammo.errors import DataError
from mammo.lineage import WITHDRAWN
from mammo.models import save_model
from mammo.references import resolve
from mammo.tracking import Registry, Tracking, withdrawn

pytestmark = pytest.mark.doors

PATIENT = "malignant-0"


class Store:
    """Runs made by hand: two pipelines, one of them with the patient."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tracking = folder, Tracking()
        self.registry = Registry(self.tracking, folder / "home")
        self.ids: dict[str, str] = {}
        self.folders: dict[str, Path] = {}

    def run(self, name: str, step: str, *, parent: str = "", **inputs: str) -> str:
        run_id = self.tracking.create_run(name, step, self.ids.get(parent, ""))
        for setting, other in inputs.items():
            self.tracking.client.set_tag(run_id, f"mammo.input.{setting}", self.ids[other])
        self.ids[name] = run_id
        return run_id

    def dataset(self, name: str, step: str, rows: Any, seen: Any = (), **inputs: str) -> Dataset:
        data = small.dataset(self.folder / "made", rows, name=name, seen=seen)
        run_id, self.folders[name] = self.run(name, step, **inputs), data.folder
        self.tracking.client.log_artifacts(run_id, str(data.folder), "dataset")
        self.tracking.client.set_tag(run_id, "mammo.digest", data.digest)
        self.tracking.set_status(run_id, "FINISHED")
        return data

    def model(self, name: str, step: str, rows: Any, seen: Any = (), **inputs: str) -> None:
        import torch

        run_id = self.run(name, step, **inputs)
        saved = save_model(
            self.folder / name,
            kind=step.removeprefix("train_"),
            run_id=run_id,
            classes=small.TWO,
            shape=small.SHAPE,
            weights={"none": torch.zeros(1)},
            training=small.frame(rows),
            settings={},
            about={"salt": "salt"},
            generator_training=pd.DataFrame([*seen]),
        )
        self.tracking.client.log_artifacts(run_id, str(saved.folder), "model")
        self.tracking.set_status(run_id, "FINISHED")

    def tags(self, name: str) -> dict[str, str]:
        return dict(self.tracking.get(self.ids[name]).data.tags)


@pytest.fixture
def made(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.chdir(tmp_path)
    found = Store(tmp_path)
    rows = small.real_rows({"benign": [1], "malignant": [2, 1]})
    others = [{**row, "group_id": "x" + row["group_id"]} for row in rows]
    for each in others:
        each["image_id"] = "x" + each["image_id"]
    seen = small.seen_by("generator", [PATIENT])
    found.dataset("data", "preprocess", rows)
    found.dataset("other", "preprocess", others)
    found.model("generator", "train_generator", rows, data="data")
    found.dataset(
        *("synthetic", "sample", small.synthetic_rows({"benign": 2}, "generator")),
        seen,
        generator="generator",
    )
    found.dataset("mixed", "mix", rows[:1], real="data", synthetic="synthetic")
    found.run("pipeline", "main")
    found.model("without", "train_classifier", rows[:1], data="mixed")
    found.model("classifier", "train_classifier", rows, seen, data="mixed")
    found.run("judged", "evaluate", parent="pipeline", model="classifier", data="data")
    found.model("apart", "train_classifier", others, data="other")
    for name in ("classifier", "apart"):
        version = found.registry.add(name, found.ids[name], "model", tags={}, note="a report")
        found.registry.point(name, "champion", version.number)
    yield found


AFFECTED = {
    "data": ("dataset", "holds 2 images of the patient (train)"),
    "generator": ("generator", "was trained on 2 images of the patient"),
    "synthetic": (
        "synthetic set",
        "has images of a generator that was trained on the patient",
    ),
    "mixed": ("mixed dataset", "made from one of these, without the patient's own images"),
    "without": ("classifier", "made from one of these, without the patient's own images"),
    "classifier": ("classifier", "was trained on 2 images of the patient"),
    "judged": ("evaluation", "made from one of these, without the patient's own images"),
    "pipeline": ("pipeline", "shows results of one of these"),
}


def test_all_that_a_patient_is_in_is_marked_and_then_refused(
    made: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = {(made.ids[name], *told) for name, told in AFFECTED.items()}
    expected.add(("models:/classifier/1", "registered version", f"of run {made.ids['classifier']}"))

    assert main(["withdraw", PATIENT, "--dry_run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["dry_run"] is True
    assert {(row["name"], row["kind"], row["why"]) for row in said["affected"]} == expected
    assert not any(WITHDRAWN in made.tags(name) for name in made.ids)

    assert main(["withdraw", PATIENT]) == 0
    out = capsys.readouterr().out
    assert f"{len(expected)} are withdrawn with patient {PATIENT}" in out
    assert all(name in out for name, _, _ in expected)
    for name in made.ids:
        assert made.tags(name).get(WITHDRAWN, "") == (PATIENT if name in AFFECTED else "")

    client = made.tracking.client
    version = client.get_model_version("classifier", "1")
    assert version.tags[WITHDRAWN] == PATIENT
    assert version.description == f"WITHDRAWN with patient {PATIENT}: do not use.\n\na report"
    assert WITHDRAWN not in client.get_model_version("apart", "1").tags

    for text, kind in (
        (made.ids["data"], "dataset"),
        (f"runs:/{made.ids['synthetic']}/dataset", "dataset"),
        ("models:/classifier@champion", "model"),
        (str(tmp_path / "generator"), "model"),
        (str(made.folders["data"]), "dataset"),
        (str(made.folders["mixed"]), "dataset"),
    ):
        with pytest.raises(DataError, match=f"was withdrawn with patient {PATIENT}; make it again"):
            resolve(text, kind, "x", tracking=made.tracking, work=tmp_path / "home")
    apart = resolve(
        "models:/apart@champion", "model", "x", tracking=made.tracking, work=tmp_path / "home"
    )
    assert apart.run_id == made.ids["apart"]
    assert main(["promote", "--model", made.ids["classifier"], "--name", "a"]) == 2
    assert "was withdrawn with patient" in capsys.readouterr().err


def test_a_dataset_on_disk_is_known_by_its_digest(made: Store, tmp_path: Path) -> None:
    made.tracking.client.set_tag(made.ids["data"], WITHDRAWN, PATIENT)
    digest = made.tags("data")["mammo.digest"]
    assert withdrawn(made.tracking, "", digest) == PATIENT
    assert withdrawn(made.tracking, "", "0" * 32) == ""
    assert withdrawn(made.tracking, "f" * 32, "") == ""  # a run of another store
    assert withdrawn(made.tracking, "f" * 32, digest) == PATIENT  # copied, or logged anew


def test_a_second_patient_is_added_to_the_first(made: Store) -> None:
    assert main(["withdraw", PATIENT]) == 0
    assert main(["withdraw", "benign-0"]) == 0
    assert main(["withdraw", "benign-0"]) == 0
    assert made.tags("data")[WITHDRAWN] == f"benign-0,{PATIENT}"
    note = made.tracking.client.get_model_version("classifier", "1").description
    assert note.count("WITHDRAWN") == 2


def test_what_could_not_be_looked_into_is_told_and_the_rest_is_marked(
    made: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the bucket away nobody may take an incomplete list for all of it."""
    monkeypatch.setenv("MAMMO_TRACKING_WAIT_S", "0.1")
    listed = made.tracking.client.list_artifacts

    def away(self: Any, run_id: str, path: str | None = None) -> Any:
        if run_id == made.ids["generator"]:
            raise ConnectionError("Connection refused")
        return listed(run_id, path)

    monkeypatch.setattr(type(made.tracking.client), "list_artifacts", away)
    assert main(["withdraw", PATIENT, "--json"]) == 2
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert list(said["unseen"]) == [made.ids["generator"]]
    assert len(said["affected"]) == len(AFFECTED) + 1  # the generator by its lineage
    (line,) = printed.err.splitlines()
    assert "1 datasets and models could not be looked into, so the list is not whole" in line
    assert made.tags("data")[WITHDRAWN] == PATIENT
    assert main(["withdraw", "nobody"]) == 2
    assert "could not be looked into" in capsys.readouterr().err


def test_a_patient_who_is_nowhere_is_refused(
    made: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["withdraw", "nobody"]) == 2
    err = capsys.readouterr().err
    assert "patient 'nobody' is in none of the 8 datasets and models of this store" in err


def test_a_withdrawn_version_is_not_rolled_back_to(
    made: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    made.registry.add("apart", made.ids["classifier"], "model", tags={}, note="")
    made.registry.point("apart", "previous", "2")
    made.tracking.client.set_tag(made.ids["classifier"], WITHDRAWN, PATIENT)
    assert main(["rollback", "apart"]) == 2
    assert "models:/apart/2, which held champion, was withdrawn" in capsys.readouterr().err
