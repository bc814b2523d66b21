"""ControlNet on Stable Diffusion: what family controlnet does for a base of it, tuned or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.generators.losses import check_loss, check_side
from mammo.generators.stable.base import check_base, is_pipeline
from mammo.generators.stable.hub import check_there, fetched
from mammo.generators.stable.prompts import check_prompt

if TYPE_CHECKING:
    import torch

    from mammo.generators.artist import Artist
    from mammo.generators.learner import Learner
    from mammo.generators.material import Material
    from mammo.models import SavedModel

START = ("config.json", "diffusion_pytorch_model.safetensors")  # files of a pretrained ControlNet


def check(settings: Mapping[str, Any]) -> None:
    """Refuse a base that is not whole, and a prompt that cannot be filled."""
    check_loss(settings)
    if settings["strategy"] not in ("auto", "ddpm"):
        raise ConfigError(
            f"strategy {settings['strategy']!r} is not that of Stable Diffusion; use strategy=auto"
        )
    if settings["control_weights"]:
        check_there("control_weights", settings["control_weights"], START)
    if is_pipeline(settings["base"]):
        check_prompt(settings["prompt"], conditions=settings["conditions"], mode=settings["mode"])
        check_base(settings["base"])


def plan(material: Material, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The base by its fingerprint, the prompts and the adapters that the base was tuned with."""
    check_side(settings, material.data.shape[1:])
    tuned = _tuned(material)
    found = _of_tuned(tuned, material, settings) if tuned else _of_folder(material, settings)
    _start(material, settings, found)
    return found


def learner(plan: Mapping[str, Any], material: Material, settings: Mapping[str, Any]) -> Learner:
    """The base, frozen, and a ControlNet that adds nothing yet, or a pretrained one."""
    from mammo.generators.diffusion import Diffusion
    from mammo.generators.founding import tell_as
    from mammo.generators.stable.base import load, recover
    from mammo.generators.stable.building import learner_of
    from mammo.generators.stable.controlled import build
    from mammo.seeds import derive

    tuned = _tuned(material)
    if tuned:
        tell_as(tuned, material)
    parts = load(recover(plan["base"]))
    network = build(
        plan,
        parts,
        adapters=tuned.weights() if tuned else {},
        start=_start(material, settings, plan),
        seed=derive(settings["seed"], "weights"),
    )
    return learner_of(Diffusion, network, parts, material, settings)


def artist(model: SavedModel, device: torch.device) -> Artist:
    """Draws with the base that the model was trained on, its adapters and the saved ControlNet."""
    from mammo.generators.stable.base import load, recover
    from mammo.generators.stable.building import artist_of
    from mammo.generators.stable.controlled import build

    plan = model.about["plan"]
    parts = load(recover(plan["base"]))
    return artist_of(build(plan, parts), parts, model, device)


def samplers(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of every diffusion in 1000 steps."""
    from mammo.generators.stable.noise import BaseNoise

    return BaseNoise.SAMPLERS


def _tuned(material: Material) -> SavedModel | None:
    """The model of sd_lora that `base` names; None where it names a pipeline."""
    from mammo.models import open_model

    references = material.inputs.get("base")
    if not references or not (references[0].path / "model.json").is_file():
        return None
    return open_model(references[0].path, "generator")


def _start(material: Material, settings: Mapping[str, Any], plan: Mapping[str, Any]) -> Path | None:
    """Folder of the pretrained ControlNet, if one is asked for and it fits the base."""
    from mammo.generators.stable.base import recover
    from mammo.generators.stable.folder import read_json

    if not settings["control_weights"]:
        return None
    references = material.inputs.get("control_weights")
    name = str(references[0].path) if references else settings["control_weights"]
    folder = fetched("control_weights", name, START)
    unet = read_json(recover(plan["base"]) / "unet/config.json") or {}
    its = read_json(folder / "config.json") or {}
    for key in ("in_channels", "cross_attention_dim", "block_out_channels"):
        if its.get(key) != unet.get(key):
            raise ConfigError(
                f"control_weights {name}: a ControlNet with {key} {its.get(key)}, the base has "
                f"{unet.get(key)}; give one that was made for this base"
            )
    return folder


def _of_tuned(tuned: SavedModel, material: Material, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The plan of the tuned base: same prompts, same adapters, images of any size."""
    from mammo.generators.founding import build_on_any, check_told, tell_as
    from mammo.generators.stable.base import checked_prediction, recover
    from mammo.generators.stable.folder import factor
    from mammo.generators.stable.latents import check_shape

    about = tuned.about
    if about["generator"] != "sd_lora":
        raise ConfigError(
            f"base {tuned.run_id} is a generator {about['generator']}, not one of sd_lora; give "
            "one of those, or a Stable Diffusion folder"
        )
    template = about["plan"]["prompts"]["template"]
    if settings["prompt"] not in ("", template):
        raise ConfigError(
            f"prompt {settings['prompt']!r} is not that of base {tuned.run_id}, {template!r}, "
            "which goes on; leave it out"
        )
    check_told(tuned, material, settings)
    build_on_any(tuned, material, "base")
    tell_as(tuned, material)
    folder = recover(about["plan"]["base"])
    checked_prediction(settings["prediction"], folder)
    check_shape(material.data.shape, factor(folder))
    return {**about["plan"], "shape": list(material.data.shape)}


def _of_folder(material: Material, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The plan of a pipeline as it came."""
    from mammo.generators.stable import base
    from mammo.generators.stable.building import plan_of

    return {**plan_of(base.named(material, settings), material, settings), "adapters": []}
