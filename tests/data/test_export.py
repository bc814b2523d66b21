"""Datasets in the layouts of the five systems: what was written and read again is the same."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from preprocessed import dataset_of, preprocessed

from mammo.cli import main
from mammo.data.classes import TASKS, ClassMap
from mammo.data.dataset import Dataset
from mammo.data.layouts import LAYOUTS, export, lost, open_layout, read_again
from mammo.data.writer import DatasetWriter
from mammo.errors import ConfigError, DataError

BY_SYSTEM = {f"system{number}": open_layout(f"system{number}") for number in range(5)}
WITH_MASKS = [name for name, layout in BY_SYSTEM.items() if "masks" in layout.HOLDS]
WITH_CHANNELS = [name for name, layout in BY_SYSTEM.items() if "channels" in layout.HOLDS]
WITH_SPLITS = [name for name, layout in BY_SYSTEM.items() if "splits" in layout.HOLDS]


def made(
    folder: Path,
    *,
    task: ClassMap = TASKS["malignancy2"],
    dtype: str = "uint16",
    shape: tuple[int, int, int] = (1, 12, 9),
    patients: int = 8,
    synthetic: int = 0,
    masks: bool = True,
    about: dict[str, Any] | None = None,
    seed: int = 0,
) -> Dataset:
    """Random pixels of `patients` with one to three images each, in all splits and classes.

    Every second image of the last class has a mask, the first of them an empty one.
    """
    rng = np.random.default_rng(seed)
    writer = DatasetWriter(
        folder / "partial", name="made", classes=task, shape=shape, dtype=dtype, about=about
    )
    marked = 0
    for patient in range(patients):
        label = task.names[patient % len(task.names)]
        for image in range(1 + patient % 3):
            pixels = rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
            mask = None
            if masks and label == task.names[-1] and image % 2 == 0:
                mask = np.zeros((1, *shape[1:]), np.uint8)
                mask[0, 2 : 2 + 3 * (marked > 0), 1:5] = 255
                marked += 1
            row = {
                "dataset": "made",
                "group_id": f"{patient:016x}",
                "exam_id": f"e{patient:015x}",
                "image_id": f"{1000 * (patient + 1) + image:016x}",
                "laterality": "LR"[image % 2],
                "view": ("CC", "MLO")[image % 2],
                "label": label,
                "label_kind": task.label_kind,
                "density": "ABCD"[patient % 4],
                "age": float("nan") if patient == 3 else 50.0 + patient,
                "vendor": "Maker",
                "pixel_mm": 0.25,
                "split": ("train", "val", "test", "train")[patient // len(task.names) % 4],
            }
            writer.add(pixels, row, mask)
    for number in range(synthetic):
        row = {
            "dataset": "made-synthetic",
            "group_id": f"synthetic-{number}",
            "image_id": f"run1-{number}",
            "label": task.names[number % len(task.names)],
            "label_kind": task.label_kind,
            "split": "train",
            "is_synthetic": True,
            "generator_run_id": "0123456789abcdef",
        }
        mask = np.zeros((1, *shape[1:]), np.uint8)
        mask[0, number : number + 2, 2:4] = 255
        pixels = rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
        writer.add(pixels, row, mask if masks and number % 2 else None)
    return writer.finish(folder / "datasets")


def read(work: Path, source: Path | str, **given: Any) -> Dataset:
    """What `preprocess` makes of `source`."""
    asked = {"source": str(source), "val_fraction": 0.0, "test_fraction": 0.0, **given}
    return dataset_of(preprocessed(work, **asked))


def again(data: Dataset, system: str, folder: Path) -> Dataset:
    """`data` written in the layout of `system` and read with the settings that the export tells."""
    layout = BY_SYSTEM[system]
    written = export(data, layout, folder / "out")
    return read(folder / "work", folder / "out", **read_again(written, layout))


def by_pixels(data: Dataset, *, synthetic: bool = False) -> pd.DataFrame:
    """The rows by the hash of their pixels, which names an image in both datasets."""
    frame = data.manifest.assign(row=range(len(data)))
    frame = frame[frame["is_synthetic"] == synthetic]
    return frame.set_index("sha256").sort_index()


def grouping(frame: pd.DataFrame) -> set[frozenset[str]]:
    return {frozenset(rows.index) for _, rows in frame.groupby("group_id")}


def compare(data: Dataset, found: Dataset, system: str) -> None:
    """Assert that all that the layout holds is as it was."""
    held = BY_SYSTEM[system].HOLDS
    old, new = by_pixels(data), by_pixels(found)
    assert list(new.index) == list(old.index)  # pixels, to the bit
    assert found.shape == data.shape and found.about["dtype"] == data.about["dtype"]
    assert new["label"].tolist() == old["label"].tolist()
    assert found.classes == data.classes
    assert grouping(new) == grouping(old)
    if "splits" in held:
        assert new["split"].tolist() == old["split"].tolist()
    if "masks" in held:
        assert_same_masks(data, old, found, new)


def assert_same_masks(data: Dataset, old: pd.DataFrame, found: Dataset, new: pd.DataFrame) -> None:
    there = data.masks(old["row"].to_numpy())
    assert there.any() == (old["mask_sha256"] != "").any()
    np.testing.assert_array_equal(found.masks(new["row"].to_numpy()), there)


def test_there_is_a_layout_for_each_system() -> None:
    named = {module.__name__.rpartition(".")[2] for module in BY_SYSTEM.values()}
    assert set(LAYOUTS) == named | {"dicom"}  # which is of nobody's system
    assert {module.SYSTEM for module in BY_SYSTEM.values()} == set(BY_SYSTEM)
    assert open_layout("csv_patients") is BY_SYSTEM["system2"]
    with pytest.raises(
        ConfigError, match=r"unknown layout 'system7'; choose one of dicom, system0 \(cla"
    ):
        open_layout("system7")


@pytest.mark.parametrize(("real", "drawn"), [("uint16", "uint8"), ("uint8", "uint16")])
def test_generated_images_keep_their_masks_beside_real_ones_of_another_depth(
    tmp_path: Path, real: str, drawn: str
) -> None:
    import nibabel

    ours = made(tmp_path / "real", dtype=real, masks=False)
    theirs = made(tmp_path / "drawn", dtype=drawn, patients=2)
    row = theirs.manifest.index[theirs.manifest["mask_sha256"] != ""][-1]
    image = (
        theirs.placed()
        .iloc[[row]]
        .assign(is_synthetic=True, generator_run_id="run", split="train", image_id="f" * 16)
    )
    frame = pd.concat([ours.placed(), image], ignore_index=True)
    out = tmp_path / "out"
    export(Dataset.view(ours, frame, [theirs]), open_layout("system4"), out)
    voxels = np.asarray(nibabel.load(out / "generated/00001.nii.gz").dataobj)
    np.testing.assert_array_equal(voxels[..., 0], theirs.raw([row])[0, 0])
    white = np.iinfo(drawn).max
    np.testing.assert_array_equal(
        voxels[..., 1], theirs.masks([row])[0, 0].astype(int) // 255 * white
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("system", BY_SYSTEM)
def test_a_dataset_written_and_read_again_is_the_same(
    tmp_path: Path, system: str, dtype: str
) -> None:
    data = made(tmp_path, dtype=dtype)
    compare(data, again(data, system, tmp_path), system)


@pytest.mark.parametrize("system", WITH_CHANNELS)
@pytest.mark.parametrize("channels", [2, 3])
def test_channels_stay_in_their_order(tmp_path: Path, system: str, channels: int) -> None:
    data = made(tmp_path, shape=(channels, 10, 10))
    compare(data, again(data, system, tmp_path), system)


@pytest.mark.parametrize("task", ["normal_benign_malignant", "malignancy4", "density4"])
@pytest.mark.parametrize("system", BY_SYSTEM)
def test_more_than_two_classes_stay_apart(tmp_path: Path, system: str, task: str) -> None:
    data = made(tmp_path, task=TASKS[task], patients=16, shape=(1, 9, 9))
    compare(data, again(data, system, tmp_path), system)


@pytest.mark.parametrize("system", BY_SYSTEM)
def test_names_of_a_releases_own_stay(tmp_path: Path, system: str) -> None:
    own = ClassMap("label", ("cat", "dog"), "cat", "follow-up")
    data = made(tmp_path, task=own, shape=(1, 9, 9))
    compare(data, again(data, system, tmp_path), system)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from(["uint8", "uint16"]),
    height=st.integers(8, 20),
    width=st.integers(8, 20),
    patients=st.integers(4, 12),
    masks=st.booleans(),
    system=st.sampled_from(sorted(BY_SYSTEM)),
)
def test_any_small_dataset_goes_out_and_in(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int, dtype: str, height: int, width: int, patients: int, masks: bool, system: str,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("round")
    data = made(
        folder, seed=seed, dtype=dtype, shape=(1, height, width), patients=patients, masks=masks
    )
    compare(data, again(data, system, folder), system)


@pytest.mark.parametrize("system", BY_SYSTEM)
def test_phantoms_go_out_and_in(tmp_path: Path, system: str, phantoms: Dataset) -> None:
    compare(phantoms, again(phantoms, system, tmp_path), system)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Phantom patients of 64 pixels, as the step makes them, split by patient."""
    work = tmp_path_factory.mktemp("phantoms")
    return read(
        work, "", dataset="phantom", image_size="64", patients=24,
        val_fraction=0.2, test_fraction=0.2,
    )  # fmt: skip


