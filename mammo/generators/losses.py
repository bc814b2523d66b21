"""What a diffusion makes small: terms by name, each a distance of two images, summed by weight.

A term is a function `(made, true) -> (N,)` registered here. Those OF_PREDICTION compare what the
network predicted with what it should have, and are weighted by the strategy (Min-SNR and its
like). All others compare images (N, C, H, W) in [0, 1], the clean ones that the prediction stands
for with the true ones, and enter as they are, at every time alike, as in systems 0 and 4: at very
noisy times the clean estimate can only be the mean of many images, so such a term stays large
there whatever the network does. Its weight should be small.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Term = Callable[..., Any]

TERMS = Registry("loss term")
OF_PREDICTION = ("mse", "l1")
LEAST_SIDE = {"ms_ssim": 16, "perceptual": 32}  # pixels that a term needs
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2
PRESETS = {  # system 0 writes them as shares of mse, ms_ssim and sobel
    "u24": "mse=0.7,ms_ssim=0.2,sobel=0.05",
    "u24_60_40": "mse=0.6,ms_ssim=0.4",
    "u24_70_30": "mse=0.7,ms_ssim=0.3",
    "u24_80_10_10": "mse=0.8,ms_ssim=0.1,sobel=0.1",
    "u24_85_5_10": "mse=0.85,ms_ssim=0.05,sobel=0.1",
    "medgen": "mse=1,perceptual=0.001",
}


class Loss:
    """A weighted sum of terms; `weights` by name, `distance` the one of the term perceptual.

    It is no module of torch: what `distance` holds is neither trained nor averaged nor saved.
    """

    def __init__(self, weights: Mapping[str, float], distance: Any = None) -> None:
        self.weights = dict(weights)
        self._terms = {name: _bound(TERMS[name], distance) for name in weights}

    def __call__(
        self,
        output: Tensor,
        wanted: Tensor,
        weight: Tensor,
        images: Callable[[], tuple[Tensor, Tensor]],
    ) -> Tensor:
        """The loss (N,) of predictions `output` where `wanted` was right, both (N, ...).

        `weight` (N,) is the strategy's for a squared error; `images` makes the clean images and
        the true ones, (N, C, H, W) in [0, 1], and is called where a term compares them.
        """
        import torch

        total: Tensor | None = None
        pair: tuple[Tensor, Tensor] | None = None
        # the differences of alike images drown in the rounding of half precision
        with torch.autocast(output.device.type, enabled=False):
            for name, share in self.weights.items():
                if name in OF_PREDICTION:
                    found = self._terms[name](output, wanted)
                    found = found * (weight if name == "mse" else weight.sqrt())
                else:
                    pair = pair or images()
                    found = self._terms[name](pair[0].float(), pair[1].float())
                found = found if share == 1 else share * found
                total = found if total is None else total + found
        assert total is not None
        return total


def _bound(term: Term, distance: Any) -> Term:
    takes = "distance" in inspect.signature(term).parameters
    return partial(term, distance=distance) if takes else term


def make_loss(settings: Mapping[str, Any]) -> Loss:
    """The loss that the settings `loss` and `perceptual` of train_generator name."""
    weights = parse_loss(settings["loss"])
    if "perceptual" not in weights:
        return Loss(weights)
    from mammo.generators.perceptual import load_distance

    return Loss(weights, load_distance(settings["perceptual"]))


def parse_loss(text: str) -> dict[str, float]:
    """Weights by term of "mse=0.7,ms_ssim=0.3", of a single "mse", or of a preset's name."""
    weights: dict[str, float] = {}
    for part in PRESETS.get(text, text).split(","):
        name, given, number = (piece.strip() for piece in part.partition("="))
        if name not in TERMS:
            raise ConfigError(
                f"loss {text!r}: unknown term {name!r}; choose terms of {', '.join(sorted(TERMS))} "
                f"with weights, as mse=0.7,ms_ssim=0.3, or a preset: {', '.join(PRESETS)}"
            )
        if name in weights:
            raise ConfigError(f"loss {text!r} names {name} twice; give each term one weight")
        weights[name] = _weight(number, text) if given else 1.0
    return weights


def check_loss(settings: Mapping[str, Any]) -> None:
    """ConfigError for a `loss` that cannot be computed, or a `perceptual` that it does not use."""
    from mammo.generators.perceptual import check_distance

    weights = parse_loss(settings["loss"])
    if "perceptual" in weights:
        check_distance(settings["perceptual"])
    elif settings["perceptual"]:
        raise ConfigError(
            f"perceptual {settings['perceptual']!r} has no effect with loss "
            f"{settings['loss']!r}; add a term, as mse=1,perceptual=0.001, or leave it out"
        )


