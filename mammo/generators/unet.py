"""The networks of diffusion: MONAI's U-Net and a minimal one, told labels and a control image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from monai.networks.nets import DiffusionModelUNet
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn
from torch.nn import functional

from mammo.errors import ConfigError

GROUPS = 8  # of the group normalisation
HEAD_CHANNELS = 32  # of an attention head
NOT_TOLD = -1.0  # the label as system 0 writes it where it is dropped


class UNet(nn.Module):
    """Predicts from noisy images (N, C, H, W), times (N,), labels (N, K) and control an image.

    Labels are ids of `Conditions`; `none` (K,) are those of "not told". `control`
    (N, c, H, W) in [-1, 1] enters beside the noisy image; where it is not told, it is 0. With
    `patch` 2 or more the U-Net sees patch x patch pixels as channels: faster by patch squared.
    The U-Net answers with two images, and the output is gain * noisy + offset. Noise has to pass
    pixel by pixel, which a U-Net of patches and normalised features learns slowly; gain and
    offset are smooth, and mammograms without them keep a grain for thousands of steps.

    With label_input context the class's number itself is what cross-attention attends to, -1 for
    not told, as in system 0. To attend to one number is to add a learned multiple of it: classes
    are then told by where they stand in a row.
    """

    none: Tensor

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        channels = list(description["channels"])
        sizes, patch = list(description["labels"]), int(description["patch"])
        made, control = (int(description[name]) * patch**2 for name in ("made", "control"))
        attention, head = int(description["attention"]), int(description["head_channels"])
        self.in_context = description["label_input"] == "context"
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
            num_head_channels=[head if c % head == 0 else c for c in channels],
            norm_num_groups=GROUPS,
            num_class_embeds=1 if sizes and not self.in_context else None,
            with_conditioning=self.in_context,
            cross_attention_dim=1 if self.in_context else None,
            use_flash_attention=True,
        )
        if sizes and not self.in_context:
            self.unet.class_embedding = LabelEmbedding(sizes, 4 * channels[0])

    def forward(
        self, noisy: Tensor, times: Tensor, labels: Tensor, control: Tensor | None = None
    ) -> Tensor:
        seen = noisy if control is None else torch.cat([noisy, control], dim=1)
        return self.output(self.unet(self.fold(seen), times, **self.told(labels, noisy)), noisy)

    def told(self, labels: Tensor, noisy: Tensor) -> dict[str, Tensor]:
        """How MONAI's U-Net is told `labels` (N, K): the keywords of its call."""
        if self.in_context:
            number = torch.where(labels == self.none, NOT_TOLD, labels.to(noisy))
            return {"context": number[:, :, None]}
        return {"class_labels": labels} if len(self.none) else {}

    def output(self, answer: Tensor, noisy: Tensor) -> Tensor:
        """What the two images of `answer`, (N, 2 made patch^2, h, w), make of `noisy`."""
        gain, offset = (self.unfold(half) for half in answer.chunk(2, dim=1))
        made: Tensor = gain * noisy + offset
        return made


class MinimalUNet(nn.Module):
    """A plain U-Net to compare with, called as `UNet` is: the baseline of system 0's first trials.

    Two convolutions a level with group normalisation, average pooling down, nearest neighbours up,
    skips by concatenation; no residual blocks, no attention, no gain. Time and labels are added
    after the first convolution of a level. (The trials' own network file was never published.)
    """

    none: Tensor

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        channels = list(description["channels"])
        sizes, patch = list(description["labels"]), int(description["patch"])
        made, control = (int(description[name]) * patch**2 for name in ("made", "control"))
        self.register_buffer("none", torch.tensor(sizes, dtype=torch.long), persistent=False)
        self.fold, self.unfold = nn.PixelUnshuffle(patch), nn.PixelShuffle(patch)
        self.width = 4 * channels[0]
        self.time = nn.Sequential(
            nn.Linear(self.width, self.width), nn.SiLU(), nn.Linear(self.width, self.width)
        )
        self.labels = LabelEmbedding(sizes, self.width) if sizes else None
        before = [made + control, *channels[:-1]]
        self.down = nn.ModuleList(
            Level(wide, deep, self.width) for wide, deep in zip(before, channels, strict=True)
        )
        self.up = nn.ModuleList(
            Level(deep + wide, wide, self.width) for wide, deep in pairwise(channels)
        )
        self.out = nn.Conv2d(channels[0], made, 1)

    def forward(
        self, noisy: Tensor, times: Tensor, labels: Tensor, control: Tensor | None = None
    ) -> Tensor:
        seen = self.fold(noisy if control is None else torch.cat([noisy, control], dim=1))
        told = self.time(get_timestep_embedding(times, self.width).to(noisy))
        if self.labels is not None:
            told = told + self.labels(labels)
        skips = []
        for place, level in enumerate(self.down):
            seen = level(functional.avg_pool2d(seen, 2) if place else seen, told)
            skips.append(seen)
        for skip, level in zip(skips[-2::-1], reversed(self.up), strict=True):
            larger = functional.interpolate(seen, scale_factor=2.0, mode="nearest")
            seen = level(torch.cat([larger, skip], dim=1), told)
        output: Tensor = self.unfold(self.out(seen))
        return output


class Level(nn.Module):
    """Two convolutions from `inside` to `outside` channels, told a vector of `width` numbers."""

    def __init__(self, inside: int, outside: int, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inside, outside, 3, padding=1)
        self.two = nn.Conv2d(outside, outside, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, outside) for _ in range(2))
        self.told = nn.Linear(width, outside)

    def forward(self, images: Tensor, told: Tensor) -> Tensor:
        first, second = self.norms
        images = functional.silu(first(self.one(images)) + self.told(told)[:, :, None, None])
        answer: Tensor = functional.silu(second(self.two(images)))
        return answer


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
    network: str = "unet",
    label_input: str = "embedding",
    head_channels: int = HEAD_CHANNELS,
) -> dict[str, Any]:
    """Check a network's settings against what it makes of `shape` (H, W); returns what builds it.

    `made` and `control` are channels, `labels` the sizes of `Conditions`, `channels` one number
    a level, `network` one of NETWORKS.
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
        "network": network,
        "label_input": label_input,
        "head_channels": head_channels,
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


NETWORKS: dict[str, type[UNet] | type[MinimalUNet]] = {"unet": UNet, "minimal": MinimalUNet}


def build_unet(description: Mapping[str, Any], *, seed: int) -> UNet | MinimalUNet:
    """The network that `describe` says, with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[description["network"]](description)
