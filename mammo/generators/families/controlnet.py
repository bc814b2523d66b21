"""Masks as control of a trained generator that stays as it is: our own diffusion, or Stable's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from mammo.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from mammo.generators.artist import Artist
    from mammo.generators.learner import Learner
    from mammo.generators.material import Material
    from mammo.models import SavedModel

MODES = ("mask_to_image",)
SETTINGS = (
    "base",
    "prediction",
    "control_weights",
    "strategy",
    "prompt",
    "loss",
    "perceptual",
    "min_snr_gamma",
    "label_dropout",
)
LR = 1e-3
MONITOR = "val/loss"
IN_TURN = False
OWN, STABLE = "mammo.generators.control", "mammo.generators.stable.control"


def check(settings: Mapping[str, Any]) -> None:
    """Refuse what the kind of base cannot do, as far as its name tells its kind."""
    name = settings["base"]
    if not name:
        raise ConfigError(
            "generator controlnet needs base=<a trained ddpm, rflow, edm, ldm or sd_lora, or a "
            "folder or hub's name of Stable Diffusion>"
        )
    side = _side_of(name)
    if side:
        import_module(side).check(settings)


def plan(material: Material, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the base's kind plans."""
    references = material.inputs.get("base")
    side = (_side_of(str(references[0].path)) if references else "") or STABLE
    module = import_module(side)
    module.check(settings)
    return {**module.plan(material, settings), "on": "own" if side == OWN else "stable"}


def learner(plan: Mapping[str, Any], material: Material, settings: Mapping[str, Any]) -> Learner:
    """The base, frozen, and what learns to control it."""
    return cast("Learner", _module(plan).learner(plan, material, settings))


def artist(model: SavedModel, device: torch.device) -> Artist:
    """Draws with the saved control."""
    return cast("Artist", _module(model.about["plan"]).artist(model, device))


def samplers(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of the base."""
    return cast("tuple[str, ...]", _module(about["plan"]).samplers(about))


def _module(plan: Mapping[str, Any]) -> ModuleType:
    return import_module(OWN if plan["on"] == "own" else STABLE)


def _side_of(name: str) -> str:
    """Which module serves the base `name`; "" for a run or a registered model, not yet fetched."""
    from mammo.generators.stable.base import is_pipeline

    if is_pipeline(name):
        return STABLE
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return ""
    for about in (folder / "model.json", folder / "model" / "model.json"):
        if about.is_file():
            try:
                generator = json.loads(about.read_text()).get("generator", "")
            except (OSError, ValueError, AttributeError):
                return OWN  # which says that it is corrupt, when it is opened
            return STABLE if generator == "sd_lora" else OWN
    return OWN
