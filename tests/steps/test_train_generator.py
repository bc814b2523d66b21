"""The step that trains a generator: who may train it, what it saves, how it resumes."""

import inspect
import json

import numpy as np
import pytest
from generator_data import SIDE, TINY, run_on, write_data
from PIL import Image

from mammo.errors import ConfigError, DataError
from mammo.generators.material import real_training_rows
from mammo.models import open_model
from mammo.steps import train_generator


def train(folder, data, **settings):
    tracked = run_on(folder, "data", data.folder)
    result = train_generator.run(tracked, data=str(data.folder), **{**TINY, **settings})
    return result, tracked


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    data = write_data(folder, synthetic=4)
    return data, *train(folder, data, epochs=2, sample_every=2)


def test_only_real_training_images_reach_the_generator(trained):
    data, _, tracked = trained
    frame = data.manifest
    expected = frame[(frame["split"] == "train") & ~frame["is_synthetic"]]
    seen = open_model(tracked.folder / "model", "generator").training
    assert sorted(seen["sha256"]) == sorted(expected["sha256"])
    assert sorted(seen["group_id"]) == sorted(expected["group_id"])
    assert len(expected) == 12


@pytest.mark.parametrize("image", ["test", "i0"])
def test_a_held_out_row_among_the_training_rows_is_a_bug_that_stops_the_run(trained, image):
    data = trained[0]
    rows = np.flatnonzero(data.manifest["image_id"].isin(["i2", image]))
    with pytest.raises(AssertionError, match=f"held-out image {image} "):
        real_training_rows(data, rows, "none")


def test_the_model_says_what_it_is_and_what_it_was_trained_on(trained):
    data, result, tracked = trained
    about = open_model(tracked.folder / "model", "generator").about
    assert about["digest"] == result.digest
    assert about["train_counts"] == {"benign": 6, "malignant": 6}
    assert {key: about[key] for key in ("salt", "split_seed", "dtype", "intensity", "fold")} == {
        "salt": "pepper",
        "split_seed": 3,
        "dtype": "uint16",
        "intensity": "window",
        "fold": "none",
    }
    assert about["train_digest"] == data.digest
    assert about["settings"]["epochs"] == 2
    assert json.loads(json.dumps(about["settings"])) == about["settings"]
    assert tracked.uploaded["model"] == tracked.folder / "model"
    assert tracked.input_datasets == [
        ("levels", data.digest, 12, "training"),
        ("levels", data.digest, 4, "validation"),
    ]


def test_metrics_come_once_an_epoch_and_samples_of_every_class_when_asked(trained):
    _, result, tracked = trained
    names = ["train/loss", "val/loss", "lr", "images_seen", "images_per_second"]
    names += ["val/loss_low_noise", "val/loss_middle_noise"]  # no row here is almost all noise
    best = [f"best/{name}" for name in ("epoch", *names) if name.startswith(("val/", "epoch"))]
    assert {name: step for name, _, step in tracked.history} == dict.fromkeys(names + best, 2)
    assert tracked.last["images_seen"] == 16  # 12 images make one whole batch of 8
    assert set(result.metrics) == {"val/loss", "images_seen", "images_per_second"}
    assert sorted(tracked.images) == [("samples/benign", 2), ("samples/malignant", 2)]
    with Image.open(tracked.uploaded["preview.png"]) as preview:
        assert preview.height == 2 * SIDE * (128 // SIDE) + 2  # a row for each class, enlarged


def test_a_run_that_dies_ends_with_the_weights_of_one_that_did_not(tmp_path):
    data = write_data(tmp_path)
    _, whole = train(tmp_path / "whole", data, epochs=3)

    class Died(Exception):
        pass

    cut = run_on(tmp_path / "cut", "data", data.folder)

    def die(values, step=None):
        if step == 2:
            raise Died

    cut.metrics = die
    with pytest.raises(Died):
        train_generator.run(cut, data="", epochs=3, **TINY)
    _, again = train(tmp_path / "cut", data, epochs=3)
    assert [step for name, _, step in again.history if name == "val/loss"] == [2, 3]
    weights = [each.folder / "model" / "weights.safetensors" for each in (whole, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def settings(**changes):
    defaults = inspect.signature(train_generator.run).parameters
    return {name: each.default for name, each in defaults.items()} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator": "gam"}, "unknown generator 'gam'; choose one of .*ddpm, edm"),
        ({"generator": "rflow", "prediction": "epsilon"}, "prediction 'epsilon' does not go with"),
        ({"lora_rank": 8}, "lora_rank 8 does not apply to generator ddpm; it goes with sd_lora"),
        ({"generator": "rflow", "min_snr_gamma": 5.0}, "min_snr_gamma 5 does not apply"),
        ({"ema": 1.0}, "ema 1 would keep the first weights"),
    ],
)
def test_settings_that_do_not_go_together_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        train_generator.check(settings(**changes))


def test_all_other_combinations_pass():
    for generator, prediction in (("ddpm", "v"), ("ddpm", "epsilon"), ("rflow", "v")):
        train_generator.check(settings(generator=generator, prediction=prediction))


def test_a_dataset_whose_training_images_are_all_synthetic_is_refused(tmp_path):
    data = write_data(tmp_path, patients=2, synthetic=2)  # the real ones validate
    with pytest.raises(DataError, match="has no real training image among its 2"):
        train(tmp_path, data, epochs=1)