def test_what_a_table_can_hold_comes_back(tmp_path: Path) -> None:
    data = made(tmp_path)
    found = by_pixels(again(data, "system1", tmp_path))
    old = by_pixels(data)
    for column in ("laterality", "view", "density", "vendor"):
        assert found[column].tolist() == old[column].tolist()
    np.testing.assert_array_equal(found["age"], old["age"])


@pytest.mark.parametrize("system", BY_SYSTEM)
def test_generated_images_never_lie_with_the_real_ones(tmp_path: Path, system: str) -> None:
    data = made(tmp_path, synthetic=6, about={"sampling": {"guidance": 3.0}})
    compare(data, again(data, system, tmp_path), system)  # the real ones alone are read
    out = tmp_path / "out"
    how = {
        "system0": ("synthetic_guide3.0", {"dataset": "folder"}),
        "system1": ("", {"dataset": "csv", "csv": "synthetic.csv", "path_column": "path",
                         "label_column": "label", "mask_column": "mask"}),
        "system2": ("", {"dataset": "csv", "csv": "input/synthetic.csv", "label_column": "label",
                         "path_pattern": "input/images_as_pngs_12/synthetic_images_processed_12/"
                                         "{patient_id}_{image_id}.png"}),
        "system3": ("augmented_0123456789ab", {"dataset": "folder"}),
        "system4": ("", {"dataset": "nifti", "csv": "generated.csv", "label_column": "label",
                         "planes": "bravo,seg"}),
    }  # fmt: skip
    below, options = how[system]
    same = {"crop": "none", "intensity": "none", "image_size": "12x9"}
    found = read(
        tmp_path / "work", out / below, synthetic_origin="guidance 3 on Made", **same, **options
    )
    old, new = by_pixels(data, synthetic=True), by_pixels(found, synthetic=True)
    assert list(new.index) == list(old.index) and len(found) == 6
    assert new["label"].tolist() == old["label"].tolist()
    assert set(new["generator_run_id"]) == {"external:guidance-3-on-made"}
    assert set(new["split"]) == {"train"}
    if "masks" in BY_SYSTEM[system].HOLDS:
        assert_same_masks(data, old, found, new)


