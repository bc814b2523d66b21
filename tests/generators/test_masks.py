"""Masks that images are drawn around: whose they may be, how large, what is recorded of them."""

import logging
import re
from pathlib import Path

import doors
import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from mammo.data.classes import TASKS
from mammo.data.dataset import Dataset, sha256_of
from mammo.data.guards import check_generators
from mammo.data.layouts import export, open_layout
from mammo.data.mix_settings import MixSettings
from mammo.data.mixed import Mixed, mix_training
from mammo.data.splits import training_rows
from mammo.data.writer import DatasetWriter
from mammo.errors import ConfigError, DataError
from mammo.generators import load_generator
from mammo.generators.asking import SEEDS, further_seed
from mammo.generators.drawing import Recipe
from mammo.generators.generator import Generator
from mammo.generators.mask_areas import RULES, areas
from mammo.generators.masks import DrawnMasks
from mammo.generators.material import gather
from mammo.generators.redrawing import ATTEMPTS
from mammo.generators.sampling import DiffusionArtist
from mammo.seeds import derive
from mammo.steps import sample, train_generator

CLASSES = TASKS["normal_benign_malignant"]
SIDE = tiny.SIDE
# A generator of masks that has hardly learned draws noise below a quarter: a tenth is above 0.1.
ANY_MASK = {"mask_threshold": 0.1, "mask_area": "0,1", "steps": 3}


def square(pixels: int) -> np.ndarray:
    """A mask of the first `pixels` pixels of the image."""
    flat = np.arange(SIDE * SIDE) < pixels
    return (flat.reshape(1, SIDE, SIDE) * 255).astype(np.uint8)


def write_lesions(folder: Path, *, channels: int = 1, folds: bool = False) -> Dataset:
    """Six patients of each class: four train, one validates, one tests; or i is in fold i modulo 3.

    Patient i has a mask of 4 (i + 1) pixels, twice as many in the malignant, none in the normal.
    """
    writer = DatasetWriter(
        folder / "lesions.partial",
        name="lesions",
        classes=CLASSES,
        shape=(channels, SIDE, SIDE),
        dtype="uint8",
        about={"salt": "pepper", "split_seed": 3, "intensity": "window"},
    )
    rng = np.random.default_rng(0)
    for label in CLASSES.names:
        for patient in range(6):
            row = {
                "group_id": f"{label}-{patient}",
                "image_id": f"i-{label}-{patient}",
                "view": ("CC", "MLO")[patient % 2],
                "label": label,
                "label_kind": CLASSES.label_kind,
                "split": ("train", "val", "test")[max(0, patient - 3)],
            }
            if folds:
                row |= {"split": "train", "fold": patient % 3}
            image = rng.integers(0, 256, (channels, SIDE, SIDE)).astype(np.uint8)
            size = {"normal": 0, "benign": 4, "malignant": 8}[label] * (patient + 1)
            writer.add(image, row, square(size) if size else None)
    return writer.finish(folder / "datasets")


