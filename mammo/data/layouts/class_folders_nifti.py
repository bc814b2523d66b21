"""System 0: `original/<class>/<sample>/slice.nii.gz`, and the generated ones by their guidance."""

from collections import Counter

from mammo.data.layouts import Export, guidance_of

SYSTEM = "system0"
HOLDS = frozenset({"real", "patients"})  # as the first part of a sample's name
FILE = "slice.nii.gz"


def write(export: Export) -> None:
    """A folder for each sample: `<patient>_<image>` of real ones, 0001 onward of generated ones."""
    for each in export.images(export.rows(synthetic=False)):
        sample = f"{each.row.group_id}_{each.row.image_id}"
        place = ("original", each.row.label, sample, FILE)
        export.nifti(each.pixels[0], *place, pixel_mm=each.row.pixel_mm)
    guidance = guidance_of(export)
    made: Counter[tuple[str, str]] = Counter()
    for each in export.images(export.rows(synthetic=True)):
        folder, label = f"synthetic_guide{guidance[each.row.image_id]}", each.row.label
        made[folder, label] += 1
        place = (folder, label, f"{made[folder, label]:04d}", FILE)
        record = export.record(each, each.pixels, each.planes)
        export.nifti(each.pixels[0], *place, pixel_mm=each.row.pixel_mm, record=record)


def reading(export: Export) -> dict[str, str]:
    """Settings of preprocess that read the real images again."""
    return {"dataset": "folder", "patient_pattern": "^([^_/]+)_"}
