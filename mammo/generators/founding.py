"""What a model may build on: a trained one of like images that has seen nothing held out."""

from __future__ import annotations

import logging

from mammo.data.guards import check_generators
from mammo.errors import ConfigError
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
    seen = model.training.assign(run_id=model.run_id, salt=str(model.about["salt"] or ""))
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


def _policy(intensity: object) -> str:
    return str(intensity.get("policy", "") if isinstance(intensity, dict) else intensity or "")
