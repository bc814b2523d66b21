"""The public interface of a trained generator: what a notebook calls, and what it is refused."""

import numpy as np
import pytest
import tiny

import mammo
from mammo.errors import CheckpointError, ConfigError
from mammo.generators.generator import Generator
from mammo.steps import train_generator

SIDE = tiny.SIDE


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    data = tiny.write_scans(folder)
    found = {}
    for mode, generator in (
        ("class", "ddpm"),
        ("mask_to_image", "rflow"),
        ("unconditional", "ddpm"),
        ("reconstruct", "autoencoder"),
    ):
        tracked = tiny.run_with(folder / mode, data=data.folder)
        train_generator.run(tracked, **tiny.recipe(generator, mode, epochs=1))
        found[mode] = tracked.folder / "model"
    return found


@pytest.fixture
def untouched(monkeypatch):
    """No network is built, and no device touched."""

    def touched(self):
        raise AssertionError("the network was built")

    monkeypatch.setattr(Generator, "artist", property(touched))


def test_it_samples_as_the_interface_says(models, store):
    """A local path stands for runs:/… and models:/…, which the end-to-end tests resolve."""
    generator = mammo.load_generator(str(models["class"]))
    images = generator.sample(labels=["malignant"] * 8, seeds=range(8), guidance=4.0)
    assert (images.shape, images.dtype) == ((8, 1, SIDE, SIDE), np.float32)
    assert images.min() >= 0
    assert images.max() <= 1
    assert generator.shape == (1, SIDE, SIDE)
    assert generator.classes.names == ("benign", "malignant")
    again = generator.sample(labels=["malignant"], seeds=[5], guidance=4.0)
    np.testing.assert_array_equal(again[0], images[5])
    empty = generator.sample(labels=[], seeds=[])
    assert empty.shape == (0, 1, SIDE, SIDE)


def test_each_thing_that_is_asked_for_changes_the_image(models):
    """But the sampler's own name, and the same thing said in another way."""
    generator = Generator.load(models["class"], device="cpu")
    plain = {"seeds": [3], "guidance": 3.0, "steps": 4, "conditions": {"view": ["CC"]}}
    image = generator.sample(["benign"], **plain)
    for change in (
        {"seeds": [4]},
        {"guidance": 2.0},
        {"guidance_interval": (0.3, 0.6)},
        {"guidance_rescale": 0.7},
        {"steps": 5},
        {"sampler": "ddim"},
        {"conditions": {"view": ["MLO"]}},
        {"conditions": {}},
    ):
        if change == {"sampler": generator.samplers[0]}:
            continue
        assert not np.array_equal(generator.sample(["benign"], **plain | change), image), change
    assert not np.array_equal(generator.sample(["malignant"], **plain), image)
    same = {"sampler": generator.samplers[0], "guidance_interval": (0.0, 1.0)}
    np.testing.assert_array_equal(generator.sample(["benign"], **plain | same), image)
    untold = generator.sample(["benign"], **plain | {"conditions": {"view": [""]}})
    np.testing.assert_array_equal(
        untold, generator.sample(["benign"], **plain | {"conditions": {}})
    )


def test_an_image_around_a_mask_depends_on_its_own_mask_alone(models):
    generator = Generator.load(models["mask_to_image"], device="cpu")
    masks = np.zeros((3, 1, SIDE, SIDE), np.uint8)
    masks[1, :, 4:9, 4:9] = 255
    masks[2, :, 4:9, 4:9] = 1  # whatever is not 0 is inside
    images = generator.sample(["benign"] * 3, seeds=[1, 1, 1], masks=masks, steps=2)
    assert not np.array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[1], images[2])


@pytest.mark.parametrize(
    ("mode", "asked", "message"),
    [
        ("class", {"labels": ["tumor"]}, "unknown class 'tumor'; choose one of benign, malignant"),
        ("class", {"seeds": [0, 1]}, "1 labels and 2 seeds; give one of each"),
        ("class", {"seeds": [-1]}, "seed -1 is below 0"),
        ("class", {"guidance": -1.0}, "guidance -1 should be a number of at least 0"),
        ("class", {"guidance": float("nan")}, "guidance nan should be a number"),
        ("class", {"guidance_interval": (0.8, 0.2)}, "should be 0 <= low < high <= 1"),
        ("class", {"guidance_rescale": 1.5}, "guidance_rescale 1.5 should be a number from 0 to 1"),
        ("class", {"steps": 0}, "steps 0 should be from 1 to 1000"),
        ("class", {"steps": 1001}, "steps 1001 should be from 1 to 1000"),
        ("class", {"sampler": "best"}, "sampler 'best' is not one of generator ddpm; choose"),
        ("class", {"conditions": {"vendor": ["x"]}}, "'vendor' is unknown to this generator"),
        ("class", {"conditions": {"view": ["LM"]}}, "unknown view 'LM'; choose one of CC, MLO"),
        ("class", {"conditions": {"view": ["CC", "CC"]}}, "1 labels and 2 values of view"),
        ("class", {"masks": np.zeros((1, 1, SIDE, SIDE))}, "of mode class takes no masks"),
        ("mask_to_image", {}, f"1 x 1 x {SIDE} x {SIDE} are needed, given are none"),
        ("mask_to_image", {"masks": np.zeros((1, 1, 8, 8))}, "given are 1 x 1 x 8 x 8; sample"),
        ("unconditional", {"guidance": 3.0}, "of mode unconditional, which has nothing to guide"),
        ("reconstruct", {}, "is an autoencoder, which draws no images of its own; train"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_the_network_is_built(
    models, untouched, mode, asked, message
):
    generator = Generator.load(models[mode], device="cpu")
    with pytest.raises(ConfigError, match=message):
        generator.sample(**{"labels": ["benign"], "seeds": [0], **asked})


def test_a_class_that_it_was_shown_no_image_of_is_refused(models, untouched):
    generator = Generator.load(models["class"], device="cpu")
    generator.model.about["train_counts"]["malignant"] = 0
    message = "class 'malignant' had no image in the training of this generator, .* among benign"
    with pytest.raises(ConfigError, match=message):
        generator.sample(["malignant"], seeds=[0])


def test_what_is_no_generator_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not a model: it has no model\.json"):
        Generator.load(tmp_path, device="cpu")
