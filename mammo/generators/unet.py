"""The network that every diffusion trains: MONAI's U-Net, told labels and a control image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from mammo.errors import ConfigError

GROUPS = 8  # of the group normalisation
HEAD_CHANNELS = 32


class UNet(nn.Module):
    """Predicts from noisy images (N, C, H, W), times (N,), labels (N, K) and control an image.

    Labels are ids of `Conditions`; `none` (K,) are those of "not told". `control`
    (N, c, H, W) in [-1, 1] enters beside the noisy image; where it is not told, it is 0. With
    `patch` 2 or more the U-Net sees patch x patch pixels as channels: faster by patch squared.
    The U-Net answers with two images, and the output is gain * noisy + offset. Noise has to pass
    pixel by pixel, which a U-Net of patches and normalised features learns slowly; gain and
    offset are smooth, and mammograms without them keep a grain for thousands of steps.
    """

    none: Tensor

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        channels = list(description["channels"])
        sizes, patch = list(description["labels"]), int(description["patch"])
        made, control = (int(description[name]) * patch**2 for name in ("made", "control"))
        attention = int(description["attention"])
        self.register_buffer("none", torch.tensor(sizes, dtype=torch.long), persistent=False)
        self.fold = nn.PixelUnshuffle(patch)
        self.unfold = nn.PixelShuffle(patch)
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=made + control,
            out_channels=2 * made,
            channels=channels,
            num_res_blocks=int(description["res_blocks"]),
            attention_levels=[level >= len(channels) - attention for level in range(len(channels))],
            num_head_channels=[HEAD_CHANNELS if c % HEAD_CHANNELS == 0 else c for c in channels],
            norm_num_groups=GROUPS,
            num_class_embeds=1 if sizes else None,
            use_flash_attention=True,
        )
        if sizes:
            self.unet.class_embedding = LabelEmbedding(sizes, 4 * channels[0])

    def forward(
        self, noisy: Tensor, times: Tensor, labels: Tensor, control: Tensor | None = None
    ) -> Tensor:
        seen = noisy if control is None else torch.cat([noisy, control], dim=1)
        told = labels if len(self.none) else None
        answer = self.unet(self.fold(seen), times, class_labels=told)
        gain, offset = (self.unfold(half) for half in answer.chunk(2, dim=1))
        output: Tensor = gain * noisy + offset
        return output


class LabelEmbedding(nn.Module):
    """The sum of an embedding of each label (N, K); its last row stands for "not told"."""

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.each = nn.ModuleList(nn.Embedding(size + 1, width) for size in sizes)

    def forward(self, labels: Tensor) -> Tensor:
        told = [embed(labels[:, place]) for place, embed in enumerate(self.each)]
        return torch.stack(told).sum(0)


def describe(
    *,
    shape: tuple[int, int],
    made: int,
    control: int,
    labels: Sequence[int],
    channels: str,
    attention: int,
    res_blocks: int,
    patch: int,
) -> dict[str, Any]:
    """Check a network's settings against what it makes of `shape` (H, W); returns what builds it.

    `made` and `control` are channels, `labels` the sizes of `Conditions`, `channels` one number
    a level.
    """
    levels = parse_channels(channels)
    factor = patch * 2 ** (len(levels) - 1)
    if shape[0] % factor or shape[1] % factor:
        raise ConfigError(
            f"images of {shape[0]} x {shape[1]} px do not divide by {factor}, as channels="
            f"{channels} and patch={patch} need; use fewer levels, a smaller patch or resize"
        )
    return {
        "made": made,
        "control": control,
        "labels": list(labels),
        "channels": levels,
        "attention": min(attention, len(levels)),
        "res_blocks": res_blocks,
        "patch": patch,
    }


def parse_channels(channels: str) -> list[int]:
    """Channels of every level, "32,64,96" say; each a multiple of 8."""
    try:
        levels = [int(part) for part in channels.split(",")]
    except ValueError:
        levels = []
    if not levels or any(level < GROUPS or level % GROUPS for level in levels):
        raise ConfigError(
            f"channels {channels!r} should be multiples of {GROUPS}, one a level, as 32,64,96"
        )
    return levels


def build_unet(description: Mapping[str, Any], *, seed: int) -> UNet:
    """A U-Net as `describe` says, with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(description)
