"""What may be asked of preprocess: settings that are read and refused before any file is."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mammo.data.release import FLAGS, STRATA
from mammo.errors import ConfigError, DataError

# What 0 and 1 stand for, written into the dataset so that synthetic images can be mapped back.
SCALES = {
    "header": "output range of the header's modality and VOI transform; full depth without one",
    "percentile": "0.5 and 99.5 percentile of the breast's pixels",
    "fixed": "fixed_range, in the file's units after its modality transform",
    "none": "full range of the stored bits, VOI left out",
}
ATTENUATION = "of FOR PROCESSING files: -ln(I / I0), 1 is ln(2^bits); I0 is the unattenuated beam"


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse values of preprocess that cannot be used, or not together."""
    parse_size(str(settings["image_size"]))
    grey_range(str(settings["intensity"]), str(settings["fixed_range"]))
    unknown = sorted(listed(str(settings["exclude"])) - set(FLAGS))
    if unknown:
        raise ConfigError(f"exclude {unknown[0]!r} is no flag; choose of {', '.join(FLAGS)}")
    stratify = [part.strip() for part in str(settings["stratify_by"]).split(",")]
    strange = sorted(set(stratify) - set(STRATA))
    if strange:
        raise ConfigError(f"stratify_by {strange[0]!r}; choose of {', '.join(STRATA)}")
    if settings["k_folds"] == 1:
        raise ConfigError("k_folds 1 is no cross-validation; give 2 or more, or 0 for a hold-out")
    if settings["val_fraction"] + settings["test_fraction"] >= 1:
        raise ConfigError(
            f"val_fraction {settings['val_fraction']:g} and test_fraction "
            f"{settings['test_fraction']:g} leave nothing to train on; their sum must be below 1"
        )
    if settings["synthetic_origin"]:
        from mammo.data.foreign import check_foreign

        check_foreign(settings)
    file = str(settings["split_file"])
    if settings["new_patients"] != "error" and not file:
        raise ConfigError(
            f"new_patients {settings['new_patients']} has no effect without split_file; name one"
        )
    if file and not Path(file).expanduser().is_file():
        raise DataError(f"split_file {file} does not exist")


def digest_of_files(settings: Mapping[str, Any]) -> str:
    """Digest of what the folder and the split file hold now: other files are another run.

    Files are told apart by name, size and time of change; reading a release would take hours.
    """
    digest = hashlib.sha256()
    if settings["source"]:
        root = Path(settings["source"]).expanduser()
        for path in sorted(each for each in root.rglob("*") if each.is_file()):
            if any(part.startswith(".") for part in path.relative_to(root).parts):
                continue  # no adapter reads it, and our own work folder may be there
            said = path.stat()
            text = f"{path.relative_to(root)}\0{said.st_size}\0{said.st_mtime_ns}\n"
            digest.update(text.encode(errors="surrogateescape"))
    if settings["split_file"]:
        digest.update(Path(settings["split_file"]).expanduser().read_bytes())
    return digest.hexdigest()


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of `128` or `256x128`."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and 8 <= int(part) <= 8192 for part in parts):
        raise ConfigError(f"image_size {text!r}: give a side or HxW, each from 8 to 8192 pixels")
    return int(parts[0]), int(parts[-1])


def grey_range(intensity: str, fixed_range: str) -> tuple[float, float] | None:
    """The two ends of `fixed_range`, which belongs to intensity fixed alone."""
    if (intensity == "fixed") != bool(fixed_range):
        raise ConfigError(
            f"intensity {intensity} and fixed_range {fixed_range!r}: give fixed_range, as 0,4095, "
            "with intensity fixed and with no other"
        )
    if not fixed_range:
        return None
    try:
        low, high = (float(part) for part in fixed_range.split(","))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ConfigError(f"fixed_range {fixed_range!r}: two rising numbers are needed, as 0,4095")
    return low, high


def listed(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())
