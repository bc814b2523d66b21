"""Drawing by diffusion: noise of a seed, taken to an image by a strategy and a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mammo.generators.artist import Asked, call_size, in_calls
from mammo.generators.canvas import Canvas
from mammo.generators.strategies import Strategy


class DiffusionArtist:
    """Draws with a network that undoes noise."""

    def __init__(self, network: Any, strategy: Strategy, canvas: Canvas) -> None:
        self.network, self.strategy, self.canvas = network, strategy, canvas
        self.shape = canvas.shape
        self.samplers = strategy.SAMPLERS

    @torch.inference_mode()
    def draw(self, asked: Asked) -> Tensor:
        """Images (N, C, H, W) float32 in [0, 1] on the CPU."""
        device = next(self.network.parameters()).device
        was_training = self.network.training
        self.network.eval()
        width = call_size(self.canvas.made, device)
        drawn = in_calls(asked, width, lambda some: self._call(some, device))
        self.network.train(was_training)
        return drawn

    def _call(self, asked: Asked, device: torch.device) -> Tensor:
        generators = asked.generators()
        made = self.strategy.integrate(
            Denoiser(self.network, self.strategy, self.canvas, asked, device),
            asked.noise(self.canvas.made, generators).to(device),
            sampler=asked.sampler or self.samplers[0],
            steps=asked.steps,
            generators=generators,
        )
        return self.canvas.finish(made)


class Denoiser:
    """The clean images that the network sees in noisy ones, guided and clipped by the canvas.

    Classifier-free guidance (Ho and Salimans 2022): untold + guidance (told - untold), so 1 is
    what is told alone and 0 nothing told; both halves go through the network in one call. Outside
    of the interval guidance is 1 and there is one half (Kynkäänniemi et al. 2024).
    """

    def __init__(
        self,
        network: Any,
        strategy: Strategy,
        canvas: Canvas,
        asked: Asked,
        device: torch.device,
    ) -> None:
        self._network, self._strategy, self._canvas = network, strategy, canvas
        self._asked = asked
        labels = asked.labels.to(device)
        control = canvas.fit(asked.control, device)
        self._told = (labels, control)
        nothing = None if control is None else torch.zeros_like(control)
        self._untold = (network.none.expand_as(labels), nothing)

    def __call__(self, noisy: Tensor, times: Tensor) -> Tensor:
        guidance = self._guidance(times)
        if guidance == 1:
            return self._canvas.clip(self._seen(noisy, times, self._told))
        if guidance == 0:
            return self._canvas.clip(self._seen(noisy, times, self._untold))
        untold, told = self._seen(noisy, times, self._untold, self._told).chunk(2)
        guided = untold + guidance * (told - untold)
        return self._canvas.clip(_rescaled(guided, told, self._asked.rescale))

    def _guidance(self, times: Tensor) -> float:
        """Guidance at `times`, which are one and the same for all images."""
        asked = self._asked
        nothing_told = not len(self._network.none) and self._told[1] is None
        if nothing_told or asked.guidance == 1:
            return 1.0
        low, high = asked.interval
        if (low, high) == (0.0, 1.0):
            return asked.guidance
        noise = float(self._strategy.noisiness(times[:1]))
        return asked.guidance if low <= noise <= high else 1.0

    def _seen(self, noisy: Tensor, times: Tensor, *halves: tuple[Tensor, Tensor | None]) -> Tensor:
        """Clean images, one after another for each of `halves`, in one call of the network."""
        noisy, times = noisy.repeat(len(halves), 1, 1, 1), times.repeat(len(halves))
        at = self._strategy.network_time(times)
        labels = torch.cat([labels for labels, _ in halves])
        controls = [control for _, control in halves if control is not None]
        control = torch.cat(controls) if controls else None
        output = self._strategy.predict(
            lambda x: self._network(x, at, labels, control), noisy, times
        )
        return self._strategy.denoised(output, noisy, times)


def _rescaled(guided: Tensor, told: Tensor, share: float) -> Tensor:
    """`guided` with `share` of its contrast taken back to that of `told` (Lin et al. 2024, 15, 16).

    They rescale what the network puts out; clean images have the contrast that is looked at, and
    it is the same whatever is predicted.
    """
    if not share:
        return guided
    dims = tuple(range(1, guided.ndim))
    ratio = told.std(dims, keepdim=True) / guided.std(dims, keepdim=True).clamp(min=1e-8)
    return share * guided * ratio + (1 - share) * guided
