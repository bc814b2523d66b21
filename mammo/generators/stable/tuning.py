"""Tuning a base with adapters: what they are made of, and the training that moves them alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mammo.generators import draws
from mammo.generators.diffusion import Diffusion
from mammo.generators.stable.base import Parts
from mammo.generators.stable.lora import Adapters, TunedUNet
from mammo.generators.stable.prompts import Prompts


class Tuning(Diffusion):
    """Diffusion whose adapters drop part of what they see, drawn by row as all else."""

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        step = self.trainer.global_step
        drawing = draws.generators(self._seed, "adapters", step, rows=batch["row"])
        with self.network.dropping(drawing):
            return super().training_step(batch, index)


def tuned(
    plan: Mapping[str, Any], parts: Parts, *, dropout: float = 0.0, seed: int = 0
) -> TunedUNet:
    """The UNet of `parts` with new adapters as the plan says; with none it is the base's own."""
    prompts = Prompts.from_json(plan["prompts"])
    if not plan["adapters"]:
        return TunedUNet(parts, prompts, None)
    adapters = Adapters(
        parts.unet,
        plan["adapters"],
        rank=plan["rank"],
        alpha=plan["alpha"],
        dropout=dropout,
        seed=seed,
    )
    return TunedUNet(parts, prompts, adapters)
