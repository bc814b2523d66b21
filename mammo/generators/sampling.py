"""Sampling: an image is a function of (model, label, guidance, sampler, steps, seed) alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mammo.generators.network import Network

PIXELS = 1 << 17  # of one call of the network
MOST = {"cpu": 8, "cuda": 64}  # images of one call


@torch.inference_mode()
def sample(
    network: Network,
    process: Any,
    *,
    shape: tuple[int, int, int],
    labels: Sequence[int],
    seeds: Sequence[int],
    guidance: float,
    steps: int,
    sampler: str,
) -> Tensor:
    """Images (N, C, H, W) float32 in [0, 1] on the CPU, one for each of `labels` and `seeds`.

    Every call of the network has the same number of images, the last ones padded with copies:
    then it runs the same kernels, and neither the size of a batch nor the place of an image in it
    changes a bit. Between kinds of device the last bits differ.
    """
    device = next(network.parameters()).device
    width = call_size(shape, device)
    pieces = []
    was_training = network.training
    network.eval()
    for start in range(0, len(seeds), width):
        group = list(zip(labels, seeds, strict=True))[start : start + width]
        padded = group + [group[-1]] * (width - len(group))
        generators = [torch.Generator().manual_seed(seed) for _, seed in padded]
        noise = torch.stack([torch.randn(shape, generator=each) for each in generators])
        ids = torch.tensor([label for label, _ in padded], device=device)
        images = process.integrate(
            _Denoiser(network, process, ids, guidance),
            noise.to(device),
            sampler=sampler,
            steps=steps,
            generators=generators,
        )
        pieces.append(((images.float() + 1) / 2).clamp(0, 1)[: len(group)].cpu())
    network.train(was_training)
    return torch.cat(pieces)


def call_size(shape: tuple[int, int, int], device: torch.device) -> int:
    """Images of one call of the network: a function of image size and kind of device alone."""
    return max(1, min(MOST.get(device.type, 8), PIXELS // (shape[1] * shape[2])))


class _Denoiser:
    """The clean images that the network sees in noisy ones, guided and within [-1, 1].

    Classifier-free guidance (Ho and Salimans 2022): unlabelled + guidance (labelled - unlabelled),
    so 1 is the label alone and 0 no label; both halves go through the network in one call.
    """

    def __init__(self, network: Network, process: Any, labels: Tensor, guidance: float) -> None:
        self._network, self._process, self._guidance = network, process, guidance
        none = torch.full_like(labels, network.null_label)
        if not network.null_label or guidance == 1:
            self._labels = [labels]
        elif guidance == 0:
            self._labels = [none]
        else:
            self._labels = [none, labels]

    def __call__(self, noisy: Tensor, times: Tensor) -> Tensor:
        halves = len(self._labels)
        told = self._process.network_time(times).repeat(halves)
        labels = torch.cat(self._labels)
        output = self._process.predict(
            lambda x: self._network(x, told, labels),
            noisy.repeat(halves, 1, 1, 1),
            times.repeat(halves),
        )
        if halves == 2:
            without, given = output.chunk(2)
            output = without + self._guidance * (given - without)
        clean: Tensor = self._process.denoised(output, noisy, times)
        return clean.clamp(-1, 1)
