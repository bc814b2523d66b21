"""Images whose best possible classifier is known: a Gaussian signal in power-law noise.

The background is stationary and Gaussian, the signal, its place and the noise's spectrum are known
exactly, so the likelihood ratio is a linear filter of the image: no classifier has a larger AUC
than this prewhitening matched filter (Barrett & Myers, Foundations of Image Science, ch. 13.2).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mammo.seeds import derive

Array = np.ndarray[Any, np.dtype[np.float64]]
UNIT_DETECTABILITY = 1.5  # d' at contrast 1: an AUC of 0.856


@dataclass(frozen=True)
class KnownAnswer:
    """Images with what the ideal observer knows about them."""

    images: Array  # (N, H, W), background of zero mean and unit variance
    labels: np.ndarray[Any, np.dtype[np.int64]]  # (N,) 1 where the signal is
    signal: Array  # (H, W)
    spectrum: Array  # (H, W), see `power_spectrum`


def known_answer_images(
    n: int, *, contrast: float = 1.0, seed: int, size: int = 32, exponent: float = 3.0
) -> KnownAnswer:
    """`n` images (size, size), half of them with the signal; image i depends on (seed, i) alone."""
    spectrum = power_spectrum(size, exponent=exponent)
    signal = known_signal(size, spectrum, contrast=contrast)
    images, labels = np.empty((n, size, size)), np.empty(n, np.int64)
    for i in range(n):
        pair = np.random.default_rng(derive(seed, "known label", i // 2)).permutation(2)
        labels[i] = pair[i % 2]
        white = np.random.default_rng(derive(seed, "known", i)).standard_normal((size, size))
        images[i] = background(white, spectrum) + labels[i] * signal
    return KnownAnswer(images, labels, signal, spectrum)


def ideal_detectability(signal: Array, spectrum: Array) -> float:
    """Detectability d' = sqrt(sum |S(f)|^2 / (N P(f))) of `signal` (H, W) in N = H W pixels.

    `spectrum` (H, W) holds the eigenvalues of the circulant covariance in the order of fft2: white
    noise of variance v has v everywhere, and d' is then the signal's norm over sqrt(v).
    """
    power = np.abs(np.fft.fft2(signal)) ** 2
    return float(math.sqrt((power / spectrum).sum() / signal.size))


def ideal_auc(signal: Array, power_spectrum: Array) -> float:
    """The largest AUC any classifier can have: Phi(d' / sqrt(2)), Phi the normal distribution."""
    return 0.5 * (1 + math.erf(ideal_detectability(signal, power_spectrum) / 2))


def matched_filter(images: Array, signal: Array, spectrum: Array) -> Array:
    """Scores (N,) of the ideal observer: the log likelihood ratio of each image but a constant."""
    template = np.fft.ifft2(np.fft.fft2(signal) / spectrum).real
    return np.tensordot(images, template, axes=2)


def power_spectrum(size: int, *, exponent: float = 3.0, knee: float = 1.0) -> Array:
    """Power (size, size) ~ 1 / (f^2 + knee^2)^(exponent / 2), f in cycles an image, of mean 1.

    The knee keeps the power at f = 0 finite; a mean of 1 is a pixel variance of 1.
    """
    f = np.fft.fftfreq(size) * size
    power = (f[:, None] ** 2 + f[None, :] ** 2 + knee**2) ** (-exponent / 2)
    return np.asarray(power / power.mean())


def known_signal(size: int, spectrum: Array, *, contrast: float) -> Array:
    """Gaussian blob (size, size) in the middle, scaled to d' = contrast * UNIT_DETECTABILITY."""
    offset = np.arange(size) - (size - 1) / 2
    blob = np.exp(-(offset[:, None] ** 2 + offset[None, :] ** 2) / (2 * (0.06 * size) ** 2))
    signal: Array = contrast * UNIT_DETECTABILITY / ideal_detectability(blob, spectrum) * blob
    return signal


def background(white: Array, spectrum: Array) -> Array:
    """Colour `white` (H, W) of unit variance to `spectrum`."""
    return np.fft.ifft2(np.fft.fft2(white) * np.sqrt(spectrum)).real
