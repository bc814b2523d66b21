"""Extractors: one input path, names that say what made a number, and errors that say what to do."""

import hashlib
import re

import numpy as np
import pytest

from mammo.errors import CheckpointError, ConfigError
from mammo.evaluation.extractors import check_extractor, load_extractor, quantise
from mammo.evaluation.fidelity import frechet


def textures(seed, count=24, side=64):
    """Smooth random images: squared-frequency falloff, values in [0, 1]."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    spectrum = np.fft.rfft2(rng.normal(size=(count, 1, side, side)))
    images = np.fft.irfft2(spectrum / (frequency + 2 / side) ** 1.5)
    low, high = images.min(axis=(2, 3), keepdims=True), images.max(axis=(2, 3), keepdims=True)
    return ((images - low) / (high - low)).astype(np.float32)


def extract(extractor, images, batch_size=16):
    return extractor.features(images.__getitem__, np.arange(len(images)), batch_size=batch_size)


def test_quantising_rounds_and_does_not_truncate():
    assert quantise(np.float32([0, 0.499, 0.501, 1])).tolist() == [0, 127, 128, 255]


def test_a_gray_image_is_repeated_and_normalised():
    extractor = load_extractor("random")
    prepared = extractor.prepare(np.full((1, 1, 32, 32), 255, np.uint8))
    assert prepared.shape == (1, 3, 128, 128)
    assert prepared.unique().tolist() == [1.0]  # (1 - 0.5) / 0.5


def test_two_channels_get_their_mean_as_the_third():
    pair = np.stack([np.zeros((1, 8, 8)), np.full((1, 8, 8), 255)], axis=1).astype(np.uint8)
    prepared = load_extractor("random").prepare(pair)
    assert prepared[0, :, 0, 0].tolist() == [-1.0, 1.0, 0.0]


def test_the_random_extractor_is_the_same_every_time_and_for_every_batch_size():
    images = textures(0, count=5)
    one, two = load_extractor("random"), load_extractor("random")
    assert one.sha256 == two.sha256
    np.testing.assert_allclose(extract(one, images), extract(two, images, 2), rtol=1e-5)


def test_real_and_synthetic_of_another_depth_take_the_same_path():
    extractor = load_extractor("random")
    eight_bit = np.rint(textures(1, count=3) * 255) / np.float32(255)
    finer = eight_bit + np.float32(0.4 / 255)  # what 16 bits keep and 8 bits do not
    np.testing.assert_array_equal(extract(extractor, eight_bit), extract(extractor, finer))


@pytest.mark.parametrize("harm", ["blur", "noise", "darker"])
def test_more_harm_to_the_images_is_a_larger_distance(harm):
    from scipy.ndimage import gaussian_filter

    extractor, clean = load_extractor("random"), textures(2)
    noise = np.random.default_rng(3).normal(size=clean.shape).astype(np.float32)
    harmed = {
        "blur": lambda dose: gaussian_filter(clean, (0, 0, 2 * dose, 2 * dose)),
        "noise": lambda dose: clean + 0.1 * dose * noise,
        "darker": lambda dose: clean * (1 - 0.2 * dose),
    }[harm]
    reference = extract(extractor, textures(4))
    distances = [frechet(reference, extract(extractor, harmed(dose))) for dose in (0, 1, 2, 3)]
    assert distances == sorted(distances)


def test_trap_t0g_the_name_of_a_distance_carries_extractor_and_dimension(shared):
    stand_in = load_extractor("random")
    assert (stand_in.name, stand_in.dim, stand_in.stand_in) == ("random_conv64", 64, True)
    path = shared / "weights" / "mobilenet_v2-b0353104.pth"
    real = load_extractor(f"torchvision/mobilenet_v2@{path}")
    assert real.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (real.name, real.dim, real.stand_in) == ("mobilenet_v2-b0353104-1280d", 1280, False)


def test_timm_weights_by_path_give_timms_features(shared):
    import timm
    import torch

    path = shared / "weights" / "tf_efficientnet_lite0_timm.pth"
    extractor = load_extractor(f"tf_efficientnet_lite0@{path}")
    assert re.fullmatch(r"tf_efficientnet_lite0-[0-9a-f]{8}-1280d", extractor.name)
    module = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    module.load_state_dict(torch.load(path, weights_only=True))
    images = textures(5, count=2)
    with torch.inference_mode():
        prepared = extractor.prepare(quantise(images))
        expected = module.forward_head(module.forward_features(prepared), pre_logits=True)
    np.testing.assert_allclose(extract(extractor, images), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("setting", ["inception", "@weights.pth", "mobilenet@"])
def test_an_extractor_without_weights_is_refused(setting):
    with pytest.raises(ConfigError, match=r"is not random or NAME@WEIGHTS"):
        check_extractor(setting)


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.pth do not exist; bring the state dict"):
        check_extractor(f"inception@{tmp_path}/nowhere.pth")


def test_an_unknown_network_is_refused(tmp_path):
    import torch

    torch.save({}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="'resnext0' is not random, inception"):
        load_extractor(f"resnext0@{tmp_path}/w.pth")
    with pytest.raises(ConfigError, match="not a classification network of torchvision"):
        load_extractor(f"torchvision/resnext0@{tmp_path}/w.pth")


def test_weights_of_another_network_are_refused(tmp_path):
    import torch

    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth does not fit torchvision/mobilenet_v2"):
        load_extractor(f"torchvision/mobilenet_v2@{tmp_path}/w.pth")


def test_radimagenet_s_names_and_missing_head_are_understood(tmp_path):
    """Its files number the children of torchvision's network, and have no last layer."""
    import torch
    from torchvision.models import resnet18

    plain = resnet18(weights=None).eval()
    renamed = torch.nn.Sequential(*list(plain.children())[:9]).state_dict()
    tensors = {f"backbone.{name}": value for name, value in renamed.items()}
    torch.save(tensors, tmp_path / "ResNet18.pt")
    extractor = load_extractor(f"torchvision/resnet18@{tmp_path}/ResNet18.pt")
    images = textures(6, count=2)
    plain.fc = torch.nn.Identity()
    with torch.inference_mode():
        prepared = extractor.prepare(quantise(images))
        expected = plain(prepared).numpy()
    assert prepared.abs().max() <= 1  # it sees images in [-1, 1]
    np.testing.assert_allclose(extract(extractor, images), expected, rtol=1e-4, atol=1e-5)


def test_a_file_that_is_not_weights_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"not weights at all")
    with pytest.raises(CheckpointError, match="is not a file of weights"):
        load_extractor(f"torchvision/mobilenet_v2@{path}")
