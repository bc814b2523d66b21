"""The step that samples: provenance of every row, counts, classes, and the same images again."""

import errno

import numpy as np
import pytest
from generator_data import SIDE, TINY, brightness, run_on, write_data

from mammo.data.classes import TASKS
from mammo.data.dataset import Dataset
from mammo.data.writer import DatasetWriter
from mammo.errors import ConfigError
from mammo.generators import load_generator
from mammo.generators.asking import by_share, seed_of
from mammo.steps import sample, train_generator


def train(folder, *, task="malignancy2", patients=16, **settings):
    folder.mkdir(exist_ok=True)
    data = write_data(folder, task=task, patients=patients)
    tracked = run_on(folder / "training", "data", data.folder)
    train_generator.run(tracked, data="", **{**TINY, **settings})
    return tracked.folder / "model", data


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return train(tmp_path_factory.mktemp("model"), epochs=1)


def draw(folder, model, **settings):
    tracked = run_on(folder, "generator", model)
    result = sample.run(tracked, generator="", **{"steps": 2, "device": "cpu", **settings})
    return Dataset(tracked.uploaded["dataset"]), result, tracked


def test_every_row_says_where_it_comes_from(tmp_path, model):
    path, data = model
    drawn, result, tracked = draw(tmp_path, path, counts="malignant=2,benign=1", first_seed=5)
    run_id = load_generator(path, device="cpu").model.run_id
    frame = drawn.manifest
    assert frame["label"].tolist() == ["benign", "malignant", "malignant"]
    benign, first, second = frame["sample_seed"]
    assert (benign, first) == (seed_of("benign", 5), seed_of("malignant", 5))
    assert second == first + 1
    assert (frame["generator_run_id"] == run_id).all()
    assert frame["is_synthetic"].all()
    assert (frame["split"] == "train").all()
    assert frame["group_id"].is_unique
    assert frame["group_id"].str.startswith("synthetic-").all()
    assert drawn.classes == data.classes
    assert drawn.about["salt"] == "pepper"
    assert drawn.raw([0]).dtype == np.uint16
    seen = drawn.generator_training
    assert list(seen.columns) == ["run_id", "salt", "group_id", "sha256"]
    assert set(seen["group_id"]) == set(data.manifest.query("split == 'train'")["group_id"])
    assert set(seen["salt"]) == {"pepper"}
    assert tracked.last["images"] == 3
    assert tracked.last["rejected"] == 0
    assert (tracked.last["count/benign"], tracked.last["count/malignant"]) == (1, 2)
    assert result.digest == drawn.digest
    drawn.verify()


def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path, model, monkeypatch):
    real = DatasetWriter.add

    def full_at_the_third(self, *rest):
        if len(self.rows) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, *rest)

    monkeypatch.setattr(DatasetWriter, "add", full_at_the_third)
    with pytest.raises(OSError, match="No space left"):
        draw(tmp_path, model[0], count=4)
    assert not list(tmp_path.rglob("*.npy"))
    assert not list(tmp_path.rglob("dataset.partial"))


def test_the_same_images_whatever_the_batch_size(tmp_path, model):
    one, _, _ = draw(tmp_path / "one", model[0], count=11, batch_size=1)
    many, _, _ = draw(tmp_path / "many", model[0], count=11, batch_size=8)
    assert one.digest == many.digest


def test_a_later_first_seed_continues_the_series(tmp_path, model):
    all_of_them, _, _ = draw(tmp_path / "all", model[0], counts="benign=3")
    last, _, _ = draw(tmp_path / "last", model[0], counts="benign=1", first_seed=2)
    assert last.manifest["sha256"][0] == all_of_them.manifest["sha256"][2]
    assert last.manifest["image_id"][0] == all_of_them.manifest["image_id"][2]


def test_the_same_seed_under_another_guidance_is_another_image(tmp_path, model):
    plain, _, _ = draw(tmp_path / "plain", model[0], counts="benign=2")
    guided, _, _ = draw(tmp_path / "guided", model[0], counts="benign=2", guidance=3.0)
    assert not set(plain.manifest["image_id"]) & set(guided.manifest["image_id"])
    assert plain.manifest["sample_seed"].equals(guided.manifest["sample_seed"])


