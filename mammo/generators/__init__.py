"""Generators of images: strategies (how to diffuse), modes (what to make), families (with what)."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mammo.errors import ConfigError
from mammo.generators.strategies import known

if TYPE_CHECKING:
    from mammo.generators.generator import Generator as Generator

# Each name of the setting `generator` and the family that trains it, a module of families/.
FAMILIES = {
    **dict.fromkeys(known(), "pixel"),
    "vae": "vae",
    "gan": "gan",
    "autoencoder": "autoencoder",
    "ldm": "latent",
    "sd_lora": "stable_diffusion",
    "controlnet": "controlnet",
}
GENERATORS = tuple(FAMILIES)


def family(generator: str) -> ModuleType:
    """The module that trains and draws for `generator`, as mammo.generators.families says."""
    if generator not in FAMILIES:
        raise ConfigError(f"unknown generator {generator!r}; choose one of {', '.join(GENERATORS)}")
    return import_module(f"mammo.generators.families.{FAMILIES[generator]}")


def load_generator(folder: Path, *, device: str = "auto") -> Generator:
    """A trained generator from its model folder, ready to `sample`."""
    from mammo.generators.generator import Generator as Generator

    return Generator.load(folder, device=device)
