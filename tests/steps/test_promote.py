"""Promotion on a real registry with small real models: what passes, what is refused, and why."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import classifier_data
import doors
import generator_data
import hostile
import mlflow
import numpy as np
import pytest
import small
import yaml
from lab import Lab
from mlflow.exceptions import MlflowException

from mammo.data.dataset import Dataset
from mammo.errors import TrackingError
from mammo.lineage import COMMIT, DIRTY
from mammo.models import open_model, write_about

pytestmark = pytest.mark.doors

# The weak model may be the first champion: it is what a better one is compared with.
LENIENT: dict[str, Any] = {"floors": {"test/auc_low": False}, "calibration": False}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, _empty_store: Path) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    shutil.copyfile(_empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "lab")  # its artifacts lie in the current folder
        patch.setenv("MAMMO_HOME", str(folder / "home"))
        patch.setattr("matplotlib.figure.Figure.savefig", empty)  # nobody looks, and it takes long
        mlflow.set_tracking_uri(None)
        yield Lab(folder)


def empty(figure: Any, target: Any, **settings: Any) -> None:
    """A file of no picture."""
    target.write(b"") if hasattr(target, "write") else Path(target).write_bytes(b"")


@pytest.fixture(autouse=True)
def _in_the_lab(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick tests' own store gives way to the lab's."""
    monkeypatch.chdir(lab.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{lab.folder}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "lab")
    monkeypatch.setenv("MAMMO_HOME", str(lab.folder / "home"))
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def data(lab: Lab) -> str:
    return lab.spots("spots", patients=60)


@pytest.fixture(scope="module")
def weak(lab: Lab, data: str) -> str:
    """It has learned nothing."""
    run_id = lab.classifier(data, learned=False)
    lab.evaluate(run_id, data)
    return run_id


@pytest.fixture(scope="module")
def good(lab: Lab, data: str) -> str:
    """It finds every spot."""
    run_id = lab.classifier(data)
    judged = lab.evaluate(run_id, data)
    assert lab.tracking.get(judged).data.metrics["test/auc"] > 0.99
    return run_id


@pytest.fixture(scope="module")
def twin(lab: Lab, data: str) -> str:
    """Another that finds every spot."""
    run_id = lab.classifier(data, seed=1)
    lab.evaluate(run_id, data)
    return run_id


def images(lab: Lab, data: str) -> np.ndarray[Any, Any]:
    return Dataset(lab.artifacts(data) / "dataset").images(range(6))


