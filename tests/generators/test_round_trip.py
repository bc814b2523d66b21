"""How near images come back from latents, and whether spots of a few pixels survive."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from mammo.generators.autoencoders import Autoencoder
from mammo.generators.round_trip import PLANTED, contrast_kept, plant, round_trip, top_hat

CPU = torch.device("cpu")


class Kept(Autoencoder):
    """Latents are the pixels."""

    def encode(self, images):
        return images, None

    def decode(self, latents):
        return latents


class Blurred(Kept):
    """What comes back is the mean over 3 x 3 pixels."""

    def decode(self, latents):
        return functional.avg_pool2d(latents, 3, 1, 1, count_include_pad=False)


def breasts(count=3, side=48):
    rng = np.random.default_rng(0)
    smooth = 0.4 + 0.1 * np.sin(np.arange(side) / 9)[:, None] * np.ones(side)
    return (smooth + 0.001 * rng.random((count, 1, side, side))).astype(np.float32)


def test_what_comes_back_whole_keeps_everything():
    trip = round_trip(Kept(), breasts(), CPU)
    assert trip.psnr == pytest.approx(100)  # the cap: no error at all
    assert trip.ssim == pytest.approx(1)
    assert trip.planted == pytest.approx(1, abs=1e-5)
    assert trip.warning() == ""


def test_a_blur_takes_what_it_takes_of_a_gaussian_spot():
    """The mean over 3 x 3 of exp(-r^2 / 2) is (1 + 4 e^-1/2 + 4 e^-1) / 9 of its peak."""
    left = (1 + 4 * math.exp(-0.5) + 4 * math.exp(-1)) / 9
    trip = round_trip(Blurred(), breasts(), CPU)
    assert trip.planted == pytest.approx(left, rel=1e-4)
    assert trip.metrics()["autoencoder/planted_spots"] == trip.planted
    assert trip.warning().startswith(f"the autoencoder keeps {left:.0%} of the contrast")


def test_the_share_of_contrast_is_that_of_the_spots_alone():
    before = torch.full((1, 1, 20, 20), 0.4)
    after = before + 0.1  # a brighter image is no loss of contrast
    for place, (there, left) in enumerate([(0.3, 0.15), (0.1, 0.05), (0.04, 0.0)]):
        before[0, 0, 10, 3 + 6 * place] += there
        after[0, 0, 10, 3 + 6 * place] += left
    assert contrast_kept(before, after) == pytest.approx(0.5)  # 0.04 is grain


def test_an_image_without_spots_has_no_share():
    flat = torch.full((1, 1, 20, 20), 0.4)
    assert math.isnan(contrast_kept(flat, flat))
    trip = round_trip(Kept(), np.zeros((1, 1, 32, 32), np.float32), CPU)  # nothing but air
    assert set(trip.metrics()) == {"autoencoder/psnr", "autoencoder/ssim"}
    assert trip.warning() == ""


def test_a_top_hat_leaves_what_is_narrow_and_bright():
    image = torch.zeros(1, 1, 24, 24)
    image[..., 4:8, 4:8] = 0.5  # 4 px: a spot
    image[..., 14:20, 14:20] = 0.5  # 6 px: a mass
    hat = top_hat(image)[0, 0]
    assert hat[4:8, 4:8].min() == 0.5
    assert hat[14:20, 14:20].max() == 0
    assert top_hat(-image).max() == 0  # of dark spots nothing is left


def test_spots_are_planted_where_there_is_something_and_room():
    image = torch.zeros(1, 1, 32, 32)
    image[..., 16:, :] = 0.5
    image[..., 16:, 16:] = 0.9
    planted, places = plant(image)
    assert places.nonzero().tolist() == [[0, 0, 24, 8]]
    assert float(planted[0, 0, 24, 8]) == pytest.approx(0.5 + PLANTED)
    assert torch.equal(planted[..., :16, :], image[..., :16, :])
