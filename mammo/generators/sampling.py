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
        self.guided = len(network.none) > 0

    @torch.inference_mode()
    def draw(self, asked: Asked) -> Tensor:
        """Images (N, C, H, W) float32 in [0, 1] on the CPU."""
        device = next(self.network.parameters()).device
        was_training = self.network.training
        self.network.eval()
        width = call_size(self.shape, device)
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
    what is told alone and 0 nothing told; both halves go through the network in one call.
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
        self._guidance = asked.guidance
        labels = asked.labels.to(device)
        told = (labels, canvas.fit(asked.control, device))
        untold = (network.none.expand_as(labels), None if told[1] is None else 0 * told[1])
        if not len(network.none) or asked.guidance == 1:
            self._told = [told]
        elif asked.guidance == 0:
            self._told = [untold]
        else:
            self._told = [untold, told]

    def __call__(self, noisy: Tensor, times: Tensor) -> Tensor:
        halves = len(self._told)
        at = self._strategy.network_time(times).repeat(halves)
        labels = torch.cat([labels for labels, _ in self._told])
        controls = [control for _, control in self._told if control is not None]
        control = torch.cat(controls) if controls else None
        output = self._strategy.predict(
            lambda x: self._network(x, at, labels, control),
            noisy.repeat(halves, 1, 1, 1),
            times.repeat(halves),
        )
        if halves == 2:
            without, given = output.chunk(2)
            output = without + self._guidance * (given - without)
        return self._canvas.clip(self._strategy.denoised(output, noisy, times))
