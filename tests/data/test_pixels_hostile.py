"""Files broken at random: a line each, and never the end of the process."""

import random
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicoms import ENCODED, transcode, write_dicom
from PIL import Image
from pydicom.data import get_testdata_file

BROKEN_FILES = 60  # of each kind; a decoder that trusts what it reads falls over within these
# Reads every file of a folder in a process of its own, as a crash in C would take the tests along
READ = """
import sys, pathlib
from mammo.data.pixels import bits_of, read_pixels
from mammo.errors import DataError
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    for read in (read_pixels, bits_of):
        try:
            read(path)
        except DataError as error:
            assert "\\n" not in str(error) and path.stem not in str(error), str(error)
print("all read")
"""


def smooth(bits: int) -> np.ndarray:
    ramp = np.add.outer(np.arange(64), np.arange(48)) / 110
    noise = np.random.default_rng(0).integers(0, 1 << (bits - 3), (64, 48))
    return (ramp * (1 << (bits - 1))).astype(int) + noise


def whole_file(folder: Path, kind: str) -> Path:
    """A sound file of `kind`."""
    if kind in ENCODED:
        bits = 8 if kind == "jpeg-baseline" else 12
        return transcode(write_dicom(folder / "a.dcm", smooth(bits), bits=bits), kind)
    if kind == "jpeg-extended":
        path = folder / "a.dcm"
        path.write_bytes(Path(str(get_testdata_file("JPGExtended.dcm"))).read_bytes())
        return path
    path = folder / f"a.{kind}"
    if kind.startswith("nii"):
        nib.Nifti1Image(smooth(8).astype(np.uint8), np.eye(4)).to_filename(path)
    elif kind == "jpg":
        Image.fromarray(smooth(8).astype(np.uint8)).save(path)
    else:
        Image.fromarray(smooth(12).astype(np.uint16)).save(path)
    return path


def broken(content: bytes, draw: random.Random) -> bytes:
    """`content` cut off, with bytes changed at its start or anywhere, taken out, or put in."""
    changed = bytearray(content)
    place = draw.randrange(len(changed))
    way = draw.randrange(5)
    if way == 0:
        return content[:place]
    if way in (1, 2):
        for _ in range(draw.randrange(1, 4 if way == 1 else 30)):
            at = draw.randrange(min(2000, len(changed)) if way == 1 else len(changed))
            changed[at] = draw.randrange(256)
    elif way == 3:
        del changed[place : place + draw.randrange(1, 300)]
    else:
        changed[place:place] = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 60)))
    return bytes(changed)


@pytest.mark.parametrize(
    "kind", [*ENCODED, "jpeg-extended", "png", "tif", "pgm", "jpg", "nii", "nii.gz"]
)
def test_no_broken_file_ends_the_process_or_is_told_by_more_than_a_line(
    tmp_path: Path, kind: str
) -> None:
    source = whole_file(tmp_path, kind)
    folder = tmp_path / "broken"
    folder.mkdir()
    content = source.read_bytes()
    suffix = "".join(source.suffixes)
    for number in range(BROKEN_FILES):
        draw = random.Random(f"{kind} {number}")
        (folder / f"Jane_Roe_{number:03d}{suffix}").write_bytes(broken(content, draw))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", READ, str(folder)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "all read\n"), done.stderr[-2000:]
