"""Strategies of diffusion: how images become noise and noise becomes images; one file each.

A strategy is a class registered here. Times are a tensor (N,); what they mean is the strategy's
own affair, and all others treat them as opaque. An image x_0 has values in [-1, 1].
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from mammo.errors import ConfigError
from mammo.registry import Registry

if TYPE_CHECKING:
    from torch import Generator, Tensor

STRATEGIES = Registry("strategy")


class Strategy(Protocol):
    """How to diffuse. Made as `STRATEGIES[name](prediction=…, image_size=…, data_sd=…, …)`.

    `data_sd` and `data_mean` are the standard deviation and mean of the values of x_0,
    `image_size` the longer side in pixels of what is diffused, `schedule` one of SCHEDULES ("auto"
    is the strategy's own choice). One with Gaussian noise needs little more than its alpha and
    sigma: see `gaussian`.
    """

    PREDICTIONS: tuple[str, ...]  # what the network can predict, the default first
    SAMPLERS: tuple[str, ...]  # the default first
    WEIGHTED: bool  # takes min_snr_gamma
    SCHEDULES: tuple[str, ...]  # of noise, the default first

    def times(self, uniform: Tensor) -> Tensor:
        """Training times (N,) for `uniform` (N,) in [0, 1)."""

    def noisiness(self, times: Tensor) -> Tensor:
        """Share of noise at `times` (N,), from 0 (image) to 1 (noise), (N,)."""

    def network_time(self, times: Tensor) -> Tensor:
        """What the network is told of the time, about 0 to 1000."""

    def corrupt(self, images: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy images at `times` (N,) and what the network should predict, both like `images`."""

    def predict(self, network: Callable[[Tensor], Tensor], noisy: Tensor, times: Tensor) -> Tensor:
        """The prediction; `network` maps inputs of unit variance to what is left to say."""

    def denoised(self, output: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """The clean image that a prediction for `noisy` at `times` stands for."""

    def loss_weight(self, times: Tensor, gamma: float) -> Tensor:
        """Weight (N,) of a squared error of the prediction; `gamma` 0 is the strategy's own."""

    def integrate(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        noise: Tensor,
        *,
        sampler: str,
        steps: int,
        generators: Sequence[Generator],
    ) -> Tensor:
        """Images from unit `noise` (N, C, H, W), in at most `steps` calls of `denoise`."""


def known() -> Mapping[str, type[Any]]:
    """Every strategy by name: those that the files beside this one register."""
    for module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return STRATEGIES


def strategy(name: str) -> type[Any]:
    """The class of strategy `name`."""
    return known()[name]


def offered(kind: str) -> tuple[str, ...]:
    """What the strategies have of PREDICTIONS, SAMPLERS or SCHEDULES, each once."""
    return tuple(dict.fromkeys(name for each in known().values() for name in getattr(each, kind)))


def chosen_prediction(name: str, settings: Mapping[str, Any]) -> str:
    """What the network of strategy `name` predicts: what the settings say, or its default."""
    asked: str = settings["prediction"]
    default: str = strategy(name).PREDICTIONS[0]
    return default if asked == "auto" else asked


def check_strategy(name: str, settings: Mapping[str, Any]) -> None:
    """ConfigError when strategy `name` cannot do what `settings` of train_generator say."""
    chosen = strategy(name)
    if settings["prediction"] not in ("auto", *chosen.PREDICTIONS):
        raise ConfigError(
            f"prediction {settings['prediction']!r} does not go with strategy {name}; "
            f"choose {' or '.join(chosen.PREDICTIONS)}"
        )
    if settings["noise_schedule"] not in chosen.SCHEDULES:
        raise ConfigError(
            f"noise_schedule {settings['noise_schedule']!r} does not go with strategy {name}; "
            f"choose {' or '.join(chosen.SCHEDULES)}"
        )
    if settings["min_snr_gamma"] and not chosen.WEIGHTED:
        raise ConfigError(
            f"min_snr_gamma {settings['min_snr_gamma']:g} does not apply to strategy {name}, which "
            "weights times by how it draws them; use 0, or ddpm"
        )
