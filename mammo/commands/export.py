"""`mammo data export DATASET`: a dataset as the files that another system reads."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mammo.data.layouts import export as write_out
from mammo.data.layouts import lost, open_layout, read_again
from mammo.data.manifest import SPLITS
from mammo.driver import work_folder
from mammo.errors import ConfigError
from mammo.references import resolve
from mammo.settings import one_of

if TYPE_CHECKING:
    Part = str
else:
    Part = one_of((*SPLITS, "all"))


def export(
    dataset: str, *, layout: str = "", output: str = "", split: Part = "all"
) -> Iterator[str]:
    """Write DATASET (a folder, a run id, runs:/...) in a layout; pixels stay as they are.

    Layouts, by the public system whose files they are: system0 (class_folders_nifti), system1
    (csv_train_val), system2 (csv_patients), system3 (class_folders_masks), system4 (nifti_pairs);
    and dicom, of synthetic images alone. File names are the dataset's hashed ids; generated images
    lie apart from the real ones and carry their provenance, which `mammo verify FILE` reads.
    """
    from mammo.data.dataset import Dataset
    from mammo.tracking import Tracking

    form = open_layout(layout)
    if not output:
        raise ConfigError("output is missing; give --output and a new folder")
    found = resolve(dataset, "dataset", "dataset", tracking=Tracking(), work=work_folder(""))
    folder = Path(output).expanduser()
    made = write_out(Dataset(found.path), form, folder, split=split)
    real = len(made.rows(synthetic=False)) if "real" in form.HOLDS else 0
    files = ", ".join(f"{count} {kind}" for kind, count in sorted(made.written.items()))
    generated = len(made.rows(synthetic=True))
    yield f"{folder}: {real} real and {generated} generated images ({files} files)"
    yield from lost(made, form)
    if real:
        settings = {"source": str(folder), **read_again(made, form)}
        words = [f"--{name} {shlex.quote(value)}" for name, value in settings.items()]
        yield f"read it again: mammo preprocess {' '.join(words)}"
