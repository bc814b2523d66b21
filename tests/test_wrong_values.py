"""What a user can get wrong, as the user meets it: one line, exit code 2, nothing half-written."""

import contextlib
import hashlib
import re
import resource
import shutil
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import doors
import numpy as np
import pytest
import small
from dicoms import half_breast, write_dicom
from mlflow import MlflowClient
from PIL import Image

from mammo import cli, driver
from mammo.errors import ConfigError
from mammo.generators import GENERATORS
from mammo.run import Stopped

CLASSIFIER: dict[str, Any] = {
    "model_name": "test_resnet",  # timm's own tiny network
    "epochs": 1,
    "batch_size": 8,
    "device": "cpu",
}
GENERATOR: dict[str, Any] = {
    "channels": "8,16",
    "attention": 0,
    "epochs": 1,
    "sample_every": 0,
    "device": "cpu",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The work folder, with a dataset of somebody else in it."""
    folder = tmp_path / "home"
    small.dataset(folder / "datasets", small.real_rows({"benign": [1], "malignant": [1]}))
    return folder


@pytest.fixture
def joined(store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The run that `mlflow run` opens before it starts a step."""
    run_id: str = MlflowClient().create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    return run_id


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """24 images of noise, a third for validation and a third for the test."""
    rows = small.real_rows({"benign": [1] * 12, "malignant": [1] * 12})
    for number, row in enumerate(rows):
        row["split"] = ("train", "val", "test")[number % 3]
    return small.dataset(tmp_path / "elsewhere", rows, shape=(1, 32, 32)).folder


def held(home: Path) -> dict[str, str]:
    """Hash by path of all that counts as a result below the work folder."""
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for part in ("datasets", "models", "results", "releases")
        for path in sorted((home / part).rglob("*"))
        if path.is_file()
    }


def assert_refused(outcome: doors.Outcome, entry: str, joined: str, *words: str) -> None:
    """One last line that says all `words`, exit code 2, and the run FAILED with that line."""
    assert outcome.code == 2, outcome.err[-3000:]
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    line = outcome.err.splitlines()[-1]
    assert line.startswith(f"{entry}: ")
    for word in words:
        assert word in line
    run = MlflowClient().get_run(joined)
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == line.removeprefix(f"{entry}: ")


def call(home: Path, entry: str, joined: str, words: list[str], **settings: Any) -> doors.Outcome:
    """Run what must be refused, and compare what it left behind."""
    before = held(home)
    outcome = doors.here(entry, **settings)
    assert_refused(outcome, entry, joined, *words)
    assert held(home) == before
    assert not list(home.rglob("*.partial"))
    return outcome


def assert_one_line(outcome: doors.Outcome) -> None:
    assert len(outcome.err.splitlines()) == 1, outcome.err


def test_an_unknown_generator(home: Path, joined: str, data: Path) -> None:
    words = [f"unknown generator 'gann'; choose one of {', '.join(sorted(GENERATORS))}"]
    assert_one_line(call(home, "train_generator", joined, words, data=data, generator="gann"))


@pytest.mark.doors
def test_an_unknown_generator_through_mlflow_run(store: str, data: Path) -> None:
    outcome = doors.mlflow_run("train_generator", data=data, generator="gann")
    assert outcome.code == 1  # MLflow's own, whatever the step's was
    line = f"unknown generator 'gann'; choose one of {', '.join(sorted(GENERATORS))}"
    assert f"train_generator: {line}" in outcome.err.splitlines()
    (run,) = MlflowClient().search_runs(["0"])
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == line


@pytest.mark.parametrize(("entry", "inputs"), [("mix", "real"), ("train_classifier", "data")])
def test_a_real_percentage_above_one(
    entry: str, inputs: str, home: Path, joined: str, data: Path
) -> None:
    words = ["real_percentage 1.5 cannot be used; give a number from 0 to 1"]
    settings = {inputs: data, "synthetic": data, "real_percentage": 1.5}
    assert_one_line(call(home, entry, joined, words, **settings))


@pytest.mark.parametrize("reference", ["f" * 32, f"runs:/{'f' * 32}/dataset"])
def test_a_run_id_that_does_not_exist(reference: str, home: Path, joined: str) -> None:
    words = [f"run '{'f' * 32}' does not exist", "check the id and MLFLOW_TRACKING_URI"]
    assert_one_line(call(home, "train_classifier", joined, words, data=reference))