def check_side(settings: Mapping[str, Any], shape: tuple[int, int]) -> None:
    """ConfigError when images of `shape` (H, W) are too small for a term of the setting `loss`."""
    for name in parse_loss(settings["loss"]):
        if min(shape) < LEAST_SIDE.get(name, 1):
            raise ConfigError(
                f"loss {settings['loss']!r}: {name} needs images of {LEAST_SIDE[name]} px or more, "
                f"these have {shape[0]} x {shape[1]}; leave the term out or preprocess larger ones"
            )


def _weight(number: str, text: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(
            f"loss {text!r}: weight {number!r} should be a number above 0, as in mse=0.7"
        )
    return value


@TERMS.register("mse")
def squared_error(made: Tensor, true: Tensor) -> Tensor:
    """Mean squared difference (N,)."""
    return (made - true).square().flatten(1).mean(1)


@TERMS.register("l1")
def absolute_error(made: Tensor, true: Tensor) -> Tensor:
    """Mean absolute difference (N,); the root of a squared error's weight is its weight."""
    return (made - true).abs().flatten(1).mean(1)


@TERMS.register("ms_ssim")
def structure(made: Tensor, true: Tensor) -> Tensor:
    """1 - MS-SSIM (N,) (Wang et al. 2003, eq. 7), on fewer scales where images are small.

    A scale at which the two contradict each other counts as almost 0: the power of 0 itself, and
    of what is negative, has no gradient.
    """
    import torch
    from torch.nn import functional

    from mammo.evaluation.fidelity import ms_ssim_scales

    scales = ms_ssim_scales(min(made.shape[2:]))
    weights = torch.tensor(SCALE_WEIGHTS[:scales], device=made.device)
    weights = weights / weights.sum()
    similar = made.new_ones(len(made))
    for scale, power in enumerate(weights):
        whole, contrast = _similarity(made, true)
        last = scale == scales - 1
        similar = similar * (whole if last else contrast).clamp(min=1e-4) ** power
        if not last:
            made, true = functional.avg_pool2d(made, 2), functional.avg_pool2d(true, 2)
    return 1 - similar


def _similarity(made: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM (N,) of values with range 1, and its part of contrast and structure alone.

    (Wang et al. 2004, eq. 13: a Gaussian window of 11 x 11 px, where it fits into the image.) The
    window is applied along one side and then the other, which a CPU does twice as fast;
    moments are taken around an image's own mean, for a flat square minus a square is rounding.
    """
    import torch
    from torch.nn import functional

    levels = [each.mean((2, 3), keepdim=True) for each in (made, true)]
    made, true = made - levels[0], true - levels[1]
    at = torch.arange(-5, 6, device=made.device)
    window = torch.softmax(-at.square() / (2 * 1.5**2), 0).view(1, 1, 1, 11)
    maps = torch.stack([made, true, made**2, true**2, made * true]).flatten(0, 2)[:, None]
    smooth = functional.conv2d(functional.conv2d(maps, window), window.mT)
    mean, other, square, other_square, product = smooth.view(5, len(made), -1)
    covariance = product - mean * other
    variances = square - mean**2 + other_square - other**2
    contrast = (2 * covariance + 0.03**2) / (variances + 0.03**2)
    mean, other = (
        (each.view(len(level), level.shape[1], -1) + level[..., 0]).flatten(1)
        for each, level in zip((mean, other), levels, strict=True)
    )
    luminance = (2 * mean * other + 0.01**2) / (mean**2 + other**2 + 0.01**2)
    return (luminance * contrast).mean(1), contrast.mean(1)


@TERMS.register("sobel")
def edges(made: Tensor, true: Tensor) -> Tensor:
    """Mean squared difference (N,) of the gradients, along x plus along y.

    In units of [-1, 1] a pixel, for which system 0 chose its weights, with Sobel's kernels over 8
    (so that a ramp has its own slope), where they fit into the image.
    """
    import torch
    from torch.nn import functional

    smooth, slope = made.new_tensor([1.0, 2.0, 1.0]) / 4, made.new_tensor([-1.0, 0.0, 1.0]) / 2
    kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])[:, None]
    difference = 2 * (made - true).flatten(0, 1)[:, None]
    gradients = functional.conv2d(difference, kernels)
    return gradients.square().sum(1).view(len(made), -1).mean(1)


@TERMS.register("perceptual")
def perceptual(made: Tensor, true: Tensor, *, distance: Any) -> Tensor:
    """Distance (N,) of what a network for photographs or radiographs sees in the two."""
    found: Tensor = distance(made, true)
    return found


SQUARED = Loss({"mse": 1.0})