class Place:
    """Datasets and models, made once for all tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lesions = write_lesions(folder / "one")
        self.models: dict[tuple[object, ...], Path] = {}

    def model(self, mode: str, *, data: Dataset | None = None, **settings: object) -> Path:
        data = data or self.lesions
        key = (mode, data.digest, *sorted(settings.items()))
        if key not in self.models:
            tracked = tiny.run_with(self.folder / str(len(self.models)), data=data.folder)
            settings = {"epochs": 1, "conditions": "", "batch_size": 8, **settings}
            train_generator.run(tracked, **tiny.recipe("ddpm", mode, **settings))
            self.models[key] = tracked.folder / "model"
        return self.models[key]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("masks"))


@pytest.fixture
def untouched_after(monkeypatch):
    """Called once the models are there: from then on no network is built, no device touched."""

    def touched(self):
        raise AssertionError("the network was built")

    return lambda: monkeypatch.setattr(Generator, "artist", property(touched))


@pytest.fixture
def untouched(place, untouched_after):
    """No network is built, and no device touched."""
    for mode in ("class", "mask_to_image"):
        place.model(mode)
    place.model("mask", batch_size=6)
    untouched_after()


def draw(folder, model, masks=None, **settings):
    tracked = tiny.run_with(folder, generator=model, **({"masks": masks} if masks else {}))
    sample.run(tracked, generator="", **{"steps": 1, "device": "cpu", **settings})
    return Dataset(tracked.uploaded["dataset"]), tracked


def training_masks(data: Dataset, label: str) -> set[str]:
    rows = data.manifest.query("split == 'train' and label == @label and mask_sha256 != ''")
    return set(rows["mask_sha256"])


def test_a_model_knows_how_much_its_training_masks_covered(place):
    """Of four training patients 4, 8, 12, 16 of 256 pixels in the benign, else twice that."""
    about = load_generator(place.model("mask_to_image"), device="cpu").model.about
    assert about["mask_areas"] == {"benign": [4 / 256, 16 / 256], "malignant": [8 / 256, 32 / 256]}
    everything = areas(place.lesions, np.arange(len(place.lesions)))
    assert everything == {"benign": [4 / 256, 24 / 256], "malignant": [8 / 256, 48 / 256]}


def test_images_are_drawn_around_training_masks_of_their_class(place, tmp_path):
    model = place.model("mask_to_image")
    counts = "benign=6,malignant=8,normal=2"
    drawn, _ = draw(tmp_path, model, place.lesions.folder, counts=counts)
    frame = drawn.manifest
    benign = frame.loc[frame["label"] == "benign", "mask_sha256"]
    assert set(benign) == training_masks(place.lesions, "benign")
    assert benign.value_counts().tolist() == [2, 2, 1, 1]  # in turn
    assert set(frame.query("label == 'malignant'")["mask_sha256"]) == training_masks(
        place.lesions, "malignant"
    )
    empty = sha256_of(np.zeros((1, SIDE, SIDE), np.uint8))  # as the normal ones were trained
    assert set(frame.query("label == 'normal'")["mask_sha256"]) == {empty}
    drawn.verify()
    row = int(np.flatnonzero(frame["label"] == "malignant")[3])
    again = load_generator(model, device="cpu").sample(
        ["malignant"], seeds=[frame["sample_seed"][row]], masks=drawn.masks([row]), steps=1
    )
    assert np.array_equal(drawn.raw([row]), np.rint(again * 255).astype(np.uint8))


def test_a_mask_is_a_function_of_class_and_seed_alone(place, tmp_path):
    model = place.model("mask_to_image")
    some, _ = draw(
        tmp_path / "some", model, place.lesions.folder, counts="malignant=1", first_seed=2
    )
    more, _ = draw(
        tmp_path / "more", model, place.lesions.folder, counts="benign=2,malignant=4", batch_size=3
    )
    same = more.manifest.set_index("image_id").loc[some.manifest["image_id"][0]]
    assert same["mask_sha256"] == some.manifest["mask_sha256"][0]
    assert same["sha256"] == some.manifest["sha256"][0]


def test_the_mask_is_one_of_the_view_that_is_told(place, tmp_path):
    """Patients 0 and 2 are seen from above, 1 and 3 from the side; a view alone has two masks."""
    model = place.model("mask_to_image", conditions="view")
    drawn, _ = draw(tmp_path / "both", model, place.lesions.folder, counts="benign=12")
    benign = place.lesions.manifest.query("label == 'benign'")
    views = benign.set_index("mask_sha256")["view"]
    frame = drawn.manifest
    assert set(frame["view"]) == {"CC", "MLO"}
    assert views[frame["mask_sha256"]].tolist() == frame["view"].tolist()
    settings = {"counts": "benign=4", "conditions": "view=CC"}
    above, _ = draw(tmp_path / "above", model, place.lesions.folder, **settings)
    assert above.manifest["mask_sha256"].value_counts().tolist() == [2, 2]
    seen = set(above.generator_training["group_id"])
    assert seen == set(load_generator(model, device="cpu").model.training["group_id"])


def test_masks_of_synthetic_images_may_all_be_used_and_what_is_behind_them_is_known(
    place, tmp_path
):
    writer = DatasetWriter(
        tmp_path / "partial",
        name="drawn",
        classes=CLASSES,
        shape=(1, SIDE, SIDE),
        dtype="uint8",
        about={"salt": "pepper"},
    )
    for number in range(3):
        row = {
            "group_id": f"synthetic-{number}",
            "image_id": f"s{number}",
            "label": "benign",
            "label_kind": CLASSES.label_kind,
            "split": "train",
            "is_synthetic": True,
            "generator_run_id": "maker",
        }
        writer.add(np.zeros((1, SIDE, SIDE), np.uint8), row, square(5 + number))
    columns = ["run_id", "salt", "group_id", "sha256"]
    behind = pd.DataFrame(
        [["maker", "salt-of-maker", "its-patient", "its-image"], ["other", "x", "y", "z"]],
        columns=columns,
    ).astype("str")
    masks = writer.finish(tmp_path / "datasets", generator_training=behind)
    model = place.model("mask_to_image")
    drawn, _ = draw(tmp_path, model, masks.folder, counts="benign=4")
    assert set(drawn.manifest["mask_sha256"]) == set(masks.manifest["mask_sha256"])
    run_id = load_generator(model, device="cpu").model.run_id
    seen = drawn.generator_training.set_index("group_id")
    assert seen.loc["its-patient"].tolist() == [run_id, "salt-of-maker", "its-image"]
    assert "y" not in seen.index
    assert set(seen.index) - {"its-patient"} == set(
        place.lesions.manifest.query("split == 'train'")["group_id"]
    )
    assert [each["kind"] for each in drawn.about["parents"]] == ["generator", "masks"]
    assert drawn.about["parents"][1]["digest"] == masks.digest
    held_out = pd.DataFrame(
        {"group_id": ["benign-0"], "sha256": ["unseen"], "mask_sha256": [""], "split": ["test"]}
    )
    with pytest.raises(DataError, match="trained on 1 of the 1 held-out patients"):
        # other patients of the same generator are hashed with another salt
        check_generators([run_id], drawn.generator_training, held_out, salt="pepper", name="real")


def read_elsewhere(folder: Path, data: Dataset, patients: list[str], **about: object) -> Dataset:
    """`patients` of `data` as training rows of another work folder: other greys, other salt."""
    writer = DatasetWriter(
        folder / "elsewhere.partial",
        name="elsewhere",
        classes=CLASSES,
        shape=data.shape,
        dtype="uint8",
        about={"salt": "mint", **about},
    )
    frame = data.manifest
    for row in np.flatnonzero(frame["group_id"].isin(patients)):
        kept = {name: frame[name][row] for name in ("image_id", "view", "label", "label_kind")}
        kept |= {"group_id": f"mint-{frame['group_id'][row]}", "split": "train"}
        writer.add(255 - data.raw([row])[0], kept, data.masks([row])[0])
    return writer.finish(folder / "datasets")


def mixed_with(real: Dataset, drawn: Dataset) -> Mixed:
    settings = MixSettings(mix_mode="append", on_shortage="clamp")
    return mix_training(
        [real], [drawn], [training_rows(real, fold="none", val_fraction=0.15)], settings
    )


def test_masks_of_held_out_patients_are_known_by_their_pixels_too(place, tmp_path):
    """A reading with other greys and another salt has neither the image's hash nor the patient's.

    Patient 4 validates. Patient 0 trains, and so may be drawn around.
    """
    model = place.model("mask_to_image")
    held = read_elsewhere(tmp_path / "held", place.lesions, ["benign-0", "benign-4"])
    drawn, _ = draw(tmp_path, model, held.folder, counts="benign=2")
    message = r"trained on 1 of the 6 held-out patients .*benign-4.* or drew around masks of theirs"
    with pytest.raises(DataError, match=message) as raised:
        mixed_with(place.lesions, drawn)
    assert "\n" not in str(raised.value)
    only = read_elsewhere(tmp_path / "only", place.lesions, ["benign-0"])
    drawn, _ = draw(tmp_path / "fine", model, only.folder, counts="benign=2")
    assert mixed_with(place.lesions, drawn).generators.by_pixels != []


def test_a_training_mask_that_a_held_out_patient_happens_to_share_is_no_leak(place, tmp_path):
    """Of 24 pixels are the masks of malignant-2, which trains, and of benign-5, which tests."""
    held_out = place.lesions.manifest.query("split == 'test'")["mask_sha256"]
    assert set(held_out) & training_masks(place.lesions, "malignant")
    model = place.model("mask_to_image")
    drawn, _ = draw(tmp_path, model, place.lesions.folder, counts="malignant=4")
    assert set(drawn.manifest["mask_sha256"]) & set(held_out)
    assert mixed_with(place.lesions, drawn).generators.unknown == []


def test_that_the_maker_of_masks_is_unknown_is_known_of_what_is_drawn_around_them(
    place, tmp_path, caplog
):
    """Of masks that came from elsewhere nobody can tell whom they show; nor of images of them."""
    writer = DatasetWriter(
        tmp_path / "partial", name="found", classes=CLASSES, shape=(1, SIDE, SIDE), dtype="uint8"
    )
    row = {"group_id": "g", "image_id": "m", "label": "benign", "label_kind": CLASSES.label_kind}
    row |= {"split": "train", "is_synthetic": True, "generator_run_id": "external:page"}
    writer.add(np.zeros((1, SIDE, SIDE), np.uint8), row, square(9))
    masks = writer.finish(tmp_path / "datasets")
    model = place.model("mask_to_image")
    drawn, _ = draw(tmp_path / "images", model, masks.folder, counts="benign=2")
    again, _ = draw(tmp_path / "again", model, drawn.folder, counts="benign=2")
    run_id = load_generator(model, device="cpu").model.run_id
    for each in (drawn, again):
        caplog.clear()
        checked = mixed_with(place.lesions, each).generators
        assert (checked.by_patient, checked.unknown) == ([], [run_id])
        assert f"what generators {run_id} (or the makers of their masks) were" in caplog.text


def test_of_a_fold_only_its_own_training_masks_are_used(place, tmp_path):
    data = write_lesions(tmp_path / "folds", folds=True)
    model = place.model("mask_to_image", data=data, fold="1", val_fraction=0.3)
    drawn, _ = draw(tmp_path, model, data.folder, counts="benign=8")
    held_out = data.manifest.query("fold == 1 and label == 'benign'")
    assert not set(drawn.manifest["mask_sha256"]) & set(held_out["mask_sha256"])
    model_saw = set(load_generator(model, device="cpu").model.training["group_id"])
    assert set(drawn.generator_training["group_id"]) == model_saw


def test_a_generator_of_masks_has_seen_no_other_fold(place, tmp_path, untouched_after):
    data = write_lesions(tmp_path / "folds", folds=True)
    model = place.model("mask_to_image", data=data, fold="1", val_fraction=0.3)
    makers = place.model("mask", data=data, fold="0", val_fraction=0.3)
    untouched_after()
    with pytest.raises(ConfigError, match=r"trained with fold=0, .* with fold=1: it saw other"):
        draw(tmp_path, model, makers, counts="benign=1")


def test_trap_t3d_what_controls_a_sampled_image_is_what_controlled_the_training(
    place, tmp_path, monkeypatch
):
    """The artist is handed the tensor that the training step was given for the same mask."""
    controls = []
    real = DiffusionArtist.draw

    def seen(self, asked):
        controls.append(asked.control)
        return real(self, asked)

    model = place.model("mask_to_image")
    monkeypatch.setattr(DiffusionArtist, "draw", seen)
    drawn, _ = draw(tmp_path, model, place.lesions.folder, counts="benign=4")
    settings = tiny.recipe("ddpm", "mask_to_image")
    material = gather(place.lesions, settings, folder=tmp_path, inputs={})
    masks = place.lesions.manifest["mask_sha256"].to_numpy()
    rows = [int(np.flatnonzero(masks == each)[0]) for each in drawn.manifest["mask_sha256"]]
    assert set(rows) <= set(material.train)
    trained_with = material.control(np.array(rows))
    assert torch.equal(torch.cat(controls), trained_with)
    assert set(trained_with.unique().tolist()) == {-1, 1}


def test_two_stages_in_one_command(place, tmp_path, caplog):
    """Masks are the generator's own, thresholded, of seeds that follow from the images' seeds."""
    caplog.set_level(logging.INFO, "mammo")
    makers, model = place.model("mask", batch_size=6), place.model("mask_to_image")
    settings = {"counts": "benign=3,malignant=2", **ANY_MASK}
    drawn, tracked = draw(tmp_path / "many", model, makers, **settings)
    one, _ = draw(tmp_path / "one", model, makers, **settings, batch_size=1)
    assert one.digest == drawn.digest
    frame = drawn.manifest
    seeds = [seed ^ (derive(0, "masks") % SEEDS) for seed in frame["sample_seed"]]
    maker = load_generator(makers, device="cpu")
    masks = maker.sample(frame["label"].tolist(), seeds=seeds, steps=3) >= np.float32(0.1)
    assert np.array_equal(drawn.masks(range(5)), masks * np.uint8(255))
    assert tracked.last["mask_accepted_share"] == 1
    assert [tracked.last[f"mask_rejected/{rule}"] for rule in RULES] == [0, 0, 0]
    assert "mask_accepted_share 100.0%" in caplog.text
    seen = set(drawn.generator_training["sha256"])
    assert seen == set(place.lesions.manifest.query("split == 'train'")["sha256"])
    parents = {each["kind"]: each["digest"] for each in drawn.about["parents"]}
    assert parents == {"generator": load_generator(model).model.digest, "masks": maker.model.digest}


def test_masks_that_are_rejected_for_images_are_counted_by_their_rule(
    place, tmp_path, monkeypatch, caplog
):
    """Of the masks of three images the first tries are empty, of 1 and of 200 pixels of 256."""
    makers, model = place.model("mask", batch_size=6), place.model("mask_to_image")
    sizes = iter([0, 1, 200, 10, 10, 10])

    def drawn_masks(self, labels, seeds, told):
        return np.stack([square(next(sizes)) for _ in labels])

    monkeypatch.setattr(DrawnMasks, "_draw", drawn_masks)
    caplog.set_level(logging.INFO, "mammo")
    _, tracked = draw(tmp_path, model, makers, counts="benign=3")
    assert [tracked.last[f"mask_rejected/{rule}"] for rule in RULES] == [1, 1, 1]
    assert tracked.last["mask_accepted_share"] == 0.5
    lines = [line for line in caplog.messages if "rejected as" in line]
    assert [line.partition(":")[0] for line in lines] == [
        f"1 of 6 drawn masks were rejected as {rule} and drawn again"
        for rule in ("empty", "too small", "too large")
    ]
    assert "mask_threshold 0.5; train" in lines[0]
    assert "less of the image than mask_area auto allows; train" in lines[1]


def test_drawn_masks_that_cover_too_much_are_drawn_again(place, tmp_path, caplog):
    """The bound is the middle of what the generator draws, so about half are rejected."""
    makers = place.model("mask", batch_size=6)
    maker = load_generator(makers, device="cpu")

    def shares_of(seeds):
        values = maker.sample(["benign"] * len(seeds), seeds=seeds, steps=3)
        return (values >= np.float32(0.1)).mean((1, 2, 3))

    first, _ = draw(tmp_path / "all", makers, counts="benign=12", **ANY_MASK)
    seeds = first.manifest["sample_seed"].to_numpy()
    bound = float(np.sort(shares_of(seeds))[5]) + 1e-9  # six of twelve cover no more
    caplog.clear()
    caplog.set_level(logging.INFO, "mammo")
    drawn, tracked = draw(
        tmp_path / "half", makers, counts="benign=12", **ANY_MASK | {"mask_area": f"0,{bound}"}
    )
    expected, draws = [], 0
    for seed in seeds:
        for attempt in range(ATTEMPTS):
            draws += 1
            tried = further_seed(int(seed), attempt)
            if 0 < shares_of([tried])[0] <= bound:
                expected.append(tried)
                break
    assert drawn.manifest["sample_seed"].tolist() == expected
    assert (tracked.last["images"], tracked.last["rejected"]) == (12, draws - 12)
    assert tracked.last["accepted_share"] == pytest.approx(12 / draws)
    by_rule = [tracked.last[f"mask_rejected/{rule}"] for rule in RULES]
    assert by_rule == [0, 0, draws - 12]
    assert [line for line in caplog.messages if "rejected as" in line] == [
        f"{draws - 12} of {draws} drawn masks were rejected as too large and drawn again: they "
        f"cover more of the image than mask_area 0,{bound} allows; train the generator of masks "
        "longer, or raise mask_threshold or the second number of mask_area"
    ]
    assert (drawn.masks(range(12)).mean((1, 2, 3)) / 255).max() <= bound


def test_a_dataset_of_masks_has_them_as_images_and_as_masks(place, tmp_path):
    makers = place.model("mask", batch_size=6)
    drawn, _ = draw(tmp_path, makers, counts="malignant=3", **ANY_MASK)
    assert drawn.name == "lesions-masks"
    assert drawn.shape == (1, SIDE, SIDE)
    masks = drawn.masks(range(3))
    assert set(np.unique(masks)) == {0, 255}
    assert np.array_equal(drawn.raw(range(3)), masks)
    again = load_generator(makers, device="cpu").sample(
        ["malignant"] * 3, seeds=drawn.manifest["sample_seed"], steps=3
    )
    assert np.array_equal(masks > 0, again >= np.float32(0.1))
    model = place.model("mask_to_image")
    images, _ = draw(tmp_path / "images", model, drawn.folder, counts="malignant=3")
    assert set(images.manifest["mask_sha256"]) == set(drawn.manifest["mask_sha256"])


def test_a_generator_whose_masks_are_never_right_ends_in_one_line(place, tmp_path):
    makers = place.model("mask", batch_size=6)
    with pytest.raises(DataError) as raised:
        draw(tmp_path, makers, counts="benign=8", mask_area="0,0.003")
    line = str(raised.value)
    assert "8 of 8 masks were rejected" in line
    assert "benign should cover 0 to 0.003 of the image (mask_area)" in line
    empty, small, large = map(
        int,
        re.search(
            r"; (\d+) were empty, (\d+) were too small, (\d+) were too large; train", line
        ).groups(),
    )
    assert (empty + large, small) == (int(re.search(r"of (\d+) draws", line)[1]), 0)
    assert "\n" not in line
    assert not list(tmp_path.rglob("dataset.partial"))


def test_paired_images_around_masks_are_exported_side_by_side(place, tmp_path):
    import nibabel

    data = write_lesions(tmp_path / "two", channels=2)
    model = place.model("dual", data=data)
    drawn, _ = draw(tmp_path / "drawn", model, data.folder, counts="benign=2,malignant=1")
    assert drawn.shape == (2, SIDE, SIDE)
    export(drawn, open_layout("system4"), tmp_path / "out")
    files = sorted((tmp_path / "out").rglob("*.nii.gz"))
    assert len(files) == 3
    found = [np.asarray(nibabel.load(path).dataobj) for path in files]
    order = np.argsort(drawn.manifest["image_id"].to_numpy())
    for volume, row in zip(found, order, strict=True):
        images, mask = drawn.raw([row])[0], drawn.masks([row])[0]
        assert np.array_equal(volume[..., :2], images.transpose(1, 2, 0))
        assert np.array_equal(volume[..., 2] > 0, mask[0] > 0)


@pytest.mark.parametrize(("split", "images"), [("train", 12), ("val", 3)])
@pytest.mark.parametrize("mode", ["mask", "mask_to_image"])
def test_a_mode_of_masks_needs_one_to_train_and_one_to_validate(tmp_path, split, images, mode):
    data = write_lesions(tmp_path)
    data.manifest.loc[data.manifest["split"] == split, "mask_sha256"] = ""
    with pytest.raises(DataError, match=f"none of the {images} images that would train, or that"):
        gather(data, tiny.recipe("ddpm", mode), folder=tmp_path, inputs={})


def test_masks_of_another_size_are_refused(place, tmp_path, untouched):
    writer = DatasetWriter(
        tmp_path / "partial", name="small", classes=CLASSES, shape=(1, 8, 8), dtype="uint8"
    )
    row = {
        "group_id": "p",
        "image_id": "i",
        "label": "benign",
        "label_kind": CLASSES.label_kind,
        "split": "train",
    }
    image = np.full((1, 8, 8), 255, np.uint8)
    writer.add(image, row, image)
    small = writer.finish(tmp_path / "datasets")
    message = "masks of another size: those of dataset small have 8 x 8 px, the generator draws 16"
    with pytest.raises(DataError, match=message):
        draw(tmp_path, place.model("mask_to_image"), small.folder, counts="benign=1")


def test_masks_are_refused_where_none_are_taken_and_missed_where_they_are(
    place, tmp_path, untouched
):
    with pytest.raises(ConfigError, match="of mode class takes no masks; leave them out"):
        draw(tmp_path, place.model("class"), place.lesions.folder, counts="benign=1")
    with pytest.raises(ConfigError, match=r"masks is empty, .* images of benign around masks"):
        draw(tmp_path, place.model("mask_to_image"), counts="benign=1,normal=1")
    with pytest.raises(ConfigError, match="of mode class; give one of mode mask, or a dataset"):
        draw(tmp_path, place.model("mask_to_image"), place.model("class"), counts="benign=1")
    makers = load_generator(place.model("mask", batch_size=6), device="cpu")
    model = load_generator(place.model("mask_to_image"), device="cpu")
    with pytest.raises(ConfigError, match="masks: class 'normal' had no image in the training"):
        DrawnMasks(makers, model, Recipe()).check(["benign", "normal"])
    with pytest.raises(ConfigError, match=r"mask_area 0,0.5 does not apply .* not asked to draw"):
        draw(tmp_path, place.model("class"), counts="benign=1", mask_area="0,0.5")


def test_a_class_without_masks_needs_none(place, tmp_path):
    drawn, _ = draw(tmp_path, place.model("mask_to_image"), counts="normal=2")
    assert not drawn.masks(range(2)).any()


def test_a_class_that_the_mask_dataset_has_not_is_named(place, tmp_path, untouched):
    frame = place.lesions.manifest
    writer = DatasetWriter(
        tmp_path / "partial", name="some", classes=CLASSES, shape=(1, SIDE, SIDE), dtype="uint8"
    )
    for row in np.flatnonzero(frame["label"] == "benign"):
        kept = {name: frame[name][row] for name in ("group_id", "image_id", "label", "label_kind")}
        writer.add(place.lesions.raw([row])[0], kept | {"split": "train"}, square(9))
    some = writer.finish(tmp_path / "datasets")
    with pytest.raises(DataError, match="dataset some has no mask of class 'malignant'"):
        draw(tmp_path, place.model("mask_to_image"), some.folder, count=6)


@pytest.mark.doors
def test_two_stages_by_run_ids_on_the_command_line(store, tmp_path):
    """As presets/medgen_sample.yaml is used; a wrong pair is one line and exit code 2."""
    from mlflow import MlflowClient

    data = tiny.write_scans(tmp_path).folder
    settings = {"channels": "8,16", "attention": 0, "patch": 1, "epochs": 1, "sample_every": 0}
    trained = {
        mode: doors.here("train_generator", data=data, mode=mode, device="cpu", **settings)
        for mode in ("mask", "mask_to_image")
    }
    image, mask = trained["mask_to_image"].run_id, trained["mask"].run_id
    asked = {"counts": "malignant=3", "device": "cpu", "on_mismatch": "warn", **ANY_MASK}
    outcome = doors.here("sample", generator=image, masks=mask, **asked)
    assert outcome.metrics["count/malignant"] == 3
    run = MlflowClient().get_run(outcome.run_id)
    assert run.data.tags["mammo.input.masks"] == mask
    assert run.data.params["mask_area"] == "0,1"
    assert run.data.metrics["mask_accepted_share"] > 0
    assert "mask_accepted_share" in outcome.err
    wrong = doors.here("sample", generator=mask, masks=image, **asked)
    assert wrong.code == 2
    assert wrong.err.count("\n") == 1
    assert "sample: a generator of mode mask takes no masks" in wrong.err
