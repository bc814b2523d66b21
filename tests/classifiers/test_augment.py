"""Augmentation depends on torch's generator alone, and leaves what it must not touch."""

import numpy as np
import pytest
import torch
from scipy import stats

from mammo.classifiers.augment import AUGMENTS, Bundle, between, erased, hole
from mammo.classifiers.changing import check_changing, class_augments, make_changing
from mammo.classifiers.operations import NEUTRAL, change
from mammo.errors import ConfigError

CHANGING = sorted(set(AUGMENTS) - {"none"})
FLIPPING = {"flip", "strong_flip", "jitter", *(name for name in AUGMENTS if "u24" in name)}
SETTINGS = {
    "augment": "none",
    "class_augment": "",
    "randaugment_ops": 2,
    "randaugment_strength": 0.5,
    "erasing": 0.0,
    "blend": "none",
    "mixup_alpha": 0.2,
    "cutmix_alpha": 1.0,
}


def changed(images, labels=None, **settings):
    """`images` as a training step of two classes changes them."""
    labels = torch.zeros(len(images), dtype=torch.int64) if labels is None else labels
    return make_changing({**SETTINGS, **settings}, ("benign", "malignant"))(images, labels)[0]


def half_bright(count=4):
    """Images whose left half is tissue of 0.5 and whose right half is air."""
    images = torch.zeros(count, 1, 16, 32)
    images[..., :16] = 0.5
    return images


def test_none_changes_nothing():
    images = torch.rand(2, 1, 8, 8)
    assert changed(images) is images


@pytest.mark.parametrize("name", CHANGING)
def test_the_state_of_the_generator_decides(name):
    images = torch.rand(4, 2, 16, 16)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(changed(images, augment=name))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("name", CHANGING)
def test_values_stay_between_0_and_1(name):
    torch.manual_seed(0)
    after = changed(torch.rand(8, 1, 16, 16), augment=name)
    assert after.min() >= 0 and after.max() <= 1


@pytest.mark.parametrize("name", CHANGING)
def test_an_image_changes_by_its_own_amount(name):
    torch.manual_seed(0)
    images = torch.rand(1, 1, 24, 24).expand(6, -1, -1, -1)
    after = changed(images, augment=name)
    assert len({each.numpy().tobytes() for each in after}) > 1


@pytest.mark.parametrize("name", sorted(set(CHANGING) - FLIPPING))
def test_only_the_flips_move_the_chest_wall_to_the_other_side(name):
    torch.manual_seed(0)
    images = half_bright()
    for _ in range(5):
        after = changed(images, augment=name, randaugment_strength=0.3)
        assert (after[..., :16].mean((1, 2, 3)) > after[..., 16:].mean((1, 2, 3))).all()


@pytest.mark.parametrize(
    ("name", "axis", "share"),
    [("flip", 3, 0.5), ("u24_basic", 3, 0.5), ("u24_basic", 2, 0.3), ("jitter", 2, 0.8)],
)
def test_images_are_mirrored_as_often_as_said(name, axis, share):
    torch.manual_seed(0)
    amounts = AUGMENTS[name]()(4000, 8, 8)["mirror_x" if axis == 3 else "mirror_y"]
    assert stats.binomtest(int(amounts.sum()), 4000, share).pvalue > 1e-3


@pytest.mark.parametrize("limit", [0.05, 0.3])
def test_amounts_are_even_between_their_limits(limit):
    torch.manual_seed(0)
    found = between(4000, limit).numpy()
    assert stats.kstest(found, "uniform", args=(-limit, 2 * limit)).pvalue > 1e-3


def test_the_mean_brightness_moves_by_no_more_than_the_bundle_says():
    torch.manual_seed(0)
    images = torch.full((500, 1, 4, 4), 0.5)
    means = change(images, Bundle(brightness=0.2)(500, 4, 4)).mean((1, 2, 3))
    assert means.min() >= 0.3 - 1e-6 and means.max() <= 0.7 + 1e-6
    assert means.min() < 0.31 and means.max() > 0.69  # and as much as that
    means = change(images, Bundle(contrast=0.2)(500, 4, 4)).mean((1, 2, 3))
    assert means.min() >= 0.4 - 1e-6 and means.max() <= 0.6 + 1e-6


def test_a_blanked_rectangle_is_at_most_as_long_as_asked():
    torch.manual_seed(0)
    holes = change(torch.ones(50, 1, 30, 30), hole(50, 30, 30, side=1 / 3)) == 0
    assert holes.any(3).sum(2).max() <= 11 and holes.any(2).sum(2).max() <= 11
    assert holes.flatten(1).sum(1).max() > 25


