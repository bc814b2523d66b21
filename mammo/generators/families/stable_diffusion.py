"""Stable Diffusion with LoRA: a frozen base, and adapters that learn to draw for a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.generators.losses import check_loss
from mammo.generators.stable.base import check_base
from mammo.generators.stable.prompts import check_prompt

if TYPE_CHECKING:
    import torch

    from mammo.generators.artist import Artist
    from mammo.generators.learner import Learner
    from mammo.generators.material import Material
    from mammo.models import SavedModel

MODES = ("class", "unconditional")
SETTINGS = (
    "base",
    "prediction",
    "prompt",
    "adapters",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "loss",
    "perceptual",
    "min_snr_gamma",
    "label_dropout",
)
LR = 1e-4
MONITOR = "val/loss"
IN_TURN = False


def check(settings: Mapping[str, Any]) -> None:
    """Refuse a base that is not whole, and a prompt that cannot be filled."""
    if settings["adapters"] == "per_class" and settings["mode"] == "unconditional":
        raise ConfigError(
            "adapters 'per_class' do not go with mode unconditional, which is told no class; use "
            "mode=class, or adapters=one"
        )
    check_prompt(settings["prompt"], conditions=settings["conditions"], mode=settings["mode"])
    check_loss(settings)
    _refuse_model(Path(settings["base"]).expanduser())
    check_base(settings["base"])


def plan(material: Material, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The base by its fingerprint, the prompts and the adapters."""
    from mammo.generators.losses import check_side
    from mammo.generators.stable import base
    from mammo.generators.stable.building import plan_of
    from mammo.generators.stable.lora import FOR_ALL, lora_note

    name = base.named(material, settings)
    _refuse_model(Path(name))
    planned = plan_of(name, material, settings)
    check_side(settings, material.data.shape[1:])
    per_class = settings["adapters"] == "per_class"
    return {
        **planned,
        "adapters": list(material.data.classes.names) if per_class else [FOR_ALL],
        "rank": settings["lora_rank"],
        "alpha": settings["lora_alpha"],
        "note": lora_note(settings["lora_rank"], settings["lora_alpha"]),
    }


def learner(plan: Mapping[str, Any], material: Material, settings: Mapping[str, Any]) -> Learner:
    """The base with new adapters, which change nothing yet."""
    from mammo.generators.stable.base import load, recover
    from mammo.generators.stable.building import learner_of
    from mammo.generators.stable.tuning import Tuning, tuned
    from mammo.seeds import derive

    parts = load(recover(plan["base"]))
    seed = derive(settings["seed"], "weights")
    network = tuned(plan, parts, dropout=settings["lora_dropout"], seed=seed)
    return learner_of(Tuning, network, parts, material, settings)


def artist(model: SavedModel, device: torch.device) -> Artist:
    """Draws with the base that the model was trained on and the saved adapters."""
    from mammo.generators.stable.base import load, recover
    from mammo.generators.stable.building import artist_of
    from mammo.generators.stable.tuning import tuned

    plan = model.about["plan"]
    parts = load(recover(plan["base"]))
    return artist_of(tuned(plan, parts), parts, model, device)


def samplers(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of every diffusion in 1000 steps."""
    from mammo.generators.stable.noise import BaseNoise

    return BaseNoise.SAMPLERS


def _refuse_model(folder: Path) -> None:
    """ConfigError where a trained model is given as the base."""
    if (folder / "model.json").is_file() or (folder / "model" / "model.json").is_file():
        raise ConfigError(
            f"base {folder} is a model that was trained here; sd_lora builds on a Stable Diffusion "
            "folder or a name of the hub"
        )
