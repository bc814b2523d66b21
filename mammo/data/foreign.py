"""Generated images that others made, taken in as synthetic ones and never as patients."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mammo.data.partition import Divided
from mammo.errors import ConfigError

# Settings that draw or follow splits of patients, with the value that leaves it
_OF_PATIENTS = {"split_file": "", "k_folds": 0, "warmup_negatives": 0}


def generator_of(origin: str) -> str:
    """What stands for the run of an unknown generator in a manifest; it names its `origin`."""
    slug = re.sub(r"[^a-z0-9]+", "-", origin.lower()).strip("-")[:40]
    if not slug:
        raise ConfigError(
            f"synthetic_origin {origin!r}: name who made the images, as 'guidance 3 on EMBED'"
        )
    return f"external:{slug}"


def check_foreign(settings: Mapping[str, Any]) -> None:
    """Refuse settings of splits, which images of nobody have none of."""
    origin = str(settings["synthetic_origin"])
    if not origin:
        return
    generator_of(origin)
    for name, none in _OF_PATIENTS.items():
        if settings[name] != none:
            raise ConfigError(
                f"{name} {settings[name]!r} and synthetic_origin {origin!r}: generated images are "
                f"training images and have no patients; leave {name} out"
            )


def all_for_training(frame: pd.DataFrame, prescribed: Sequence[str]) -> Divided:
    """Generated images are used for training, whatever split their release prescribes."""
    rows = pd.DataFrame({"split": "train", "fold": -1}, index=frame.index)
    return Divided(rows)


def mark_synthetic(frame: pd.DataFrame, origin: str) -> None:
    """Make all rows of `frame` synthetic ones of `origin`, each a group of its own."""
    frame["is_synthetic"] = True
    frame["generator_run_id"] = generator_of(origin)
    frame["group_id"] = frame["exam_id"] = "synthetic-" + frame["image_id"]
