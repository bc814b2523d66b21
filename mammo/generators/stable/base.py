"""A Stable Diffusion pipeline as a base: found in a folder or on the hub, and loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo.errors import CheckpointError, ConfigError
from mammo.generators.stable.folder import (
    FILES,
    ONE_FILE,
    check_whole,
    difference,
    factor,
    fingerprint,
    read_json,
)
from mammo.generators.stable.hub import HUB_NAME, check_there, fetched

if TYPE_CHECKING:
    from mammo.generators.material import Material

HUB = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # where `base` is empty
PREDICTED = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}  # diffusers' names, ours
VARIABLE = "MAMMO_SD_BASE"  # a folder that stands for the base of any saved model


@dataclass(frozen=True)
class Parts:
    """The networks of a base, frozen; a copy is the same object, for they are large and shared."""

    unet: Any  # UNet2DConditionModel
    vae: Any  # AutoencoderKL
    text_encoder: Any  # CLIPTextModel
    tokenizer: Any  # CLIPTokenizer
    betas: tuple[float, ...]  # noise added in each step of the forward process
    prediction: str  # of the UNet, by our names: epsilon, v or x0
    factor: int  # pixels on a side that one latent stands for

    def __deepcopy__(self, memo: dict[int, Any]) -> Parts:
        return self


def is_pipeline(name: str) -> bool:
    """Whether `name`, a path or a hub's name, can be a Stable Diffusion pipeline's."""
    path = Path(name).expanduser()
    if path.exists():
        return (path / "model_index.json").is_file() or (path / "unet").is_dir()
    return bool(HUB_NAME.fullmatch(name))


def check_base(name: str) -> None:
    """Refuse a base that is not whole or cannot be had, before anything is opened.

    A reference to a run or a registered model is left to who resolves it.
    """
    name = name or HUB
    check_there("base", name, FILES)
    if Path(name).expanduser().is_dir():
        check_whole(Path(name).expanduser())


def find(name: str) -> Path:
    """Folder of the whole pipeline `name`: a local one, or the hub's."""
    folder = fetched("base", name or HUB, FILES, (ONE_FILE,))
    check_whole(folder)
    return folder


def describe(name: str, folder: Path) -> dict[str, Any]:
    """What a model that builds on the base in `folder` remembers of it."""
    commit = folder.name if folder.parent.name == "snapshots" else ""
    return {"name": name or HUB, "revision": commit, "files": fingerprint(folder)}


def recover(said: Mapping[str, Any]) -> Path:
    """Folder of the base that `describe` described; CheckpointError when only others are found.

    Looked for where MAMMO_SD_BASE points, and where it was when it was described.
    """
    name, commit = str(said["name"]), str(said["revision"])
    recorded = f"{name}@{commit}" if commit and "@" not in name else name
    is_there = Path(name).expanduser().is_dir() or HUB_NAME.fullmatch(name)
    places = [os.environ.get(VARIABLE, ""), name if Path(name).is_dir() else recorded]
    found = ""
    for place in filter(None, places if is_there else places[:1]):
        try:
            folder = find(place)
        except ConfigError as error:
            raise CheckpointError(f"{error}, or set {VARIABLE}=<that folder>") from None
        differs = difference(said["files"], fingerprint(folder))
        if not differs:
            return folder
        found = f"base {folder} is another than the model was trained on: {differs} differs"
    raise CheckpointError(
        f"{found or f'base {name} is gone, and a model holds only what was trained on it'}; set "
        f"{VARIABLE}=<folder of {name if HUB_NAME.fullmatch(name) else 'that base'}>"
    )


def named(material: Material, settings: Mapping[str, Any]) -> str:
    """The base that a run's `base` names: the folder it resolved to, or the hub's name."""
    references = material.inputs.get("base")
    return str(references[0].path) if references else str(settings["base"])


def tokenizer(folder: Path) -> Any:
    """CLIPTokenizer of the pipeline in `folder`."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)


def check_length(prompts: Sequence[str], folder: Path) -> None:
    """Refuse a prompt that the text encoder in `folder` would cut off."""
    most = int((read_json(folder / "text_encoder/config.json") or {})["max_position_embeddings"])
    count = tokenizer(folder)
    for prompt in prompts:
        tokens = len(count(prompt).input_ids)
        if tokens > most:
            raise ConfigError(
                f"prompt {prompt!r} has {tokens} tokens, of which the text encoder reads {most}; "
                "shorten it"
            )


def predicted(folder: Path) -> str:
    """What the UNet of the pipeline in `folder` predicts, by our names."""
    said = read_json(folder / "scheduler/scheduler_config.json") or {}
    return PREDICTED[said.get("prediction_type", "epsilon")]


def checked_prediction(asked: str, folder: Path) -> str:
    """What the UNet in `folder` predicts; ConfigError where anything else was asked for."""
    own = predicted(folder)
    if asked not in (own, "auto"):
        raise ConfigError(
            f"prediction {asked!r} is not that of base {folder}, which predicts {own}; leave it out"
        )
    return own


def load(folder: Path) -> Parts:
    """The parts of the whole pipeline in `folder`, frozen, float32, on the CPU."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    def networks(kind: Any, part: str, **more: Any) -> Any:
        made = kind.from_pretrained(
            folder / part, local_files_only=True, use_safetensors=True, **more
        )
        return made.float().eval().requires_grad_(False)

    scheduler = DDPMScheduler.from_config(read_json(folder / "scheduler/scheduler_config.json"))
    return Parts(
        unet=networks(UNet2DConditionModel, "unet"),
        vae=networks(AutoencoderKL, "vae"),
        text_encoder=networks(CLIPTextModel, "text_encoder"),
        tokenizer=tokenizer(folder),
        betas=tuple(scheduler.betas.double().tolist()),
        prediction=predicted(folder),
        factor=factor(folder),
    )
