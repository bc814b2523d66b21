"""Classifiers: any backbone, its losses and plans, trained on one partition and loaded again."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mammo.classifiers.predict import Classifier

__all__ = ["Classifier", "load_classifier"]


def load_classifier(folder: Path, device: str = "cpu") -> "Classifier":
    """Load a saved classifier; CheckpointError when `folder` does not hold a whole one."""
    from mammo.classifiers.predict import load

    return load(folder, device=device)