def answer(name: str, shown: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What MLflow's own loader gets from the champion."""
    found: np.ndarray[Any, Any] = mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(
        shown
    )
    return found


def refused(lab: Lab, model: str, name: str, **settings: Any) -> str:
    """The one line of a promotion that fails; no version is left, no alias has moved."""
    before = registered(lab, name)
    done = lab.promote(model, name, **settings)
    assert done.code == 2, done.err[-2000:]
    line = done.err.strip().splitlines()[-1]
    assert line.startswith(f"promote: runs:/{model}/model is not promoted: ")
    assert registered(lab, name) == before
    (run,) = lab.tracking.find("tags.`mammo.step` = 'promote'", limit=1)
    assert run.data.tags["error"] == line.removeprefix("promote: ")
    assert (lab.artifacts(run.info.run_id) / "gates.json").is_file()
    return line.partition("is not promoted: ")[2]


def registered(lab: Lab, name: str) -> Any:
    try:
        return lab.aliases(name), [each.number for each in lab.versions(name)]
    except MlflowException:
        return None


def test_a_better_model_passes_and_rolling_back_restores_the_old_answer(
    lab: Lab, data: str, weak: str, good: str
) -> None:
    lenient, shown = lab.policy(**LENIENT), images(lab, data)
    first = lab.promote(weak, "screening", policy=lenient)
    assert first.line["outputs"] == {"model": "models:/screening/1"}
    assert lab.aliases("screening") == {"champion": "1"}
    of_weak = answer("screening", shown)

    second = lab.promote(good, "screening", data=data)
    assert second.uri == "models:/screening/2"
    assert lab.aliases("screening") == {"champion": "2", "previous": "1"}
    of_good = answer("screening", shown)
    assert np.abs(of_good - of_weak).max() > 0.1

    version = lab.tracking.client.get_model_version("screening", "2")
    assert version.run_id == good
    assert version.tags["mammo.policy"] == "default"
    assert version.tags["mammo.gates_off"] == ""
    digest = lab.tracking.get(data).data.tags["mammo.digest"]
    assert version.tags["mammo.test_digest"] == digest
    report = (lab.artifacts(second.run_id) / "gates.md").read_text()
    assert version.description == report
    assert "| champion | passed | AUC differs from that of models:/screening/1 by +" in report
    of_first = lab.tracking.client.get_model_version("screening", "1")
    assert of_first.tags["mammo.gates_off"] == "calibration"

    assert doors.here("rollback", "screening").code == 0
    assert lab.aliases("screening") == {"champion": "1", "previous": "2"}
    np.testing.assert_array_equal(answer("screening", shown), of_weak)
    assert doors.here("rollback", "screening").code == 0
    np.testing.assert_array_equal(answer("screening", shown), of_good)


def test_there_is_nothing_to_roll_back_to_before_a_second_champion(lab: Lab, good: str) -> None:
    assert lab.promote(good, "lonely").code == 0
    done = doors.here("rollback", "lonely")
    assert done.code == 2
    assert "models:/lonely/1 holds champion and no other version held it before" in done.err
    done = doors.here("rollback", "nobody")
    assert "no version of 'nobody' holds champion" in done.err


def test_an_equal_model_is_refused(lab: Lab, good: str, twin: str) -> None:
    assert lab.promote(good, "equal").code == 0
    line = refused(lab, twin, "equal")
    assert line.startswith("champion: AUC differs from that of models:/equal/1 by +0.0000, 95 %")
    assert line.endswith("policy asks its lower end to be above 0")
    assert refused(lab, good, "equal") == (
        "champion: it holds champion already: it is models:/equal/1"
    )


@pytest.mark.parametrize("bound", ["bootstrap", "delong"])
def test_a_worse_model_is_refused(lab: Lab, good: str, weak: str, bound: str) -> None:
    name = f"worse-{bound}"
    assert lab.promote(good, name).code == 0
    line = refused(lab, weak, name, policy=lab.policy(**LENIENT, champion={"bound": bound}))
    assert line.startswith(f"champion: AUC differs from that of models:/{name}/1 by -0.")
    assert bound in line


def test_a_model_that_fails_a_gate_is_refused_with_the_reason(
    lab: Lab, good: str, weak: str
) -> None:
    """In one line, each gate with its own: below its floors, and worse than the champion."""
    assert lab.promote(good, "several").code == 0
    strict = lab.policy(test__auc={"min": 0.995}, test__ece={"max": 0.0}, test__kappa={"min": 0.2})
    line = refused(lab, weak, "several", policy=strict)
    for reason in (
        "floors: test/auc_low is 0.",
        "test/auc is 0.",
        "policy asks for min 0.995; test/ece is 0.",
        "test/kappa was never measured, policy asks for min 0.2; ",
        "; champion: AUC differs",
    ):
        assert reason in line


def test_a_tampered_checkpoint_is_refused_by_its_sha256(lab: Lab, data: str, good: str) -> None:
    weights = lab.artifacts(good) / "model" / "weights.safetensors"
    held = weights.read_bytes()
    expected = json.loads((weights.parent / "model.json").read_text())["files"][weights.name]
    try:
        weights.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
        line = refused(lab, good, "tampered")
        assert line.startswith("manifest: ")
        assert "sha256 differs from model.json" in line
        assert f"not {expected}" in line
        assert "leaks" not in line  # a reason is told once
    finally:
        weights.write_bytes(held)
    assert lab.promote(good, "tampered").code == 0


def test_a_checkpoint_that_was_signed_anew_is_refused(lab: Lab, good: str, weak: str) -> None:
    """Other weights with a manifest that fits them: the run recorded another digest."""
    folder = lab.artifacts(good) / "model"
    kept = shutil.copytree(folder, lab.folder / "kept")
    about = json.loads((folder / "model.json").read_text())
    try:
        shutil.copyfile(
            lab.artifacts(weak) / "model" / "weights.safetensors", folder / "weights.safetensors"
        )
        of_weak = json.loads((lab.artifacts(weak) / "model" / "model.json").read_text())
        about["files"]["weights.safetensors"] = of_weak["files"]["weights.safetensors"]
        write_about(folder, {key: about[key] for key in about if key != "digest"})
        open_model(folder)
        lab.forget()
        line = refused(lab, good, "signed")
        assert "its run recorded" in line or "the one named" in line
    finally:
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        lab.forget()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("python_model.pkl", "x", "the stored model holds python_model.pkl, which is no part"),
        ("MLmodel", "loader_module: evil", "MLmodel of the stored model does not load with mammo"),
    ],
)
def test_a_model_that_would_load_other_code_is_refused(
    name: str, content: str, reason: str, lab: Lab, good: str
) -> None:
    place = lab.artifacts(good) / "model" / name
    held = place.read_text() if place.exists() else ""
    try:
        text = held.replace("loader_module: mammo.serving", content) if held else content
        place.write_text(text)
        assert reason in refused(lab, good, "foreign")
    finally:
        place.write_text(held) if held else place.unlink()


