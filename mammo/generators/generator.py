"""A trained generator: opened from its model folder, it samples images by label and seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.data.classes import ClassMap
from mammo.errors import ConfigError
from mammo.generators import method
from mammo.generators.network import Network, build_network
from mammo.generators.sampling import sample
from mammo.models import SavedModel, open_model
from mammo.training import choose_device


class Generator:
    """Samples with the averaged weights of a saved model on `device`."""

    def __init__(self, model: SavedModel, network: Network) -> None:
        self.model = model
        self.network = network
        self._method = method(str(model.about["generator"]))
        self._process = self._method.process(
            model.about["prediction"], max(model.shape[1:]), model.about["data_sd"]
        )

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> Generator:
        """Open the generator saved in `folder`; CheckpointError when it is none or not whole."""
        model = open_model(folder, "generator")
        network = build_network(model.about["network"], seed=0)
        network.load_state_dict(model.weights())
        return cls(model, network.to(choose_device(device)).eval())

    @property
    def classes(self) -> ClassMap:
        """Its classes, in the order of the ids it was trained with."""
        return self.model.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its images."""
        return self.model.shape

    def sample(
        self,
        labels: Sequence[str],
        *,
        seeds: Iterable[int],
        guidance: float = 1.0,
        steps: int = 30,
        sampler: str = "auto",
    ) -> NDArray[np.float32]:
        """Images (N, C, H, W) in [0, 1], one for each class name of `labels` and of `seeds`.

        `guidance` 1 follows the label as trained, more exaggerates it, 0 ignores it. An image
        depends on its own label and seed, not on its neighbours.
        """
        numbers = list(seeds)
        if len(numbers) != len(labels):
            raise ConfigError(f"{len(labels)} labels and {len(numbers)} seeds; give one of each")
        unknown = sorted(set(labels) - set(self.classes.names))
        if unknown:
            raise ConfigError(
                f"unknown class {unknown[0]!r}; choose one of {', '.join(self.classes.names)}"
            )
        if not numbers:
            return np.empty((0, *self.shape), np.float32)
        images: Any = sample(
            self.network,
            self._process,
            shape=self.shape,
            labels=[self.classes.id_of(label) for label in labels],
            seeds=numbers,
            guidance=guidance,
            steps=steps,
            sampler=self.sampler(sampler),
        )
        return np.asarray(images.numpy(), np.float32)

    def sampler(self, name: str) -> str:
        """The sampler called `name`; auto is the method's first."""
        known: tuple[str, ...] = self._method.SAMPLERS
        if name == "auto":
            return known[0]
        if name not in known:
            raise ConfigError(
                f"sampler {name!r} is not one of generator {self.model.about['generator']}; "
                f"choose {', '.join(known)} or auto"
            )
        return name
