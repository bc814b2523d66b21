"""A blended image belongs to each class by what it shows of it."""

import pytest
import torch
from scipy import stats
from torch.nn import functional

from mammo.classifiers.blends import BLENDS
from mammo.classifiers.changing import make_changing

SETTINGS = {
    "augment": "none",
    "class_augment": "",
    "erasing": 0.0,
    "mixup_alpha": 0.4,
    "cutmix_alpha": 1.0,
}
BLENDING = sorted(set(BLENDS) - {"none"})
NAMES = ("a", "b", "c")


def blended(name, count=64, seed=0):
    """Images of 24 x 32 whose channel k is 1 for class k, and what they become."""
    labels = torch.arange(count) % 3
    images = functional.one_hot(labels, 3).float()[:, :, None, None].expand(-1, -1, 24, 32)
    torch.manual_seed(seed)
    found, shares = make_changing({**SETTINGS, "blend": name}, NAMES)(images, labels)
    return labels, found, shares


@pytest.mark.parametrize("seed", [0, 1])  # of mixup_cutmix: one of each
@pytest.mark.parametrize("name", BLENDING)
def test_the_share_of_a_class_is_what_the_image_shows_of_it(name, seed):
    _, found, shares = blended(name, seed=seed)
    torch.testing.assert_close(shares, found.mean((2, 3)), atol=1e-6, rtol=0)
    torch.testing.assert_close(shares.sum(1), torch.ones(64))
    assert ((shares > 0.01).sum(1) == 2).any()


def test_a_cutmix_pastes_whole_pixels_of_one_rectangle():
    labels, found, shares = blended("cutmix")
    assert set(found.unique().tolist()) == {0.0, 1.0}
    for label, image, share in zip(labels, found, shares, strict=True):
        foreign = image[label] == 0
        rows, columns = foreign.any(1).sum(), foreign.any(0).sum()
        assert foreign.sum() == rows * columns  # a rectangle
        assert float(share[label]) == pytest.approx(1 - float(rows * columns) / (24 * 32))


def test_a_mixup_is_even_over_the_image():
    _, found, _ = blended("mixup")
    assert (found.amax((2, 3)) == found.amin((2, 3))).all()


def test_weights_of_a_mixup_are_drawn_from_their_beta():
    labels, _, shares = blended("mixup", count=6000)
    own = shares.gather(1, labels[:, None])[:, 0]
    mixed = (shares > 0).sum(1) == 2  # where the other was of another class
    assert stats.kstest(own[mixed].numpy(), "beta", args=(0.4, 0.4)).pvalue > 1e-3


def test_areas_of_a_cutmix_are_drawn_from_their_beta_where_no_edge_cuts_them():
    labels, found, shares = blended("cutmix", count=6000)
    foreign = found.gather(1, labels[:, None, None, None].expand(-1, 1, 24, 32))[:, 0] == 0
    inner = ~(foreign[:, [0, -1]].any((1, 2)) | foreign[:, :, [0, -1]].any((1, 2)))
    area = 1 - shares.gather(1, labels[:, None])[:, 0]
    small = inner & (area > 0)
    # an even area, kept with the chance that a rectangle of that side lies inside
    chance = (1 - area[small].sqrt()) ** 2
    counts, _ = torch.histogram(area[small], bins=5, range=(0.05, 0.55), weight=1 / chance)
    assert float(counts.std() / counts.mean()) < 0.25


def test_nobody_is_blended_with_itself():
    images = torch.arange(8.0)[:, None, None, None].expand(-1, 1, 4, 4)
    torch.manual_seed(0)
    for _ in range(20):
        found, _ = BLENDS.bound("mixup", SETTINGS)(images, torch.eye(8))
        weight_moved = found[:, 0, 0, 0] != images[:, 0, 0, 0]
        assert weight_moved.float().mean() > 0.8  # a weight of exactly 1 moves nothing


@pytest.mark.parametrize("name", BLENDING)
def test_a_batch_of_one_stays_as_it_is(name):
    labels, found, shares = blended(name, count=1)
    assert torch.equal(shares, functional.one_hot(labels, 3).float())
    assert (found[:, 0] == 1).all()


@pytest.mark.parametrize("name", BLENDING)
def test_the_state_of_the_generator_decides_how(name):
    first, again, other = (blended(name, seed=seed)[1] for seed in (5, 5, 7))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_without_a_blend_labels_stay_labels():
    labels, found, targets = blended("none")
    assert targets is not None and torch.equal(targets, labels)
    assert set(found.unique().tolist()) == {0.0, 1.0}
