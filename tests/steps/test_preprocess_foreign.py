"""The step `preprocess` on what others made: generated images, and tables with ages."""

import inspect
import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicoms import half_breast, write_dicom

from mammo.data.dataset import Dataset
from mammo.data.manifest import check_manifest
from mammo.errors import ConfigError
from mammo.run import MemoryRun, Reference
from mammo.steps import mix, preprocess

HEIGHT, WIDTH = 12, 9
AS_IT_IS = {"crop": "none", "intensity": "none", "image_size": f"{HEIGHT}x{WIDTH}"}


def run(work: Path, step: Any = preprocess, inputs: Any = None, **settings: Any) -> Dataset:
    """Check and run a step with its defaults; returns the dataset it made."""
    parameters = inspect.signature(step.run).parameters.values()
    given = {each.name: each.default for each in parameters if each.name != "tracked"} | settings
    step.check(given)
    tracked = MemoryRun(work, inputs or {})
    return Dataset(work / "datasets" / step.run(tracked, **given).digest)


@pytest.fixture
def system0(tmp_path: Path) -> Path:
    """Eight real samples a class, and five generated ones of guidance 3 and of 5 each."""
    rng = np.random.default_rng(0)
    counts = {"original": 8, "synthetic_guide3": 5, "synthetic_guide5": 5}
    for part, count in counts.items():
        for label in ("benign", "malignant"):
            for number in range(1, count + 1):
                path = tmp_path / "release" / part / label / f"{number:04d}" / "slice.nii.gz"
                path.parent.mkdir(parents=True)
                pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 1)).astype(np.uint8)
                nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), path)
    return tmp_path / "release"


def test_generated_images_of_others_become_training_images_of_nobody(
    tmp_path: Path, system0: Path
) -> None:
    data = run(
        tmp_path / "work", dataset="folder", source=str(system0 / "synthetic_guide3"),
        synthetic_origin="Guidance 3 on EMBED", **AS_IT_IS,
    )  # fmt: skip
    frame = data.manifest
    check_manifest(frame, data.classes.names)
    assert frame["is_synthetic"].all()
    assert len(frame) == 10
    assert set(frame["split"]) == {"train"}
    assert set(frame["fold"]) == {-1}
    assert set(frame["generator_run_id"]) == {"external:guidance-3-on-embed"}
    assert frame["group_id"].nunique() == 10
    assert data.about["patients"] == 0
    assert data.about["synthetic_origin"] == "Guidance 3 on EMBED"


def test_two_origins_are_mixed_into_the_real_ones_with_a_warning(
    tmp_path: Path, system0: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Their generators' patients are not known: the mix says so, and holds no image twice."""
    work = tmp_path / "work"
    real = run(work, dataset="folder", source=str(system0), **AS_IT_IS)
    assert not real.manifest["is_synthetic"].any()
    assert len(real) == 16
    others = [
        run(
            work, dataset="folder", source=str(system0 / f"synthetic_guide{guide}"),
            synthetic_origin=f"guidance {guide}", **AS_IT_IS,
        )
        for guide in (3, 5)
    ]  # fmt: skip
    references = {
        "real": [Reference("runs:/1/dataset", real.folder, real.digest, "1")],
        "synthetic": [
            Reference(f"runs:/{each.digest}/dataset", each.folder, each.digest, each.digest)
            for each in others
        ],
    }
    per_class = int((real.manifest["split"] == "train").sum()) // 2
    with caplog.at_level(logging.WARNING, "mammo"):
        mixed = run(
            work, mix, references, real="1", synthetic="2,3", mix_mode="append",
            synthetic_multiplier=1.0,
        )  # fmt: skip
    made = mixed.manifest[mixed.manifest["is_synthetic"]]
    assert made["label"].value_counts().to_dict() == {"benign": per_class, "malignant": per_class}
    assert "external:guidance-3, external:guidance-5" in caplog.text
    assert "nobody can tell which patients their generators saw" in caplog.text
    mixed.verify()


def test_generated_images_of_another_intensity_are_warned_of(
    tmp_path: Path, system0: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = tmp_path / "work"
    real = run(work, dataset="folder", source=str(system0), **AS_IT_IS)
    source = str(system0 / "synthetic_guide3")
    for intensity in ("none", "percentile"):
        asked = {**AS_IT_IS, "intensity": intensity, "synthetic_origin": f"by {intensity}"}
        other = run(work, dataset="folder", source=source, **asked)
        references = {
            "real": [Reference("runs:/1/dataset", real.folder, real.digest, "1")],
            "synthetic": [Reference("runs:/2/dataset", other.folder, other.digest, "2")],
        }
        caplog.clear()
        run(work, mix, references, real="1", synthetic="2", real_percentage=0.8)
        told = "by-percentile has intensity percentile, folder has none: brightness" in caplog.text
        assert told == (intensity == "percentile")


@pytest.mark.parametrize(
    ("setting", "value"), [("k_folds", 5), ("warmup_negatives", 3), ("split_file", "x.csv")]
)
def test_splits_of_patients_are_not_for_generated_images(
    tmp_path: Path, system0: Path, setting: str, value: Any
) -> None:
    (tmp_path / "x.csv").write_text("patient,split\n")
    value = str(tmp_path / value) if setting == "split_file" else value
    with pytest.raises(ConfigError, match=f"{setting} .* generated images are training images"):
        run(
            tmp_path / "work", dataset="folder", source=str(system0 / "synthetic_guide3"),
            synthetic_origin="guidance 3", **{setting: value}, **AS_IT_IS,
        )  # fmt: skip


def test_an_origin_must_name_something(tmp_path: Path, system0: Path) -> None:
    with pytest.raises(ConfigError, match=r"synthetic_origin '\?': name who made the images"):
        run(tmp_path / "work", dataset="folder", source=str(system0), synthetic_origin="?")
    with pytest.raises(ConfigError, match="synthetic_origin is not an option of dataset mias"):
        run(
            tmp_path / "work", dataset="mias", source=str(system0), synthetic_origin="x",
            task="density2",
        )  # fmt: skip


def test_ages_above_89_are_one_group(tmp_path: Path) -> None:
    """As HIPAA's safe harbor asks, from a table and from a DICOM header."""
    folder = tmp_path / "release"
    for number, years in enumerate((88, 89, 90, 101)):
        name = folder / f"{number}.dcm"
        write_dicom(name, half_breast(), PatientID=str(number), PatientAge=f"{years:03d}Y")
    rows = [f"{number}.dcm,{number},{number % 2},{20 + number}" for number in range(4)]
    (folder / "list.csv").write_text("\n".join(["image,who,cancer,age", *rows]) + "\n")
    columns = {
        "path_column": "image", "patient_column": "who", "label_column": "cancer",
        "class_map": "malignant=1,benign=0", "image_size": "16", "dataset": "csv",
        "val_fraction": 0.0, "test_fraction": 0.0,
    }  # fmt: skip
    data = run(tmp_path / "work", source=str(folder), **columns)
    assert sorted(data.manifest["age"]) == [88, 89, 90, 90]
    text = (folder / "list.csv").read_text().replace(",23\n", ",97\n")
    (folder / "list.csv").write_text(text)
    data = run(tmp_path / "other", source=str(folder), keep_columns="age", **columns)
    assert sorted(data.manifest["age"]) == [20, 21, 22, 90]