def test_a_text_that_names_nothing(home: Path, joined: str) -> None:
    words = ["data 'nowhere' is no dataset", "give an existing folder, a run id"]
    assert_one_line(call(home, "train_classifier", joined, words, data="nowhere"))


def test_a_folder_without_images(home: Path, joined: str, tmp_path: Path) -> None:
    source = tmp_path / "release"
    (source / "benign").mkdir(parents=True)
    (source / "benign" / "notes.txt").write_text("no image")
    words = [f"no images in {source}", ".dcm"]
    call(home, "preprocess", joined, words, dataset="folder", source=source)


def test_a_truncated_dicom(home: Path, joined: str, tmp_path: Path) -> None:
    source = tmp_path / "release"
    for label in ("benign", "malignant"):
        for number in range(4):
            name = f"{label}{number}"
            write_dicom(source / label / f"{name}.dcm", half_breast(), PatientID=name)
    cut = source / "malignant" / "malignant1.dcm"
    cut.write_bytes(cut.read_bytes()[:3000])
    words = ["an image cannot be used", "truncated", "--strict false"]
    outcome = call(
        home, "preprocess", joined, words, dataset="folder", source=source, image_size=32
    )
    assert "malignant1" not in outcome.err  # an original name stays private
    (listed,) = (home / "private").glob("rejected-*.csv")
    assert "malignant1.dcm" in listed.read_text()


def test_a_csv_with_a_patient_in_two_splits(home: Path, joined: str, tmp_path: Path) -> None:
    source = tmp_path / "release"
    source.mkdir()
    lines = ["file,patient,label,split"]
    for number, split in enumerate(("train", "train", "test", "val")):
        Image.fromarray(np.full((40, 40), 90, np.uint8)).save(source / f"{number}.png")
        lines.append(
            f"{number}.png,P{number // 2},{'benign' if number % 2 else 'malignant'},{split}"
        )
    (source / "table.csv").write_text("\n".join(lines))
    settings = {
        "path_column": "file",
        "patient_column": "patient",
        "label_column": "label",
        "split_column": "split",
    }
    words = ["a patient is in two splits: 'test' in row 4 of the table, 'val' in row 5 of the"]
    call(home, "preprocess", joined, words, dataset="csv", source=source, **settings)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit])