def test_a_pickled_model_is_not_loaded(lab: Lab, tmp_path: Path) -> None:
    canary, flavor = tmp_path / "canary", "python_function"
    pickled = {"loader_module": "mlflow.pyfunc.model", "python_model": "model.pkl"}
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": {flavor: pickled}}))
    (tmp_path / "model.pkl").write_bytes(hostile.pickled(canary))
    with pytest.raises(TrackingError, match="Deserializing model using pickle is disallowed"):
        lab.registry.served(str(tmp_path))
    assert not canary.exists()


def test_code_that_is_in_no_commit_is_refused(lab: Lab, data: str, good: str) -> None:
    try:
        lab.tag(good, {DIRTY: "true"})
        line = refused(lab, good, "dirty")
        assert line == (
            f"commit: code that is in no commit made train_classifier {good[:8]}: commit it and "
            "run them again"
        )
        lab.tracking.client.delete_tag(data, COMMIT)
        line = refused(lab, good, "dirty")
        assert f"the commit of preprocess {data[:8]} is unknown: run them from a git" in line
        lax = lab.policy(commit={"dirty": "allow", "unknown": "allow"})
        assert lab.promote(good, "dirty", policy=lax).code == 0
    finally:
        lab.commit(good, data)


@pytest.fixture(scope="module")
def leaky(lab: Lab) -> str:
    """The same pictures, held out otherwise: whoever trained on the first saw its test patients."""
    folder = lab.folder / "leaky"
    data = classifier_data.write(folder, patients=60)
    frame = data.manifest.copy()
    frame["split"] = frame["split"].map({"train": "test", "val": "val", "test": "train"})
    from mammo.data.dataset import essence
    from mammo.data.manifest import manifest_digest

    digest = manifest_digest(frame, essence(data.about, data.generator_training))
    place = data.folder.with_name(digest)
    shutil.copytree(data.folder, place)
    frame.to_parquet(place / "manifest.parquet", index=False)
    (place / "dataset.json").write_text(json.dumps({**data.about, "digest": digest}))
    return lab.logged(Dataset(place), "leaky")


