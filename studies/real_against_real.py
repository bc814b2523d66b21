"""How often the parity check warns of disjoint halves of one real set, and what defects it finds.

python studies/real_against_real.py DATASET [DATASET ...] [--halvings 50]
prints for each dataset the share of halvings (by patient) with a mismatch and with any warning,
the share of quantities that warned and which did most, and the verdict on each planted defect.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.data.dataset import Dataset
from mammo.evaluation.fidelity import halve
from mammo.evaluation.parity import parity
from mammo.evaluation.summary import summarize
from mammo.seeds import derive

Images = NDArray[Any]  # (N, C, H, W), uint8 or uint16


def top(images: Images) -> int:
    return int(np.iinfo(images.dtype).max)


def blurred(images: Images, sigma: float = 1.0) -> Images:
    """Convolved with a normal distribution of `sigma` pixels."""
    down, across = (np.fft.fftfreq(side) for side in images.shape[2:])
    gain = np.exp(-2 * (np.pi * sigma * np.hypot(down[:, None], across[None])) ** 2)
    smooth = np.fft.ifft2(np.fft.fft2(images) * gain).real
    return np.rint(smooth.clip(0, top(images))).astype(images.dtype)


def noisy(images: Images, sd: float = 0.05) -> Images:
    """With independent noise of `sd`, in [0, 1], on every pixel."""
    noise = np.random.default_rng(0).normal(0, sd * top(images), images.shape)
    return np.rint((images + noise).clip(0, top(images))).astype(images.dtype)


def framed(images: Images) -> Images:
    """With a bright frame of one pixel."""
    out = images.copy()
    out[..., [0, -1], :] = top(images)
    out[..., :, [0, -1]] = top(images)
    return out


def through_8_bits(images: Images) -> Images:
    """With the 256 grey levels that 8 bits have; images of 8 bits stay as they are."""
    return images // 257 * 257 if images.itemsize == 2 else images


def all_one(images: Images) -> Images:
    return np.repeat(images[:1], len(images), axis=0)


DEFECTS: dict[str, Callable[[Images], Images]] = {
    "inverted": lambda images: top(images) - images,
    "upper half": lambda images: images // 2 + top(images) // 2,
    "lower half": lambda images: images // 2,
    "lighter by 0.1": lambda images: (
        np.minimum(images, top(images) * 0.9).astype(images.dtype)
        + images.dtype.type(top(images) * 0.1)
    ),
    "through 8 bits": through_8_bits,
    "of 8 bits": lambda images: (
        (images // 257).astype(np.uint8) if images.itemsize == 2 else images.astype(np.uint16) * 257
    ),
    "mirrored": lambda images: images[..., ::-1],
    "upside down": lambda images: images[..., ::-1, :],
    "blurred": blurred,
    "noisy": noisy,
    "framed": framed,
    "all one image": all_one,
    "channels swapped": lambda images: images[:, ::-1],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--halvings", type=int, default=50)
    arguments = parser.parse_args()
    for folder in arguments.datasets:
        data = Dataset(folder)
        examine(data, arguments.halvings)


def examine(data: Dataset, halvings: int) -> None:
    """Print the lines of one dataset."""
    labels = data.manifest["label"].to_numpy(str)
    patients = data.manifest["group_id"].to_numpy(str)
    images = data.raw(np.arange(len(data)))
    warned, mismatched, quantities = [], [], 0
    which: Counter[str] = Counter()
    for number in range(halvings):
        one, other = (
            summarize(images[half], labels[half], patients[half])
            for half in halve(patients, derive(0, "halves", number))
        )
        table = parity(one, other)
        quantities += int(table["tolerance"].notna().sum())
        found = table[table["verdict"] == "warn"]["quantity"]
        which.update(found)
        warned.append(len(found))
        mismatched.append((table["verdict"] == "mismatch").any())
    print(
        f"{data.name}: {len(data)} images, {halvings} halvings: "
        f"{np.mean(mismatched):.1%} with a mismatch, {np.mean(np.array(warned) > 0):.1%} with a "
        f"warning, {sum(warned)} of {quantities} quantities warned {dict(which.most_common(6))}"
    )
    one, other = halve(patients, derive(0, "halves", 0))
    real = summarize(images[one], labels[one], patients[one])
    for name, defect in DEFECTS.items():
        if np.array_equal(defect(images), images):
            continue  # no defect of such images
        table = parity(real, summarize(defect(images[other]), labels[other], patients[other]))
        for verdict in ("mismatch", "warn"):
            found = table[table["verdict"] == verdict]["quantity"]
            if len(found):
                print(f"  {name}: {verdict} {len(found)}: {', '.join(found[:8])}")
        if (table["verdict"] == "ok").all():
            print(f"  {name}: not seen")


if __name__ == "__main__":
    main()