def test_the_corrupt_checkpoint_of_an_interrupted_run(
    damage: Any, home: Path, joined: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mammo.tracking import TrackedRun

    def stop(*_: Any) -> None:
        raise Stopped(15)

    with monkeypatch.context() as patch:
        patch.setattr(TrackedRun, "model", stop)
        assert doors.here("train_classifier", data=data, **CLASSIFIER).code == 143
    (last,) = home.glob("runs/*/checkpoints/last.ckpt")
    damage(last)
    words = [f"checkpoint {last} is corrupt", "delete its folder to train afresh"]
    call(home, "train_classifier", joined, words, data=data, **CLASSIFIER)
    shutil.rmtree(last.parent)  # the remedy works
    assert doors.here("train_classifier", data=data, **CLASSIFIER).run_id == joined


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a trained generator and a trained classifier."""
    folder = tmp_path_factory.mktemp("models")
    rows = small.real_rows({"benign": [1] * 6, "malignant": [1] * 6})
    for number, row in enumerate(rows):
        row["split"] = "train" if number % 2 else "val"
    data = small.dataset(folder / "datasets", rows, shape=(1, 32, 32)).folder
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("MAMMO_HOME", str(folder / "home"))
        patch.chdir(folder)
        for kind, settings in (("generator", GENERATOR), ("classifier", CLASSIFIER)):
            outcome = doors.here(f"train_{kind}", data=data, **settings)
            client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
            (folder / kind).mkdir()
            found[kind] = Path(
                client.download_artifacts(outcome.run_id, "model", str(folder / kind))
            )
    return found


@pytest.mark.parametrize(("entry", "kind"), [("sample", "generator"), ("evaluate", "classifier")])
@pytest.mark.parametrize("file", ["weights.safetensors", "model.json"])
def test_a_corrupt_model(
    entry: str,
    kind: str,
    file: str,
    home: Path,
    joined: str,
    data: Path,
    models: dict[str, Path],
    tmp_path: Path,
) -> None:
    model = shutil.copytree(models[kind], tmp_path / "model")
    truncate(model / file)
    settings = {"model": model, "data": data} if kind == "classifier" else {"generator": model}
    settings |= {"count": 4} if kind == "generator" else {}
    call(home, entry, joined, [str(model / file), "corrupt", "train it again"], **settings)


SPACE = 2 << 20  # bytes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of `SPACE` bytes; where none may be mounted, no file may grow larger."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SPACE}", "tmpfs", str(place)]
    mounted = (
        shutil.which("mount")
        and not subprocess.run(mount, capture_output=True, check=False).returncode
    )
    if mounted:
        yield place
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SPACE, hard))
    yield place
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_during_preprocess(
    small_disk: Path, joined: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "release"
    for label in ("benign", "malignant"):
        (source / label).mkdir(parents=True)
        for number in range(6):
            image = Image.fromarray(half_breast((600, 400), level=200 + number).astype(np.uint8))
            image.save(source / label / f"{number}.png")
    monkeypatch.setenv("MAMMO_HOME", str(small_disk))
    settings = {"dataset": "folder", "source": source, "image_size": 512}
    call(small_disk, "preprocess", joined, [str(small_disk), "free space"], **settings)


def test_a_disk_that_fills_up_during_training(
    small_disk: Path, joined: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAMMO_HOME", str(small_disk))
    settings = CLASSIFIER | {"model_name": "resnet10t"}
    words = [str(small_disk), "cannot be written", "run the same command again"]
    call(small_disk, "train_classifier", joined, words, data=data, **settings)
    assert not list(small_disk.glob("runs/*/checkpoints/*"))


@pytest.mark.doors
def test_a_disk_that_is_full_under_the_tracking_store(
    small_disk: Path, store: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(tmp_path / "mlflow.db", small_disk)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{small_disk}/mlflow.db")
    command = doors.mammo_command("train_classifier", data=data, **CLASSIFIER)
    if small_disk.is_mount():
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    else:
        command = ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", *command]
    environment = doors.environment()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert_one_line(doors.Outcome(done.returncode, done.stdout, done.stderr))
    line = f"train_classifier: the tracking store sqlite:///{small_disk}/mlflow.db cannot be writ"
    assert done.stderr.startswith(line)
    assert "make room there" in done.stderr


@pytest.mark.parametrize(
    ("entry", "arguments", "line"),
    [
        (
            "train_classifier",
            "--data x --epochs many",
            "epochs 'many' cannot be used; give a whole number of at least 1",
        ),
        (
            "train_classifier",
            "--data x --epochs=0",
            "epochs 0 cannot be used; give a whole number of at least 1",
        ),
        ("train_classifier", "--data x --lr nan", "lr nan cannot be used; give a number above 0"),
        (
            "train_generator",
            "--data x --ema -1",
            "ema -1 cannot be used; give a number from 0 to 1",
        ),
        (
            "train_generator",
            "--data x --reuse maybe",
            "reuse 'maybe' cannot be used; give true or false",
        ),
        ("train_generator", "--data x --epoch 3", "unknown setting 'epoch'; did you mean epochs?"),
        ("mix", "--real x --real_percent=1", "unknown setting 'real_percent'; did you mean"),
        ("evaluate", "--model x", "data is missing; give --data"),
        ("evaluate", "--data", "data has no value; give --data"),
        ("evaluate", "runs:/1/model", "unexpected 'runs:/1/model'; settings are given as --name"),
        ("main", "--preprocess.crop no", "unknown preprocess.crop 'no'; choose one of auto,"),
        (
            "main",
            "--train_generator.lrr 1",
            "unknown setting 'train_generator.lrr'; did you mean train_generator.lr?",
        ),
    ],
)
def test_a_command_line_is_refused_in_plain_words(entry: str, arguments: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cli.parse(entry, arguments.split())
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("step", driver.STEPS)
def test_every_name_from_a_list_is_checked(step: str) -> None:
    kinds, required = cli._kinds(step)
    postponed = [name for name, kind in kinds.items() if isinstance(kind, str)]
    assert not postponed, "postponed annotations hide the lists of names from the command line"
    named = [name for name, kind in kinds.items() if typing.get_args(kind)]
    assert named or step == "promote"
    for name in named:
        given = [f"--{each}=x" for each in required if each not in named]
        with pytest.raises(ConfigError, match=rf"^unknown {re.escape(name)} 'no-such-value'; choo"):
            cli.parse(step, [*given, f"--{name}=no-such-value"])
