"""The plots and the table of docs/doctor.md, from the doctor's JSON files and the datasets.

    python docs/doctor_figures.py out/busi out/mias out/cesm ...

Each folder holds the doctor.json of `mammo doctor DATASET --output folder`, and is followed by
`=DATASET` (a folder) where planted copies and the likeness of pairs are to be measured too.
"""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from mammo.data.dataset import Dataset
from mammo.data.duplicates import COPY, Pair, clusters, compared
from mammo.data.splits import hold_out

IMAGES = Path(__file__).parent / "images"
PLANTED = 60  # copies planted in each dataset for each change
INK, FIRES = "#1f6f8b", "#b45309"
Values = NDArray[np.float32]


def main(arguments: list[str]) -> None:
    examined = [Path(each.partition("=")[0]) for each in arguments]
    datasets = [Dataset(Path(each.partition("=")[2])) for each in arguments if "=" in each]
    IMAGES.mkdir(exist_ok=True)
    probes = [json.loads((folder / "doctor.json").read_text()) for folder in examined]
    names = [folder.name for folder in examined]
    plot_probes(names, probes).savefig(IMAGES / "doctor_probes.png", dpi=120)
    if datasets:
        plot_likeness(datasets).savefig(IMAGES / "doctor_duplicates.png", dpi=120)
    for data in datasets:
        if data.name != "busi":  # whose own copies would be taken for false ones
            print(data.name, "\n".join(recall(data)), sep="\n")


def plot_probes(names: list[str], examined: list[dict]) -> Figure:
    """AUC and interval of each probe of each dataset."""
    kinds = ("metadata", "background", "thumbnails")
    figure = Figure(figsize=(9, 0.7 + 0.55 * len(names)), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 3, sharey=True), kinds, strict=True):
        axes.axvline(0.5, color="#9aa3af", linewidth=1)
        axes.axvline(0.6, color=FIRES, linewidth=1, linestyle="--")
        for place, each in enumerate(reversed(examined)):
            (found,) = [probe for probe in each["probes"] if probe["name"] == kind]
            if found["auc"] is None:
                axes.text(0.5, place, "nothing varies", fontsize=8, va="center", ha="left")
                continue
            color = FIRES if found["low"] > 0.6 else INK
            axes.plot([found["low"], found["high"]], [place, place], color=color, linewidth=2)
            axes.plot([found["auc"]], [place], "o", color=color)
        axes.set_yticks(range(len(names)), list(reversed(names)))
        axes.set_xlim(0.3, 1)
        axes.set_title(kind, fontsize=10)
        axes.set_xlabel("AUC, 95 % interval", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_likeness(datasets: list[Dataset]) -> Figure:
    """Similarity of the pairs that were laid on each other, by dataset."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, data in zip(figure.subplots(1, len(datasets), sharey=True), datasets, strict=True):
        pairs, bound = compared(
            lambda row, data=data: data.images([row])[0, 0],
            len(data),
            list(data.manifest["sha256"]),
        )
        values = [pair.similarity for pair in pairs]
        axes.hist(values, np.arange(-0.1, 1.02, 0.025), color=INK, log=True)
        axes.axvline(bound, color="#9aa3af", linestyle="--", linewidth=1)
        axes.axvline(COPY, color=FIRES, linestyle="--", linewidth=1)
        axes.set_title(f"{data.name}: closest {len(values)} pairs of {len(data)} images")
        axes.title.set_fontsize(10)
        axes.set_xlabel("similarity of fine structures", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        if data.name == "busi":
            print(torn(data, [pair for pair in pairs if pair.copies]))
        for name, least in (("scene", bound), ("copy", COPY)):
            alike = [pair for pair in pairs if pair.similarity >= least]
            sizes = np.bincount(clusters(len(data), alike), minlength=len(data))
            several = sizes[sizes > 1]
            print(
                f"{data.name}: {name} (similarity from {least:.2f}): {len(alike)} pairs, "
                f"{len(several)} clusters, {several.sum()} images, "
                f"{(several - 1).sum()} redundant"
            )
    figure.axes[0].set_ylabel("pairs")
    return figure


def torn(data: Dataset, copies: list[Pair]) -> str:
    """How many clusters of copies a split by image tears apart."""
    alone = data.manifest[["image_id", "label"]].rename(columns={"image_id": "group_id"})
    split = hold_out(alone, val_fraction=0.15, test_fraction=0.2, seed=0).to_numpy()
    joined = clusters(len(data), copies)
    roots = [root for root in np.unique(joined) if (joined == root).sum() > 1]
    apart = [root for root in roots if len(set(split[joined == root])) > 1]
    images = sum(int((joined == root).sum()) for root in apart)
    return f"{data.name}: split by image, {len(apart)} clusters ({images} images) are torn apart"


def recall(data: Dataset) -> list[str]:
    """Lines of the table: planted copies found, and pairs called copies that are none."""
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(data), PLANTED, replace=False).tolist()
    lines = []
    for name, change in CHANGES.items():

        def read(row: int, change: Callable[[Values], Values] = change) -> Values:
            if row < len(data):
                return data.images([row])[0, 0]
            return change(data.images([chosen[row - len(data)]])[0, 0])

        pairs, _ = compared(read, len(data) + PLANTED)
        copies = {(pair.first, pair.second) for pair in pairs if pair.copies}
        truth = {(row, len(data) + place) for place, row in enumerate(chosen)}
        found, false = len(copies & truth), len(copies - truth)
        lines.append(f"| {name} | {found} of {PLANTED} | {false} |")
    return lines


def compressed(picture: Values) -> Values:
    file = io.BytesIO()
    Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file), np.float32) / 255


def grainy(picture: Values) -> Values:
    noise = np.random.default_rng(0).normal(0, 0.01, picture.shape)
    return np.clip(picture + noise, 0, 1).astype(np.float32)


def trimmed(picture: Values) -> Values:
    height, width = picture.shape
    return picture[height // 40 : -height // 40, : -width // 40]


def smaller(picture: Values) -> Values:
    size = (picture.shape[1] * 3 // 5, picture.shape[0] * 3 // 5)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


CHANGES: dict[str, Callable[[Values], Values]] = {
    "mirrored": lambda picture: picture[:, ::-1],
    "moved by 2 pixels": lambda picture: np.roll(picture, (2, 2), (0, 1)),
    "JPEG, quality 75": compressed,
    "gamma 1.1": lambda picture: np.asarray(picture**1.1, np.float32),
    "noise of 1 %": grainy,
    "2.5 % cut from three sides": trimmed,
    "resized to 60 %": smaller,
}

if __name__ == "__main__":
    main(sys.argv[1:])
