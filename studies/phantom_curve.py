"""AUC of a trained classifier by the contrast of its lesions, beside the ideal observer's.

    python studies/phantom_curve.py [--contrasts 0 0.5 1 2 3]

Phantoms of variant `known` (a signal known exactly, in Gaussian noise of known spectrum) go through
the steps of a user: preprocess, train_classifier, evaluate. The ideal observer, whose AUC nothing
exceeds but by chance (mammo/data/observer.py says why), scores the very images of the test
patients. A last row trains and tests where the labels were shuffled over the patients.
"""

import argparse
import csv
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mammo
from mammo import cli, driver
from mammo.data.dataset import Dataset
from mammo.data.observer import ideal_auc, known_signal, matched_filter, power_spectrum
from mammo.data.phantom_release import TABLE
from mammo.data.sources import phantom
from mammo.evaluation.comparison import Comparison, compare
from mammo.evaluation.ranking import frame_auc
from mammo.seeds import derive

SIDE = 32  # pixels: drawn so, not resized, so that both observers see the same numbers
SPLITS = {"test_fraction": 0.3, "val_fraction": 0.1}
# The same at every contrast. Its one augmentation is mirroring, which is exact: signal and noise
# are symmetric.
RECIPE = {
    "model_name": "test_resnet",
    "augment": "u24_basic",
    "epochs": 8,
    "lr": 2e-3,
    "batch_size": 64,
    "patience": 0,
}


@dataclass(frozen=True)
class Point:
    """What was measured at one contrast; AUCs are by patient, each of whom has one image."""

    contrast: float
    permuted: bool
    patients: int  # of the test
    auc: float
    low: float  # 95 % of draws of patients
    high: float
    ideal: float  # the ideal observer on the same images
    expected: float  # the same over all images there could be: Phi(d' / sqrt 2)
    short: Comparison  # ideal minus classifier, paired by patient

    def row(self) -> str:
        """A row of the table."""
        name = f"{self.contrast:g}{', labels permuted' if self.permuted else ''}"
        return (
            f"| {name} | {self.auc:.3f} ({self.low:.3f} to {self.high:.3f}) | {self.ideal:.3f} | "
            f"{self.expected:.3f} | {self.short.auc:+.3f} "
            f"({self.short.low:+.3f} to {self.short.high:+.3f}) |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contrasts", type=float, nargs="+", default=[0, 0.5, 1, 2, 3])
    parser.add_argument("--patients", type=int, default=8000, help="of each contrast")
    parser.add_argument("--seed", type=int, default=0, help="of phantoms, splits and training")
    parser.add_argument("--figure", default="phantom_curve.png")
    asked = parser.parse_args()
    start, used = time.perf_counter(), time.process_time()
    contrasts = sorted(asked.contrasts)
    size = {"patients": asked.patients, "seed": asked.seed}
    print("| contrast | classifier | ideal, same images | ideal, expected | ideal - classifier |")
    print("|---|---|---|---|---|")
    points = []
    for contrast, permute in [*((each, False) for each in contrasts), (contrasts[-1], True)]:
        points.append(point(contrast, **size, permute=permute))
        print(points[-1].row(), flush=True)
    print(f"{points[0].patients} test patients of {asked.patients}; {RECIPE}")
    spent = time.process_time() - used
    print(f"{spent / 60:.1f} min of a processor, {(time.perf_counter() - start) / 60:.1f} min")
    draw(points[:-1], points[-1], Path(asked.figure))


def point(contrast: float, *, patients: int, seed: int, permute: bool = False) -> Point:
    """Phantoms of one contrast through the steps, and the ideal observer on their test images."""
    release = released(contrast, patients=patients, seed=seed, permute=permute)
    made = {"dataset": "phantom", "source": release, "image_size": SIDE, "crop": "none"}
    data = call("preprocess", {**made, **SPLITS, "seed": seed})["run_id"]
    model = call("train_classifier", {"data": data, **RECIPE, "seed": seed})["run_id"]
    judged = call("evaluate", {"data": data, "model": model, "seed": seed})
    scored, found = tested(judged["run_id"]), judged["metrics"]
    ideal = ideally_scored(mammo.open_dataset(data), scored, contrast)
    spectrum = power_spectrum(SIDE)
    return Point(
        contrast,
        permute,
        len(scored),
        *(found[f"test/{name}"] for name in ("auc", "auc_low", "auc_high")),
        frame_auc(ideal, "malignant"),
        0.5 if permute else ideal_auc(known_signal(SIDE, spectrum, contrast=contrast), spectrum),
        compare(ideal, scored, "malignant"),
    )


