"""Lesions of the phantom: smooth and spiculated masses, coarse and fine calcification clusters.

Sizes are shares of the image's height, not millimetres, so that a lesion can be seen at 64 pixels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mammo.seeds import derive

Image = np.ndarray[Any, np.dtype[Any]]
KINDS = ("mass", "mass", "mass", "calcification")  # a deck: one in four is a cluster
_MASS = {"benign": 0.2, "malignant": 0.42}  # brightness added at contrast 1


@dataclass(frozen=True)
class Lesion:
    """Where a lesion lies in its breast, how large it is and the stream its shape comes from."""

    kind: str  # mass or calcification
    behind_nipple: float  # distance behind the nipple as a share of the breast's depth
    sideways: float  # medio-lateral, in [-1, 1] of the breast's half height: seen in CC
    upwards: float  # cranio-caudal, likewise: seen in MLO
    radius: float  # share of the image's height
    stream: int

    def place(
        self, view: str, depth: float, nipple: float, half_height: float
    ) -> tuple[float, float]:
        """Centre (y, x) in one view: the distance behind the nipple is the same in both."""
        offset = self.sideways if view == "CC" else self.upwards
        width = half_height * np.sqrt(1 - (1 - self.behind_nipple) ** 2)  # narrow at the nipple
        return nipple + offset * width, depth * (1 - self.behind_nipple)


def draw_lesion(rng: np.random.Generator, *, kind: str) -> Lesion:
    """Place, size and stream of a lesion; its label is not known here."""
    return Lesion(
        kind=kind,
        behind_nipple=rng.uniform(0.3, 0.65),
        sideways=rng.uniform(-0.5, 0.5),
        upwards=rng.uniform(-0.4, 0.5),
        radius=rng.uniform(0.055, 0.08),
        stream=int(rng.integers(2**31)),
    )


def lesion_field(
    lesion: Lesion, label: str, where: tuple[float, float], y: Image, x: Image, *, image_size: int
) -> tuple[Image, Image]:
    """Brightness (H, W) that a lesion adds at contrast 1, and its mask (H, W) in {0, 1}.

    y (H, 1), x (1, W) and `where` are in image heights.
    """
    rng = np.random.default_rng(derive(lesion.stream, lesion.kind))
    dy, dx = y - where[0], x - where[1]
    if lesion.kind == "calcification":
        return _cluster(lesion.radius, label, dy, dx, rng, image_size)
    radius, angle = np.hypot(dy, dx), np.arctan2(dy, dx)
    if label == "benign":
        return _smooth_mass(lesion.radius, radius, angle, rng)
    return _spiculated_mass(lesion.radius, radius, angle, rng)


def _smooth_mass(
    size: float, radius: Image, angle: Image, rng: np.random.Generator
) -> tuple[Image, Image]:
    """A round or oval mass with a sharp edge and the thin dark halo of a displaced fat layer."""
    edge = size * (1 + 0.12 * np.cos(2 * angle + rng.uniform(0, 2 * np.pi)))
    body = sigmoid((edge - radius) / (0.05 * size)) * (0.75 + 0.25 * np.cos(radius / edge))
    halo = np.exp(-(((radius - 1.13 * edge) / (0.09 * size)) ** 2))
    field = _MASS["benign"] * body - 0.05 * halo
    return field.astype(np.float32), (radius < edge).astype(np.float32)


def _spiculated_mass(
    size: float, radius: Image, angle: Image, rng: np.random.Generator
) -> tuple[Image, Image]:
    """An irregular dense mass from which spicules radiate, each thinning out with distance."""
    edge = np.full_like(angle, 0.85 * size)
    for wave in range(2, 8):
        edge += 0.16 * size / wave**0.5 * rng.normal() * np.cos(wave * angle + rng.uniform(0, 7))
    edge = np.clip(edge, 0.45 * size, 1.5 * size)
    field = sigmoid((edge - radius) / (0.12 * size))
    for towards in rng.uniform(0, 2 * np.pi, size=22):
        length = size * rng.uniform(1.3, 2.9)
        bend = 0.15 * radius**2 / size * rng.uniform(-1, 1)
        across = radius * np.sin(angle - towards) + bend
        width = size * rng.uniform(0.06, 0.14) * np.clip(1.15 - radius / length, 0.2, 1)
        line = np.exp(-((across / width) ** 2)) * np.clip(1 - radius / length, 0, 1) ** 0.7
        strength = rng.uniform(0.4, 0.9)
        field = np.maximum(field, strength * line * (np.cos(angle - towards) > 0))
    return (_MASS["malignant"] * field).astype(np.float32), (field > 0.4).astype(np.float32)


def _cluster(
    size: float, label: str, dy: Image, dx: Image, rng: np.random.Generator, image_size: int
) -> tuple[Image, Image]:
    """Micro-calcifications: a few coarse round ones, or many fine ones of every shape."""
    count, grain = (6, 0.0065) if label == "benign" else (40, 0.0042)
    grain = max(grain, 0.55 / image_size)  # a grain under half a pixel would vanish
    field = np.zeros(np.broadcast_shapes(dy.shape, dx.shape), np.float32)
    for _ in range(count):
        cy, cx = rng.normal(size=2) * 0.5 * size
        stretch = 1.0 if label == "benign" else rng.uniform(1, 2.2)
        turn, scale = rng.uniform(0, np.pi), grain * rng.uniform(0.8, 1.25)
        along = (dx - cx) * np.cos(turn) + (dy - cy) * np.sin(turn)
        across = (dy - cy) * np.cos(turn) - (dx - cx) * np.sin(turn)
        spot = np.exp(-((along / (scale * stretch)) ** 2 + (across / scale) ** 2))
        field = np.maximum(field, rng.uniform(0.6, 1.0) * spot)
    return (0.6 * field).astype(np.float32), (np.hypot(dy, dx) < 1.2 * size).astype(np.float32)


def sigmoid(value: Image) -> Image:
    share: Image = 1 / (1 + np.exp(-np.clip(value, -30, 30)))
    return share
