"""A procedural mammogram: patients drawn from a seed, and the picture of each of their breasts.

Nothing but the lesion depends on the label: the anatomy, the texture and the lesion's place and
size each come from a random stream of their own, so at contrast 0 a benign and a malignant patient
of the same seed are the same to the last bit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mammo.data.phantom_lesions import KINDS, Lesion, draw_lesion, lesion_field, sigmoid
from mammo.seeds import derive

Image = np.ndarray[Any, np.dtype[Any]]
ASPECT = 0.75  # width over height of the detector, as of an 18 x 24 cm cassette
HEIGHT_MM = 240.0
SIDES, VIEWS = ("L", "R"), ("CC", "MLO")
# Decks are dealt in shuffled rounds: every few patients hold each class, in no order.
_LABELS = ("normal", "benign", "benign", "malignant", "malignant")
_DENSITIES = ("A", "B", "B", "C", "C", "D")
_DENSE_SHARE = {"A": (0.05, 0.12), "B": (0.2, 0.32), "C": (0.42, 0.56), "D": (0.7, 0.85)}  # of area
_VENDORS = ("PhantomA", "PhantomB", "PhantomC")
_FAT, _DENSE, _MUSCLE = 0.22, 0.38, 0.48  # brightness of fat, what fibroglandular tissue adds


@dataclass(frozen=True)
class Anatomy:
    """Shape of one breast in units of the image's height."""

    depth: float  # chest wall to nipple
    half_height: float
    roundness: float  # exponent of the outline's superellipse
    nipple: dict[str, float]  # height of the nipple by view, from the top
    muscle: tuple[float, float]  # where the pectoral muscle's edge leaves the top and the left
    dense_share: float  # fibroglandular part of the breast's area


@dataclass(frozen=True)
class Patient:
    """One patient: everything that the images of the release show, before they are rendered."""

    index: int
    seed: int
    label: str  # normal, benign or malignant
    density: str  # BI-RADS A to D
    age: int  # years
    vendor: str
    inverted: bool  # stored as MONOCHROME1
    breasts: dict[str, Anatomy]
    affected: str  # L or R: the side that bears the lesion unless the label is normal
    lesion: Lesion

    def label_of(self, side: str) -> str:
        """Truth of one breast: the unaffected one is normal whatever the patient's label."""
        return self.label if side == self.affected else "normal"


def draw_patient(index: int, *, seed: int) -> Patient:
    """Patient `index` of the population `seed`; does not depend on how many there are."""
    kind = _deal(KINDS, index, seed, "kind")
    density = _deal(_DENSITIES, index, seed, "density")
    return Patient(
        index=index,
        seed=seed,
        label=_deal(_LABELS, index, seed, "label"),
        density=density,
        age=int(_stream(seed, index, "age").integers(40, 81)),
        vendor=_deal(_VENDORS, index, seed, "vendor"),
        inverted=_deal(("no", "yes"), index, seed, "inverted") == "yes",
        breasts=_draw_breasts(_stream(seed, index, "anatomy"), density),
        affected=_deal(SIDES, index, seed, "side"),
        lesion=draw_lesion(_stream(seed, index, "lesion"), kind=kind),
    )


def render(
    patient: Patient, side: str, view: str, *, image_size: int = 256, contrast: float = 1.0
) -> tuple[Image, Image | None]:
    """Picture (H, W) in [0, 1] of one view, air 0, and the mask (H, W) in {0, 1} of its lesion.

    H is `image_size`, W is ASPECT times it. The chest wall is left for L and right for R, as a
    radiologist hangs them. `contrast` scales what the lesion adds; the mask marks its place at any
    contrast, and is None where there is none.
    """
    shape = (image_size, round(image_size * ASPECT))
    rng = _stream(patient.seed, patient.index, side, view)
    breast = patient.breasts[side]
    y, x = pixel_grid(shape)
    inside, distance = _outline(breast, view, y, x)
    tissue = _tissue(breast, view, y, x, inside, rng)
    noise = rng.standard_normal(shape, dtype=np.float32) * 0.004

    mask = None
    label = patient.label_of(side)
    if label != "normal":
        where = patient.lesion.place(view, breast.depth, breast.nipple[view], breast.half_height)
        added, mask = lesion_field(patient.lesion, label, where, y, x, image_size=image_size)
        tissue = tissue + np.float32(contrast) * added
        mask = (mask * (inside > 0.5)).astype(np.float32)
    thickness = _thickness(distance)
    picture = inside * (_shoulder(tissue * thickness) + 0.07 * _skin_line(distance) + noise)
    picture = np.clip(picture, 0, 1).astype(np.float32)
    if side == "R":
        picture = picture[:, ::-1]
        mask = None if mask is None else mask[:, ::-1]
    return np.ascontiguousarray(picture), mask


