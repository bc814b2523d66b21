"""The network that every diffusion method trains: MONAI's U-Net with a label and no label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from mammo.errors import ConfigError

GROUPS = 8  # of the group normalisation
HEAD_CHANNELS = 32


class Network(nn.Module):
    """Predicts from noisy images (N, C, H, W), times (N,) and labels (N,) an image of that shape.

    Labels are class ids; `null_label`, the number of classes, stands for "no label". With
    `patch` 2 or more the U-Net sees patch x patch pixels as channels: faster by patch squared.
    The U-Net answers with two images, and the output is gain * noisy + offset. Noise has to pass
    pixel by pixel, which a U-Net of patches and normalised features learns slowly; gain and
    offset are smooth, and mammograms without them keep a grain for thousands of steps.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        channels = list(description["channels"])
        classes, patch = int(description["classes"]), int(description["patch"])
        pixels = int(description["image_channels"]) * patch**2
        attention = int(description["attention"])
        self.null_label = classes
        self.fold = nn.PixelUnshuffle(patch)
        self.unfold = nn.PixelShuffle(patch)
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=pixels,
            out_channels=2 * pixels,
            channels=channels,
            num_res_blocks=int(description["res_blocks"]),
            attention_levels=[level >= len(channels) - attention for level in range(len(channels))],
            num_head_channels=[HEAD_CHANNELS if c % HEAD_CHANNELS == 0 else c for c in channels],
            norm_num_groups=GROUPS,
            num_class_embeds=classes + 1 if classes else None,
            use_flash_attention=True,
        )

    def forward(self, noisy: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        given = labels if self.null_label else None
        answer = self.unet(self.fold(noisy), times, class_labels=given)
        gain, offset = (self.unfold(half) for half in answer.chunk(2, dim=1))
        output: Tensor = gain * noisy + offset
        return output


def describe(
    *,
    shape: tuple[int, int, int],
    classes: int,
    channels: str,
    attention: int,
    res_blocks: int,
    patch: int,
) -> dict[str, Any]:
    """Check a network's settings against images of `shape` (C, H, W); returns what builds it.

    `classes` is 0 for a network without labels, `channels` one number a level.
    """
    levels = parse_channels(channels)
    factor = patch * 2 ** (len(levels) - 1)
    if shape[1] % factor or shape[2] % factor:
        raise ConfigError(
            f"images of {shape[1]} x {shape[2]} px do not divide by {factor}, as channels="
            f"{channels} and patch={patch} need; use fewer levels, a smaller patch or resize"
        )
    return {
        "image_channels": shape[0],
        "classes": classes,
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


def build_network(description: Mapping[str, Any], *, seed: int) -> Network:
    """A network as `describe` says, with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(description)
