"""`mammo predict`: new images, prepared and scored as the training's were, into a CSV."""

import hashlib
import io
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import classifier_data
import doors
import hostile
import numpy as np
import pandas as pd
import planted
import pytest
import torch
from dicoms import half_breast, write_dicom
from PIL import Image
from preprocessed import dataset_of, preprocessed
from safetensors.torch import load_file, save_file

from mammo.classifiers import load_classifier, newcomers
from mammo.data.classes import TASKS
from mammo.data.dataset import Dataset
from mammo.data.identity import Names, load_salt
from mammo.data.prepare import Recipe
from mammo.data.release import Record
from mammo.evaluation.predictions import predict as evaluation_predict
from mammo.models import write_about
from mammo.run import Stopped

pytestmark = pytest.mark.doors  # whole trainings

PATIENTS = 6
SETTINGS: dict[str, Any] = {
    "dataset": "folder", "image_size": "40x32", "val_fraction": 0.34, "test_fraction": 0.0,
    "for_processing": "log",
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """A release, the dataset made of it, and a classifier trained on that."""

    source: Path
    work: Path
    data: Dataset
    model: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    source, work = tmp_path_factory.mktemp("release"), tmp_path_factory.mktemp("work")
    for number in range(PATIENTS):
        release(source / ("benign", "malignant")[number % 2] / f"case{number}", number)
    data = dataset_of(preprocessed(work, source=str(source), **SETTINGS))
    run = classifier_data.tracked(work / "training", data)
    classifier_data.train(run, epochs=1, batch_size=4)
    return World(source, work, data, run.folder / "model")


def release(folder: Path, number: int, *, sides: str = "LR") -> None:
    """A patient's mammograms, both breasts, with an identifier wherever one can hide."""
    rng = np.random.default_rng(number)
    for side in sides:
        breast = half_breast((90 + 3 * number, 64), wall={"L": "left", "R": "right"}[side])
        noise = rng.integers(0, 1500, breast.shape)
        planted.dicom(
            folder / f"{side}.dcm",
            np.where(breast > 0, breast + noise, 0),
            patient=planted.mark(f"id{number}"),
            ImageLaterality=side,
            WindowCenter=1800 + 40 * number,
            WindowWidth=3000,
        )


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the test's own: three patients' images below two sub-folders."""
    folder = tmp_path_factory.mktemp("fresh")
    release(folder / "a", 20)
    release(folder / "a", 21, sides="R")  # the right breast is now of another patient
    release(folder / "b", 22)
    return folder


def predict(model: Path, folder: Path, output: Path, **settings: Any) -> doors.Outcome:
    return doors.here("predict", str(model), str(folder), output=output, device="cpu", **settings)


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"patient": "str"}, keep_default_na=False, na_values={
        name: [""] for name in pd.read_csv(path, nrows=0) if "score/" in name
    })  # fmt: skip


def signed(model: Path, **about: Any) -> Path:
    """Let `model` say other things of itself, with every hash made to fit."""
    said = json.loads((model / "model.json").read_text()) | about
    for name in said["files"]:
        said["files"][name] = hashlib.sha256((model / name).read_bytes()).hexdigest()
    write_about(model, said)
    return model


def test_the_images_of_the_training_get_the_scores_of_the_dataset(
    world: World, tmp_path: Path
) -> None:
    done = predict(world.model, world.source, tmp_path / "out.csv")
    assert done.code == 0, done.err
    found = table(tmp_path / "out.csv")
    assert list(found) == [
        *("file", "patient", "score/benign", "score/malignant", "decision"),
        *("patient_score/benign", "patient_score/malignant", "patient_decision", "reason"),
    ]
    assert found["file"].tolist() == sorted(found["file"])
    held = of_dataset(world, found["file"])
    assert sorted(held) == list(range(2 * PATIENTS))
    expected = load_classifier(world.model).predict(world.data.images(held))
    ours = found[["score/benign", "score/malignant"]].to_numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert len(np.unique(ours[:, 1])) == 2 * PATIENTS  # so that no two could be mistaken


@pytest.mark.parametrize("intensity", ["none", "percentile", "fixed"])
@pytest.mark.parametrize("crop", ["none", "film"])
def test_a_file_is_read_as_preprocess_stored_it(
    intensity: str, crop: str, world: World, tmp_path: Path
) -> None:
    settings = SETTINGS | {"intensity": intensity, "crop": crop}
    settings |= {"fixed_range": "200,3300"} if intensity == "fixed" else {}
    data = dataset_of(preprocessed(tmp_path / "work", source=str(world.source), **settings))
    recipe = Recipe.of(data.about)
    read = {newcomers.read([path], recipe).tobytes() for path in world.source.rglob("*.dcm")}
    assert read == {each.tobytes() for each in data.images(range(len(data)))}


def test_decisions_are_those_of_the_threshold_by_image_and_by_patient(
    world: World, fresh: Path, tmp_path: Path
) -> None:
    assert predict(world.model, fresh, tmp_path / "first.csv").code == 0
    scores = table(tmp_path / "first.csv")["score/malignant"]
    middle = float(scores.median())
    for how in ("mean", "max"):
        points = {"balanced": middle, "specificity_0.9": 2.0}
        model = shutil.copytree(world.model, tmp_path / how)
        signed(model, thresholds=points, aggregate=how)
        assert predict(model, fresh, tmp_path / f"{how}.csv").code == 0
        found = table(tmp_path / f"{how}.csv")
        assert found["file"].tolist() == ["a/L.dcm", "a/R.dcm", "b/L.dcm", "b/R.dcm"]
        assert found["patient"].tolist() == ["1", "2", "3", "3"]
        assert found["decision"].tolist() == _called(scores, middle)
        b = getattr(scores[2:], how)()
        expected = pd.Series([scores[0], scores[1], b, b])
        np.testing.assert_allclose(found["patient_score/malignant"], expected, rtol=1e-6)
        np.testing.assert_allclose(found["patient_score/benign"], 1 - expected, rtol=1e-5)
        assert found["patient_decision"].tolist() == _called(expected, middle)
        assert set(found["decision"]) == {"benign", "malignant"}
    done = predict(model, fresh, tmp_path / "strict.csv", operating="specificity_0.9", json=True)
    assert done.line == {
        "output": str(tmp_path / "strict.csv"), "model": load_classifier(model).saved.digest,
        "images": 4, "scored": 4, "left_out": 0, "refused": 0, "patients": 3,
        "patients_by": "headers", "operating": "specificity_0.9", "threshold": 2.0,
    }  # fmt: skip
    assert set(table(tmp_path / "strict.csv")["decision"]) == {"benign"}
    refused = predict(model, fresh, tmp_path / "no.csv", operating="youden")
    assert refused.code == 2
    assert "no operating point of the model; choose balanced, specificity_0.9" in refused.err
    assert not (tmp_path / "no.csv").exists()


def _called(scores: Any, threshold: float) -> list[str]:
    return ["malignant" if each >= threshold else "benign" for each in scores]


def test_of_three_classes_the_most_probable_other_is_called_below_the_threshold() -> None:
    from mammo.commands.predict import _decisions

    class Told:
        classes = TASKS["malignancy3"]

    names = Told.classes.names
    rows = {"malignant": [0.3, 0.2, 0.1, np.nan], "suspicious": [0.3, 0.5, 0.3, np.nan],
            "benign": [0.4, 0.3, 0.6, np.nan]}  # fmt: skip
    frame = pd.DataFrame({f"score/{name}": rows[name] for name in names})
    assert _decisions(frame, Told, 0.3) == ["malignant", "suspicious", "benign", ""]  # type: ignore[arg-type]


def test_patients_are_told_by_folder_or_not_at_all(
    world: World, fresh: Path, tmp_path: Path
) -> None:
    done = predict(world.model, fresh, tmp_path / "f.csv", patients="folders")
    assert done.code == 0, done.err
    found = table(tmp_path / "f.csv")
    assert found["patient"].tolist() == ["a", "a", "b", "b"]
    means = found.groupby("patient")["score/malignant"].transform("mean")
    np.testing.assert_allclose(found["patient_score/malignant"], means, rtol=1e-6)
    assert predict(world.model, fresh, tmp_path / "n.csv", patients="none").code == 0
    alone = table(tmp_path / "n.csv")
    assert set(alone["patient"]) == {""} == set(alone["patient_decision"])
    assert alone["patient_score/malignant"].isna().all()
    assert set(alone["decision"]) <= {"benign", "malignant"}
    for path in fresh.rglob("*.dcm"):  # nobody is told of in the headers: the folders speak
        breast = half_breast()
        planted.dicom(path, breast, PatientID="")
    assert predict(world.model, fresh, tmp_path / "auto.csv").code == 0
    assert table(tmp_path / "auto.csv")["patient"].tolist() == ["a", "a", "b", "b"]
    done = predict(world.model, fresh, tmp_path / "h.csv", patients="headers")
    assert "patients headers: 4 of 4 files tell no PatientID" in done.err
    shutil.move(fresh / "a" / "L.dcm", fresh / "L.dcm")
    done = predict(world.model, fresh, tmp_path / "h.csv", patients="folders")
    assert "patients folders: 1 of 4 images lie in no sub-folder" in done.err
    assert not (tmp_path / "h.csv").exists()


def test_no_identifier_of_a_header_is_told(
    world: World, fresh: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (fresh / "c").mkdir()
    whole = (fresh / "a" / "L.dcm").read_bytes()
    for name, content in {
        "cut": whole[: len(whole) // 2],
        "head": whole[:300],
        "text": planted.mark("text").encode(),
    }.items():
        (fresh / "c" / f"{name}.dcm").write_bytes(content)
    planted.dicom(fresh / "c" / "raw.dcm", PresentationIntentType="FOR PROCESSING",
                  PixelIntensityRelationship=planted.mark("rel"))  # fmt: skip
    planted.dicom(fresh / "c" / "colour.dcm", PhotometricInterpretation=planted.mark("RGB"))
    planted.dicom(fresh / "c" / "implant.dcm", BreastImplantPresent="YES")
    planted.png(fresh / "c" / "picture.png")
    outcomes = [
        predict(world.model, fresh, tmp_path / f"{how}.csv", patients=how, json=True)
        for how in ("auto", "folders", "none")
    ]
    refused = predict(world.model, fresh, tmp_path / "headers.csv", patients="headers")
    assert refused.code == 2
    assert [each.code for each in outcomes] == [2, 2, 2]
    assert len(table(tmp_path / "auto.csv")) == 11
    printed = capfd.readouterr()
    texts = [text for each in (*outcomes, refused) for text in (each.out, each.err)]
    assert planted.leaks(tmp_path, printed.out, printed.err, *texts) == []


def test_a_file_that_cannot_be_read_has_its_reason_and_the_others_their_scores(
    world: World, fresh: Path, tmp_path: Path
) -> None:
    whole = (fresh / "b" / "L.dcm").read_bytes()
    (fresh / "b" / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    planted.dicom(fresh / "b" / "implant.dcm", BreastImplantPresent="YES")
    planted.dicom(fresh / "b" / "drawn.dcm", SyntheticData="YES")
    planted.dicom(fresh / "b" / "empty.dcm", np.zeros((90, 60), int))
    done = predict(world.model, fresh, tmp_path / "out.csv")
    assert done.code == 2
    assert done.err.splitlines()[-1] == (
        f"predict: 3 of 8 images could not be read; column reason of {tmp_path / 'out.csv'} says "
        "why of each"
    )
    assert done.out == (
        f"{tmp_path / 'out.csv'}: 4 of 8 images scored, 1 left out as in training, 3 unreadable; "
        "4 patients\n"
    )
    found = table(tmp_path / "out.csv").set_index("file")
    reasons = found["reason"][found["reason"] != ""].to_dict()
    assert reasons.pop("b/cut.dcm").startswith("the DICOM file is truncated: ")
    assert reasons == {
        "b/implant.dcm": "implant: the training left such images out",
        "b/drawn.dcm": "it says that it is a synthetic image",
        "b/empty.dcm": "no breast was found in it",
    }
    assert found.loc[list(reasons), "score/malignant"].isna().all()
    assert set(found.loc[list(reasons), "decision"]) == {""}
    (fresh / "b" / "cut.dcm").unlink()
    (fresh / "b" / "empty.dcm").unlink()
    (fresh / "b" / "drawn.dcm").unlink()
    assert predict(world.model, fresh, tmp_path / "sound.csv").code == 0  # an implant is no fault
    alone = table(tmp_path / "sound.csv").set_index("file")
    scored = alone.index[alone["reason"] == ""]
    pd.testing.assert_frame_equal(
        alone.loc[scored, ["score/malignant"]], found.loc[scored, ["score/malignant"]], rtol=1e-6
    )


def test_files_are_found_by_what_they_are(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    write_dicom(folder / "PA000" / "IM0001", half_breast(level=3000))
    write_dicom(folder / "PA000" / "1.2.840.7", half_breast(level=2500))
    write_dicom(folder / "DICOMDIR", half_breast())
    write_dicom(folder / ".hidden.dcm", half_breast())
    (folder / "PA000" / "notes.txt").write_text("none of ours")
    grey = half_breast((200, 150), wall="right").astype(np.uint16) * 20
    Image.fromarray(grey).save(folder / "PA000" / "x.PNG")
    assert predict(world.model, folder, tmp_path / "out.csv").code == 0
    assert table(tmp_path / "out.csv")["file"].tolist() == [
        "PA000/1.2.840.7", "PA000/IM0001", "PA000/x.PNG",
    ]  # fmt: skip
    one = folder / "PA000" / "x.PNG"
    assert predict(world.model, one, tmp_path / "one.csv").code == 0
    alone, all_three = table(tmp_path / "one.csv"), table(tmp_path / "out.csv")
    assert alone["file"].tolist() == ["x.PNG"]
    assert alone["score/benign"][0] == pytest.approx(all_three["score/benign"][2], rel=1e-6)


def test_a_name_that_is_no_text_and_a_patient_without_a_score(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    written = write_dicom(folder / "x.dcm", np.zeros((60, 60), int))
    written.rename(written.with_name(os.fsdecode(b'caf\xe9, "1".dcm')))
    assert predict(world.model, folder, tmp_path / "out.csv").code == 2
    assert (tmp_path / "out.csv").read_bytes().splitlines()[1] == (
        b'"caf\xe9, ""1"".dcm",1,,,,,,,no breast was found in it'
    )


def test_a_model_of_two_channels_takes_pairs_of_files(tmp_path: Path, world: World) -> None:
    folder = tmp_path / "pairs"
    low, high = half_breast(level=3000), half_breast(level=1500)
    for name, picture in {"a_low.dcm": low, "a_high.dcm": high, "b_high.dcm": high,
                          "c.dcm": low}.items():  # fmt: skip
        write_dicom(folder / name, picture)
    model = shutil.copytree(world.model, tmp_path / "model")
    tensors = load_file(model / "weights.safetensors")
    first = next(name for name, value in tensors.items() if value.ndim == 4)
    # the second channel alone is looked at
    tensors[first] = torch.cat([torch.zeros_like(tensors[first]), tensors[first]], dim=1)
    for name in ("mean", "sd"):
        tensors[name] = tensors[name].repeat(1, 2, 1, 1)
    save_file(tensors, model / "weights.safetensors")
    about = json.loads((model / "model.json").read_text())
    signed(model, shape=[2, *about["shape"][1:]])
    done = predict(model, folder, tmp_path / "no.csv")
    assert done.code == 2
    assert "channels none: the model takes images of 2 channels" in done.err
    done = predict(model, folder, tmp_path / "out.csv", channels="_low,_high")
    found = table(tmp_path / "out.csv").set_index("file")
    assert done.code == 2
    assert found["reason"].to_dict() == {
        "a_low.dcm": "", "b_high.dcm": "there is no file ending in _low with it",
        "c.dcm": "its name ends in none of _low, _high",
    }  # fmt: skip
    single = load_classifier(world.model)
    expected = single.predict(single.read(folder / "a_high.dcm")[None])[0]
    assert found.loc["a_low.dcm", "score/malignant"] == pytest.approx(expected[1], rel=1e-5)
    done = predict(world.model, folder, tmp_path / "no.csv", channels="_low,_high")
    assert "channels has no effect: the model takes images of one channel" in done.err


def of_dataset(world: World, files: pd.Series) -> list[int]:
    """The row of the dataset that holds the image of each of `files`."""
    names = Names(load_salt(world.work), "folder")
    rows = {image: row for row, image in enumerate(world.data.manifest["image_id"])}
    return [rows[names.image(Record((), "", file, ""))] for file in files]


def judged(model: Path, data: Dataset, rows: list[int]) -> pd.DataFrame:
    """The predictions of `rows` as evaluate makes them."""
    classifier = load_classifier(model)
    return evaluation_predict(classifier, data, np.array(rows), split="test", batch_size=4)


def test_uncertainty_and_attention_are_those_that_evaluate_tells(
    world: World, tmp_path: Path
) -> None:
    run = classifier_data.tracked(tmp_path / "training", world.data)
    learned = {"uncertainty": "attenuation", "views": "attention", "views_of": "breast"}
    classifier_data.train(run, epochs=1, batch_size=4, **learned)
    model = run.folder / "model"
    for place, unit in enumerate(("breast", "patient")):
        signed(model, views_of=unit)
        output = tmp_path / f"{unit}.csv"
        assert predict(model, world.source, output).code == 0
        found = table(output)
        assert list(found)[2:7] == [
            *("score/benign", "score/malignant", "uncertainty", "attention", "decision"),
        ]
        expected = judged(model, world.data, of_dataset(world, found["file"]))
        for column in list(found)[2:6]:
            np.testing.assert_allclose(found[column], expected[column], rtol=1e-4, atol=1e-6)
        assert (found["uncertainty"] > 0).all()
        # a breast has one image here, a patient two
        np.testing.assert_allclose(found.groupby("patient")["attention"].sum(), 2 - place)
        of_patient = found.groupby("patient")["score/malignant"].nunique()
        assert set(of_patient) == {2 - place}
    np.testing.assert_array_equal(found["patient_score/malignant"], found["score/malignant"])
    done = predict(model, world.source, tmp_path / "alone.csv", patients="none")
    assert "nothing tells whose 12 of 12 images are; each of these is scored alone" in done.err
    assert set(table(tmp_path / "alone.csv")["attention"]) == {1.0}


def test_what_is_there_is_never_overwritten_and_no_half_is_left(
    world: World, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept.csv"
    kept.write_text("mine\n")
    done = predict(world.model, fresh, kept)
    assert (done.code, kept.read_text()) == (2, "mine\n")
    assert done.err == f"predict: output {kept} exists already; name a new file\n"
    done = predict(world.model, fresh, tmp_path / "nowhere" / "out.csv")
    assert done.code == 2
    assert "is no folder to write to" in done.err

    def torn(frame: Any, path: Path, **settings: Any) -> None:
        path.write_text("half a li")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", torn)
    done = predict(world.model, fresh, tmp_path / "full.csv")
    assert done.code == 2
    assert "full.csv cannot be written: No space left on device" in done.err
    assert sorted(each.name for each in tmp_path.glob("*csv*")) == ["kept.csv"]
    assert list(tmp_path.glob(".*.partial")) == []


def test_a_stopped_predict_leaves_nothing(
    world: World, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: Any, **settings: Any) -> None:
        raise Stopped(15)

    monkeypatch.setattr("mammo.classifiers.predict.Classifier.see", stopped)
    done = predict(world.model, fresh, tmp_path / "out.csv")
    assert done.code == 143
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_named_by_its_run(world: World, fresh: Path, tmp_path: Path, store: str) -> None:
    trained = doors.here(
        "train_classifier", data=world.data.folder, **classifier_data.TINY | {"epochs": 1}
    )
    assert trained.code == 0, trained.err
    assert predict(Path(trained.run_id), fresh, tmp_path / "run.csv").code == 0
    folder = next((tmp_path / "mlruns").rglob("model.json")).parent
    assert predict(folder, fresh, tmp_path / "folder.csv").code == 0
    assert (tmp_path / "run.csv").read_bytes() == (tmp_path / "folder.csv").read_bytes()


def _truncated(model: Path, canary: Path) -> None:
    path = model / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _other_threshold(model: Path, canary: Path) -> None:
    path = model / "model.json"
    said = json.loads(path.read_text())
    said["thresholds"]["balanced"] = 0.0  # as calling every woman ill
    path.write_text(json.dumps(said))


def _pickled(model: Path, canary: Path) -> None:
    (model / "weights.safetensors").write_bytes(hostile.pickled(canary))
    signed(model)


def _torch_saved(model: Path, canary: Path) -> None:
    stream = io.BytesIO()
    torch.save({"network": hostile.Payload(canary)}, stream)
    (model / "weights.safetensors").write_bytes(stream.getvalue())
    signed(model)


def _of_another_network(model: Path, canary: Path) -> None:
    signed(model, model_name="test_vit")


def _unprepared(model: Path, canary: Path) -> None:
    said = json.loads((model / "model.json").read_text())
    del said["crop"]
    write_about(model, said)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (_truncated, "weights.safetensors is missing or corrupt (sha256 differs from model.json)"),
        (_other_threshold, "model.json was altered (its digest differs from what it says)"),
        (_pickled, "weights.safetensors is no safetensors file"),
        (_torch_saved, "pickles are never opened"),
        (_of_another_network, "cannot be rebuilt"),
        (_unprepared, "does not say how its images were prepared (KeyError: 'crop')"),
    ],
)
def test_a_model_that_is_not_what_it_was_is_refused_in_one_line(
    spoil: Any, line: str, world: World, fresh: Path, tmp_path: Path
) -> None:
    model, canary = shutil.copytree(world.model, tmp_path / "model"), tmp_path / "canary"
    spoil(model, canary)
    done = predict(model, fresh, tmp_path / "out.csv")
    assert done.code == 2
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert line in done.err
    assert not canary.exists()
    assert not (tmp_path / "out.csv").exists()


def test_a_bare_checkpoint_is_no_model(world: World, fresh: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "net.pt").write_bytes(hostile.pickled(canary))
    done = predict(tmp_path / "net.pt", fresh, tmp_path / "out.csv")
    assert done.code == 2
    assert "net.pt' is no model: give an existing folder, a run id" in done.err
    assert not canary.exists()


def test_what_cannot_be_scored_is_told_before_a_model_is_opened(
    world: World, tmp_path: Path
) -> None:
    done = predict(world.model, tmp_path / "nowhere", tmp_path / "out.csv")
    assert done.err == (
        f"predict: folder {tmp_path / 'nowhere'} does not exist; give a folder of images, or one "
        "image\n"
    )
    (tmp_path / "empty").mkdir()
    done = predict(tmp_path, tmp_path / "empty", tmp_path / "out.csv")
    assert done.err.startswith(
        f"predict: no images in {tmp_path / 'empty'}: no file there is DICOM"
    )
    assert predict(world.model, tmp_path, tmp_path / "out.csv", patients="names").code == 2


@pytest.mark.doors
def test_no_score_depends_on_the_number_of_processes(
    world: World, fresh: Path, tmp_path: Path
) -> None:
    for workers in (1, 2):
        done = doors.mammo(
            "predict", str(world.model), str(fresh), output=tmp_path / f"{workers}.csv",
            workers=workers, batch_size=3, device="cpu",
        )  # fmt: skip
        assert done.code == 0, done.err
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


def test_a_recipe_comes_back_from_what_preprocess_wrote(world: World) -> None:
    expected = Recipe(
        (40, 32), dtype="uint16", for_processing="log",
        exclude=frozenset({"implant", "magnification", "spot", "biopsy"}),
    )  # fmt: skip
    assert Recipe.of(world.data.about) == expected
    assert Recipe.of(load_classifier(world.model).saved.about) == expected
    assert replace(expected, size=(40, 33)) != expected
