"""Synthetic images alone as DICOM, `<class>/<image>.dcm`, each marked as synthetic by the standard.

Real images are not written: their DICOM files are the release's own.
"""

from mammo.data.layouts import Export
from mammo.data.synthetic_dicom import write_synthetic

SYSTEM = "dicom"
HOLDS = frozenset({"channels"})


def write(export: Export) -> None:
    """A file for each channel, numbered where there are several."""
    for each in export.images(export.rows(synthetic=True)):
        for number, plane in enumerate(each.planes, start=1):
            pixels = each.plane(plane)
            record = export.record(each, pixels[None], [plane])
            assert record is not None  # the rows are synthetic
            name = each.row.image_id + (f"_{number}" if len(each.planes) > 1 else "")
            write_synthetic(export.path(each.row.label, f"{name}.dcm"), pixels, record)
            export.written["DICOM"] += 1
