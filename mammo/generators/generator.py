"""A trained generator: opened from its model folder, it samples images by label and seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mammo.data.classes import ClassMap
from mammo.errors import ConfigError
from mammo.generators import family
from mammo.generators.artist import Artist, Asked
from mammo.generators.conditions import Conditions
from mammo.generators.modes import Mode, mode_of
from mammo.models import SavedModel, open_model
from mammo.training import choose_device


class Generator:
    """Samples with the averaged weights of a saved model."""

    def __init__(self, model: SavedModel, artist: Artist) -> None:
        self.model, self.artist = model, artist
        self.conditions = Conditions.from_json(model.about["conditions"])
        self.mode: Mode = mode_of(str(model.about["mode"]))

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> Generator:
        """Open the generator saved in `folder`; CheckpointError when it is none or not whole."""
        model = open_model(folder, "generator")
        chosen = family(str(model.about["generator"]))
        return cls(model, chosen.artist(model, choose_device(device)))

    @property
    def classes(self) -> ClassMap:
        """Its classes, in the order of the ids it was trained with."""
        return self.model.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its images."""
        return self.artist.shape

    def sample(
        self,
        labels: Sequence[str],
        *,
        seeds: Iterable[int],
        guidance: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        guidance_rescale: float = 0.0,
        steps: int = 30,
        sampler: str = "auto",
        conditions: Mapping[str, Sequence[str]] | None = None,
        masks: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.float32]:
        """Images (N, C, H, W) in [0, 1], one for each class name of `labels` and of `seeds`.

        `guidance` 1 follows what is told as trained, more exaggerates it, 0 ignores it.
        `conditions` are values by column ("view": ["CC", …]), "" or a missing column for not told;
        `masks` (N, 1, H, W), 0 outside, are what mask_to_image and dual draw around. An image
        depends on its own label, conditions, mask and seed, not on its neighbours.
        """
        numbers = list(seeds)
        if len(numbers) != len(labels):
            raise ConfigError(f"{len(labels)} labels and {len(numbers)} seeds; give one of each")
        self.check_guidance(guidance)
        told = self._told(labels, conditions or {})
        control = self._control(masks, len(numbers))
        if not numbers:
            return np.empty((0, *self.shape), np.float32)
        asked = Asked(
            told,
            numbers,
            control,
            guidance=guidance,
            interval=guidance_interval,
            rescale=guidance_rescale,
            sampler=self.sampler(sampler),
            steps=steps,
        )
        return np.asarray(self.artist.draw(asked).numpy(), np.float32)

    def check_guidance(self, guidance: float) -> None:
        """ConfigError where `guidance` would change nothing: 1 is what any generator takes."""
        about = self.model.about
        if guidance != 1 and not self.artist.guided:
            raise ConfigError(
                f"guidance {guidance:g} does not go with a generator {about['generator']} of mode "
                f"{about['mode']}, which has nothing to guide; use 1"
            )

    def sampler(self, name: str) -> str:
        """The sampler called `name`; auto is the generator's first, "" of one without samplers."""
        known = self.artist.samplers
        if name == "auto":
            return known[0] if known else ""
        if name not in known:
            raise ConfigError(
                f"sampler {name!r} is not one of generator {self.model.about['generator']}; "
                f"choose {', '.join((*known, 'auto'))}"
            )
        return name

    def _told(self, labels: Sequence[str], conditions: Mapping[str, Sequence[str]]) -> torch.Tensor:
        """Ids (N, K) of what is told of each image."""
        known = self.conditions
        for name in labels:
            if name not in self.classes.names:
                choices = ", ".join(self.classes.names)
                raise ConfigError(f"unknown class {name!r}; choose one of {choices}")
        for column, values in conditions.items():
            known.id_of(column, "")
            if len(values) != len(labels):
                raise ConfigError(f"{len(labels)} labels and {len(values)} values of {column}")
        ids = torch.tensor(known.sizes, dtype=torch.long).repeat(len(labels), 1)
        for place, column in enumerate(known.columns):
            values = labels if column == "label" else conditions.get(column, ())
            for row, value in enumerate(values):
                ids[row, place] = known.id_of(column, value)
        return ids

    def _control(self, masks: NDArray[np.uint8] | None, count: int) -> torch.Tensor | None:
        """What controls the images, (N, c, H, W) in [-1, 1]."""
        needed = self.mode.channels(self.shape[0])[1]
        if not needed:
            if masks is not None:
                raise ConfigError(
                    f"a generator of mode {self.model.about['mode']} takes no masks; leave them "
                    "out, or use one of mode mask_to_image"
                )
            return None
        expected = (count, 1, *self.shape[1:])
        if masks is None or masks.shape != expected:
            found = "none" if masks is None else " x ".join(map(str, masks.shape))
            raise ConfigError(
                f"masks: {' x '.join(map(str, expected))} are needed, given are {found}; sample "
                "them with a generator of mode mask, or take those of a dataset of this size"
            )
        given = torch.from_numpy((np.asarray(masks) > 0).astype(np.float32))
        return self.mode.control({"mask": given})
