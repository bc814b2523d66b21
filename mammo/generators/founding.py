"""What a model may build on: a trained one of like images that has seen nothing held out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mammo.data.guards import check_generators
from mammo.errors import ConfigError
from mammo.generators.conditions import Conditions
from mammo.generators.material import Material
from mammo.models import SavedModel

log = logging.getLogger("mammo")


def build_on(model: SavedModel, material: Material, setting: str) -> None:
    """Take `model`, named by `setting`, as the ground of what `material` trains.

    What it was trained on is seen by the new model too. DataError where that is a validation or
    held-out patient of this dataset, ConfigError where its images are of another shape.
    """
    data = material.data
    if model.shape != data.shape:
        ours, theirs = (" x ".join(map(str, each)) for each in (data.shape, model.shape))
        raise ConfigError(
            f"{setting}: generator {model.run_id} was trained on images of {theirs} (channels, "
            f"height, width), those of dataset {data.name} are {ours}; give one of images like "
            "these"
        )
    build_on_any(model, material, setting)


def build_on_any(model: SavedModel, material: Material, setting: str) -> None:
    """`build_on` for a model that makes images of any height and width."""
    data = material.data
    seen = model.training.assign(run_id=model.run_id)
    manifest = data.manifest
    held_out = manifest.drop(manifest.index[material.train])
    check_generators(
        [model.run_id],
        seen,
        held_out[~held_out["is_synthetic"]],
        salt=str(data.about.get("salt") or ""),
        name=data.name,
    )
    intensities = [_policy(model.about["intensity"]), _policy(data.about.get("intensity"))]
    if all(intensities) and intensities[0] != intensities[1]:
        log.warning(
            "%s: generator %s learned images of intensity %s, dataset %s has %s: its greys mean "
            "something else",
            *(setting, model.run_id, intensities[0], data.name, intensities[1]),
        )
    material.seen.append(model.training)


def check_told(base: SavedModel, material: Material, settings: Mapping[str, Any]) -> None:
    """Refuse a base of other classes, or conditions that it was not told."""
    data, columns = material.data, list(base.about["conditions"])
    if base.classes.names != data.classes.names:
        raise ConfigError(
            f"base {base.run_id} has classes {', '.join(base.classes.names)}, dataset {data.name} "
            f"has {', '.join(data.classes.names)}; they must be the same, in this order"
        )
    asked = [part.strip() for part in settings["conditions"].split(",") if part.strip()]
    if asked and asked != columns[1:]:
        raise ConfigError(
            f"conditions {settings['conditions']!r} are not those of base {base.run_id}, which is "
            f"told {', '.join(columns) or 'nothing'}; leave them out, it is told the same here"
        )


def tell_as(base: SavedModel, material: Material) -> None:
    """Let `material` tell what the base was told, under the same ids."""
    material.conditions = Conditions.from_json(base.about["conditions"])


def _policy(intensity: object) -> str:
    return str(intensity.get("policy", "") if isinstance(intensity, dict) else intensity or "")
