"""Distances between image sets against SciPy, torchmetrics, hand values and what must hold."""

import numpy as np
import pytest

from mammo.errors import DataError
from mammo.evaluation.fidelity import (
    fidelity,
    frechet,
    halve,
    kernel,
    kernel_sd,
    ms_ssim_scales,
    pair_similarity,
)


def features(seed, rows, dim, shift=0.0):
    rng = np.random.default_rng(seed)
    return np.abs(rng.normal(size=(rows, dim))) / np.sqrt(np.arange(dim) + 1) + shift


@pytest.mark.parametrize(("rows", "others"), [(40, 30), (10, 40), (7, 9)])  # D = 16 on both sides
def test_the_frechet_distance_equals_the_matrix_square_root(rows, others):
    from scipy.linalg import sqrtm

    first, second = features(0, rows, 16), features(1, others, 16, shift=0.1)
    one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    gap = first.mean(axis=0) - second.mean(axis=0)
    root = np.trace(sqrtm(one @ other)).real
    expected = gap @ gap + np.trace(one) + np.trace(other) - 2 * root
    assert frechet(first, second) == pytest.approx(expected, rel=1e-3)


def test_the_frechet_distance_equals_that_of_torchmetrics():
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    identity = torch.nn.Identity()
    identity.num_features = 16
    first, second = features(2, 50, 16), features(3, 60, 16, shift=0.2)
    metric = FrechetInceptionDistance(feature=identity)
    metric.update(torch.from_numpy(first), real=True)
    metric.update(torch.from_numpy(second), real=False)
    assert frechet(first, second) == pytest.approx(float(metric.compute()), rel=1e-3)


def test_the_frechet_distance_of_a_shift_is_its_square():
    first = features(4, 30, 8)
    assert frechet(first, first) == pytest.approx(0, abs=1e-12)
    assert frechet(first, first + 0.5) == pytest.approx(8 * 0.25)


def test_the_kernel_distance_of_a_hand_example():
    # D = 1: k(x, y) = (xy + 1)^3; within 1 and 1: 8, within 0 and 0: 1, across: 1
    assert kernel(np.ones((2, 1)), np.zeros((2, 1))) == pytest.approx(8 + 1 - 2)


def test_the_kernel_distance_equals_that_of_torchmetrics():
    import torch
    from torchmetrics.image.kid import poly_mmd

    first, second = features(5, 20, 6), features(6, 20, 6, shift=0.3)
    expected = poly_mmd(torch.from_numpy(first), torch.from_numpy(second))
    assert kernel(first, second) == pytest.approx(float(expected), rel=1e-9)


def test_the_kernel_distance_of_equal_distributions_is_zero_on_average():
    values = [kernel(features(seed, 30, 8), features(seed + 500, 40, 8)) for seed in range(200)]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert min(values) < 0  # unbiased, hence below zero half of the time


def test_the_sd_of_the_kernel_distance_needs_four_images():
    assert np.isnan(kernel_sd(features(0, 3, 4), features(1, 9, 4), seed=0))
    assert kernel_sd(features(0, 20, 4), features(1, 20, 4), seed=0) > 0


def test_halves_share_no_patient_and_hold_half_of_the_images():
    patients = np.repeat([f"p{number}" for number in range(25)], 4)
    one, other = halve(patients, seed=0)
    assert not set(patients[one]) & set(patients[other])
    assert sorted([*one, *other]) == list(range(100))
    assert abs(len(one) - len(other)) <= 4


def test_more_real_images_lie_on_their_floor():
    patients = np.array([f"p{number // 2}" for number in range(200)])
    found = fidelity(features(7, 200, 16), patients, features(8, 300, 16))
    assert found.n == 100  # both sets of the comparison and of the floor
    assert abs(found.fid - found.fid_floor) < 4 * np.hypot(found.fid_sd, found.fid_floor_sd)
    assert abs(found.kid) < 3 * found.kid_sd


def test_other_images_lie_above_the_floor():
    patients = np.array([f"p{number}" for number in range(100)])
    found = fidelity(features(7, 100, 16), patients, features(8, 100, 16, shift=0.3))
    assert found.fid > found.fid_floor + 16 * 0.3**2 / 2
    assert found.kid > found.kid_floor


def test_one_image_has_no_distance():
    with pytest.raises(DataError, match="there are 9 real and 1 synthetic"):
        fidelity(features(0, 9, 4), np.array(list("abcdefghi")), features(1, 1, 4))


def test_one_patient_has_no_floor():
    with pytest.raises(DataError, match="9 real images of 1 patients"):
        fidelity(features(0, 9, 4), np.array(["a"] * 9), features(1, 9, 4))


@pytest.mark.parametrize(
    ("side", "scales"), [(512, 5), (256, 5), (128, 4), (64, 3), (16, 1), (8, 1)]
)
def test_small_images_have_fewer_scales(side, scales):
    assert ms_ssim_scales(side) == scales


@pytest.mark.parametrize("side", [16, 64, 128])
def test_equal_images_are_similar_and_noise_is_not(side):
    rng = np.random.default_rng(0)
    same = np.repeat(rng.random((1, 1, side, side), np.float32), 6, axis=0)
    noise = rng.random((6, 1, side, side), np.float32)
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert pair_similarity(same, labels, pairs=20) == pytest.approx(1, abs=1e-5)
    assert pair_similarity(noise, labels, pairs=20) < 0.5


def test_pairs_are_of_one_class():
    flat = np.zeros((4, 1, 64, 64), np.float32)
    flat[2:] = 1
    assert pair_similarity(flat, np.array([0, 0, 1, 1]), pairs=20) == pytest.approx(1, abs=1e-5)
    assert np.isnan(pair_similarity(flat, np.arange(4), pairs=20))
