"""Diffusion of latents: encoded once, measured, drawn by row, and saved with their autoencoder."""

import shutil

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from mammo.errors import ConfigError, DataError
from mammo.generators import augment, family, load_generator
from mammo.generators.artist import in_pieces
from mammo.generators.autoencoders import Autoencoder, build, describe_kl, read
from mammo.generators.latents import Encoded, Latents, drawn, encoded, mirrored
from mammo.generators.material import gather
from mammo.generators.modes import mode_of
from mammo.models import open_model, save_model
from mammo.steps import train_generator

CPU = torch.device("cpu")
SHAPE = (1, tiny.SIDE, tiny.SIDE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("latent")


@pytest.fixture(scope="module")
def data(folder):
    return tiny.write_scans(folder)


@pytest.fixture(scope="module")
def pretrained(folder):
    return tiny.write_autoencoder(folder / "pretrained")


def save_autoencoder(folder, data, *, seen=(), shape=SHAPE, **about):
    """A saved autoencoder of random weights that was trained on the rows `seen` of `data`."""
    described = describe_kl(
        shape=shape, latent_channels=2, channels="8,16", attention=0, res_blocks=1
    )
    said = {"plan": {"network": described}, "generator": "autoencoder", "mode": "reconstruct"}
    said |= {key: data.about[key] for key in ("salt", "intensity")}
    return save_model(
        folder,
        kind="generator",
        run_id="earlier",
        classes=data.classes,
        shape=shape,
        weights=build(described, seed=0).state_dict(),
        training=data.manifest.iloc[list(seen)],
        settings={},
        about={**said, **about},
    ).folder


def material_of(data, tracked, **changes):
    settings = tiny.recipe("ldm", "class", **changes)
    return gather(data, settings, folder=tracked.folder, inputs=tracked.inputs), settings


def plan_with(data, folder, autoencoder, **changes):
    """Material and plan of an ldm on `autoencoder`."""
    tracked = tiny.run_with(folder, data=data.folder, autoencoder=autoencoder)
    material, settings = material_of(data, tracked, **changes)
    return material, family("ldm").plan(material, settings)


class Counting(Autoencoder):
    """Latents are means of 2 x 2 pixels; it counts the images and can die on the way."""

    def __init__(self, dies_after=10**9):
        super().__init__()
        self.seen, self._dies_after = 0, dies_after

    def encode(self, images):
        self.seen += len(images)
        if self.seen > self._dies_after:
            raise KeyboardInterrupt
        means = torch.nn.functional.avg_pool2d(images, 2)
        return means, 0.1 * means

    def decode(self, latents):
        return latents.repeat_interleave(2, 2).repeat_interleave(2, 3)


def encode(data, folder, network, *, rows=(5, 3, 9), digest="d", flipped=True):
    return encoded(
        data,
        np.array(rows),
        network,
        digest=digest,
        folder=folder,
        device=CPU,
        flipped=flipped,
    )


def test_images_are_encoded_once_and_mirrored_before_it(data, tmp_path):
    network = Counting()
    columns = encode(data, tmp_path, network).columns()
    assert network.seen == 6  # three rows, both ways round
    images = torch.from_numpy(data.images([9, 3]))
    mean, sd = network.encode(images)
    turned, _ = network.encode(images.flip(3))
    rows = np.array([9, 3])
    for name, values in {"latent": mean, "latent_sd": sd, "flipped": turned}.items():
        assert columns[name](rows).dtype == np.float32
        np.testing.assert_allclose(columns[name](rows), values, rtol=1e-3)  # kept in half
    again = Counting(dies_after=0)
    kept = encode(data, tmp_path, again, rows=(3, 5, 9)).columns()
    np.testing.assert_array_equal(kept["latent"](rows), columns["latent"](rows))
    with pytest.raises(KeyboardInterrupt):  # another autoencoder has other latents
        encode(data, tmp_path, again, digest="e")


def test_an_encoding_that_is_cut_short_leaves_nothing_that_looks_whole(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        encode(data, tmp_path, Counting(dies_after=8), rows=range(12), flipped=False)
    left = sorted(path.suffix for path in (tmp_path / "latents").iterdir())
    assert left == [".partial"]
    network = Counting()
    columns = encode(data, tmp_path, network, rows=range(12), flipped=False).columns()
    assert network.seen == 12
    assert set(columns) == {"latent", "latent_sd"}
    assert [path.suffix for path in (tmp_path / "latents").iterdir()] == [""]


def test_shift_scale_and_bound_are_those_of_the_latents_of_training_rows():
    """Channels of mean 1 and -2; deviations 3 and 4 of the means, sqrt(11) of what is drawn."""
    turn = np.array([1, -1])[:, None, None]
    latent = np.stack([1 + 3 * turn, -2 + 4 * turn], axis=1) * np.ones((2, 2, 4, 4))
    arrays = {"latent": latent, "latent_sd": np.full((2, 2, 4, 4), np.sqrt(11))}
    three = {name: np.concatenate([each, each[:1] + 9]) for name, each in arrays.items()}
    rows = np.array([4, 6, 8])
    found = Encoded(rows, {n: e.astype(np.float16) for n, e in three.items()}).measure(rows[:2])
    assert found["shift"] == [1.0, -2.0]
    # (9 + 16) / 2 of the means, 11 of what is drawn about them
    assert found["scale"] == pytest.approx(np.sqrt(12.5 + 11), rel=1e-3)
    assert found["bound"] == pytest.approx((4 + 3 * np.sqrt(11)) / np.sqrt(23.5), rel=1e-2)


def test_the_canvas_centers_scales_and_comes_back():
    described = {"image": [1, 8, 8], "latent": [1, 4, 4]}
    plan = {"shift": [0.3], "scale": 0.2, "bound": 1.5}
    canvas = Latents(mode_of("mask_to_image"), Counting(), described, plan)
    latent = torch.full((1, 1, 4, 4), 0.5)
    made = canvas.target({"latent": latent})
    torch.testing.assert_close(made, torch.ones(1, 1, 4, 4))
    torch.testing.assert_close(canvas.finish(made), torch.full((1, 1, 8, 8), 0.5))
    assert canvas.clip(torch.tensor([-9.0, 1.0, 9.0])).tolist() == [-1.5, 1.0, 1.5]
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :1, :2] = 1  # half of the pixels of the first latent
    control = canvas.control({"latent": latent, "mask": mask})
    assert control[0, 0, :2, :2].tolist() == [[0, -1], [-1, -1]]


@pytest.mark.parametrize(("most", "sizes"), [(2, [2] * 4), (3, [1] * 8), (8, [8]), (64, [8])])
def test_every_piece_of_a_call_is_as_large_as_the_others(most, sizes):
    """Else the last bits of an image would depend on its place in the call."""
    made, seen = torch.arange(8.0), []

    def finish(piece):
        seen.append(len(piece))
        return 2 * piece

    assert in_pieces(made, most, finish).tolist() == (2 * made).tolist()
    assert seen == sizes


def test_latents_are_drawn_from_what_is_known_of_them():
    mean, sd = torch.full((2, 1, 64, 64), 3.0), torch.full((2, 1, 64, 64), 0.5)
    drawing = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    made = drawn({"latent": mean, "latent_sd": sd}, drawing)["latent"]
    assert float(made.mean()) == pytest.approx(3, abs=0.03)
    assert float(made.std()) == pytest.approx(0.5, abs=0.02)
    assert drawn({"latent": mean}, drawing)["latent"] is mean  # certain ones stay


def test_latents_are_mirrored_with_their_masks(data, tmp_path):
    """What Augmentation does to the mask of a row, the step does to its latents."""
    rows = torch.arange(12)
    found = encode(data, tmp_path, Counting(), rows=range(12)).columns()
    batch = {name: torch.from_numpy(of(rows.numpy())) for name, of in found.items()}
    masks = torch.from_numpy((data.masks(rows.numpy()) > 0).astype(np.float32))
    changes = augment.drawn("flip", seed=7, step=3, rows=rows)
    moved = augment.augmented({"image": torch.zeros(12, *SHAPE), "mask": masks}, changes)["mask"]
    turned = mirrored(batch, changes.mirrored)
    assert 0 < int(changes.mirrored.sum()) < 12
    for row in range(12):
        name = "flipped" if changes.mirrored[row] else "latent"
        assert torch.equal(turned["latent"][row], batch[name][row])
        mask = masks[row].flip(-1) if changes.mirrored[row] else masks[row]
        assert torch.equal(moved[row], mask)


def test_a_model_draws_without_the_autoencoder_it_was_trained_on(data, folder, tmp_path):
    own = save_autoencoder(tmp_path / "own", data, seen=range(2))
    tracked = tiny.run_with(tmp_path / "run", data=data.folder, autoencoder=own)
    settings = tiny.recipe("ldm", "class", epochs=1, augment="flip", strategy="rflow")
    train_generator.run(tracked, **settings)
    before = own.parent / "weights.safetensors"
    shutil.copyfile(own / "weights.safetensors", before)
    shutil.rmtree(own)
    generator = load_generator(tracked.folder / "model", device="cpu")
    images = generator.sample(["benign", "malignant"], seeds=[1, 2], guidance=2.0, steps=3)
    assert images.shape == (2, *SHAPE)
    assert images.std() > 0
    kept = {
        name.removeprefix("autoencoder."): value
        for name, value in generator.model.weights().items()
        if name.startswith("autoencoder.")
    }
    from safetensors.torch import load_file

    original = load_file(before)
    assert kept.keys() == original.keys()
    assert all(torch.equal(kept[name], original[name]) for name in kept)


def test_the_round_trip_is_measured_and_spots_that_are_lost_are_warned_of(
    data, tmp_path, pretrained
):
    tracked = tiny.run_with(tmp_path / "run", data=data.folder, autoencoder=pretrained)
    settings = tiny.recipe("ldm", "class", epochs=1)
    train_generator.run(tracked, **settings)
    logged = tracked.last
    _, network = read(pretrained, SHAPE)
    real = torch.from_numpy(data.images(np.flatnonzero(data.manifest["split"] == "val")))
    with torch.inference_mode():
        error = (network.decode(network.encode(real)[0]).clamp(0, 1) - real).square()
    psnr = -10 * error.flatten(1).mean(1).log10().mean()
    assert logged["autoencoder/psnr"] == pytest.approx(float(psnr), rel=1e-4)
    assert logged["autoencoder/spots"] < 0.8  # random weights
    assert "calcification-like spots" in tracked.logged_tags["mammo.warning.autoencoder"]
    assert tracked.images["autoencoder/round_trip", 0].shape == (2 * 16 + 2, 4 * 16 + 3 * 2)


def test_what_the_autoencoder_has_seen_the_new_model_has_seen(data, tmp_path):
    other = data.manifest.iloc[:1].assign(group_id="elsewhere", sha256="f" * 64)
    own = save_autoencoder(tmp_path / "own", data, seen=[0])
    rows = pd.concat([pd.read_parquet(own / "training.parquet"), other[["group_id", "sha256"]]])
    model = open_model(own)
    again = save_model(
        tmp_path / "again",
        kind="generator",
        run_id="earlier",
        classes=data.classes,
        shape=SHAPE,
        weights=model.weights(),
        training=rows.assign(is_synthetic=False),
        settings={},
        about=model.about,
    )
    material, _ = plan_with(data, tmp_path / "run", again.folder)
    seen = material.training()
    assert "elsewhere" in set(seen["group_id"])
    assert len(seen) == len(material.train) + 1


def test_an_autoencoder_that_saw_a_validation_patient_is_refused(data, tmp_path):
    held_out = int(np.flatnonzero(data.manifest["split"] == "val")[0])
    own = save_autoencoder(tmp_path / "own", data, seen=[0, held_out])
    with pytest.raises(DataError, match=r"generator earlier was trained on 1 of the 2 held-out"):
        plan_with(data, tmp_path / "run", own)
    assert not (tmp_path / "run" / "run" / "latents").exists()


def test_an_autoencoder_of_other_images_is_refused_before_anything_is_encoded(data, tmp_path):
    own = save_autoencoder(tmp_path / "own", data, shape=(1, 32, 32))
    with pytest.raises(ConfigError, match=r"trained on images of 1 x 32 x 32.*are 1 x 16 x 16"):
        plan_with(data, tmp_path / "run", own)
    assert not (tmp_path / "run" / "run" / "latents").exists()


def test_a_generator_that_is_no_autoencoder_is_refused(data, tmp_path):
    own = save_autoencoder(tmp_path / "own", data, generator="ddpm")
    with pytest.raises(ConfigError, match="is a generator ddpm; give a model trained with"):
        plan_with(data, tmp_path / "run", own)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "generator ldm needs autoencoder="),
        ({"augment": "all", "autoencoder": "x"}, "augment 'all' does not go with generator ldm"),
        ({"strategy": "rflow", "autoencoder": "x", "prediction": "x0"}, "'x0' does not go with"),
        ({"patch": 2, "autoencoder": "x"}, "patch 2 does not apply to generator ldm"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        train_generator.check(tiny.recipe("ldm", "class") | changes)


@pytest.mark.parametrize("name", ["AutoencoderKL", "AutoencoderTiny"])
@torch.inference_mode()
def test_autoencoders_of_diffusers_are_read_from_their_folder(tmp_path, name):
    import diffusers

    wide = {"block_out_channels": (8, 8), "latent_channels": 3}
    tiny_one = {
        "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1),
        "latent_channels": 3,
    }
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
    }
    given = tiny_one if name == "AutoencoderTiny" else {**wide, **blocks}
    original = getattr(diffusers, name)(**given).eval()
    original.save_pretrained(tmp_path / "vae")  # as in the folder of a whole pipeline
    description, network = read(tmp_path, SHAPE)
    assert description["latent"] == [3, 8, 8]
    grey = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    rgb = grey.repeat(1, 3, 1, 1) * 2 - 1
    mean, sd = network.encode(grey)
    if name == "AutoencoderTiny":
        assert sd is None
        expected = original.encode(rgb).latents
    else:
        expected = original.encode(rgb).latent_dist.mean
        assert torch.equal(sd, original.encode(rgb).latent_dist.std)
    assert torch.equal(mean, expected)
    back = (original.decode(mean).sample.mean(1, keepdim=True) + 1) / 2
    torch.testing.assert_close(network.decode(mean), back)
    again = build(description)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.encode(grey)[0], mean)
