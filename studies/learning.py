"""Every family of generators on real images: KID to held-out patients, beside what frames it.

    python studies/learning.py [STUDY ...]

A study is the commands of a user: preprocess, train_generator, sample, evaluate; and once more
with a generator that has not learned (a learning rate of 1e-12). Real images come from the folder
MAMMO_SHARED, runs go to the tracking server that MLFLOW_TRACKING_URI names. What a study prints
is a row of docs/results.md; its grid goes to docs/images/ where the licence allows.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SHARED = Path(os.environ.get("MAMMO_SHARED", "../shared")).absolute()
IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
MOBILENET = "torchvision/mobilenet_v2@" + str(SHARED / "weights/mobilenet_v2-b0353104.pth")
UNTRAINED = {"epochs": 1, "lr": 1e-12, "ema": 0, "sample_every": 0, "warm_up": 0}


@dataclass(frozen=True)
class Study:
    """Settings of the four steps; `shown` says whether samples may stand in the documentation."""

    preprocess: dict[str, Any]
    train: dict[str, Any]
    sample: dict[str, Any]
    shown: bool = True
    masks: bool = False  # images are drawn around the masks of the training rows
    first: dict[str, Any] = field(default_factory=dict)  # a generator that this one builds on
    builds_on: str = ""  # the setting that names it


BUSI = {
    "dataset": "busi", "source": SHARED / "data/busi", "task": "normal_benign_malignant",
    "image_size": 64, "test_fraction": 0.25, "val_fraction": 0.1,
}  # fmt: skip
CESM = {
    "dataset": "cesm", "source": SHARED / "data/cdd-cesm", "task": "view", "image_size": 64,
    "channels": "low_energy,subtracted", "test_fraction": 0.25, "val_fraction": 0.1,
}  # fmt: skip
MIAS = {
    "dataset": "mias", "source": SHARED / "data/mini-mias", "task": "density2", "image_size": 64,
    "test_fraction": 0.25, "val_fraction": 0.1,
}  # fmt: skip
PHANTOM = {
    "dataset": "phantom", "patients": 1000, "contrast": 2, "image_size": 64,
    "test_fraction": 0.2, "val_fraction": 0.1,
}  # fmt: skip
STUDIES = {
    "mias": Study(MIAS, {"epochs": 200, "patch": 2, "augment": "none"}, {}, shown=False),
    "phantom": Study(PHANTOM, {"generator": "edm", "epochs": 60, "patch": 2}, {"guidance": 2}),
    "cesm_dual": Study(CESM, {"mode": "dual", "epochs": 120, "patch": 2}, {}, masks=True),
    "busi_masks": Study(BUSI, {"mode": "mask_to_image", "epochs": 80, "patch": 2}, {}, masks=True),
    "busi_vae": Study(BUSI, {"generator": "vae", "epochs": 100, "channels": "32,64,128"}, {}),
    "busi_gan": Study(
        BUSI,
        {
            "generator": "gan",
            "epochs": 80,
            "channels": "16,32,64",
            "critic_steps": 2,
            "lr": 2e-4,
        },
        {},
    ),
    "busi_latent": Study(
        {**BUSI, "image_size": 128},
        {"generator": "ldm", "autoencoder": SHARED / "weights/taesd", "epochs": 100},
        {},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", default=list(STUDIES))
    parser.add_argument("--extractor", default=MOBILENET)
    parser.add_argument("--count", type=int, default=200, help="synthetic images")
    asked = parser.parse_args()
    for name in asked.studies:
        print(row(name, STUDIES[name], asked.extractor, asked.count), flush=True)


def row(name: str, study: Study, extractor: str, count: int) -> str:
    """Train, draw and measure; a row of the table."""
    data = call("preprocess", study.preprocess)["run_id"]
    base = {}
    if study.first:
        base = {study.builds_on: call("train_generator", {"data": data, **study.first})["run_id"]}
    start = time.monotonic()
    settings = {"data": data, **base, **study.train}
    trained = call("train_generator", settings)["run_id"]
    minutes = (time.monotonic() - start) / 60
    untrained = call("train_generator", {**settings, **UNTRAINED})["run_id"]
    kid, floor, drawn = measured(trained, data, study, extractor, count)
    unlearned, _, _ = measured(untrained, data, study, extractor, count)
    if study.shown:
        grid_of(drawn, IMAGES / f"synthetic_{name}.png")
    return (
        f"| {name} | {kid:.4f} | {unlearned:.4f} | {floor:.5f} | {minutes:.0f} min | "
        f"{' '.join(f'--{key} {value}' for key, value in study.train.items())} |"
    )


def measured(
    generator: str, data: str, study: Study, extractor: str, count: int
) -> tuple[float, float, str]:
    """KID to the held-out patients, its floor, and the run of the samples."""
    masks = {"masks": data} if study.masks else {}
    drawn = call("sample", {"generator": generator, "count": count, **masks, **study.sample})
    found = call(
        "evaluate",
        {
            "data": data,
            "synthetic": drawn["run_id"],
            "extractor": extractor,
            "fidelity_split": "test",
        },
    )
    value = {name.rpartition("/")[2]: number for name, number in found["metrics"].items()}
    return value["kid"], value["kid_floor"], drawn["run_id"]


def call(step: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Run an entry point; its JSON line."""
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "mammo", step, *words]
    print("$ mammo", step, *words, file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{step} ended with {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def grid_of(run: str, path: Path) -> None:
    """Save a row of samples of each class."""
    from PIL import Image

    import mammo
    from mammo.generators.preview import grid

    data = mammo.open_dataset(run)
    labels = data.manifest["label"].to_numpy()
    rows = [np.flatnonzero(labels == name)[:8] for name in data.classes.names]
    images = data.images(np.concatenate([each for each in rows if len(each) == 8]))
    Image.fromarray(grid(images, columns=8)).save(path, optimize=True)


if __name__ == "__main__":
    main()
