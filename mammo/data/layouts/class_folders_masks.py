"""System 3: `<class>/<image>.png` with `<image>_mask.png`, and `augmented_*` of generated ones."""

from mammo.data.layouts import Export, Image
from mammo.data.provenance import MASK_PLANE

SYSTEM = "system3"
HOLDS = frozenset({"real", "masks", "patients"})  # patients as the first part of a file's name


def write(export: Export) -> None:
    """Real images below `original`, those of each generator below `augmented_<its run>`."""
    for each in export.images(export.rows(synthetic=False)):
        _write(export, each, "original", f"{each.row.group_id}_{each.row.image_id}")
    for each in export.images(export.rows(synthetic=True)):
        origin = each.row.generator_run_id.replace("external:", "")[:12]
        _write(export, each, f"augmented_{origin}", each.row.image_id)


def reading(export: Export) -> dict[str, str]:
    """Settings of preprocess that read the real images again."""
    return {"dataset": "folder", "patient_pattern": "^([^_/]+)_"}


def _write(export: Export, image: Image, folder: str, name: str) -> None:
    export.png(image, "image 1", folder, image.row.label, f"{name}.png")
    if image.mask is not None:
        export.png(image, MASK_PLANE, folder, image.row.label, f"{name}_mask.png")
