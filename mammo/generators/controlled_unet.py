"""A trained U-Net that stays as it is, and a ControlNet beside it that learns what a mask means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets import ControlNet
from torch import Tensor, nn

from mammo.generators.unet import GROUPS, LabelEmbedding, UNet


class ControlledUNet(nn.Module):
    """Called as `UNet` is, with the base frozen and only `control` to be trained.

    The ControlNet (Zhang et al. 2023) is a copy of the base's way down that sees the control too;
    what it adds to the base passes through convolutions that start at zero, so that untrained it
    is the base itself, to the bit.
    """

    def __init__(self, description: Mapping[str, Any], control: int) -> None:
        super().__init__()
        self.base = UNet(description).requires_grad_(False)
        unet = self.base.unet
        channels, patch = list(description["channels"]), int(description["patch"])
        sizes = list(description["labels"])
        self.control = ControlNet(
            spatial_dims=2,
            in_channels=int(description["made"]) * patch**2,
            channels=channels,
            num_res_blocks=unet.num_res_blocks,
            attention_levels=unet.attention_levels,
            num_head_channels=unet.num_head_channels,
            norm_num_groups=GROUPS,
            num_class_embeds=unet.num_class_embeds,
            with_conditioning=unet.with_conditioning,
            cross_attention_dim=1 if unet.with_conditioning else None,
            conditioning_embedding_in_channels=control * patch**2,
            conditioning_embedding_num_channels=(channels[0],),  # one: it is small already
            use_flash_attention=True,
        )
        if unet.num_class_embeds:
            self.control.class_embedding = LabelEmbedding(sizes, 4 * channels[0])

    @property
    def none(self) -> Tensor:
        """Labels that are not told (K,)."""
        return self.base.none

    def forward(
        self, noisy: Tensor, times: Tensor, labels: Tensor, control: Tensor | None = None
    ) -> Tensor:
        assert control is not None  # the mode has a mask
        base = self.base
        told, seen = base.told(labels, noisy), base.fold(noisy)
        down, middle = self.control(seen, times, controlnet_cond=base.fold(control), **told)
        answer = base.unet(
            seen,
            times,
            **told,
            down_block_additional_residuals=tuple(down),
            mid_block_additional_residual=middle,
        )
        return base.output(answer, noisy)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take the `weights` of a trained `UNet`: as the base, and to begin with in its copy."""
        self.base.load_state_dict(weights)
        mine = self.control.state_dict()
        theirs = self.base.unet.state_dict()
        self.control.load_state_dict(
            {**mine, **{key: theirs[key] for key in mine if key in theirs}}
        )


def build_controlled(description: Mapping[str, Any], control: int, *, seed: int) -> ControlledUNet:
    """A controlled U-Net with weights drawn from `seed` until others are loaded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ControlledUNet(description, control)
