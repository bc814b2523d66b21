"""The step that samples: provenance of every row, counts, classes, and the same images again."""

import errno
import inspect
import logging

import numpy as np
import pytest
import torch
from generator_data import SIDE, TINY, brightness, run_on, write_data
from PIL import Image

from mammo.data.classes import TASKS
from mammo.data.dataset import Dataset
from mammo.data.progress import Progress
from mammo.data.writer import DatasetWriter
from mammo.errors import ConfigError, DataError
from mammo.generators import load_generator
from mammo.generators.asking import by_share, further_seed, seed_of
from mammo.generators.generator import Generator
from mammo.generators.sampling import DiffusionArtist
from mammo.steps import sample, train_generator

DEFAULTS = {
    name: each.default
    for name, each in inspect.signature(sample.run).parameters.items()
    if name != "tracked"
}


def train(folder, *, task="malignancy2", patients=16, only=0, **settings):
    folder.mkdir(exist_ok=True)
    data = write_data(folder, task=task, patients=patients, only=only)
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
    with Image.open(tracked.uploaded["preview.png"]) as picture:
        shown = np.asarray(picture)
    assert shown.shape == (2 * 128 + 2, 2 * 128 + 2)  # a row a class, no wider than the longest
    assert (shown[:128, 128:] == 128).all()  # no second benign image
    assert shown[130:, 130:].std() > 0
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


@pytest.mark.doors
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
        sample.check(DEFAULTS | settings)


def test_an_unconditional_generator_needs_to_be_told_what_its_images_stand_for(tmp_path):
    path, _ = train(tmp_path, epochs=1, mode="unconditional", generator="rflow")
    with pytest.raises(ConfigError, match="cannot tell benign from malignant"):
        draw(tmp_path / "refused", path, count=2)
    drawn, _, _ = draw(tmp_path / "told", path, counts="benign=2")
    assert drawn.manifest["label"].tolist() == ["benign", "benign"]


class Died(Exception):
    """As if the process had been killed."""


def count_calls(monkeypatch, *, die_at=0):
    """Numbers of images that the network is asked for, call by call; it dies at call `die_at`."""
    calls = []
    real = DiffusionArtist.draw

    def counted(self, asked):
        if len(calls) + 1 == die_at:
            raise Died
        calls.append(len(asked))
        return real(self, asked)

    monkeypatch.setattr(DiffusionArtist, "draw", counted)
    return calls


def test_trap_t0f_what_is_drawn_is_checked_and_kept_and_the_rest_is_drawn(
    tmp_path, model, monkeypatch, caplog
):
    """Died at its fourth of five chunks: three are there, two are drawn, the digest is the same."""
    caplog.set_level(logging.INFO, "mammo")
    whole, _, _ = draw(tmp_path / "whole", model[0], count=10, batch_size=2)
    with monkeypatch.context() as patch:
        count_calls(patch, die_at=4)
        with pytest.raises(Died):
            draw(tmp_path / "cut", model[0], count=10, batch_size=2)
    kept = sorted((tmp_path / "cut" / "run" / "drawn").iterdir())
    before = [(path.name, path.stat().st_mtime_ns) for path in kept]
    assert len(kept) == 3
    with monkeypatch.context() as patch:
        calls = count_calls(patch)
        again, result, tracked = draw(tmp_path / "cut", model[0], count=10, batch_size=2)
    assert calls == [2, 2]
    assert [(path.name, path.stat().st_mtime_ns) for path in kept] == before  # not overwritten
    assert again.digest == whole.digest == result.digest
    assert tracked.last["images"] == 10
    assert "6 of 10 images are there already and are kept" in caplog.messages