def released(contrast: float, *, patients: int, seed: int, permute: bool = False) -> Path:
    """Folder of a release in the work folder, written unless it is there."""
    folder = driver.work_folder("") / "releases" / f"known-{patients}-{contrast:g}-{seed}"
    options = {"variant": "known", "patients": patients, "contrast": contrast, "seed": seed}
    folder.parent.mkdir(parents=True, exist_ok=True)
    phantom.generate(folder, options={**_texts(options), "image_size": str(SIDE)})
    return permuted(folder, seed=seed) if permute else folder


def permuted(release: Path, *, seed: int) -> Path:
    """Copy of `release` beside it whose labels are shuffled over its images, one a patient."""
    folder = release.with_name(f"{release.name}-permuted")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(release, folder)
    with (folder / TABLE).open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    order = np.random.default_rng(derive(seed, "permuted labels")).permutation(len(rows))
    # a mask would still tell where the signal is
    told = [
        {**row, "label": rows[place]["label"], "mask": "", "kind": ""}
        for row, place in zip(rows, order, strict=True)
    ]
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(told)
    return folder


def call(step: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Run an entry point in this process; its JSON line."""
    words = [word for name, text in _texts(settings).items() for word in (f"--{name}", text)]
    print("$ mammo", step, *words, file=sys.stderr, flush=True)
    return driver.run_step(step, cli.parse(step, words))


def tested(run: str) -> pd.DataFrame:
    """Scores of the test images, one a patient, that an evaluation wrote down."""
    import mlflow

    frame = pd.read_parquet(mlflow.artifacts.download_artifacts(f"runs:/{run}/predictions.parquet"))
    return frame[frame["split"] == "test"].reset_index(drop=True)


def ideally_scored(data: Dataset, scored: pd.DataFrame, contrast: float) -> pd.DataFrame:
    """`scored` with the log likelihood ratio of each image, but a constant, in place of scores."""
    rows = pd.Index(data.manifest["image_id"]).get_indexer(scored["image_id"])
    images = data.images(rows)[:, 0].astype(np.float64)
    spectrum = power_spectrum(SIDE)
    ratio = matched_filter(images, known_signal(SIDE, spectrum, contrast=contrast), spectrum)
    return scored.assign(**{"score/malignant": ratio, "score/benign": -ratio})


def draw(points: list[Point], shuffled: Point, path: Path) -> None:
    """AUC by contrast: the classifier with its band, the ideal observer, the permuted labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    spectrum = power_spectrum(SIDE)
    contrast = [each.contrast for each in points]
    fine = np.linspace(0, contrast[-1], 100)
    best = [ideal_auc(known_signal(SIDE, spectrum, contrast=each), spectrum) for each in fine]
    axes.plot(fine, best, color="0.3", label="ideal observer, expected")
    ideal = [each.ideal for each in points]
    axes.plot(contrast, ideal, "x", color="0.3", label="ideal observer, same images")
    low, high = [each.low for each in points], [each.high for each in points]
    axes.fill_between(contrast, low, high, color="C0", alpha=0.2, linewidth=0)
    auc = [each.auc for each in points]
    axes.plot(contrast, auc, "o-", color="C0", label="classifier, 95 % interval")
    span = [[shuffled.auc - shuffled.low], [shuffled.high - shuffled.auc]]
    axes.errorbar(
        shuffled.contrast,
        shuffled.auc,
        span,
        fmt="s",
        color="C1",
        label="the same, labels permuted",
    )
    axes.axhline(0.5, color="0.6", linestyle=":")
    axes.set_xlabel("contrast")
    axes.set_ylabel(f"AUC, {points[0].patients} test patients")
    axes.set_ylim(0.4, 1.02)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _texts(settings: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in settings.items()}


if __name__ == "__main__":
    main()
