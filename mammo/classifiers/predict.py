"""A trained classifier: images in, probabilities of its classes out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mammo.classifiers.activations import ACTIVATIONS
from mammo.classifiers.backbone import Network, build
from mammo.classifiers.newcomers import read, recipe_of
from mammo.data.classes import ClassMap
from mammo.errors import CheckpointError, ConfigError, DataError
from mammo.models import SavedModel, open_model
from mammo.training import choose_device


@dataclass(frozen=True)
class Classifier:
    """A network with what its scores mean."""

    network: Network
    activation: str  # of ACTIVATIONS
    classes: ClassMap
    shape: tuple[int, int, int]  # channels, height and width of an image
    thresholds: dict[str, float]  # operating points by name, of a patient's positive score
    aggregate: str  # how a patient's images become one score: mean, max or none
    saved: SavedModel

    @property
    def threshold(self) -> float:
        """Positive score from which a patient is called positive; chosen on validation."""
        return self.thresholds["balanced"]

    def predict(self, images: ArrayLike, *, batch_size: int = 32) -> NDArray[np.float64]:
        """Probabilities (N, classes) of `images` (N, C, H, W) in [0, 1]."""
        outputs = self._outputs(images, batch_size)
        return np.asarray(ACTIVATIONS[self.activation](outputs).double().numpy())

    def tell(self, images: ArrayLike, *, batch_size: int = 32) -> dict[str, NDArray[np.float64]]:
        """All it says of `images` (N, C, H, W) in [0, 1], as columns (N,) of a predictions frame.

        They are `score/<class>`, `logit/<class>` and, trained with uncertainty=attenuation,
        `uncertainty`.
        """
        outputs = self._outputs(images, batch_size)
        return ACTIVATIONS[self.activation].columns(outputs, self.classes.names)

    @torch.no_grad()
    def _outputs(self, images: ArrayLike, batch_size: int) -> Tensor:
        """What the head says of each image, on the CPU."""
        values = np.asarray(images, np.float32)
        if values.ndim != 4 or values.shape[1:] != self.shape:
            raise DataError(f"images are {values.shape}, the classifier takes (N, *{self.shape})")
        device = self.network.mean.device
        parts = [
            self.network(torch.from_numpy(values[start : start + batch_size]).to(device))
            for start in range(0, len(values), batch_size)
        ]
        width = ACTIVATIONS[self.activation].per_class * len(self.classes.names)
        return torch.cat([torch.empty(0, width), *(each.float().cpu() for each in parts)])

    def read(self, *paths: Path) -> NDArray[np.float32]:
        """The image (C, H, W) in `paths`, one a channel, prepared as in training; in [0, 1].

        DataError says why a file cannot be used, and never names whose it is.
        """
        found = read(paths, recipe_of(self.saved))
        if not isinstance(found, np.ndarray):
            raise DataError(found.reason)
        return found


def load(folder: Path, *, device: str = "cpu") -> Classifier:
    """Open the classifier in `folder`; CheckpointError when it is corrupt or of another kind."""
    saved = open_model(folder, "classifier")
    about: dict[str, Any] = saved.about
    try:
        outputs = ACTIVATIONS[about["activation"]].per_class * len(saved.classes.names)
        network = build(
            about["model_name"],
            shape=saved.shape,
            classes=outputs,
            head=about.get("head", "linear"),
        )
        network.load_state_dict(saved.weights())
        classifier = Classifier(
            network.eval().requires_grad_(False).to(choose_device(device)),
            activation=about["activation"],
            classes=saved.classes,
            shape=saved.shape,
            thresholds=about["thresholds"],
            aggregate=about["aggregate"],
            saved=saved,
        )
    except (KeyError, RuntimeError, ConfigError) as error:
        line = str(error).splitlines()[0]
        raise CheckpointError(f"model {folder} cannot be rebuilt: {line}") from None
    return classifier
