"""Drawing one image of a sampled dataset again, from what its row and the dataset record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mammo.errors import CheckpointError, DataError
from mammo.generators.asking import Told
from mammo.generators.drawing import Recipe, stored
from mammo.generators.mask_areas import binarized

if TYPE_CHECKING:
    from mammo.data.dataset import Dataset
    from mammo.generators.generator import Generator


def machine(device: torch.device) -> dict[str, Any]:
    """What the last bits of an image may depend on beside its asking."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "torch": str(torch.__version__), "threads": torch.get_num_threads()}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two machines, in words; empty when nothing does."""
    told = [
        f"{name} {then[name]} then and {value} now"
        for name, value in now.items()
        if name in then and then[name] != value
    ]
    return ", ".join(told)


def recipe_of(drawn: Dataset) -> Recipe:
    """How the images of a sampled dataset were drawn; DataError where it does not say."""
    said = drawn.about.get("sampling")
    names = {each.name for each in fields(Recipe)}
    if not isinstance(said, dict) or not names <= said.keys():
        missing = ", ".join(sorted(names - set(said or ())))
        raise DataError(
            f"dataset {drawn.name} does not record how its images were drawn (it lacks {missing}); "
            "sample them again with this mammo"
        )
    low, high = said["guidance_interval"]
    known = {name: said[name] for name in names}
    return Recipe(**{**known, "guidance_interval": (float(low), float(high))})


def digest_of_generator(drawn: Dataset, run_id: str) -> str:
    """Digest of the model that drew the rows of `run_id`, as the dataset lists its parents."""
    for each in drawn.about.get("parents", []):
        if each.get("kind") == "generator" and each.get("run_id") == run_id:
            return str(each["digest"])
    raise DataError(
        f"dataset {drawn.name} names no generator for run {run_id}: it was not made by sample"
    )


def draw_again(generator: Generator, drawn: Dataset, row: int) -> NDArray[Any]:
    """The image of `row` as it would be stored, (C, H, W) uint8 or uint16.

    CheckpointError when `generator` is not the one that drew it.
    """
    line = drawn.manifest.iloc[row]
    wanted = digest_of_generator(drawn, str(line["generator_run_id"]))
    if generator.model.digest != wanted:
        raise CheckpointError(
            f"generator {generator.model.run_id} has digest {generator.model.digest}, image {row} "
            f"was drawn by one with {wanted}; give that with --generator"
        )
    recipe = recipe_of(drawn)
    told = Told.by(generator.model.about, recipe.conditions).columns
    images = generator.sample(
        [str(line["label"])],
        seeds=[int(line["sample_seed"])],
        conditions={name: [str(line[name])] for name in told},
        masks=drawn.masks([row]) if generator.takes_masks else None,
        **recipe.sampling(),
    )
    if generator.model.about["mode"] == "mask":
        images = (binarized(images, recipe.mask_threshold) > 0).astype(np.float32)
    again: NDArray[Any] = stored(images, np.dtype(drawn.about["dtype"]))[0]
    return again