@pytest.mark.doors
@pytest.mark.parametrize("harm", ["cut", "changed", "swapped"])
def test_trap_t0f_what_has_changed_since_it_was_drawn_is_drawn_again(
    tmp_path, model, monkeypatch, harm
):
    whole, _, _ = draw(tmp_path / "whole", model[0], count=6, batch_size=2)
    with monkeypatch.context() as patch:
        count_calls(patch, die_at=3)
        with pytest.raises(Died):
            draw(tmp_path / "cut", model[0], count=6, batch_size=2)
    first, second = sorted((tmp_path / "cut" / "run" / "drawn").iterdir())
    if harm == "cut":
        second.write_bytes(second.read_bytes()[:-100])
    elif harm == "changed":
        content = bytearray(second.read_bytes())
        content[len(content) // 2] ^= 1
        second.write_bytes(content)
    else:
        second.write_bytes(first.read_bytes())
    with monkeypatch.context() as patch:
        calls = count_calls(patch)
        again, _, _ = draw(tmp_path / "cut", model[0], count=6, batch_size=2)
    assert calls == [2, 2]
    assert again.digest == whole.digest


def test_a_run_that_died_while_it_wrote_draws_nothing_again(tmp_path, model, monkeypatch):
    whole, _, _ = draw(tmp_path / "whole", model[0], count=4, batch_size=2)
    real = DatasetWriter.add
    with monkeypatch.context() as patch:

        def die_at_the_third(self, *rest):
            if len(self.rows) == 2:
                raise Died
            real(self, *rest)

        patch.setattr(DatasetWriter, "add", die_at_the_third)
        with pytest.raises(Died):
            draw(tmp_path / "cut", model[0], count=4, batch_size=2)
    with monkeypatch.context() as patch:
        calls = count_calls(patch)
        again, _, tracked = draw(tmp_path / "cut", model[0], count=4, batch_size=2)
    assert calls == []
    assert again.digest == whole.digest
    assert 0 < tracked.last["images_per_second"] < 1e4  # the time is that of the drawing


def test_a_disk_that_is_full_leaves_no_half_chunk(tmp_path, model, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mammo.generators.shelf.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            draw(tmp_path, model[0], count=2)
    assert not list((tmp_path / "run" / "drawn").iterdir())


def test_flat_images_are_drawn_again_until_the_counts_are_met(tmp_path, model, monkeypatch):
    """The network gives one grey to every third seed, so a third of the places is drawn again."""
    real = DiffusionArtist.draw

    def some_flat(self, asked):
        images = real(self, asked).clone()
        for place, seed in enumerate(asked.seeds):
            if seed % 3 == 0:
                images[place] = 0.5
        return images

    monkeypatch.setattr(DiffusionArtist, "draw", some_flat)
    drawn, _, tracked = draw(tmp_path, model[0], counts="benign=7,malignant=5")
    assert drawn.manifest["label"].value_counts().to_dict() == {"benign": 7, "malignant": 5}
    expected, draws = [], 0
    for label, count in (("benign", 7), ("malignant", 5)):
        for place in range(count):
            tried = [further_seed(seed_of(label, place), attempt) for attempt in range(3)]
            expected.append(next(seed for seed in tried if seed % 3))
            draws += tried.index(expected[-1]) + 1
    assert drawn.manifest["sample_seed"].tolist() == expected
    assert tracked.last["rejected"] == draws - 12 > 0
    assert tracked.last["accepted_share"] == pytest.approx(12 / draws)
    assert np.ptp(drawn.images(range(12)), axis=(1, 2, 3)).min() > 1 / 64


def test_a_generator_that_draws_nothing_but_grey_ends_in_one_line(tmp_path, model, monkeypatch):
    def flat(self, asked):
        return torch.full((len(asked), 1, SIDE, SIDE), 0.5)

    monkeypatch.setattr(DiffusionArtist, "draw", flat)
    message = r"^3 of 3 images were rejected 50 times each \(0 of 150 draws accepted\): they show "
    with pytest.raises(DataError, match=message):
        draw(tmp_path, model[0], counts="benign=3")
    assert not list(tmp_path.rglob("dataset.partial"))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_images_have_the_depth_and_intensity_of_the_real_ones(tmp_path, dtype):
    data = write_data(tmp_path, dtype=dtype)
    tracked = run_on(tmp_path / "training", "data", data.folder)
    train_generator.run(tracked, data="", **{**TINY, "epochs": 1})
    path = tracked.folder / "model"
    drawn, _, _ = draw(tmp_path / "drawn", path, counts="benign=3")
    top = {"uint8": 255, "uint16": 65535}[dtype]
    floats = load_generator(path, device="cpu").sample(
        ["benign"] * 3, seeds=drawn.manifest["sample_seed"], steps=2
    )
    assert drawn.raw([0]).dtype == dtype
    assert np.array_equal(drawn.raw(range(3)), np.rint(floats * top))
    assert np.abs(drawn.images(range(3)) - floats).max() <= 0.5 / top + 1e-6
    assert drawn.about["dtype"] == dtype
    assert drawn.about["intensity"] == data.about["intensity"] == "window"


@pytest.mark.doors
def test_conditions_are_told_and_written_into_the_rows(tmp_path):
    """CC is dark and MLO bright in training, so that a view that is not told would show."""
    data = write_data(tmp_path, patients=32, views=True)
    tracked = run_on(tmp_path / "training", "data", data.folder)
    settings = {"epochs": 15, "lr": 4e-3, "ema": 0.9, "conditions": "view"}
    train_generator.run(tracked, data="", **{**TINY, **settings})
    path = tracked.folder / "model"
    drawn, _, _ = draw(tmp_path / "drawn", path, counts="benign=8", steps=8)
    views = drawn.manifest["view"]
    assert set(views) == {"CC", "MLO"}
    levels = drawn.images(range(8)).mean((1, 2, 3))
    assert levels[views == "CC"].max() < levels[views == "MLO"].min()
    fixed, _, _ = draw(tmp_path / "cc", path, counts="benign=3", steps=8, conditions="view=CC")
    assert fixed.manifest["view"].tolist() == ["CC"] * 3
    assert fixed.about["sampling"]["conditions"] == {"view": "CC"}
    assert not set(fixed.manifest["image_id"]) & set(drawn.manifest["image_id"])


def test_the_log_ends_with_what_it_took(tmp_path, model, caplog):
    caplog.set_level(logging.INFO, "mammo")
    _, _, tracked = draw(tmp_path, model[0], count=4)
    lines = [line for line in caplog.messages if line.startswith("sampled ")]
    assert len(lines) == 1
    assert lines[0].startswith("sampled 4 images: accepted_share 100.0%, ")
    assert lines[0].endswith(" s an image")
    told = float(lines[0].split(", ")[-1].split()[0])
    assert told == pytest.approx(1 / tracked.last["images_per_second"], rel=0.01)


def test_heun_in_few_calls_is_warned_of_and_drawn(tmp_path, model, caplog):
    """The default number of calls is too few for it, 40 are enough; others need no such line."""
    _, _, tracked = draw(tmp_path, model[0], count=1, sampler="heun", steps=DEFAULTS["steps"])
    lines = [line for line in caplog.messages if "sampler" in line]
    assert lines == [
        "sampler heun with steps 30: it makes two calls a step, and with fewer than 40 its images "
        "have too much contrast; give steps=40 or more, or sampler=auto"
    ]
    assert tracked.last["images"] == 1
    caplog.clear()
    draw(tmp_path / "enough", model[0], count=1, sampler="heun", steps=40)
    draw(tmp_path / "default", model[0], count=1)
    assert not [line for line in caplog.messages if "sampler" in line]


def test_progress_tells_rate_time_left_and_memory():
    progress = Progress("sample", 1000, done=400, note=lambda: "at most 1.5 GiB on the GPU")
    progress.advance(120)
    told = progress.line(60.0)
    assert told == "520 of 1000 images, 2.0 a second, 4 min left, at most 1.5 GiB on the GPU"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guidance_interval": "0.2,0.8"}, "change nothing at guidance 1"),
        ({"guidance_rescale": 0.5}, "change nothing at guidance 1"),
        ({"first_seed": 1 << 25}, "first_seed 33554432 leaves no room for 1 images"),
        ({"guidance_interval": "0.8", "guidance": 2.0}, "guidance_interval '0.8' should be two"),
        ({"mask_area": "4"}, "mask_area '4' should be two numbers"),
        ({"conditions": "CC"}, "should be <column>=<value>"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        sample.check({**DEFAULTS, "count": 1, **settings})


@pytest.fixture
def untouched(monkeypatch):
    """No network is built, and no device touched."""

    def touched(self):
        raise AssertionError("the network was built")

    monkeypatch.setattr(Generator, "artist", property(touched))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"counts": "tumour=1"}, "unknown class 'tumour'; choose one of benign, malignant"),
        ({"count": 1, "sampler": "heim"}, "'heim' is not one of generator ddpm; choose"),
        ({"count": 1, "conditions": "view=CC"}, "it knows none; leave it out or train with c"),
        ({"count": 1, "mask_threshold": 0.1}, "mask_threshold 0.1 does not apply to generator"),
    ],
)
def test_what_this_generator_does_not_have_is_named_before_a_device_is_touched(
    tmp_path, model, untouched, settings, message
):
    with pytest.raises(ConfigError, match=message):
        draw(tmp_path, model[0], **settings)
    assert not (tmp_path / "run" / "drawn").exists()


def test_no_more_processes_draw_than_there_are_batches_wherever_the_gpus_are(tmp_path, model):
    """The machine that launches them may have none."""
    tracked = run_on(tmp_path, "generator", model[0])
    asked = {**DEFAULTS, "counts": "malignant=9", "batch_size": 4, "device": "cuda"}
    shares = [sample.parts(tracked, {**asked, "workers": number}) for number in (1, 2, 3, 100)]
    assert shares == [0, 2, 3, 3]
    assert sample.parts(tracked, {**asked, "batch_size": 9, "workers": 4}) == 0


def test_a_class_that_was_never_shown_is_refused(tmp_path, monkeypatch):
    path, _ = train(tmp_path, task="malignancy4", patients=32, epochs=1, only=3)
    with monkeypatch.context() as patch:
        patch.setattr(Generator, "artist", property(lambda self: pytest.fail("it was built")))
        with pytest.raises(ConfigError, match="'probably_benign' had no image in the training"):
            draw(tmp_path / "drawn", path, counts="benign=1,probably_benign=1")
    drawn, _, _ = draw(tmp_path / "drawn", path, count=6)
    assert set(drawn.manifest["label"]) == {"benign", "malignant", "suspicious"}
