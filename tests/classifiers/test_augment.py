"""Augmentation depends on torch's generator alone, and leaves what it must not touch."""

import pytest
import torch

from mammo.classifiers.augment import AUGMENTS, blank, mirror, move, tone

CHANGING = sorted(set(AUGMENTS) - {"none"})


def half_bright():
    """Four images whose left half is tissue of 0.5 and whose right half is air."""
    images = torch.zeros(4, 1, 16, 32)
    images[..., :16] = 0.5
    return images


def test_none_changes_nothing():
    images = torch.rand(2, 1, 8, 8)
    assert AUGMENTS["none"](images) is images


@pytest.mark.parametrize("name", CHANGING)
def test_the_state_of_the_generator_decides(name):
    images = torch.rand(4, 2, 16, 16)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(AUGMENTS[name](images))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("name", CHANGING)
def test_values_stay_between_0_and_1(name):
    torch.manual_seed(0)
    changed = AUGMENTS[name](torch.rand(8, 1, 16, 16))
    assert changed.min() >= 0 and changed.max() <= 1


def test_air_stays_air():
    torch.manual_seed(0)
    changed = tone(half_bright(), contrast=0.2, brightness=0.2, gamma=0.2)
    assert (changed[..., 16:] == 0).all()
    assert changed[:, 0, 0, 0].unique().numel() == 4  # each image by its own amount


@pytest.mark.parametrize("name", ["basic", "strong"])
def test_only_the_flips_move_the_chest_wall_to_the_other_side(name):
    torch.manual_seed(0)
    images = half_bright()
    for _ in range(5):
        changed = AUGMENTS[name](images)
        assert (changed[..., :16].mean((1, 2, 3)) > changed[..., 16:].mean((1, 2, 3))).all()


def test_mirroring_turns_about_every_second_image():
    torch.manual_seed(0)
    images = half_bright()[:1].expand(400, -1, -1, -1)
    turned = mirror(images)[:, 0, 0, -1] > 0
    assert 160 < int(turned.sum()) < 240  # 200 expected, sd 10


def test_a_shift_of_no_turn_and_no_zoom_keeps_the_picture():
    images = torch.rand(3, 1, 8, 12)
    torch.testing.assert_close(move(images, turn_degrees=0, shift=0, zoom=0), images)


def test_a_turn_in_a_wide_image_keeps_shapes():
    # a disc stays a disc: its extent is the same along both axes after any turn
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(64.0), indexing="ij")
    disc = (((rows - 15.5) ** 2 + (columns - 31.5) ** 2) < 100).float()[None, None]
    torch.manual_seed(1)
    turned = move(disc, turn_degrees=90, shift=0, zoom=0)[0, 0] > 0.5
    assert turned.any(0).sum() == pytest.approx(20, abs=1)
    assert turned.any(1).sum() == pytest.approx(20, abs=1)


def test_a_blanked_rectangle_is_at_most_as_long_as_asked():
    torch.manual_seed(0)
    holes = blank(torch.ones(50, 1, 30, 30), side=1 / 3) == 0
    assert holes.any(3).sum(2).max() <= 11 and holes.any(2).sum(2).max() <= 11
    assert holes.flatten(1).sum(1).max() > 25
