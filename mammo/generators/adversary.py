"""The adversary of an autoencoder: it tells patches of restored images from those of real ones."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

CHANNELS = 32  # of its first level, doubled in each further one
SMALLEST = 16  # pixels on a side that one level of patches needs


class PatchCritic(nn.Module):
    """Judges every patch of images (N, C, H, W): 1 for real, 0 for restored (least squares).

    MONAI's discriminator (Isola et al. 2017) with each image normalised on its own, so that a
    judgement does not depend on the other images of a batch, and with fewer levels below 64 px.
    The losses are those of Mao et al. 2017, whose gradient does not vanish where a critic is sure.
    """

    def __init__(self, image_channels: int, side: int) -> None:
        from monai.networks.nets import PatchDiscriminator

        super().__init__()
        self.network = PatchDiscriminator(
            spatial_dims=2,
            channels=CHANNELS,
            in_channels=image_channels,
            num_layers_d=max(1, min(3, (side // SMALLEST).bit_length())),
            norm="INSTANCE",
        )

    def forward(self, images: Tensor) -> Tensor:
        """Judgements (N, 1, h, w) of `images` in [0, 1]."""
        return cast(Tensor, self.network(images * 2 - 1)[-1])


def fooling(judged: Tensor) -> Tensor:
    """What the autoencoder minimises: how far judgements of its images are from 1."""
    return (judged - 1).square().mean()


def telling(real: Tensor, restored: Tensor) -> Tensor:
    """What the critic minimises: half the distances from 1 (real) and from 0 (restored)."""
    return ((real - 1).square().mean() + restored.square().mean()) / 2


def build_critic(shape: tuple[int, int, int], *, seed: int) -> PatchCritic:
    """A critic of images of `shape` (C, H, W), with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PatchCritic(shape[0], min(shape[1:]))
