"""What a set of images is like: the statistics by which real and synthetic ones are compared."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.errors import DataError

Floats = NDArray[np.float64]
Texts = Sequence[str] | NDArray[np.str_]
MOST, PIXELS = 500, 1 << 25  # images and pixels that a summary is made of
BINS = 64  # of a histogram over [0, 1]
CELLS = 8  # of the mean image, on a side
BANDS = 12  # of the power spectrum, evenly from 0 to BAND_TOP
BAND_TOP = 0.5  # cycles a pixel: beyond it only diagonals have any
QUANTILES = (0.1, 1.0, 50.0, 99.0, 99.9)  # percent
_AT_ONCE = 32  # images in memory as floats


def some_rows(labels: Texts, shape: Sequence[int]) -> NDArray[np.int64]:
    """Row numbers for a summary of images of `shape`: evenly spaced, each class by its share."""
    names = np.asarray(labels, str)
    most = min(MOST, PIXELS // int(np.prod(shape)))
    chosen: list[NDArray[np.int64]] = []
    for name in sorted(set(names)):
        mine = np.flatnonzero(names == name)
        count = min(len(mine), max(2, round(most * len(mine) / len(names))))
        chosen.append(mine[np.linspace(0, len(mine) - 1, count).astype(int)])
    return np.sort(np.concatenate(chosen))


def summarize(
    images: NDArray[Any], labels: Texts, patients: Texts, *, kind: str = "image"
) -> dict[str, Any]:
    """What `images` (N, C, H, W) are like by class, as JSON: uint8, uint16, or floats in [0, 1].

    Each class has its images and patients, and the mean and standard deviation over its images of
    every quantity of an image. `kind` is image, or mask, of which only the area counts.
    """
    if not len(images):
        raise DataError("a summary of no images was asked for; give at least one")
    names = np.asarray(labels, str)
    values, histograms, layouts = _measure(images)
    hashes = np.array([hashlib.sha256(each.tobytes()).hexdigest()[:16] for each in images])
    top = _top(images.dtype)
    levels = [_levels(images[:, channel]) for channel in range(images.shape[1])]
    classes = {}
    for name in sorted(set(names)):
        mine = names == name
        mean = values[mine].mean()
        classes[name] = {
            "images": int(mine.sum()),
            "patients": len(set(np.asarray(patients, str)[mine])),
            "distinct": len(set(hashes[mine])),
            "mean": _short(mean),
            "sd": _short(values[mine].std(ddof=1) if mine.sum() > 1 else 0 * mean),
            "spread": _digits(_spread(images, np.flatnonzero(mine)) / top),
            "histogram": _digits(histograms[mine].mean(axis=0)),
            "layout": _digits(layouts[mine].mean(axis=0)),
        }
    return {
        "kind": kind,
        "dtype": images.dtype.name,
        "shape": list(images.shape[1:]),
        "levels": levels,
        "lowest": float(np.min(images) / top),
        "highest": float(np.max(images) / top),
        "classes": classes,
    }


def band_centers(height: int, width: int) -> Floats:
    """Spatial frequency (cycles a pixel) of each band of the spectrum that has any."""
    edges = np.linspace(0, BAND_TOP, BANDS + 1)
    return np.asarray((edges[:-1] + edges[1:]) / 2)[_bands_there(height, width)]


def spectra(images: Floats) -> Floats:
    """Radially averaged power of `images` (N, H, W) in [0, 1], in dB: (N, bands that there are).

    Each image less its mean, under a Hann window, so that what lies at its edges does not leak.
    """
    height, width = images.shape[1:]
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    centered = images - images.mean(axis=(1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(centered * window)) ** 2 / (window**2).sum()
    band = _band_of(height, width)
    there = _bands_there(height, width)
    averaged = [power[:, band == number].mean(axis=1) for number in there]
    # a step of 16 bits has this power: below it no picture has any
    return np.asarray(10 * np.log10(np.stack(averaged, axis=1) + (1 / 65535) ** 2 / 12))


def _measure(images: NDArray[Any]) -> tuple[pd.DataFrame, Floats, Floats]:
    """Quantities (N rows), histograms (N, C, BINS) and layouts (N, C, cells, cells)."""
    parts = [_measure_some(images[at : at + _AT_ONCE]) for at in range(0, len(images), _AT_ONCE)]
    frames, histograms, layouts = zip(*parts, strict=True)
    return pd.concat(frames, ignore_index=True), np.concatenate(histograms), np.concatenate(layouts)


def _measure_some(images: NDArray[Any]) -> tuple[pd.DataFrame, Floats, Floats]:
    greys = images / _top(images.dtype)
    count, channels, height, width = greys.shape
    columns: dict[str, Floats] = {}
    histograms = np.empty((count, channels, BINS))
    for channel in range(channels):
        mine = greys[:, channel]
        prefix = f"channel{channel + 1}/" if channels > 1 else ""
        flat = mine.reshape(count, -1)
        columns |= {f"{prefix}{name}": each for name, each in _quantities(mine, flat).items()}
        places = np.clip(np.nan_to_num(flat * BINS).astype(int), 0, BINS - 1)
        for row, each in enumerate(places):
            histograms[row, channel] = np.bincount(each, minlength=BINS) / flat.shape[1]
    rows, across = (_edges(side, CELLS) for side in (height, width))
    sums = np.add.reduceat(np.add.reduceat(greys, rows, axis=2), across, axis=3)
    sizes = np.outer(np.diff([*rows, height]), np.diff([*across, width]))
    return pd.DataFrame(columns), histograms, sums / sizes


def _quantities(images: Floats, flat: Floats) -> dict[str, Floats]:
    """Each quantity (N,) of `images` (N, H, W); `flat` (N, H W) are the same."""
    half = images.shape[2] // 2
    found = {"mean": flat.mean(axis=1), "background": (flat == 0).mean(axis=1)}  # exact air
    for percent, value in zip(QUANTILES, np.percentile(flat, QUANTILES, axis=1), strict=True):
        found[f"quantile_{percent:g}"] = value
    sides = {"top": images[:, 0], "bottom": images[:, -1]}
    sides |= {"left": images[:, :, 0], "right": images[:, :, -1]}
    found |= {f"border_{name}": each.mean(axis=1) for name, each in sides.items()}
    found["side"] = images[:, :, :half].mean(axis=(1, 2)) - images[:, :, -half:].mean(axis=(1, 2))
    found["left_side"] = (found["side"] > 0).astype(float)
    there = _bands_there(*images.shape[1:])
    power = spectra(images)
    found |= {f"spectrum_{band + 1}": power[:, place] for place, band in enumerate(there)}
    return found


def _levels(images: NDArray[Any]) -> int:
    """How many values there are; quicker than sorting them."""
    if images.dtype.kind != "u":
        return len(np.unique(images))
    there = np.zeros(np.iinfo(images.dtype).max + 1, bool)
    there[images] = True
    return int(there.sum())


def _spread(images: NDArray[Any], rows: NDArray[np.int64]) -> float:
    """Standard deviation of a pixel over the images `rows`, averaged over the pixels."""
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), 100)).astype(int)]
    pixels = np.unique(np.linspace(0, images[0].size - 1, 4096).astype(int))
    return float(images[chosen].reshape(len(chosen), -1)[:, pixels].std(axis=0).mean())


def _band_of(height: int, width: int) -> NDArray[np.int64]:
    """Band (H, W) of each place of fft2; -1 for none: no frequency at all, and the corners."""
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    band = np.minimum(radius / BAND_TOP * BANDS, BANDS - 1).astype(int)
    band[(radius == 0) | (radius > BAND_TOP + 1e-9)] = -1
    return np.asarray(band, np.int64)


def _bands_there(height: int, width: int) -> list[int]:
    """Bands that an image of this size has frequencies in; a small one lacks some."""
    return sorted(set(_band_of(height, width).ravel().tolist()) - {-1})


def _edges(side: int, cells: int) -> list[int]:
    """Where each cell of a side of `side` pixels begins; a small side has fewer cells."""
    return [side * number // min(side, cells) for number in range(min(side, cells))]


def _top(dtype: np.dtype[Any]) -> float:
    return float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0


def _short(values: "pd.Series[float]") -> dict[str, float]:
    return {str(name): _digits(value) for name, value in values.items()}


def _digits(value: Any) -> Any:
    """Rounded to what a JSON file should hold: six digits after the point."""
    return np.round(np.asarray(value, float), 6).tolist()
