"""Generators of images: one method a file, the file's name is the method's name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mammo.errors import ConfigError

if TYPE_CHECKING:
    from mammo.generators.generator import Generator as Generator

_SHARED = frozenset({"__init__", "diffusion", "generator", "network", "preview", "sampling"})

METHODS = tuple(
    sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _SHARED)
)


def method(name: str) -> ModuleType:
    """The module of method `name`; importing it is cheap, its parts import torch when called.

    It has PREDICTIONS, MODES and SAMPLERS (names, the default first), `check(settings)` for
    combinations that cannot work, and `process(prediction, image_size, data_sd)`, how images become
    noise.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown generator {name!r}; choose one of {', '.join(METHODS)}")
    return import_module(f"mammo.generators.{name}")


def load_generator(folder: Path, *, device: str = "auto") -> Generator:
    """A trained generator from its model folder, ready to `sample`."""
    from mammo.generators.generator import Generator as Generator

    return Generator.load(folder, device=device)
