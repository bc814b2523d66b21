"""Operations on images equal torch's, torchvision's and values known beforehand."""

import math

import pytest
import torch
from torchvision.transforms import functional as reference

from mammo.classifiers.operations import NEUTRAL, change


def amounts(count, **given):
    return {name: torch.full((count,), float(value)) for name, value in given.items()}


def after(images, **given):
    return change(images, amounts(len(images), **given))


def picture(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).clamp_min(0.01)


def test_neutral_amounts_leave_every_bit():
    images = picture(3, 2, 11, 16)
    assert torch.equal(after(images, **NEUTRAL), images)


def test_mixed_precision_changes_no_pixel():
    images = picture(2, 1, 48, 64)
    given = {"turn": 0.1, "zoom": 0.05, "shift_x": 0.02, "shear_y": 0.1, "sharpness": 0.3}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = after(images, **given)
    assert torch.equal(under, after(images, **given))


def test_a_mirror_is_torchs_flip():
    images = picture(3, 1, 7, 10)
    assert torch.equal(after(images, mirror_x=1), images.flip(3))
    assert torch.equal(after(images, mirror_y=1), images.flip(2))
    assert torch.equal(after(images, mirror_x=1, mirror_y=1), images.flip(2, 3))


@pytest.mark.parametrize("side", [8, 9])
def test_a_quarter_turn_is_torchs(side):
    images = picture(2, 1, side, side)
    turned = after(images, turn=math.pi / 2)
    torch.testing.assert_close(turned, torch.rot90(images, 1, (2, 3)), atol=1e-5, rtol=0)


def test_a_shift_by_whole_pixels_moves_them_and_fills_with_air():
    images = picture(2, 1, 8, 16)
    moved = after(images, shift_x=2 * 3 / 16, shift_y=-2 * 2 / 8)  # of half a side
    torch.testing.assert_close(moved[:, :, 2:, :13], images[:, :, :6, 3:], atol=1e-5, rtol=0)
    assert (moved[:, :, :2] == 0).all() and (moved[..., 13:] == 0).all()


def test_a_shear_of_one_moves_each_row_by_its_distance_from_the_middle():
    images = picture(1, 1, 5, 5)
    sheared = after(images, shear_x=1)
    for row in range(5):
        shift = row - 2
        expected = torch.zeros(5)
        for column in range(5):
            if 0 <= column + shift < 5:
                expected[column] = images[0, 0, row, column + shift]
        torch.testing.assert_close(sheared[0, 0, row], expected, atol=1e-5, rtol=0)
    flipped = after(images.transpose(2, 3), shear_y=1).transpose(2, 3)
    torch.testing.assert_close(flipped, sheared, atol=1e-5, rtol=0)


def test_a_zoom_shows_that_much_more():
    images = torch.ones(1, 1, 40, 40)
    shown = after(images, zoom=1.0)  # twice the field of view
    assert shown.sum() == pytest.approx(20 * 20, rel=0.01)
    assert (shown[:, :, 11:29, 11:29] == 1).all()


def test_a_turn_in_a_wide_image_keeps_shapes():
    # a disc stays a disc: its extent is the same along both axes after any turn
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(64.0), indexing="ij")
    disc = (((rows - 15.5) ** 2 + (columns - 31.5) ** 2) < 100).float()[None, None]
    turned = after(disc, turn=1.0)[0, 0] > 0.5
    assert turned.any(0).sum() == pytest.approx(20, abs=1)
    assert turned.any(1).sum() == pytest.approx(20, abs=1)


def test_tones_are_torchvisions():
    images = picture(2, 1, 8, 8)
    torch.testing.assert_close(after(images, gamma=1.4), reference.adjust_gamma(images, 1.4))
    torch.testing.assert_close(
        after(images, contrast=1.3), reference.adjust_brightness(images, 1.3)
    )
    torch.testing.assert_close(after(images, brightness=0.2), (images + 0.2).clamp(max=1))


def test_air_stays_air():
    images = picture(4, 1, 16, 32)
    images[..., 16:] = 0
    torch.manual_seed(0)
    changed = after(images, contrast=1.2, brightness=0.2, gamma=1.2, noise=0.1)
    assert (changed[..., 16:] == 0).all() and (changed[..., :16] != images[..., :16]).any()


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.7])
def test_sharpness_is_torchvisions(factor):
    images = picture(2, 3, 9, 12)
    expected = reference.adjust_sharpness(images, factor)
    torch.testing.assert_close(after(images, sharpness=factor), expected)


def test_noise_has_its_standard_deviation():
    torch.manual_seed(0)
    images = torch.full((2, 1, 200, 200), 0.5)
    difference = change(images, {"noise": torch.tensor([0.0, 0.05])}) - images
    assert (difference[0] == 0).all()
    assert float(difference[1].std()) == pytest.approx(0.05, rel=0.02)  # sd of that: 0.35 %
    assert float(difference[1].mean()) == pytest.approx(0, abs=0.001)


def test_a_rectangle_covers_the_pixels_within_its_edges():
    images = torch.ones(1, 1, 10, 10)
    holes = after(images, top=2, left=3, height=4, width=5)
    assert (holes[0, 0, 2:6, 3:8] == 0).all()
    assert int((holes == 0).sum()) == 20


def test_each_image_has_its_own_amount():
    images = picture(3, 1, 8, 8)
    found = change(images, {"mirror_x": torch.tensor([0.0, 1.0, 0.0])})
    assert torch.equal(found[[0, 2]], images[[0, 2]])
    assert torch.equal(found[1], images[1].flip(2))