@pytest.mark.parametrize("system", BY_SYSTEM)
def test_names_are_ids_and_pictures_hold_no_text(tmp_path: Path, system: str) -> None:
    data = made(tmp_path, synthetic=2)
    layout = BY_SYSTEM[system]
    export(data, layout, tmp_path / "out")
    ids = set(data.manifest["group_id"]) | set(data.manifest["image_id"])
    known = ids | set(data.classes.names) | {
        "original", "slice", "synthetic_guideunknown", "images", "masks", "train", "val", "test",
        "synthetic", "input", "images_as_pngs_12", "augmented_0123456789ab", "bravo", "seg",
        "slices", "generated", "mask",
    }  # fmt: skip
    known |= {f"{part}_images_processed_12" for part in ("train", "test", "synthetic")}
    for path in sorted((tmp_path / "out").rglob("*")):
        stem = path.name.removesuffix(".gz").removesuffix(path.suffix).split(".")[0]
        parts = [stem] if stem in known else stem.split("_")
        assert all(part in known or re.fullmatch(r"0*\d{1,2}", part) for part in parts), path
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert picture.mode in ("L", "I;16")
                drawn = any("run1-" in part for part in path.relative_to(tmp_path).parts)
                # of a generated image its provenance alone
                assert set(picture.info) == (
                    {"Description", "Software", "mammo"} if drawn else set()
                )


def test_guidance_is_told_by_the_folder(tmp_path: Path) -> None:
    data = made(tmp_path, synthetic=4, about={"sampling": {"guidance": 7.5}})
    export(data, BY_SYSTEM["system0"], tmp_path / "out")
    found = sorted(
        str(path.relative_to(tmp_path / "out"))
        for path in (tmp_path / "out/synthetic_guide7.5").rglob("*.nii.gz")
    )
    assert found == [
        f"synthetic_guide7.5/{label}/{number:04d}/slice.nii.gz"
        for label in ("benign", "malignant")
        for number in (1, 2)
    ]