def power_law_noise(
    shape: tuple[int, int],
    *,
    exponent: float,
    rng: np.random.Generator,
    elongation: float = 1.0,
) -> Image:
    """Periodic Gaussian field `shape` of zero mean and unit variance with P(f) ~ 1 / f^exponent.

    `elongation` > 1 stretches its structures along x. About 3 is the exponent measured on
    mammograms (Burgess 2001, doi:10.1118/1.1355308).
    """
    fy = np.fft.fftfreq(shape[0])[:, None] * max(shape)
    fx = np.fft.rfftfreq(shape[1])[None, :] * max(shape)
    squared = (fy / elongation**0.5) ** 2 + (fx * elongation**0.5) ** 2
    squared[0, 0] = np.inf  # no power at the mean
    amplitude = squared ** (-exponent / 4)
    weight = np.full(amplitude.shape[1], 2.0)  # rfft keeps one of each conjugate pair
    weight[0] = 1
    if shape[1] % 2 == 0:
        weight[-1] = 1
    deviation = np.sqrt((amplitude**2 * weight).sum() / (shape[0] * shape[1]))
    white = rng.standard_normal(shape, dtype=np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=shape)
    return np.asarray(field / deviation, dtype=np.float32)


def pixel_grid(shape: tuple[int, int]) -> tuple[Image, Image]:
    """Pixel centres y (H, 1) and x (1, W) in units of the image's height."""
    y = (np.arange(shape[0], dtype=np.float32) + 0.5) / shape[0]
    x = (np.arange(shape[1], dtype=np.float32) + 0.5) / shape[0]
    return y[:, None], x[None, :]


def _tissue(
    breast: Anatomy,
    view: str,
    y: Image,
    x: Image,
    inside: Image,
    rng: np.random.Generator,
) -> Image:
    """Brightness (H, W) of the tissue before the skin cuts it off.

    The fibroglandular cone is where power-law noise plus closeness to the cone's axis is largest;
    the threshold is the quantile that gives the breast its dense share.
    """
    shape = (y.shape[0], x.shape[1])
    coarse = power_law_noise(shape, exponent=3.4, rng=rng, elongation=1.3)
    fine = power_law_noise(shape, exponent=3.2, rng=rng, elongation=1.5)
    strands = power_law_noise(shape, exponent=3.2, rng=rng, elongation=2.2)
    muscle = _muscle(breast, y, x, fine) if view == "MLO" else np.zeros(shape, np.float32)

    along = (x - 0.58 * breast.depth) / (0.5 * breast.depth)
    across = (y - breast.nipple[view]) / (0.75 * breast.half_height)
    closeness = 0.55 * coarse - 1.5 * (along**2 + across**2)
    counted = (inside > 0.5) & (muscle < 0.5)
    threshold = np.quantile(closeness[counted], 1 - breast.dense_share)
    dense = sigmoid((closeness - threshold) / 0.3)

    ridges = np.exp(
        -np.abs(strands) / 0.16
    )  # Cooper's ligaments and ducts: where a field crosses 0
    fat = _FAT + 0.045 * fine + 0.05 * ridges
    gland = _DENSE * dense * (0.85 + 0.3 * fine + 0.25 * ridges)
    tissue = fat + gland
    tissue = tissue * (1 - muscle) + muscle * (_MUSCLE + 0.04 * fine + 0.05 * coarse)
    return np.asarray(tissue, dtype=np.float32)


