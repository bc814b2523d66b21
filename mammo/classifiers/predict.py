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
from mammo.classifiers.telling import Columns, Keys, see, tell
from mammo.data.classes import ClassMap
from mammo.errors import CheckpointError, ConfigError, DataError
from mammo.evaluation.predictions import views_of
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

    @property
    def views_of(self) -> str:
        """Whose images it looks at together: a patient's, a breast's, or empty for one by one."""
        return views_of(self.saved.about)

    def predict(
        self, images: ArrayLike, *, keys: Keys | None = None, batch_size: int = 32
    ) -> NDArray[np.float64]:
        """Probabilities (N, classes) of `images` (N, C, H, W) in [0, 1]; `keys` as of `tell`."""
        told = self.tell(images, keys=keys, batch_size=batch_size)
        return np.stack([told[f"score/{name}"] for name in self.classes.names], axis=1)

    def tell(self, images: ArrayLike, *, keys: Keys | None = None, batch_size: int = 32) -> Columns:
        """All it says of `images` (N, C, H, W) in [0, 1], as columns (N,) of a predictions frame.

        They are `score/<class>`, `logit/<class>` and, trained with uncertainty=attenuation,
        `uncertainty`. Trained on several views, it says of images with the same of `keys` (N,)
        what it says of the set that they are, and with views=attention also the `attention` that
        each gets in its set; without keys each image is a set of its own.
        """
        return self.told(self.see(images, batch_size=batch_size), keys)

    def see(self, images: ArrayLike, *, batch_size: int = 32) -> Tensor:
        """What it keeps (N, ...) of `images` (N, C, H, W) in [0, 1], for `told`."""
        values = np.asarray(images, np.float32)
        if values.ndim != 4 or values.shape[1:] != self.shape:
            raise DataError(f"images are {values.shape}, the classifier takes (N, *{self.shape})")
        given = torch.from_numpy(values)
        starts = range(0, len(values), batch_size)
        return see(self.network, (given[start : start + batch_size] for start in starts))

    def told(self, seen: Tensor, keys: Keys | None = None) -> Columns:
        """What `tell` says of images of which it kept `seen` (N, ...)."""
        return tell(self.network, ACTIVATIONS[self.activation], self.classes.names, seen, keys)

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
            views=about.get("views", "none"),
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