def test_a_mix_of_several_generators_is_written_by_their_guidance(tmp_path: Path) -> None:
    """A mixed dataset holds no pixels of its own: they come from where its rows point."""
    real = made(tmp_path, masks=False)
    parts = []
    for guidance, count in ((8.0, 2), (0.5, 4)):
        whole = made(tmp_path / str(guidance), seed=count, synthetic=count, masks=False)
        rows = whole.manifest[whole.manifest["is_synthetic"]]
        rows = rows.assign(image_id=f"{guidance:g}-" + rows["image_id"])
        writer = DatasetWriter(
            tmp_path / "partial", name="generated", classes=real.classes, shape=real.shape,
            dtype="uint16", about={"sampling": {"guidance": guidance}},
        )  # fmt: skip
        for number, row in rows.iterrows():
            writer.add(whole.raw([number])[0], row.drop(["shard", "index"]).to_dict())
        parts.append(writer.finish(tmp_path / "datasets"))
    rows = pd.concat([each.placed() for each in (real, *parts)], ignore_index=True)
    mixed = Dataset.view(real, rows, parts)
    export(mixed, BY_SYSTEM["system0"], tmp_path / "out")
    counts = {
        str(folder.relative_to(tmp_path / "out")): len(list(folder.iterdir()))
        for folder in sorted((tmp_path / "out").glob("*/*"))
    }
    labels = real.manifest["label"].value_counts()
    assert counts == {
        "original/benign": labels["benign"], "original/malignant": labels["malignant"],
        "synthetic_guide0.5/benign": 2, "synthetic_guide0.5/malignant": 2,
        "synthetic_guide8.0/benign": 1, "synthetic_guide8.0/malignant": 1,
    }  # fmt: skip


@pytest.mark.parametrize("system", BY_SYSTEM)
def test_the_same_dataset_gives_the_same_bytes(tmp_path: Path, system: str) -> None:
    data = made(tmp_path, synthetic=2)
    contents = []
    for name in ("one", "two"):
        export(data, BY_SYSTEM[system], tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append(
            [(str(path.relative_to(tmp_path / name)), path.read_bytes()) for path in files]
        )
    assert contents[0] == contents[1]


def test_one_split_alone_is_written_on_request(tmp_path: Path) -> None:
    data = made(tmp_path)
    written = export(data, BY_SYSTEM["system3"], tmp_path / "out", split="test")
    found = read(tmp_path / "work", tmp_path / "out", **read_again(written, BY_SYSTEM["system3"]))
    old = by_pixels(data)
    assert list(by_pixels(found).index) == list(old.index[old["split"] == "test"])


def test_what_a_layout_cannot_hold_is_said(tmp_path: Path) -> None:
    data = made(tmp_path)
    layout = BY_SYSTEM["system0"]
    masks, splits = lost(export(data, layout, tmp_path / "out"), layout)
    count = int((data.manifest["mask_sha256"] != "").sum())
    assert masks == f"{count} masks are left out: the layout has none"
    assert splits.startswith("the layout has no splits: test, train, val are in one folder")
    two = made(tmp_path / "two", shape=(2, 9, 9))
    for system in ("system0", "system2", "system3"):
        message = f"layout {system} holds 1 channel, dataset made has 2; choose system1 or system4"
        with pytest.raises(ConfigError, match=message):
            export(two, BY_SYSTEM[system], tmp_path / "none")


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    data = made(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists already; name a new folder"):
        export(data, BY_SYSTEM["system1"], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_class_that_is_no_folders_name_leaves_nothing_behind(tmp_path: Path) -> None:
    odd = ClassMap("label", ("../up", "down"), "down", "reader")
    data = made(tmp_path, task=odd)
    before = sorted(tmp_path.iterdir())
    for system in ("system0", "system3"):
        with pytest.raises(DataError, match=r"'../up' cannot be the name of a file or folder"):
            export(data, BY_SYSTEM[system], tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_the_command_writes_and_tells_how_to_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = made(tmp_path, shape=(1, 10, 10))
    out = tmp_path / "out"
    given = ["data", "export", str(data.folder), "--layout", "csv_patients", "--output", str(out)]
    assert main(given) == 0
    lines = capsys.readouterr().out.splitlines()
    count = len(data)
    assert lines[0] == f"{out}: {count} real and 0 generated images (2 CSV, {count} PNG files)"
    assert "masks are left out" in lines[1]
    assert lines[2].startswith(f"read it again: mammo preprocess --source {out} --task malignancy2")
    assert "--class_map benign=0,malignant=1" in lines[2]
    assert main(given) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*given[:3], "--layout", "system9", "--output", str(out)]) == 2
    assert "unknown layout 'system9'" in capsys.readouterr().err
    assert main([*given[:5]]) == 2
    assert "output is missing" in capsys.readouterr().err
