"""mammo: does synthetic mammography data help a breast-cancer classifier, and can you prove it?"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mammo.classifiers import Classifier
    from mammo.data.dataset import Dataset
    from mammo.generators import Generator

__version__ = "0.1.0"


def open_dataset(reference: str) -> "Dataset":
    """Open a dataset by path, run id, runs:/<id>/dataset: its manifest and mapped pixels."""
    from mammo.data.dataset import Dataset

    return Dataset(_find(reference, "dataset"))


def load_generator(reference: str) -> "Generator":
    """Load a trained generator by path, run id, runs:/<id>/model or models:/<name>@<alias>."""
    from mammo.generators import load_generator as load

    return load(_find(reference, "model"))


def load_classifier(reference: str) -> "Classifier":
    """Load a trained classifier by path, run id, runs:/<id>/model or models:/<name>@<alias>."""
    from mammo.classifiers import load_classifier as load

    return load(_find(reference, "model"))


def _find(reference: str, kind: str):  # type: ignore[no-untyped-def]
    from mammo.driver import work_folder
    from mammo.references import resolve
    from mammo.tracking import Tracking

    return resolve(reference, kind, kind, tracking=Tracking(), work=work_folder("")).path
