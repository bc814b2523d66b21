"""Shuffled training batches against plain numpy, and against a PNG or a NIfTI file an image."""

import argparse
import gzip
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mammo.data.classes import TASKS
from mammo.data.dataset import Dataset
from mammo.data.loading import training_batches
from mammo.data.writer import DatasetWriter

FULL = np.float32(65535)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--side", type=int, default=256, help="pixels, uint16")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=30)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = written(Path(folder), asked.images, asked.side)
        speed = speeds(data, Path(folder), batch_size=asked.batch_size, repeats=asked.repeats)
    print(f"{asked.images} images of {asked.side} x {asked.side} uint16, shuffled, page cache warm")
    for (name, ours), value in speed.items():
        line = f"{name:42} {value:9.0f} images/s"
        if ours:
            line += f"   mammo / this = {speed[ours, ''] / value:.2f}"
        print(line)


def speeds(
    data: Dataset, folder: Path, *, batch_size: int, repeats: int
) -> dict[tuple[str, str], float]:
    """Images a second of every side, and of mammo that it is compared with (empty: mammo's own)."""
    sides = _sides(data, folder, batch_size)
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in sides}
    draw = random.Random(0)
    for turn in range(repeats):
        # in turns, which differ: a side finds the caches as the one before has left them
        for name, read in draw.sample(sorted(sides.items(), key=lambda side: side[0]), len(sides)):
            if turn % 10 and "an image" in name[0]:
                continue  # thirty times slower, and far from what is asked
            start = time.perf_counter()
            read()
            seconds[name].append(time.perf_counter() - start)
    return {name: len(data) / min(seconds[name]) for name in sides}  # a busy machine only slows


def _sides(
    data: Dataset, folder: Path, batch_size: int
) -> dict[tuple[str, str], Callable[[], None]]:
    order = np.random.default_rng(0).permutation(len(data))
    plain = np.load(data.folder / "images-0000.npy", mmap_mode="r")
    loader = training_batches(
        data, np.arange(len(data)), batch_size=batch_size, order=lambda epoch: order
    )

    def batches(read: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
        def run() -> None:
            kept = None  # a trainer holds its batch while the next is read, so all sides do
            for start in range(0, len(order), batch_size):
                kept = read(order[start : start + batch_size])
            assert kept is not None

        return run

    def load() -> None:
        for batch in loader:
            assert len(batch)

    def pictures(rows: np.ndarray) -> np.ndarray:
        from PIL import Image

        each = [np.asarray(Image.open(folder / "png" / f"{row}.png")) for row in rows]
        return np.stack(each)[:, None].astype(np.float32) / FULL

    def volumes(rows: np.ndarray) -> np.ndarray:
        each = [read_volume(folder / "nifti" / str(row)) for row in rows]
        return np.stack(each)[:, None] / FULL

    raw, floats = "mammo, stored uint16", "mammo loader, float32 tensors"
    return {
        (raw, ""): batches(data.raw),
        ("numpy gather, stored uint16", raw): batches(lambda rows: plain[rows]),
        (floats, ""): load,
        ("numpy gather, float32 in [0, 1]", floats): batches(
            lambda rows: plain[rows].astype(np.float32) / FULL
        ),
        ("a PNG an image, Pillow", floats): batches(pictures),
        ("a NIfTI an image, nibabel (system 0)", floats): batches(volumes),
    }


def read_volume(folder: Path) -> np.ndarray:
    """As system 0 reads a sample: the first .nii.gz of its folder, as nibabel's floats (H, W)."""
    import nibabel

    first = sorted(folder.glob("*.nii.gz"))[0]
    return np.asarray(nibabel.load(first).get_fdata(), np.float32)


def written(folder: Path, images: int, side: int, *, dtype: str = "uint16") -> Dataset:
    """Half ellipses full of noise on black, as a dataset, as PNG and as NIfTI.

    The noise has 12 bits, or 8 where `dtype` is uint8.
    """
    import nibabel
    from PIL import Image

    shape = (1, side, side)
    writer = DatasetWriter(
        folder / "new.partial", name="reading", classes=TASKS["malignancy2"], shape=shape,
        dtype=dtype,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:side, :side]
    breast = ((rows / side - 0.5) / 0.45) ** 2 + (columns / side / 0.6) ** 2 < 1
    (folder / "png").mkdir()
    for number in range(images):
        image = np.where(breast, 16 * rng.integers(1000, 4096, shape), 0)
        image = (image // (256 if dtype == "uint8" else 1)).astype(dtype)
        row = {"group_id": f"p{number}", "image_id": f"i{number}", "split": "train"}
        writer.add(image, {**row, "label": ("benign", "malignant")[number % 2]})
        Image.fromarray(image[0]).save(folder / "png" / f"{number}.png")
        (folder / "nifti" / str(number)).mkdir(parents=True)
        volume = nibabel.Nifti1Image(image[0], np.eye(4)).to_bytes()
        path = folder / "nifti" / str(number) / "image.nii.gz"
        path.write_bytes(gzip.compress(volume, compresslevel=6))
    return writer.finish(folder / "datasets")


if __name__ == "__main__":
    main()
