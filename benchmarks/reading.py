"""Shuffled training batches against a plain numpy gather from the same memory map."""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from mammo.data.classes import TASKS
from mammo.data.dataset import Dataset
from mammo.data.loading import training_batches
from mammo.data.writer import DatasetWriter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--side", type=int, default=256, help="pixels, uint16")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = _dataset(Path(folder), asked.images, asked.side)
        sides = _sides(data, asked.batch_size)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(asked.repeats):  # in turns: what slows the machine slows all sides
            for name, read in sides.items():
                start = time.perf_counter()
                read()
                seconds[name].append(time.perf_counter() - start)
    speed = {name: asked.images / median(times) for name, times in seconds.items()}
    print(f"{asked.images} images of {asked.side} x {asked.side} uint16, shuffled, page cache warm")
    for name, value in speed.items():
        ratio = speed["mammo loader, float32 tensors"] / value
        print(f"{name:34} {value:9.0f} images/s   loader / this = {ratio:.2f}")


def _sides(data: Dataset, batch_size: int) -> dict[str, Callable[[], None]]:
    rows = np.arange(len(data))
    order = np.random.default_rng(0).permutation(len(data))
    plain = np.load(data.folder / "images-0000.npy", mmap_mode="r")
    loader = training_batches(data, rows, batch_size=batch_size, order=lambda epoch: order)
    starts = range(0, len(order), batch_size)

    def gather() -> None:
        kept = None
        for start in starts:
            kept = plain[order[start : start + batch_size]]
        assert kept is not None

    def gather_as_float() -> None:
        kept = None  # a trainer holds its batch while the next is read, so all sides do
        for start in starts:
            pixels = plain[order[start : start + batch_size]].astype(np.float32)
            kept = pixels / np.float32(65535)
        assert kept is not None

    def load() -> None:
        for batch in loader:
            assert len(batch)

    return {
        "numpy gather, stored uint16": gather,
        "numpy gather, float32 in [0, 1]": gather_as_float,
        "mammo loader, float32 tensors": load,
    }


def _dataset(folder: Path, images: int, side: int) -> Dataset:
    shape = (1, side, side)
    writer = DatasetWriter(
        folder / "new.partial", name="reading", classes=TASKS["malignancy2"], shape=shape,
        dtype="uint16",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for number in range(images):
        image = rng.integers(0, 65536, shape, dtype=np.uint16)
        row = {"group_id": f"p{number}", "image_id": f"i{number}", "split": "train"}
        writer.add(image, {**row, "label": ("benign", "malignant")[number % 2]})
    return writer.finish(folder)


if __name__ == "__main__":
    main()
