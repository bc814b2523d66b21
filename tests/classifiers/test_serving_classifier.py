"""A classifier through MLflow: its signature and example, and a real server beside predict."""

import json
import shutil
import urllib.error
from pathlib import Path

import doors
import hostile
import numpy as np
import pandas as pd
import pytest
import servers
import small
from dicoms import half_breast, write_dicom
from mlflow import pyfunc
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from mammo.classifiers import load_classifier
from mammo.classifiers.backbone import build
from mammo.errors import CheckpointError
from mammo.models import save_model
from mammo.tracking.mlmodel import write_mlmodel

SHAPE = (1, 40, 32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with random weights as MLflow gets it; it was trained on whole breasts."""
    network = build("test_resnet", shape=SHAPE, classes=2, seed=3)
    folder = tmp_path_factory.mktemp("models") / "model"
    saved = save_model(
        folder,
        kind="classifier",
        run_id="r",
        classes=small.TWO,
        shape=SHAPE,
        weights={name: value.clone() for name, value in network.state_dict().items()},
        training=small.frame(small.real_rows({"benign": [1], "malignant": [1]})),
        settings={},
        about={
            "model_name": "test_resnet",
            "activation": "softmax",
            "aggregate": "mean",
            "thresholds": {"balanced": 0.5},
            "salt": "s",
            "intensity": {"policy": "header"},
            "dtype": "uint16",
            "crop": "breast",
            "frames": "refuse",
            "exclude": [],
        },
    )
    write_mlmodel(folder, saved.about, "r")
    return folder


@pytest.fixture
def dicoms(tmp_path: Path) -> Path:
    """Three mammograms that differ in brightness and side."""
    folder = tmp_path / "dicoms"
    for number, wall in enumerate(("left", "right", "left")):
        breast = half_breast((96, 72), wall=wall, level=1200 + 900 * number)
        noise = np.random.default_rng(number).integers(0, 600, breast.shape)
        write_dicom(folder / f"{number}.dcm", np.where(breast > 0, breast + noise, 0))
    return folder


def test_mlflow_loads_it_and_scores_as_we_do(model: Path) -> None:
    served, ours = pyfunc.load_model(str(model)), load_classifier(model)
    images = np.random.default_rng(0).random((5, *SHAPE), np.float32)
    np.testing.assert_allclose(served.predict(images), ours.predict(images), atol=1e-7)
    with pytest.raises(MlflowException, match="does not match expected shape"):
        served.predict(images[:, :, 1:])
    signature = served.metadata.signature
    assert signature.inputs.inputs[0].shape == (-1, *SHAPE)
    assert signature.outputs.inputs[0].shape == (-1, 2)


def test_the_example_is_a_black_image_that_the_model_scores(model: Path) -> None:
    described = Model.load(str(model))
    example = described.load_input_example(str(model))
    black = np.zeros((1, *SHAPE), np.float32)
    np.testing.assert_array_equal(example["images"], black)
    found = pyfunc.load_model(str(model)).predict(example)
    np.testing.assert_allclose(found, load_classifier(model).predict(black), atol=1e-7)


def test_nothing_in_the_model_can_run_code(model: Path) -> None:
    assert sorted(path.name for path in model.iterdir()) == [
        *("MLmodel", "input_example.json", "model.json", "serving_input_example.json"),
        *("training.parquet", "weights.safetensors"),
    ]
    flavor = Model.load(str(model)).flavors["python_function"]
    assert flavor["loader_module"] == "mammo.serving"
    assert not {"code", "python_model", "model_code_path", "cloudpickle_version"} & set(flavor)


def test_a_tampered_or_pickled_model_is_not_loaded_by_mlflow(model: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    bad = shutil.copytree(model, tmp_path / "bad")
    (bad / "weights.safetensors").write_bytes(hostile.pickled(canary))
    with pytest.raises(CheckpointError, match=r"sha256 differs from model\.json"):
        pyfunc.load_model(str(bad))
    assert not canary.exists()


# ---- a server of its own


@pytest.mark.doors
def test_a_served_model_answers_dicoms_as_predict_does(
    model: Path, dicoms: Path, tmp_path: Path
) -> None:
    done = doors.mammo("predict", str(model), str(dicoms), output=tmp_path / "out.csv")
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["file"].tolist() == ["0.dcm", "1.dcm", "2.dcm"]
    scores = table[["score/benign", "score/malignant"]].to_numpy()
    assert np.ptp(scores[:, 1]) > 1e-4  # the three could be told apart
    classifier = load_classifier(model)
    images = np.stack([classifier.read(dicoms / name) for name in table["file"]])
    with servers.serving(model, tmp_path / "log") as url:
        answer = servers.ask(url, {"inputs": {"images": images.tolist()}})
        np.testing.assert_allclose(answer, scores, atol=1e-6)
        example = json.loads((model / "serving_input_example.json").read_text())
        black = classifier.predict(np.zeros((1, *SHAPE), np.float32))
        np.testing.assert_allclose(servers.ask(url, example), black, atol=1e-6)
        with pytest.raises(urllib.error.HTTPError) as refused:
            servers.ask(url, {"inputs": {"images": images[:, :, :-1].tolist()}})
        assert refused.value.code == 400
        refused.value.close()


@pytest.mark.doors
def test_a_tampered_model_is_not_served(model: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(model, tmp_path / "bad")
    said = json.loads((bad / "model.json").read_text())
    said["thresholds"]["balanced"] = 0.0
    (bad / "model.json").write_text(json.dumps(said))
    with (
        pytest.raises(RuntimeError, match=r"model\.json was altered \(its digest differs"),
        servers.serving(bad, tmp_path / "log"),
    ):
        pytest.fail("it was served")
