"""How near synthetic images are to real ones: Frechet and kernel distances beside their floor.

The Frechet distance of two small samples is mostly bias, of order dimension / images, so it is
only ever reported beside the distance of two patient-disjoint sets of real images of the same
size, and all sets that are compared with each other have that size.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammo.errors import DataError
from mammo.seeds import derive

Floats = NDArray[np.float64]
SUBSETS = 50  # that the SD of the kernel distance is taken over
HALVINGS = 5  # of the real patients; one halving's floor varies by a tenth and more


@dataclass(frozen=True)
class Fidelity:
    """Distances of synthetic from real features, and of real from real (the floor)."""

    fid: float  # mean over halvings: n synthetic against n of one real half
    fid_sd: float  # over halvings
    fid_floor: float  # n of one real half against n of the other
    fid_floor_sd: float
    kid: float  # all synthetic against all real
    kid_sd: float  # over subsets of half the size
    kid_floor: float  # mean over halvings
    kid_floor_sd: float
    n: int  # images in each set of a Frechet distance
    n_real: int
    n_synthetic: int
    dim: int


def fidelity(
    real: Floats, patients: NDArray[np.str_], synthetic: Floats, *, seed: int = 0
) -> Fidelity:
    """Compare features `real` (N, D) of `patients` (N,) with `synthetic` (M, D)."""
    _need_two(real, synthetic)
    halves = [halve(patients, derive(seed, "halves", number)) for number in range(HALVINGS)]
    n = min(len(synthetic), *(len(half) for pair in halves for half in pair))
    if n < 2:
        raise DataError(
            f"a real-vs-real floor needs two halves of 2 images or more, {len(real)} real images "
            f"of {len(np.unique(patients))} patients give {n}"
        )
    found: dict[str, list[float]] = {"fid": [], "fid_floor": [], "kid_floor": []}
    for number, (one, other) in enumerate(halves):
        rng = np.random.default_rng(derive(seed, "draw", number))
        reference = real[rng.choice(one, n, replace=False)]
        held_back = real[rng.choice(other, n, replace=False)]
        made = synthetic[rng.choice(len(synthetic), n, replace=False)]
        found["fid"].append(frechet(reference, made))
        found["fid_floor"].append(frechet(reference, held_back))
        found["kid_floor"].append(kernel(real[one], real[other]))
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    sd = {f"{name}_sd": float(np.std(values, ddof=1)) for name, values in found.items()}
    return Fidelity(
        **mean,
        **sd,
        kid=kernel(real, synthetic),
        kid_sd=kernel_sd(real, synthetic, seed=derive(seed, "kid")),
        n=n,
        n_real=len(real),
        n_synthetic=len(synthetic),
        dim=real.shape[1],
    )


def frechet(first: Floats, second: Floats) -> float:
    """Frechet distance of the normal fits to features (N, D) and (M, D) (Dowson and Landau 1982).

    tr sqrt(S1 S2) is the nuclear norm of A B^T / sqrt((N - 1)(M - 1)) with A and B the centred
    features, exact for any N, M and D; where N > D, A's triangular factor stands for A.
    """
    _need_two(first, second)
    shift = first.mean(axis=0) - second.mean(axis=0)
    a, b = _centred_root(first), _centred_root(second)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(shift @ shift + np.sum(a**2) + np.sum(b**2) - 2 * cross)


def kernel(first: Floats, second: Floats) -> float:
    """Squared maximum mean discrepancy with the kernel (x.y / D + 1)^3, unbiased.

    (Gretton et al. 2012, lemma 6; the kernel is that of KID, Binkowski et al. 2018.)
    """
    _need_two(first, second)
    return _discrepancy(_cubic(first, first), _cubic(first, second), _cubic(second, second))


def kernel_sd(first: Floats, second: Floats, *, seed: int, largest: int = 1000) -> float:
    """SD of `kernel` over random subsets, each of half the smaller set and `largest` at most."""
    size = min(len(first), len(second), 2 * largest) // 2
    if size < 2:
        return float("nan")
    rng = np.random.default_rng(seed)
    within, across, beyond = _cubic(first, first), _cubic(first, second), _cubic(second, second)
    values = []
    for _ in range(SUBSETS):
        one = rng.choice(len(first), size, replace=False)
        other = rng.choice(len(second), size, replace=False)
        parts = within[np.ix_(one, one)], across[np.ix_(one, other)], beyond[np.ix_(other, other)]
        values.append(_discrepancy(*parts))
    return float(np.std(values, ddof=1))


def halve(patients: NDArray[np.str_], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of two halves that share no patient: a random half of the images in the first."""
    names, codes, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    before = np.cumsum(counts[order]) - counts[order]
    first = np.zeros(len(names), bool)
    first[order[before + counts[order] / 2 <= len(patients) / 2]] = True
    return np.flatnonzero(first[codes]), np.flatnonzero(~first[codes])