def _outline(breast: Anatomy, view: str, y: Image, x: Image) -> tuple[Image, Image]:
    """Soft mask (H, W) of the breast and each pixel's distance to the skin, in image heights."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    offset = y - breast.nipple[view]
    if view == "CC":
        reach = np.where(offset < 0, breast.half_height, 0.97 * breast.half_height)
    else:  # the axillary tail runs out of the picture at the top
        reach = np.where(offset < 0, breast.nipple[view] + 0.22, 0.88 * breast.half_height)
    along = np.clip(np.abs(offset) / reach, 0, 1)
    edge = breast.depth * (1 - along**breast.roundness) ** (1 / 1.85)
    edge = edge + 0.012 * np.exp(-((offset / 0.018) ** 2))  # the nipple
    inside = x < edge
    padded = np.pad(inside, ((1, 1), (1, 0)), mode="edge")  # skin is at the front only
    distance = distance_transform_edt(padded)[1:-1, 1:] / y.shape[0]
    soft = gaussian_filter(padded.astype(np.float32), 0.7)[1:-1, 1:]
    return soft, distance.astype(np.float32)


def _muscle(breast: Anatomy, y: Image, x: Image, fine: Image) -> Image:
    """Pectoral muscle (H, W) in [0, 1]: a wedge at the top left with a slightly convex edge."""
    top, left = breast.muscle
    down = y / left
    edge = top * (1 - down) + 0.035 * np.sin(np.pi * np.clip(down, 0, 1))
    return sigmoid((edge - x + 0.006 * fine) / 0.01)


def _thickness(distance: Image) -> Image:
    """What is left of the compressed thickness at a distance from the skin: rolls off at 0.07."""
    depth = np.clip(distance / 0.07, 0, 1)
    thickness: Image = 0.35 + 0.65 * np.sqrt(1 - (1 - depth) ** 2)
    return thickness


def _skin_line(distance: Image) -> Image:
    line: Image = np.exp(-(((distance - 0.006) / 0.004) ** 2))
    return line


def _shoulder(value: Image) -> Image:
    """Tone curve: linear to 0.7, above it bent so that it stays under 1."""
    over = np.maximum(value - 0.7, 0)
    bent: Image = np.minimum(value, 0.7) + 0.28 * (1 - np.exp(-over / 0.28))
    return bent


def _draw_breasts(rng: np.random.Generator, density: str) -> dict[str, Anatomy]:
    """Both breasts of a patient: the same anatomy but for a few per cent."""
    depth, half_height = rng.uniform(0.4, 0.6), rng.uniform(0.34, 0.43)
    roundness = rng.uniform(2.0, 2.5)
    low, high = _DENSE_SHARE[density]
    share = rng.uniform(low, high)
    muscle = rng.uniform(0.22, 0.34), rng.uniform(0.5, 0.68)
    breasts = {}
    for side in SIDES:
        wobble = rng.uniform(0.96, 1.04, size=5)
        breasts[side] = Anatomy(
            depth=min(depth * wobble[0], 0.62),
            half_height=half_height * wobble[1],
            roundness=roundness,
            nipple={"CC": 0.5 * wobble[2], "MLO": 0.6 * wobble[3]},
            muscle=muscle,
            dense_share=float(np.clip(share * wobble[4], low, high)),
        )
    return breasts


def _deal(deck: tuple[str, ...], index: int, seed: int, name: str) -> str:
    """Card of patient `index` when `deck` is shuffled anew for every len(deck) patients."""
    order = _stream(seed, index // len(deck), "deck", name).permutation(len(deck))
    return deck[int(order[index % len(deck)])]


def _stream(seed: int, index: int, *names: str) -> np.random.Generator:
    return np.random.default_rng(derive(seed, "phantom", index, *names))
