"""The step `preprocess` and who is in which split: order, groups, strata, files, warm-up."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicoms import half_breast, write_dicom
from PIL import Image
from preprocessed import dataset_of, preprocessed

from mammo.data.dataset import Dataset
from mammo.data.mix_settings import MixSettings
from mammo.data.mixed import mix_training
from mammo.data.splits import training_rows
from mammo.errors import ConfigError, DataError
from mammo.run import MemoryRun

LISTED: dict[str, Any] = {
    "dataset": "csv",
    "image_size": "16",
    "path_column": "image",
    "patient_column": "who",
    "label_column": "cancer",
    "laterality_column": "side",
    "class_map": "malignant=1,benign=0",
    "label_kind": "pathology",
    "crop": "none",
}


def run(work: Path, source: Path, **settings: Any) -> tuple[MemoryRun, Dataset]:
    tracked = preprocessed(work, **{**LISTED, "source": str(source), **settings})
    return tracked, dataset_of(tracked)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """40 patients with two breasts each, every fourth with a malignant right one."""
    folder = tmp_path / "release"
    folder.mkdir()
    rows = ["image,who,side,cancer,seen"]
    for number in range(40):
        for side in "LR":
            noise = np.random.default_rng([number, ord(side)]).integers(0, 256, (16, 16))
            name = f"{number:02d}{side}.png"
            Image.fromarray(noise.astype(np.uint8)).save(folder / name)
            ill = int(number % 4 == 0 and side == "R")
            rows.append(f"{name},SECRET{number:02d},{side},{ill},word{number % 2}")
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("asked", [{}, {"k_folds": 5}, {"limit": 20}, {"warmup_negatives": 2}])
def test_another_salt_changes_ids_and_neither_splits_nor_folds(
    tmp_path: Path, release: Path, asked: dict[str, Any]
) -> None:
    one, two = (run(tmp_path / work, release, **asked)[1].manifest for work in ("one", "two"))
    assert not set(one["group_id"]) & set(two["group_id"])
    for column in ("sha256", "split", "fold", "warmup"):
        assert one[column].tolist() == two[column].tolist()


def test_another_salt_changes_no_image_of_a_mix(tmp_path: Path, release: Path) -> None:
    asked = MixSettings(majority_to_minority_ratio=1.5)
    found = []
    for work in ("one", "two"):
        _, data = run(tmp_path / work, release)
        made = mix_training([data], [], [training_rows(data, fold="none")], asked, seed=3)
        found.append(data.manifest["sha256"].iloc[made.partition.train].tolist())
    assert len(found[0]) == 6 + 9  # 6 malignant images train
    assert found[0] == found[1]


def test_breasts_are_a_group_on_request_alone_and_the_risk_is_named(
    tmp_path: Path, release: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, by_patient = run(tmp_path / "work", release)
    assert by_patient.manifest["group_id"].nunique() == 40
    assert "two breasts" not in caplog.text
    _, by_breast = run(tmp_path / "work", release, group_by="patient_laterality")
    assert by_breast.manifest["group_id"].nunique() == 80
    assert "the two breasts of a patient may be in two splits" in caplog.text
    assert by_breast.about["salt"] != by_patient.about["salt"]  # ids that cannot be compared
    lost = LISTED | {"laterality_column": "", "group_by": "patient_laterality"}
    with pytest.raises(DataError, match="80 of 80 images have no laterality"):
        run(tmp_path / "work", release, **lost)


def test_a_saved_split_file_is_followed_and_an_edited_or_foreign_one_refused(
    tmp_path: Path, release: Path
) -> None:
    first, one = run(tmp_path / "work", release, k_folds=4)
    saved = tmp_path / "saved.csv"
    saved.write_bytes(first.uploaded["splits.csv"].read_bytes())
    _, two = run(tmp_path / "work", release, seed=5, split_file=str(saved))
    assert two.manifest[["split", "fold"]].equals(one.manifest[["split", "fold"]])
    with pytest.raises(DataError, match="was made with another salt or group_by"):
        run(tmp_path / "elsewhere", release, split_file=str(saved))
    with pytest.raises(DataError, match="was made with another salt or group_by"):
        run(tmp_path / "work", release, split_file=str(saved), group_by="image")
    saved.write_text(saved.read_text().replace("test", "train", 1))
    with pytest.raises(DataError, match="was changed after mammo wrote it"):
        run(tmp_path / "work", release, split_file=str(saved))
    assert not (tmp_path / "work" / "run" / "dataset.partial").exists()


def test_a_split_file_with_original_ids_is_followed_without_telling_them(
    tmp_path: Path, release: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    own = tmp_path / "own.csv"
    lines = [f"SECRET{n:02d},{('train', 'val', 'test')[n % 3]}" for n in range(2, 44)]
    own.write_text("patient,split\n" + "\n".join(lines) + "\n")
    with pytest.raises(DataError, match="no line for 2 of 40 patients") as refused:
        run(tmp_path / "work", release, split_file=str(own))
    assert "SECRET" not in str(refused.value)
    tracked, data = run(
        tmp_path / "work", release, split_file=str(own), new_patients="train", keep_columns="seen"
    )
    expected = ["train" if n < 2 else ("train", "val", "test")[n % 3] for n in range(40)]
    assert data.manifest["split"].tolist() == np.repeat(expected, 2).tolist()
    missing = tracked.tables["missing_patients"]
    assert missing["split"].value_counts().to_dict() == {"val": 2, "test": 1, "train": 1}
    assert "4 of 42 patients of split_file are not in the release" in caplog.text
    assert "2 patients are not in split_file and train" in caplog.text
    for told in (caplog.text, missing.to_csv(), tracked.uploaded["splits.csv"].read_text()):
        assert "SECRET" not in told


@pytest.mark.doors
def test_copies_in_a_release_without_patients_follow_a_saved_file(
    tmp_path: Path, release: Path
) -> None:
    (release / "03L.png").write_bytes((release / "01R.png").read_bytes())
    asked = {"patient_column": "", "keep_columns": "seen"}
    first, one = run(tmp_path / "work", release, **asked)
    assert one.manifest["group_id"].nunique() == 79
    saved = str(first.uploaded["splits.csv"])
    _, two = run(tmp_path / "work", release, **asked, seed=9, split_file=saved)
    assert two.manifest["split"].equals(one.manifest["split"])


def test_the_warm_up_is_marked_and_told(tmp_path: Path, release: Path) -> None:
    tracked, data = run(tmp_path / "work", release, warmup_negatives=3)
    frame = data.manifest
    train = frame[frame["split"] == "train"]
    ill = set(train.loc[train["label"] == "malignant", "group_id"])
    marked = set(frame.loc[frame["warmup"], "group_id"])
    assert ill < marked
    assert len(ill) == 6  # of 10: 2 tested, 2 validated (1.5 up)
    assert marked <= set(train["group_id"])
    table = tracked.tables["warmup"].set_index("part")
    # 30 healthy patients: 6 tested, 5 validated (4.5 up), 19 train and 18 of them warm up
    assert table["patients"].to_dict() == {"warmup": 24, "training": 25}
    assert table.loc["warmup", "prevalence"] == 0.25
    data.verify()


def test_strata_that_nobody_knows_are_refused(tmp_path: Path, release: Path) -> None:
    with pytest.raises(ConfigError, match="stratify_by 'site'; choose of label, vendor, subset"):
        run(tmp_path / "work", release, stratify_by="label,site")


def test_vendors_of_the_headers_are_shared_alike_on_request(tmp_path: Path) -> None:
    folder = tmp_path / "dicoms"
    for number in range(20):
        write_dicom(
            folder / ("benign", "malignant")[number % 2] / f"{number}.dcm",
            half_breast(level=1000 + 50 * number),
            PatientID=str(number),
            Manufacturer="Maker " + "AB"[number // 2 % 2],
        )
    listed = dict.fromkeys(LISTED.keys() - {"dataset", "image_size", "crop"}, "")
    asked = {**listed, "dataset": "folder", "k_folds": 5, "test_fraction": 0.0}
    _, data = run(tmp_path / "work", folder, **asked, stratify_by="label,vendor")
    counts = data.manifest.groupby(["fold", "label", "vendor"]).size()
    assert len(counts) == 20  # 5 patients of each kind, one in every fold
    assert set(counts) == {1}