def ms_ssim_scales(side: int) -> int:
    """Scales of MS-SSIM for images of `side` pixels: the coarsest keeps 16 px, 5 at most."""
    return max(1, min(5, int(np.log2(side / 16)) + 1))


def pair_similarity(
    images: NDArray[np.float32], labels: NDArray[np.int64], *, pairs: int = 200, seed: int = 0
) -> float:
    """Mean MS-SSIM of random pairs of the same label: 1 when all images of a class are equal.

    `images` (N, C, H, W) in [0, 1]; weights of the `ms_ssim_scales` finest scales of Wang et al.
    (2003), normalised to sum 1. nan when no label has two images.
    """
    import torch
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    chosen = _pairs(labels, pairs, seed)
    if not len(chosen):
        return float("nan")
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
    weights = weights[: ms_ssim_scales(min(images.shape[2:]))]
    values = []
    for batch in np.array_split(chosen, -(-len(chosen) // 25)):
        one, other = (torch.from_numpy(images[batch[:, side]]) for side in (0, 1))
        found = multiscale_structural_similarity_index_measure(
            one,
            other,
            data_range=1.0,
            betas=tuple(weights / weights.sum()),
            normalize="relu",
            reduction="none",
        )
        values.append(found.double().numpy().reshape(-1))
    return float(np.concatenate(values).mean())


def _pairs(labels: NDArray[np.int64], pairs: int, seed: int) -> NDArray[np.int64]:
    """Random pairs (<= pairs, 2) of distinct rows with the same label."""
    rng = np.random.default_rng(seed)
    out = []
    for row in rng.choice(len(labels), pairs):
        mates = np.flatnonzero(labels == labels[row])
        mates = mates[mates != row]
        if len(mates):
            out.append((row, rng.choice(mates)))
    return np.array(out, np.int64).reshape(-1, 2)


def _centred_root(features: Floats) -> Floats:
    """A matrix R (<= D, D) with R^T R the covariance of `features` (N, D)."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    if len(features) > features.shape[1]:
        return np.asarray(np.linalg.qr(centred, mode="r"))
    return np.asarray(centred)


def _cubic(first: Floats, second: Floats) -> Floats:
    return np.asarray((first @ second.T / first.shape[1] + 1) ** 3)


def _discrepancy(within: Floats, across: Floats, beyond: Floats) -> float:
    """Unbiased estimate from the three kernel matrices: an image is not compared with itself."""
    n, m = across.shape
    same = (within.sum() - np.trace(within)) / (n * (n - 1))
    other = (beyond.sum() - np.trace(beyond)) / (m * (m - 1))
    return float(same + other - 2 * across.mean())


def _need_two(first: Floats, second: Floats) -> None:
    if min(len(first), len(second)) < 2:
        raise DataError(
            f"a distance between sets of images needs 2 in each, there are {len(first)} real and "
            f"{len(second)} synthetic"
        )