def test_erasing_meets_its_share_its_areas_and_its_aspects():
    torch.manual_seed(0)
    amounts = erased(4000, 200, 200, share=0.25)
    chosen = amounts["height"] > 0
    assert stats.binomtest(int(chosen.sum()), 4000, 0.25).pvalue > 1e-3
    high, wide = amounts["height"][chosen], amounts["width"][chosen]
    area = (high * wide / 200**2).numpy()
    fits = ((high < 200) & (wide < 200)).numpy()
    assert fits.mean() > 0.95
    assert area[fits].min() >= 0.02 - 1e-6 and area[fits].max() <= 0.33 + 1e-6
    aspect = (high / wide).numpy()[fits]
    assert aspect.min() >= 1 / 3.3 - 1e-4 and aspect.max() <= 3.3 + 1e-4
    assert (amounts["top"] + amounts["height"]).max() <= 200 + 1e-3
    assert (amounts["left"] + amounts["width"]).max() <= 200 + 1e-3


def test_erasing_comes_on_top_of_any_bundle():
    torch.manual_seed(0)
    images = torch.rand(64, 1, 20, 20).clamp_min(0.1)
    after = changed(images, erasing=0.5)
    holed = (after == 0).flatten(1).any(1)
    assert 16 < int(holed.sum()) < 48  # 32 expected, sd 4
    assert torch.equal(after[~holed], images[~holed])
    assert torch.equal(after[after > 0], images[after > 0])


@pytest.mark.parametrize("ops", [0, 1, 2, 10])
def test_randaugment_does_as_many_operations_as_asked_at_the_strength_asked(ops):
    torch.manual_seed(0)
    draw = AUGMENTS.bound("randaugment", {"randaugment_ops": ops, "randaugment_strength": 0.5})()
    amounts = draw(2000, 16, 16)
    moved = torch.stack([amounts[name] != NEUTRAL[name] for name in amounts])
    assert (moved.sum(dim=0) == ops).all()
    if ops in (1, 2):  # each operation as often as another, in both directions
        assert stats.chisquare(moved.sum(dim=1).numpy()).pvalue > 1e-3
    sizes = (amounts["gamma"] - 1).abs().unique()
    assert set(sizes.tolist()) <= {0.0, 0.25}  # half of 0.5


def test_randaugment_without_strength_changes_nothing():
    images = torch.rand(8, 1, 16, 16)
    assert torch.equal(changed(images, augment="randaugment", randaugment_strength=0.0), images)


@pytest.mark.parametrize("name", ["strong", "cutout", "randaugment", "u24_all"])
def test_selected_classes_alone_are_changed(name):
    images, labels = torch.rand(12, 1, 16, 16).clamp_min(0.1), torch.arange(12) % 2
    torch.manual_seed(4)
    after = changed(images, labels, class_augment=f"malignant={name}")
    assert torch.equal(after[labels == 0], images[labels == 0])
    every = labels == 1
    differs = (after != images).flatten(1).any(1)
    assert differs[every].float().mean() > 0.5
    # as that bundle changes them where all are
    torch.manual_seed(4)
    torch.testing.assert_close(after[every], changed(images, augment=name)[every])


def test_one_class_can_be_left_alone_and_another_have_its_own():
    images, labels = torch.rand(12, 1, 16, 16).clamp_min(0.1), torch.arange(12) % 2
    torch.manual_seed(4)
    after = changed(images, labels, augment="strong", class_augment="benign=none,malignant=cutout")
    assert torch.equal(after[labels == 0], images[labels == 0])
    shown = after[labels == 1] > 0
    assert torch.equal(after[labels == 1][shown], images[labels == 1][shown])
    assert not shown.all()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("malignant", "'malignant' should be <class>=<augment>, each class once"),
        ("malignant=best", "'malignant=best' should be"),
        ("malignant=basic,malignant=strong", "each class once"),
    ],
)
def test_a_class_augment_that_means_nothing_is_refused(text, line):
    with pytest.raises(ConfigError, match=line):
        class_augments(text)


def test_a_class_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="names class 'cancer'; the classes are benign, malign"):
        changed(torch.rand(1, 1, 8, 8), class_augment="cancer=strong")


def test_settings_of_an_augmentation_that_nobody_asked_for_are_refused():
    defaults = {**SETTINGS, "augment": "basic"}
    asked = {**defaults, "randaugment_ops": 3}
    with pytest.raises(ConfigError, match="randaugment_ops 3 has no effect with augment basic"):
        check_changing(asked, defaults)
    check_changing({**asked, "class_augment": "malignant=randaugment"}, defaults)
    with pytest.raises(ConfigError, match=r"cutmix_alpha 2\.0 has no effect with blend mixup; it"):
        check_changing({**defaults, "blend": "mixup", "cutmix_alpha": 2.0}, defaults)


@pytest.mark.parametrize("name", sorted(AUGMENTS))
def test_amounts_have_names_that_operations_know(name):
    amounts = AUGMENTS.bound(name, SETTINGS)()(5, 16, 16)
    assert set(amounts) <= set(NEUTRAL)
    assert all(np.shape(each) == (5,) for each in amounts.values())
