"""What tuning and controlling Stable Diffusion share: plan of a base, learner and artist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammo.generators.diffusion import Diffusion
from mammo.generators.losses import make_loss
from mammo.generators.modes import mode_of
from mammo.generators.sampling import DiffusionArtist
from mammo.generators.stable import base
from mammo.generators.stable.folder import factor
from mammo.generators.stable.latents import StableLatents, check_shape
from mammo.generators.stable.noise import BaseNoise
from mammo.generators.stable.prompts import TEMPLATE, Prompts
from mammo.training.optimizing import Optimizing

if TYPE_CHECKING:
    import torch

    from mammo.generators.material import Material
    from mammo.models import SavedModel

LR = 1e-4


def plan_of(name: str, material: Material, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The base called `name` by its fingerprint, what it predicts, and the prompts for it."""
    folder = base.find(name)
    prediction = base.checked_prediction(settings["prediction"], folder)
    check_shape(material.data.shape, factor(folder))
    prompts = Prompts(settings["prompt"] or TEMPLATE, material.conditions)
    base.check_length(prompts.texts(), folder)
    return {
        "base": base.describe(name, folder),
        "prediction": prediction,
        "prompts": prompts.to_json(),
        "shape": list(material.data.shape),
    }


def learner_of(
    kind: type[Diffusion],
    network: Any,
    parts: base.Parts,
    material: Material,
    settings: Mapping[str, Any],
) -> Diffusion:
    """A `kind` of diffusion that fits `network`, which is built around the UNet of `parts`."""
    noise: Any = BaseNoise(parts.betas, parts.prediction)
    if settings["compile"]:
        parts.unet.compile()
    return kind(
        network,
        noise,
        StableLatents(material.mode, parts, material.data.shape),
        optimizing=Optimizing.asked(settings, LR),
        label_dropout=settings["label_dropout"],
        min_snr_gamma=settings["min_snr_gamma"],
        seed=settings["seed"],
        loss=make_loss(settings),
    )


def artist_of(
    network: Any, parts: base.Parts, model: SavedModel, device: torch.device
) -> DiffusionArtist:
    """Draws with `network`, once it has the weights of `model`."""
    network.load_state_dict(model.weights())
    noise: Any = BaseNoise(parts.betas, parts.prediction)
    channels, height, width = model.about["plan"]["shape"]
    return DiffusionArtist(
        network.to(device).eval(),
        noise,
        StableLatents(mode_of(model.about["mode"]), parts, (channels, height, width)),
    )
