"""How MLflow loads one of our models: `mlflow models serve -m models:/<name>@<alias>`."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.models import open_model


class Scorer:
    """A classifier for MLflow: images (N, C, H, W) in [0, 1] to probabilities (N, classes).

    One of several views takes `sets` as a param of the request: a number (N,) for each image, the
    same for images of one patient, or of one breast. Without it each image is scored alone.
    """

    def __init__(self, folder: Path) -> None:
        from mammo.classifiers import load_classifier

        self._classifier = load_classifier(folder)

    def predict(self, images: Any, params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        values = images["images"] if isinstance(images, dict) else images
        keys = (params or {}).get("sets") or None
        scores = self._classifier.predict(np.asarray(values, np.float32), keys=keys)
        return np.asarray(scores, np.float32)


class Sampler:
    """A generator for MLflow: rows of label and seed to images (N, C, H, W) in [0, 1].

    A row may have the columns that the generator is told (view, ...), and has a `mask` (rows of
    pixels, 0 outside) where it draws around one. One that diffuses takes `guidance`, `steps` and
    `sampler` as params of the request. One that draws nothing of its own is not loaded.
    """

    def __init__(self, folder: Path) -> None:
        from mammo.generators import load_generator

        self._generator = load_generator(folder)
        self._generator.check_drawing()

    def predict(self, wishes: Any, params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        labels = [str(label) for label in wishes["label"]]
        seeds = [int(seed) for seed in wishes["seed"]]
        told = [name for name in self._generator.conditions.columns[1:] if name in wishes]
        masks = None
        if "mask" in wishes:
            masks = np.asarray([np.asarray(list(each)) for each in wishes["mask"]], np.uint8)[
                :, None
            ]
        return np.asarray(
            self._generator.sample(
                labels=labels,
                seeds=seeds,
                conditions={name: [_text(each) for each in wishes[name]] for name in told},
                masks=masks,
                **(params or {}),
            ),
            np.float32,
        )


def _text(value: Any) -> str:
    """A condition as text, empty where it is not told."""
    return value if isinstance(value, str) else ""


def _load_pyfunc(path: str) -> Scorer | Sampler:
    folder = Path(path)
    kinds: dict[str, type[Scorer] | type[Sampler]] = {"classifier": Scorer, "generator": Sampler}
    return kinds[open_model(folder).kind](folder)