def test_a_leaking_model_is_refused_even_where_an_evaluation_let_it_pass(
    lab: Lab, data: str, leaky: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = lab.classifier(data, seed=7)
    done = doors.here("evaluate", model=good, data=leaky, bootstrap=10)
    assert done.code == 2
    assert "was in the training of model" in done.err
    line = refused(lab, good, "leak", data=leaky)
    assert "leaks: patient " in line
    assert "; evaluation: it was never evaluated on the test rows of dataset spots" in line
    with monkeypatch.context() as patch:
        patch.setattr("mammo.evaluation.performance.refuse_seen", lambda *_: "not at all")
        lab.evaluate(good, leaky)
    line = refused(lab, good, "leak", data=leaky)
    assert line.startswith("leaks: patient ")
    assert f"was in the training of model {good}" in line
    assert "evaluation: " not in line and "reload: " not in line


def test_the_newest_evaluation_of_the_dataset_that_is_named_counts(lab: Lab, data: str) -> None:
    """A later one, of other patients, says nothing of these."""
    rows = small.real_rows({"benign": [2] * 60, "malignant": [2] * 60})
    others = [{**row, **{key: f"o-{row[key]}" for key in ("group_id", "image_id")}} for row in rows]
    other = lab.spots("other", rows=others)
    model = lab.classifier(data, seed=5)
    first, newer = (lab.evaluate(model, data, seed=seed) for seed in (0, 9))
    foreign = lab.evaluate(model, other)
    for run_id in (first, foreign):
        lab.tracking.client.log_metric(run_id, "test/auc", 0.111)
    policy = lab.policy(test__auc={"min": 0.5})
    assert "leaks: it was evaluated on 2 datasets (" in refused(lab, model, "which", policy=policy)
    line = refused(lab, model, "which", policy=policy, data=other)
    assert line == "floors: test/auc is 0.111, policy asks for min 0.5"
    assert lab.promote(model, "which", policy=policy, data=data).code == 0
    version = lab.tracking.client.get_model_version("which", "1")
    assert version.tags["mammo.evaluation"] == newer


def test_what_fails_on_the_way_leaves_the_old_champion(
    lab: Lab, data: str, weak: str, good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lab.promote(weak, "torn", policy=lab.policy(**LENIENT)).code == 0
    point = mlflow.MlflowClient.set_registered_model_alias

    def cut(self: Any, name: str, alias: str, version: str) -> None:
        if alias == "champion":
            raise MlflowException("the server is gone")  # as a server error: it is waited for
        point(self, name, alias, version)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", cut)
        patch.setenv("MAMMO_TRACKING_WAIT_S", "3")
        torn = lab.promote(good, "torn")
        assert torn.code != 0 and "does not answer (the server is gone)" in torn.err
    assert lab.aliases("torn")["champion"] == "1"
    assert lab.promote(good, "torn").code == 0
    assert lab.aliases("torn")["champion"] == "3"
    assert lab.aliases("torn")["previous"] == "1"


def test_a_registered_model_that_answers_otherwise_is_taken_back(
    lab: Lab, good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mammo.tracking import Registry

    served = Registry.served

    def other(self: Any, uri: str) -> Any:
        scores = served(self, uri)
        off = 0.01 if uri.startswith("models:/") else 0
        return lambda asked, params: scores(asked, params) + off

    monkeypatch.setattr(Registry, "served", other)
    done = lab.promote(good, "altered")
    assert done.code == 2
    assert "models:/altered/1, loaded again through MLflow, gives other scores" in done.err
    assert lab.versions("altered") == []


def test_without_gates_it_says_so(lab: Lab, weak: str) -> None:
    assert lab.promote(weak, "open", policy="none").code == 0
    version = lab.tracking.client.get_model_version("open", "1")
    assert version.tags["mammo.policy"] == "none"
    assert {"leaks", "commit", "champion"} <= set(version.tags["mammo.gates_off"].split(","))
    assert "| leaks | off | switched off by policy none |" in version.description


def test_a_champion_that_was_never_judged_on_these_patients_is_named(
    lab: Lab, data: str, weak: str
) -> None:
    unjudged = lab.classifier(data, seed=3, learned=False)
    assert lab.promote(unjudged, "unjudged", policy="none").code == 0
    line = refused(lab, weak, "unjudged", policy=lab.policy(**LENIENT))
    assert "models:/unjudged/1, which holds champion, was never evaluated on dataset spots" in line
    assert f"run: mammo evaluate --model models:/unjudged/1 --data runs:/{data}/dataset" in line


def test_a_baseline_may_be_the_champion(lab: Lab, data: str, twin: str) -> None:
    """One evaluation with the champion as its baseline compares them."""
    unjudged = lab.classifier(data, seed=2, learned=False)
    assert lab.promote(unjudged, "base", policy="none").code == 0
    lab.evaluate(twin, data, baseline="models:/base@champion")
    assert lab.promote(twin, "base").code == 0
    assert lab.aliases("base")["champion"] == "2"


# ---- generators


@pytest.fixture(scope="module")
def generator(lab: Lab) -> tuple[str, str, str]:
    """Runs of a dataset, of a small generator, and of an evaluation of what it draws."""
    data = lab.spots("painted", patients=12)
    quick = {**generator_data.TINY, "channels": "8,8", "patch": 4, "epochs": 1}
    made = lab.step("train_generator", data=data, **quick)
    drawn = lab.step(
        "sample", generator=made, counts="benign=30,malignant=30", steps=2, on_mismatch="warn"
    )
    return data, made, lab.step("evaluate", synthetic=drawn, data=data)


def test_a_generator_passes_when_it_draws_its_images_again(
    lab: Lab, generator: tuple[str, str, str]
) -> None:
    _, made, judged = generator
    assert lab.promote(made, "painter").code == 0
    version = lab.tracking.client.get_model_version("painter", "1")
    assert version.tags["mammo.kind"] == "generator"
    assert version.tags["mammo.evaluation"] == judged
    assert "| privacy | passed | no audit: " in version.description
    assert "| redraw | passed | pixels of runs:/" in version.description
    strict = lab.policy(privacy={"absent": "refuse"}, likeness={"images": 61})
    line = refused(lab, made, "strict", policy=strict)
    assert line.startswith("likeness: it was judged by 60 sampled images, policy asks for 61; ")
    assert "privacy: no audit: " in line


def test_a_generator_that_draws_otherwise_is_refused(
    lab: Lab, generator: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mammo.tracking import Registry

    served = Registry.served

    def other(self: Any, uri: str) -> Any:
        draw = served(self, uri)
        return lambda wishes, params: draw(wishes.assign(seed=wishes["seed"] + 1), params)

    monkeypatch.setattr(Registry, "served", other)
    line = refused(lab, generator[1], "forger")
    assert line.startswith("redraw: runs:/")
    assert "gives other pixels than" in line
