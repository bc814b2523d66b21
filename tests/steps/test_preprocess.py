"""The step `preprocess`: from files to a split dataset that names nobody."""

import errno
import json
import logging
import math
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from dicoms import half_breast, write_dicom
from PIL import Image
from preprocessed import dataset_of, preprocessed

from mammo.data.dataset import Dataset
from mammo.data.manifest import check_manifest
from mammo.data.slots import Slots
from mammo.driver import defaults
from mammo.errors import ConfigError, DataError
from mammo.run import MemoryRun
from mammo.steps import main, preprocess


def run(work: Path, **settings: Any) -> tuple[MemoryRun, Dataset]:
    """Check and run the step with its defaults; returns the run and the dataset it made."""
    tracked = preprocessed(work, **settings)
    return tracked, dataset_of(tracked)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Twelve patients with a left and a right DICOM each, half of them malignant."""
    folder = tmp_path / "release"
    for number in range(12):
        for side, wall in (("L", "left"), ("R", "right")):
            kind = "malignant" if number % 2 else "benign"
            write_dicom(
                folder / kind / f"Jane_Roe_{number:02d}_{side}.dcm",
                half_breast(wall=wall, level=1500 + 100 * number),
                PatientID=f"SECRET-{number:02d}",
                PatientName="Roe^Jane",
                ImageLaterality=side,
                ViewPosition="CC",
                PixelSpacing=[0.1, 0.1],
                Manufacturer="Maker",
            )
    return folder


SMALL = {"dataset": "folder", "image_size": "32"}


def test_patients_stay_together_and_counts_are_logged(tmp_path: Path, release: Path) -> None:
    tracked, data = run(tmp_path / "work", source=str(release), **SMALL)
    assert {name: tracked.last[name] for name in ("images", "patients", "rejected")} == {
        "images": 24,
        "patients": 12,
        "rejected": 0,
    }
    assert (tracked.last["count/benign"], tracked.last["count/malignant"]) == (12, 12)
    manifest = data.manifest
    check_manifest(manifest, data.classes.names)
    data.verify()
    assert manifest.groupby("group_id").size().eq(2).all()
    # of 6 patients a class: 20 % for the test and 15 % for validation, one of each
    assert manifest.groupby("split")["group_id"].nunique().to_dict() == {
        "test": 2,
        "train": 8,
        "val": 2,
    }
    assert tracked.logged_tags["mammo.group"] == "PatientID of the headers"
    assert set(tracked.uploaded) == {"dataset", "splits.csv", "preview.png"}


def test_other_files_in_the_source_or_the_split_file_are_another_run(
    tmp_path: Path, release: Path
) -> None:
    splits = tmp_path / "splits.csv"
    splits.write_text("group_id,split\n")
    settings = {"source": str(release), "split_file": str(splits)}
    found = [preprocess.source_digest(settings), preprocess.source_digest(settings)]
    assert found[0] == found[1]
    (release / "benign" / "one_more.dcm").write_bytes(b"more")
    found.append(preprocess.source_digest(settings))
    splits.write_text("group_id,split\nx,test\n")
    found.append(preprocess.source_digest(settings))
    assert len(set(found)) == 3
    whole = {"dataset": "folder", "profile": "demo", "seed": 0, **settings}
    before = main.source_digest(whole)
    (release / "benign" / "one_more.dcm").unlink()
    assert main.source_digest(whole) != before


def test_stored_pixels_have_the_scale_of_the_header_and_lie_at_the_left(
    tmp_path: Path, release: Path
) -> None:
    _, data = run(tmp_path / "work", source=str(release), **SMALL)
    assert data.about["dtype"] == "uint16"
    assert data.about["intensity"]["policy"] == "header"
    wall = data.images(range(24))[:, 0, 16, 1]  # the middle of the chest wall, inside the breast
    np.testing.assert_allclose(
        sorted(wall * 4095), sorted(2 * [1500 + 100 * n for n in range(12)]), atol=0.5
    )
    assert set(data.manifest["laterality"]) == {"L", "R"}
    assert set(data.manifest["vendor"]) == {"Maker"}
    # pixels of 0.1 mm: the breast is 77 of them high and is stored in 32
    np.testing.assert_allclose(data.manifest["pixel_mm"], 0.1 * 77 / 32)


def test_no_name_leaves_the_step(
    tmp_path: Path, release: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    write_dicom(release / "benign" / "Jane_Roe_99.dcm", half_breast(), PatientID="SECRET-99",
                NumberOfFrames=3)  # fmt: skip
    tracked, data = run(tmp_path / "work", source=str(release), strict=False, **SMALL)
    told = [caplog.text, json.dumps(tracked.logged_tags), json.dumps(tracked.last)]
    told += [table.to_csv() for table in tracked.tables.values()]
    told += [json.dumps(tracked.logged_params), data.manifest.to_csv()]
    for folder in (data.folder, tracked.folder):
        for path in sorted(folder.rglob("*")):
            told.append(path.name)
            if path.is_file():
                told.append(path.read_bytes().decode("latin-1"))
    for text in told:
        for name in ("SECRET", "Roe", "Jane"):
            assert name not in text
    private = tmp_path / "work" / "private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    files = sorted(private.iterdir())
    assert {path.name.split("-")[0] for path in files} == {"ids", "rejected", "salt"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    ids = pd.read_csv(private / f"ids-{data.digest}.csv")
    assert set(ids["patient"]) == {f"SECRET-{number:02d}" for number in range(12)}
    assert list(ids["image_id"]) == list(data.manifest["image_id"])


def test_ids_depend_on_the_salt_and_pixels_do_not(tmp_path: Path, release: Path) -> None:
    _, one = run(tmp_path / "one", source=str(release), **SMALL)
    _, again = run(tmp_path / "one", source=str(release), **SMALL)
    _, other = run(tmp_path / "other", source=str(release), **SMALL)
    assert again.digest == one.digest
    assert other.about["salt"] != one.about["salt"]
    assert not set(other.manifest["group_id"]) & set(one.manifest["group_id"])
    assert set(other.manifest["sha256"]) == set(one.manifest["sha256"])


@pytest.mark.doors
def test_two_processes_write_what_one_writes(tmp_path: Path, release: Path) -> None:
    _, one = run(tmp_path / "work", source=str(release), **SMALL)
    _, two = run(tmp_path / "work", source=str(release), workers=2, **SMALL)
    assert two.digest == one.digest


def test_no_more_jobs_decode_than_there_are_images(tmp_path: Path, release: Path) -> None:
    asked = {**defaults(preprocess), **SMALL, "source": str(release), "launcher": "slurm"}
    tracked = MemoryRun(tmp_path / "work")
    assert preprocess.parts(tracked, {**asked, "workers": 7}) == 7
    assert preprocess.parts(tracked, {**asked, "workers": 100}) == 24


def test_a_split_file_is_followed(tmp_path: Path, release: Path) -> None:
    first, one = run(tmp_path / "work", source=str(release), **SMALL)
    _, two = run(
        tmp_path / "work",
        source=str(release),
        seed=5,
        split_file=str(first.uploaded["splits.csv"]),
        **SMALL,
    )
    assert list(two.manifest["split"]) == list(one.manifest["split"])


def test_folds_take_the_place_of_validation(tmp_path: Path, release: Path) -> None:
    _, data = run(tmp_path / "work", source=str(release), k_folds=5, **SMALL)
    manifest = data.manifest
    assert set(manifest["split"]) == {"train", "test"}
    assert set(manifest.loc[manifest["split"] == "train", "fold"]) == set(range(5))
    assert set(manifest.loc[manifest["split"] == "test", "fold"]) == {-1}


def test_the_limit_is_of_patients_and_keeps_the_class_shares(tmp_path: Path, release: Path) -> None:
    tracked, _ = run(tmp_path / "work", source=str(release), limit=8, **SMALL)
    assert (tracked.last["patients"], tracked.last["images"]) == (8, 16)
    assert tracked.last["count/malignant"] == 8


def test_masks_and_the_preview_are_stored(tmp_path: Path) -> None:
    folder = tmp_path / "release"
    mask = np.zeros((96, 72), np.uint8)
    mask[40:56, 4:20] = 255
    for first, kind in enumerate(("benign", "malignant")):
        (folder / kind).mkdir(parents=True)
        for number in range(3):  # no two alike: copies would be one group
            texture = np.random.default_rng([first, number]).uniform(0.5, 1, (96, 72))
            picture = Image.fromarray((half_breast() // 16 * texture).astype(np.uint8))
            picture.save(folder / kind / f"{number}.png")
        Image.fromarray(mask).save(folder / kind / "0_mask.png")
    tracked, data = run(
        tmp_path / "work", source=str(folder), dataset="folder", image_size="48x32", task="label"
    )
    assert data.about["dtype"] == "uint8"
    assert data.shape == (1, 48, 32)
    marked = np.flatnonzero(data.manifest["mask_sha256"] != "")
    assert len(data) == 6
    assert len(marked) == 2
    area = (data.masks(marked) > 0).sum((1, 2, 3))
    np.testing.assert_allclose(area, 256 * (48 / 81) ** 2, rtol=0.15)
    group = "near-duplicate cluster (no patient_pattern given)"
    assert tracked.logged_tags["mammo.group"] == group
    with Image.open(tracked.uploaded["preview.png"]) as preview:
        assert np.asarray(preview).max() > 100


def spoil(release: Path) -> Path:
    path = release / "malignant" / "Jane_Roe_01_L.dcm"
    path.write_bytes(path.read_bytes()[:-3000])
    return path


def test_a_truncated_dicom_stops_the_step_without_leftovers(tmp_path: Path, release: Path) -> None:
    path = spoil(release)
    with pytest.raises(DataError, match=r"truncated: .* --strict false$") as caught:
        run(tmp_path / "work", source=str(release), **SMALL)
    assert "\n" not in str(caught.value)
    assert "Roe" not in str(caught.value)  # the line becomes a tag of the run
    assert not list((tmp_path / "work").rglob("*.npy"))
    assert not (tmp_path / "work" / "datasets").exists()
    listed = next((tmp_path / "work" / "private").glob("rejected-*.csv"))
    assert str(listed) in str(caught.value)
    assert str(path) in listed.read_text()


def test_without_strict_a_truncated_dicom_is_listed(tmp_path: Path, release: Path) -> None:
    spoil(release)
    tracked, data = run(tmp_path / "work", source=str(release), strict=False, **SMALL)
    assert (len(data), tracked.last["rejected"]) == (23, 1)
    table = tracked.tables["rejected"]
    assert table["images"].tolist() == [1]
    assert "truncated" in table["reason"][0]


def test_an_image_that_is_no_part_of_the_task_is_counted_and_stops_nothing(
    tmp_path: Path, release: Path
) -> None:
    path = release / "benign" / "Jane_Roe_04_R.dcm"
    data = pydicom.dcmread(path)
    data.BreastImplantPresent = "YES"
    data.save_as(path)
    tracked, data = run(tmp_path / "work", source=str(release), **SMALL)
    assert (len(data), tracked.last["rejected"], tracked.last["images_decoded"]) == (23, 0, 24)
    assert tracked.tables["left_out"].to_dict("list") == {
        "reason": ["implant (exclude)"],
        "images": [1],
    }
    assert tracked.logged_tags["mammo.left_out"] == "1 implant (exclude)"
    data.verify()
    _, all_of_them = run(tmp_path / "work", source=str(release), exclude="", **SMALL)
    assert len(all_of_them) == 24


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Slots, *_: Any, **__: Any) -> None:
        (self.folder / "images-0000.npy").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Slots, "put", full)
    with pytest.raises(DataError, match="is full; free space"):
        run(tmp_path / "work", source=str(release), **SMALL)
    assert not list((tmp_path / "work").rglob("*.npy"))


def test_wrong_requests_are_one_line_each(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        (
            {"dataset": "miass"},
            ConfigError,
            "unknown dataset 'miass'; choose one of bcs_dbt, busi",
        ),
        ({"dataset": "mias"}, ConfigError, "needs --source"),
        ({"dataset": "mias", "source": "/nowhere"}, DataError, "/nowhere is not a folder"),
        ({"dataset": "folder", "source": str(empty)}, DataError, "no images in"),
        ({"dataset": "mias", "task": "view"}, ConfigError, "no labels in mias; it offers density2"),
        ({"dataset": "mias", "csv": "a.csv"}, ConfigError, "csv is not an option of dataset mias"),
        ({"image_size": "12y"}, ConfigError, "give a side or HxW"),
        ({"k_folds": 1}, ConfigError, "k_folds 1 is no cross-validation"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, ConfigError, "must be below 1"),
        ({"split_file": "none.csv"}, DataError, "none.csv does not exist"),
    ]
    for settings, kind, line in wrong:
        given = {"dataset": "folder", "source": str(empty), **settings}
        if settings.get("dataset") == "mias" and "source" not in settings:
            given["source"] = ""
        with pytest.raises(kind, match=line):
            run(tmp_path / "work", **given)


def test_a_phantom_of_another_task_is_refused_before_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'birads' has no labels in phantom; it offers malig"):
        run(tmp_path / "work", dataset="phantom", task="birads")
    with pytest.raises(ConfigError, match="csv is not an option of dataset phantom; it takes var"):
        run(tmp_path / "work", dataset="phantom", csv="a.csv")
    assert not (tmp_path / "work").exists()


def test_new_patients_without_a_split_file_is_refused(tmp_path: Path, release: Path) -> None:
    with pytest.raises(ConfigError, match="new_patients train has no effect without split_file"):
        run(tmp_path / "work", source=str(release), new_patients="train", **SMALL)


def test_why_no_image_is_left_is_told(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rows = "".join(f"data/{n}.png,p{n},{n % 3}\n" for n in range(6))
    (source / "list.csv").write_text("file,who,cancer\n" + rows)
    asked = {
        "dataset": "csv", "source": str(source), "path_column": "file", "patient_column": "who",
        "label_column": "cancer", "class_map": "malignant=1,benign=0,leave_out=2",
    }  # fmt: skip
    with pytest.raises(DataError, match=r"4 images cannot be used \(4 x the file is missing\)"):
        run(tmp_path / "work", **asked)
    line = r"in .*source: 4 x the file is missing, 2 x of a label that is left out \(leave_out\)"
    with pytest.raises(DataError, match=line):
        run(tmp_path / "work", **asked, strict=False)


def test_a_single_class_is_told_before_any_decoding(
    tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mammo.data.prepare.read_pixels", None)
    shutil.rmtree(release / "benign")
    with pytest.raises(DataError, match="one class only: all 12 images are malignant"):
        run(tmp_path / "work", source=str(release), **SMALL)


def test_too_few_patients_are_told_before_any_decoding(
    tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mammo.data.prepare.read_pixels", None)
    with pytest.raises(DataError, match="needed for"):
        run(tmp_path / "work", source=str(release), limit=2, **SMALL)


def test_mias_density_from_the_shared_data(tmp_path: Path, shared: Path) -> None:
    tracked, data = run(
        tmp_path / "work",
        dataset="mias",
        task="density2",
        source=str(shared / "data/mini-mias"),
        image_size="64",
        limit=40,
    )
    assert (tracked.last["images"], tracked.last["patients"]) == (80, 40)
    walls = tracked.tables["orientation"]
    assert (walls["expected_wall"] == walls["seen_wall"]).all()
    stored = data.images(range(80))[:, 0]
    # tissue at the chest wall, air at the far side, and no white label left in the corner of air
    assert stored[:, 16:48, 0].mean() > 0.3
    assert np.median(stored[:, :, -1].max(axis=1)) == 0
    shares = (stored > 0).mean(axis=(1, 2))
    assert shares.min() > 0.15
    assert shares.max() < 0.95


def test_an_official_test_split_is_kept_and_validation_drawn_from_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    for n in range(16):
        picture = (half_breast() // (16 + n)).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{n}.png")
    rows = [f"{n}.png,{n},{n % 2},{'test' if n < 4 else 'train'}" for n in range(16)]
    (folder / "list.csv").write_text("\n".join(["image,who,cancer,part", *rows]) + "\n")
    _, data = run(
        tmp_path / "work",
        dataset="csv",
        source=str(folder),
        image_size="16",
        path_column="image",
        patient_column="who",
        label_column="cancer",
        split_column="part",
        class_map="malignant=1,benign=0",
        keep_columns="part",
        crop="none",
    )
    manifest = data.manifest
    assert (manifest["split"] == "test").sum() == 4
    assert ((manifest["split"] == "test") == (manifest["part"] == "test")).all()
    # 15 % of 6 patients a class is one each
    assert manifest.loc[manifest["split"] == "val", "label"].value_counts().to_dict() == {
        "benign": 1,
        "malignant": 1,
    }


def test_flags_leave_images_out_without_a_fault_and_raw_values_are_recorded(
    tmp_path: Path, release: Path
) -> None:
    write_dicom(release / "benign" / "x_spot.dcm", half_breast(), PatientID="X",
                PaddleDescription="SPOT")  # fmt: skip
    raw = np.where(half_breast() > 0, 100, 4000)
    write_dicom(release / "malignant" / "y_raw.dcm", raw, PatientID="Y",
                PresentationIntentType="FOR PROCESSING")  # fmt: skip
    given = {**SMALL, "source": str(release), "for_processing": "log"}
    tracked, data = run(tmp_path / "work", **given)
    assert tracked.last["images"] == 25  # strict stops at faults; a spot view is none
    assert "1 spot (exclude)" in tracked.logged_tags["mammo.left_out"]
    assert data.about["intensity"]["raw"].startswith("of FOR PROCESSING files: -ln(I / I0)")
    high = data.manifest["grey_high"].round(3).value_counts().to_dict()
    assert high == {4095: 24, round(math.log(4096), 3): 1}
    tracked, data = run(tmp_path / "work", **given, exclude="")
    assert tracked.last["images"] == 26
    assert data.manifest["flags"].value_counts().to_dict() == {"": 25, "spot": 1}
