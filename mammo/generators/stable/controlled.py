"""A frozen UNet of Stable Diffusion, and a ControlNet beside it that learns what a mask means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mammo.generators.stable.base import Parts
from mammo.generators.stable.lora import FOR_ALL, TunedUNet
from mammo.generators.stable.tuning import tuned

STAGES = (16, 32, 96, 256)  # channels that the control passes, halved between (diffusers' default)


class ControlledStable(nn.Module):
    """Called as `UNet` is, with the base frozen and only `control` to be trained.

    The ControlNet (Zhang et al. 2023) is a copy of the UNet's way down that sees the mask too;
    what it adds passes through convolutions that start at zero, so that untrained it is the base
    itself. `control` (N, 1, H, W) in [-1, 1] has the size of the image and enters as three equal
    channels in [0, 1]; where it is not told, it is grey.
    """

    def __init__(self, base: TunedUNet, control: Any) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.control = control

    @property
    def none(self) -> Tensor:
        """Labels that are not told (K,)."""
        return self.base.none

    def forward(
        self, noisy: Tensor, times: Tensor, labels: Tensor, control: Tensor | None = None
    ) -> Tensor:
        assert control is not None  # the mode has a mask
        down, middle = self.control(
            noisy,
            times,
            encoder_hidden_states=self.base.told(labels),
            controlnet_cond=(control.repeat(1, 3, 1, 1) + 1) / 2,
            return_dict=False,
        )
        output: Tensor = self.base(
            noisy,
            times,
            labels,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        )
        return output


def build(
    plan: Mapping[str, Any],
    parts: Parts,
    *,
    adapters: Mapping[str, Tensor] | None = None,
    start: Path | None = None,
    seed: int = 0,
) -> ControlledStable:
    """The base of a plan with the weights of its `adapters`, and a ControlNet.

    It starts from the pretrained one in the folder `start`, else from the UNet's own way down, one
    adapter for all included. Adapters of single classes stay out of it: it has one way for all.
    """
    control = _pretrained(start) if start else _copied(parts, seed)
    base = tuned(plan, parts)
    if adapters:
        base.load_state_dict(adapters)
        if not start and plan["adapters"] == [FOR_ALL]:
            _add(control, base.changes())
    return ControlledStable(base, control)


def _copied(parts: Parts, seed: int) -> Any:
    from diffusers import ControlNetModel

    halvings = parts.factor.bit_length() - 1  # the mask comes down to the size of the latents
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ControlNetModel.from_unet(
            parts.unet, conditioning_embedding_out_channels=STAGES[: halvings + 1]
        )


def _pretrained(folder: Path) -> Any:
    from diffusers import ControlNetModel

    made = ControlNetModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return made.float()


@torch.no_grad()
def _add(control: Any, changes: Mapping[str, Tensor]) -> None:
    """Add `changes`, by path, to those layers that the ControlNet has of the UNet."""
    for path, layer in control.named_modules():
        if path in changes:
            layer.weight += changes[path]