def test_the_stored_image_is_the_sampled_one_rounded(tmp_path, model):
    drawn, _, _ = draw(tmp_path, model[0], counts="malignant=1", first_seed=4, guidance=2.0)
    image = load_generator(model[0], device="cpu").sample(
        ["malignant"], seeds=drawn.manifest["sample_seed"], guidance=2.0, steps=2
    )
    assert np.array_equal(drawn.raw([0]), np.rint(image * 65535).astype(np.uint16))


def test_classes_share_no_noise(tmp_path, model):
    """Without a label the noise alone decides: equal seeds would give equal images."""
    drawn, _, _ = draw(tmp_path, model[0], counts="benign=3,malignant=3", guidance=0.0)
    assert drawn.manifest["sample_seed"].is_unique
    assert drawn.manifest["sha256"].is_unique
    pair = load_generator(model[0], device="cpu").sample(
        ["benign", "malignant"], seeds=[7, 7], guidance=0.0, steps=2
    )
    np.testing.assert_array_equal(pair[0], pair[1])
    starts = [seed_of(name, 0) for task in TASKS.values() for name in task.names]
    gaps = np.diff(sorted(set(starts)))
    assert gaps.min() > 1_000_000  # images of a class before its seeds meet another's


def test_trap_t0d_four_classes_keep_their_meaning_from_training_to_samples(tmp_path):
    """Each class is a brightness; a swapped id would be off by 0.27 or more."""
    path, data = train(
        tmp_path, task="malignancy4", patients=64, epochs=25, lr=4e-3, ema=0.9, label_dropout=0.0
    )
    drawn, _, _ = draw(tmp_path / "drawn", path, count=8, steps=10)
    names = data.classes.names
    assert names == ("benign", "malignant", "suspicious", "probably_benign")
    assert drawn.classes.names == names
    levels = drawn.images(np.arange(8)).mean((1, 2, 3))
    expected = [brightness(names.index(label), 4) for label in drawn.manifest["label"]]
    assert levels.tolist() == pytest.approx(expected, abs=0.12)


def test_counts_go_by_the_shares_of_the_training_images_largest_remainder_first():
    """7 of 3 : 2 : 1 are 3.5, 2.33, 1.17: whole parts 3, 2, 1 and the half gets the one left."""
    assert by_share(7, {"a": 3, "b": 2, "c": 1, "d": 0}) == {"a": 4, "b": 2, "c": 1}
    assert by_share(1, {"a": 1, "b": 1}) == {"a": 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0, "counts": ""}, "give one of them"),
        ({"count": 5, "counts": "benign=1"}, "give one of them"),
        ({"count": 0, "counts": "benign"}, "should be <class>=<images>"),
        ({"count": 0, "counts": "benign=0"}, "should be <class>=<images>"),
        ({"count": 0, "counts": "benign=1,benign=2"}, "each class once"),
    ],
)
def test_counts_that_say_nothing_or_too_much_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        sample.check(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"counts": "tumour=1"}, "unknown class 'tumour'; choose one of benign, malignant"),
        ({"count": 1, "sampler": "heim"}, "'heim' is not one of generator ddpm; choose dpmpp"),
    ],
)
def test_what_this_generator_does_not_have_is_named(tmp_path, model, settings, message):
    with pytest.raises(ConfigError, match=message):
        draw(tmp_path, model[0], **settings)


def test_an_unconditional_generator_needs_to_be_told_what_its_images_stand_for(tmp_path):
    path, _ = train(tmp_path, epochs=1, mode="unconditional", generator="rflow")
    with pytest.raises(ConfigError, match="cannot tell benign from malignant"):
        draw(tmp_path / "refused", path, count=2)
    drawn, _, _ = draw(tmp_path / "told", path, counts="benign=2")
    assert drawn.manifest["label"].tolist() == ["benign", "benign"]


def test_the_python_interface_gives_floats_between_0_and_1(model):
    images = load_generator(model[0], device="cpu").sample(
        labels=["malignant"] * 2, seeds=range(2), guidance=4.0, steps=2
    )
    assert (images.shape, images.dtype) == ((2, 1, SIDE, SIDE), np.float32)
    assert images.min() >= 0
    assert images.max() <= 1
