"""How often a classifier sees in a synthetic image the class that was asked for, by guidance.

    python studies/class_agreement.py --generator <model> --classifier <model> --data <dataset>

The classifier has been trained on other real images than the generator; on the held-out real
images of `data` its accuracy is the most that can be hoped for.
"""

import argparse
from typing import Any

import numpy as np

import mammo
from mammo.data.dataset import Dataset

SEED = 1_000_000  # of the first image: none that is shown elsewhere


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", required=True)
    parser.add_argument("--classifier", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--guidance", type=float, nargs="+", default=[0.0, 1.0, 2.0, 3.0, 4.0])
    parser.add_argument("--images", type=int, default=100, help="of each class")
    parser.add_argument("--steps", type=int, default=30)
    asked = parser.parse_args()
    generator, data = mammo.load_generator(asked.generator), mammo.open_dataset(asked.data)
    classifier = mammo.load_classifier(asked.classifier)
    names = generator.classes.names
    if classifier.classes.names != names:
        raise SystemExit(f"the classifier knows {classifier.classes.names}, not {names}")
    real, count = accuracy_on_real(classifier, data)
    print(f"real held-out images: accuracy {real:.3f} of {count}")
    labels = [name for name in names for _ in range(asked.images)]
    for guidance in asked.guidance:
        images = generator.sample(
            labels, seeds=range(SEED, SEED + len(labels)), guidance=guidance, steps=asked.steps
        )
        agreed = called(classifier, images) == np.repeat(np.arange(len(names)), asked.images)
        share = agreed.mean()
        each = ", ".join(
            f"{name} {part.mean():.3f}"
            for name, part in zip(names, np.split(agreed, len(names)), strict=True)
        )
        print(f"guidance {guidance:g}: agreement {share:.3f} = {share / real:.3f} of it ({each})")


def called(classifier: Any, images: np.ndarray) -> np.ndarray:
    """Class of each image, 64 at a time: the positive one from the classifier's threshold on.

    The threshold is the classifier's own, which its training chose on validation patients.
    """
    parts = [classifier.predict(images[start : start + 64]) for start in range(0, len(images), 64)]
    scores = np.concatenate(parts)
    positive = classifier.classes.positive_id
    others = scores.copy()
    others[:, positive] = -1
    return np.where(scores[:, positive] >= classifier.threshold, positive, others.argmax(1))


def accuracy_on_real(classifier: Any, data: Dataset) -> tuple[float, int]:
    """Share of the test images of `data` whose class is called, and their number."""
    rows = np.flatnonzero(data.manifest["split"] == "test")
    right = called(classifier, data.images(rows)) == data.label_ids()[rows]
    return float(right.mean()), len(rows)


if __name__ == "__main__":
    main()
