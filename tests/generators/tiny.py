"""Tiny mammograms with lesions, masks and views, and the settings that train any generator on them.

A contract over all families asks here for `recipe(generator, mode)`; a new family adds what it
needs beside the common settings to SPECIAL, and to `bases` what it builds on.
"""

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tiny_stable
import torch

from mammo.data.classes import TASKS
from mammo.data.dataset import Dataset
from mammo.data.writer import DatasetWriter
from mammo.generators import GENERATORS, family
from mammo.generators.modes import mode_of
from mammo.generators.strategies import known
from mammo.run import MemoryRun, Reference
from mammo.steps import train_generator

SIDE = 16
CLASSES = TASKS["malignancy2"]
TINY: dict[str, Any] = {  # of every family, as far as it reads them
    "channels": "8,16",
    "attention": 0,
    "patch": 1,
    "latent_dim": 8,
    "latent_channels": 2,
}
SPECIAL: dict[str, dict[str, Any]] = {  # settings by name of the generator
    "gan": {"critic_steps": 2},  # an epoch has three batches, and both networks should move
    "autoencoder": {"perceptual_weight": 0.0},  # its network's weights are no part of the tests
}


def write_scans(folder: Path, *, channels: int = 1, patients: int = 12) -> Dataset:
    """A hold-out of two views of each patient, every fourth patient validates.

    A bright breast on the left holds a lesion: large in malignant, small in benign patients. Each
    image has the lesion's mask; a second channel shows the lesion alone.
    """
    writer = DatasetWriter(
        folder / "scans.partial",
        name="scans",
        classes=CLASSES,
        shape=(channels, SIDE, SIDE),
        dtype="uint16",
        about={"salt": "pepper", "split_seed": 3, "intensity": "window"},
    )
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    for patient in range(patients):
        label = CLASSES.names[patient % 2]
        for view in ("CC", "MLO"):
            middle = rng.integers(5, SIDE - 5, 2) // (1, 2)
            radius = 3.5 if label == "malignant" else 1.5
            lesion = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 <= radius**2
            breast = (y - SIDE / 2) ** 2 + x**2 < (SIDE / 2) ** 2
            image = breast * (0.4 + 0.05 * rng.random((SIDE, SIDE))) + 0.4 * lesion
            shown = [image, 0.9 * lesion][:channels]
            writer.add(
                (np.stack(shown) * 65535).astype(np.uint16),
                {
                    "group_id": f"p{patient}",
                    "image_id": f"i{patient}-{view}",
                    "view": view,
                    "label": label,
                    "label_kind": CLASSES.label_kind,
                    "split": "val" if patient // 2 % 4 == 3 else "train",
                },
                (lesion[None] * 255).astype(np.uint8),
            )
    return writer.finish(folder / "datasets")


def recipe(generator: str, mode: str, **changes: Any) -> dict[str, Any]:
    """All settings of train_generator for a tiny `generator` of `mode`, with `changes`."""
    generator, _, variant = generator.partition(":")
    mine = family(generator).SETTINGS
    defaults = inspect.signature(train_generator.run).parameters
    chosen = {name: each.default for name, each in defaults.items() if name != "tracked"}
    chosen |= {name: value for name, value in TINY.items() if name in mine}
    chosen |= {"generator": generator, "mode": mode}
    chosen |= {"epochs": 2, "batch_size": 6, "sample_every": 0, "device": "cpu", "ema": 0.9}
    chosen |= {"conditions": "view" if mode_of(mode).labelled else "", "data": ""}
    if variant in known():
        chosen["strategy"] = variant
    return chosen | SPECIAL.get(generator, {}) | changes


def bases(generator: str, place: Any) -> dict[str, Path]:
    """What `generator` builds on, by setting, trained on the scans of `place`."""
    generator, _, variant = generator.partition(":")
    if generator == "sd_lora" or variant == "stable":
        return {"base": tiny_stable.build(place.folder / "stable")}
    if generator == "ldm":
        return {"autoencoder": write_autoencoder(place.folder / "autoencoder")}
    if generator == "controlnet":
        base = run_with(place.folder / "base-of-controlnet", data=place.data(1).folder)
        train_generator.run(base, **recipe("ddpm", "class", epochs=1))
        return {"base": base.folder / "model"}
    return {}


def write_autoencoder(folder: Path, *, seed: int = 0) -> Path:
    """A folder as diffusers writes one, with a random autoencoder that halves height and width."""
    from diffusers import AutoencoderTiny

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AutoencoderTiny(
            latent_channels=2,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        )
    last = network.decoder.layers[-1]
    last.weight.data *= 4  # shades of grey, neither black nor white
    last.bias.data[:] = 0.5
    network.save_pretrained(folder)
    return folder


def combinations() -> list[tuple[str, str]]:
    """Every generator with every mode that it takes, and those that build on another in each way.

    A name may say after a colon what it builds on: a strategy (ldm), or Stable Diffusion.
    """
    also = [f"ldm:{name}" for name in known() if name != "ddpm"] + ["controlnet:stable"]
    return [(name, mode) for name in (*GENERATORS, *also) for mode in family_of(name).MODES]


def family_of(generator: str) -> ModuleType:
    """The family of a name of `combinations`."""
    return family(generator.partition(":")[0])


def is_quick(generator: str, mode: str) -> bool:
    """Whether a combination is for the quick tests: four families, and two images at once."""
    first = generator in ("ddpm", "ldm", "vae", "gan") and mode == "class"
    return first or (generator, mode) == ("ddpm", "dual")


def run_with(folder: Path, **paths: Path) -> MemoryRun:
    """A run in `folder` whose settings name what lies at `paths`."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {name: [Reference(str(path), path, "d" * 8)] for name, path in paths.items()}
    return MemoryRun(folder, inputs)
