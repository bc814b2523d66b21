"""A setting names a dataset or a model: by path, run, runs:/… or models:/…; it ends on disk."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import small

from mammo.data.dataset import Dataset
from mammo.data.writer import seal
from mammo.errors import ConfigError, TrackingError
from mammo.references import check_form, resolve
from mammo.run import Reference
from mammo.tracking import Registry, Tracking

ROWS = small.real_rows({"benign": [2], "malignant": [1]})


@pytest.fixture
def tracking(store: str) -> Tracking:
    return Tracking()


def found(text: str, kind: str, tracking: Tracking, work: Path) -> Reference:
    return resolve(text, kind, "data", tracking=tracking, work=work)


def logged(
    tracking: Tracking,
    folder: Path | None = None,
    path: str = "dataset",
    *,
    parent: str = "",
    tags: Mapping[str, str] | None = None,
) -> str:
    """A finished run with `folder` as its artifact `path`; its id."""
    run_id = tracking.create_run("run", "step", parent)
    if folder:
        about = next(folder.glob("*.json"))
        digest = json.loads(about.read_text())["digest"]
        tracking.client.set_tag(run_id, "mammo.digest", digest)
        tracking.client.log_artifacts(run_id, str(folder), path)
    for name, value in (tags or {}).items():
        tracking.client.set_tag(run_id, name, value)
    tracking.set_status(run_id, "FINISHED")
    return run_id


def model(folder: Path, digest: str = "m" * 32) -> Path:
    """What the search needs to see of a model."""
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"digest": digest, "run_id": "r" * 32}))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return small.dataset(tmp_path / "elsewhere", ROWS)


def test_a_path_is_taken_as_it_is(tracking: Tracking, data: Dataset, tmp_path: Path) -> None:
    work = tmp_path / "work"
    expected = Reference(str(data.folder), data.folder, data.digest)
    assert found(str(data.folder), "dataset", tracking, work) == expected
    assert not work.exists()


def test_a_folder_that_holds_the_artifact_folder_will_do(tracking: Any, tmp_path: Path) -> None:
    place = model(tmp_path / "downloaded" / "model")
    reference = found(str(tmp_path / "downloaded"), "model", tracking, tmp_path / "work")
    assert (reference.path, reference.digest, reference.run_id) == (place, "m" * 32, "r" * 32)


@pytest.mark.parametrize("form", ["{}", "runs:/{}", "runs:/{}/dataset"])
def test_a_run_is_fetched_once(
    form: str, tracking: Tracking, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = logged(tracking, data.folder)
    work = tmp_path / "work"
    reference = found(form.format(run_id), "dataset", tracking, work)
    place = work / "datasets" / data.digest
    assert reference == Reference(f"runs:/{run_id}/dataset", place, data.digest, run_id)
    Dataset(place).verify()
    monkeypatch.setattr(Tracking, "download", None)  # a second download would fail
    assert found(form.format(run_id), "dataset", tracking, work) == reference


def test_a_folder_that_is_not_whole_is_fetched_again(
    tracking: Tracking, data: Dataset, tmp_path: Path
) -> None:
    run_id = logged(tracking, data.folder)
    place = tmp_path / "work" / "datasets" / data.digest
    place.mkdir(parents=True)
    (place / "images-0000.npy").write_bytes(b"half")
    assert found(run_id, "dataset", tracking, tmp_path / "work").path == place
    Dataset(place).verify()
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_an_artifact_may_have_another_name(tracking: Any, data: Any, tmp_path: Path) -> None:
    run_id = logged(tracking, data.folder, "other/place")
    reference = found(f"runs:/{run_id}/other/place", "dataset", tracking, tmp_path / "work")
    assert reference.uri == f"runs:/{run_id}/other/place"
    Dataset(reference.path).verify()


def test_a_model_beside_the_main_one_is_not_taken_for_it(tracking: Any, tmp_path: Path) -> None:
    run_id = logged(tracking, model(tmp_path / "saved"), "model")
    other = model(tmp_path / "other", digest="o" * 32)
    tracking.client.log_artifacts(run_id, str(other), "models/best-val-f1")
    for path, digest in (("model", "m" * 32), ("models/best-val-f1", "o" * 32)):
        reference = found(f"runs:/{run_id}/{path}", "model", tracking, tmp_path / "work")
        assert reference.digest == digest
        assert json.loads((reference.path / "model.json").read_text())["digest"] == digest


@pytest.mark.parametrize("form", ["models:/screening@champion", "models:/screening/1"])
def test_a_registered_model_is_the_model_of_its_run(
    form: str, tracking: Tracking, tmp_path: Path
) -> None:
    run_id = logged(tracking, model(tmp_path / "saved"), "model")
    registry = Registry(tracking, tmp_path / "work")
    version = registry.add("screening", run_id, "model", tags={}, note="")
    assert version.uri == "models:/screening/1"
    registry.point("screening", "champion", version.number)
    reference = found(form, "model", tracking, tmp_path / "work")
    place = tmp_path / "work" / "models" / ("m" * 32)
    assert reference == Reference(form, place, "m" * 32, run_id)
    assert (place / "model.json").is_file()


@pytest.mark.parametrize("form", ["models:/nobody@champion", "models:/nobody/3"])
def test_a_model_that_is_not_registered(form: str, tracking: Any, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=f"'{form}' is not in the model registry"):
        found(form, "model", tracking, tmp_path)


@pytest.mark.parametrize("link", ["mammo.reused", "mammo.continues"])
def test_the_empty_run_of_mlflow_run_leads_to_the_real_one(
    link: str, tracking: Tracking, data: Dataset, tmp_path: Path
) -> None:
    real = logged(tracking, data.folder)
    empty = logged(tracking, tags={link: real})
    reference = found(empty, "dataset", tracking, tmp_path / "work")
    assert (reference.run_id, reference.digest) == (real, data.digest)


def test_a_parent_run_names_its_children(tracking: Tracking, tmp_path: Path) -> None:
    parent = logged(tracking)
    folds = [
        logged(tracking, model(tmp_path / name, name * 32), "model", parent=parent) for name in "ab"
    ]
    logged(tracking, parent=parent)  # a child without a model is no choice
    with pytest.raises(TrackingError) as caught:
        found(parent, "model", tracking, tmp_path / "work")
    assert str(caught.value) == (
        f"run {parent} has no model of its own but 2 children that have: "
        f"name one of {', '.join(sorted(folds))}"
    )


def test_a_run_without_the_artifact(tracking: Tracking, data: Dataset, tmp_path: Path) -> None:
    run_id = logged(tracking, data.folder)
    empty = logged(tracking)
    with pytest.raises(TrackingError, match=f"run {empty} has no model; name a finished"):
        found(empty, "model", tracking, tmp_path / "work")
    with pytest.raises(TrackingError, match="has no artifact 'nothing'"):
        found(f"runs:/{run_id}/nothing", "dataset", tracking, tmp_path / "work")
    other = logged(tracking, model(tmp_path / "saved"), "model")
    with pytest.raises(TrackingError, match=r"holds no dataset: it has no dataset\.json"):
        found(f"runs:/{other}/model", "dataset", tracking, tmp_path / "work")


def test_a_run_of_another_step_is_told_from_the_one_that_is_meant(
    tracking: Tracking, data: Dataset, tmp_path: Path
) -> None:
    made = logged(tracking, data.folder)
    trained = logged(tracking, model(tmp_path / "saved"), "model")
    line = f"run {trained} holds a model and no dataset; give one of preprocess, sample or mix"
    with pytest.raises(TrackingError, match=line):
        found(trained, "dataset", tracking, tmp_path / "work")
    with pytest.raises(TrackingError, match=f"run {made} holds a dataset and no model; give one"):
        found(made, "model", tracking, tmp_path / "work")


def test_the_parents_of_a_mixed_dataset_come_with_it(
    tracking: Tracking, data: Dataset, tmp_path: Path
) -> None:
    synthetic = small.dataset(
        tmp_path / "made",
        small.synthetic_rows({"benign": 2}),
        seen=small.seen_by("run1", ["other"]),
    )
    parents = [
        {"digest": each.digest, "uri": f"runs:/{logged(tracking, each.folder)}/dataset"}
        for each in (data, synthetic)
    ]
    import pandas as pd

    rows = pd.concat([data.placed(), synthetic.placed()], ignore_index=True)
    owners = {each.digest: each.folder for each in (data, synthetic)}
    mixed = seal(
        tmp_path / "mixed.partial",
        tmp_path / "mixed",
        rows,
        data.classes,
        {**data.about, "parents": parents},
        synthetic.generator_training,
        owners.__getitem__,
    )
    run_id = logged(tracking, mixed.folder)
    reference = found(run_id, "dataset", tracking, tmp_path / "work")
    fetched = sorted(path.name for path in reference.path.parent.iterdir())
    assert fetched == sorted([mixed.digest, data.digest, synthetic.digest])
    Dataset(reference.path).verify()  # reads every pixel, those of the parents too


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"digest": ""}'], ids=["empty", "cut", "list", "bare", "blank"]
)
def test_a_corrupt_description_is_named_with_its_remedy(
    text: str, tracking: Tracking, data: Dataset, tmp_path: Path
) -> None:
    run_id = logged(tracking, data.folder)
    cached = found(run_id, "dataset", tracking, tmp_path / "work").path
    for named, folder in ((str(data.folder), data.folder), (run_id, cached)):
        (folder / "dataset.json").write_text(text)
        with pytest.raises(ConfigError, match=r"dataset.json is corrupt \(.*\); delete .* and fet"):
            found(named, "dataset", tracking, tmp_path / "work")


@pytest.mark.parametrize("text", ["nowhere", "run/1", "models:/name", "runs:/", "abc123"])
def test_a_text_of_no_known_form_is_refused_without_a_look_at_the_store(text: str) -> None:
    with pytest.raises(ConfigError, match=f"data '{text}' is no dataset: give an existing folder"):
        check_form(text, "dataset", "data")


def test_a_folder_of_the_other_kind_is_refused(data: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"is no model: it has no model\.json"):
        check_form(str(data.folder), "model", "model")


@pytest.mark.parametrize("form", ["{}", "runs:/{}"])
def test_where_two_kinds_will_do_the_run_tells_which_it_holds(
    form: str, tracking: Tracking, data: Dataset, tmp_path: Path
) -> None:
    work, kind = tmp_path / "work", "dataset or model"
    of_model = logged(tracking, model(tmp_path / "trained"), "model")
    reference = found(form.format(of_model), kind, tracking, work)
    assert (reference.path.name, reference.digest) == ("m" * 32, "m" * 32)
    empty = logged(tracking, tags={"mammo.continues": of_model})
    assert found(form.format(empty), kind, tracking, work).digest == "m" * 32
    of_data = logged(tracking, data.folder)
    assert found(form.format(of_data), kind, tracking, work).digest == data.digest
    neither = logged(tracking)
    with pytest.raises(TrackingError, match="dataset"):
        found(form.format(neither), kind, tracking, work)
