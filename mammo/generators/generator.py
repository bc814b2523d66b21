"""A trained generator: opened from its model folder, it samples images by label and seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mammo.data.classes import ClassMap
from mammo.errors import ConfigError
from mammo.generators import family
from mammo.generators.artist import Artist, Asked
from mammo.generators.asking import check_classes
from mammo.generators.conditions import Conditions
from mammo.generators.modes import Mode, mode_of
from mammo.models import SavedModel, open_model
from mammo.training import choose_device

MOST_STEPS = 1000  # calls of the network: the forward process of ddpm has no more


class Generator:
    """Samples with the averaged weights of a saved model.

    The network is built, and the device touched, when the first image is drawn: what cannot be
    drawn is refused before.
    """

    def __init__(self, model: SavedModel, device: torch.device) -> None:
        self.model, self.device = model, device
        self.conditions = Conditions.from_json(model.about["conditions"])
        self.mode: Mode = mode_of(str(model.about["mode"]))
        self._family = family(str(model.about["generator"]))

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> Generator:
        """Open the generator saved in `folder`; CheckpointError when it is none or not whole."""
        model = open_model(folder, "generator")
        return cls(model, choose_device(device))

    @cached_property
    def artist(self) -> Artist:
        """What draws, with its weights on the device."""
        made: Artist = self._family.artist(self.model, self.device)
        return made

    @property
    def classes(self) -> ClassMap:
        """Its classes, in the order of the ids it was trained with."""
        return self.model.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its images."""
        channels, height, width = self.model.shape
        return self.mode.channels(channels)[0], height, width

    @property
    def takes_masks(self) -> bool:
        """Whether it draws around masks that have to be given."""
        return self.mode.masked and self.mode.channels(self.model.shape[0])[1] > 0

    def check_drawing(self) -> None:
        """ConfigError when it draws nothing of its own: an autoencoder needs an image to repeat."""
        if not self.mode.masked and self.mode.channels(self.model.shape[0])[1]:
            raise ConfigError(
                f"generator {self.model.run_id} is an autoencoder, which draws no images of its "
                "own; train generator=ldm with it as autoencoder, and sample that"
            )

    @property
    def samplers(self) -> tuple[str, ...]:
        """Its samplers of noise, the default first; empty where one call of the network draws."""
        found: tuple[str, ...] = self._family.samplers(self.model.about)
        return found

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
        """Images (N, C, H, W) float32 in [0, 1], one for each class name and seed.

        An image depends on its own label, conditions, mask and seed alone, to the last bit on one
        kind of device; not on the others that are asked for with it. The same call gives the same
        images. Of a generator of masks, values of 0.5 and more are inside.

        Args:
            labels: N class names; one that the generator was shown no image of is refused
            seeds: N whole numbers of at least 0
            guidance: 1 follows what is told as trained, more exaggerates it, 0 ignores it
            guidance_interval: shares of noise, lowest and highest, between which guidance acts
            guidance_rescale: from 0 to 1, how much of the contrast that guidance adds is taken back
            steps: calls of the network for an image, of those that diffuse
            sampler: of noise, one of `samplers`; auto is the first
            conditions: N values by column, as {"view": ["CC", "MLO"]}; "" and a missing column
                are not told
            masks: (N, 1, H, W), 0 outside, that generators of mode mask_to_image and dual need
        """
        asked = self.asked(
            labels,
            seeds=list(seeds),
            guidance=guidance,
            guidance_interval=guidance_interval,
            guidance_rescale=guidance_rescale,
            steps=steps,
            sampler=sampler,
            conditions=conditions or {},
            masks=masks,
        )
        if not len(asked):
            return np.empty((0, *self.shape), np.float32)
        return np.asarray(self.artist.draw(asked).numpy(), np.float32)

    def asked(
        self,
        labels: Sequence[str],
        *,
        seeds: Sequence[int],
        guidance: float,
        guidance_interval: tuple[float, float],
        guidance_rescale: float,
        steps: int,
        sampler: str,
        conditions: Mapping[str, Sequence[str]],
        masks: NDArray[np.uint8] | None,
    ) -> Asked:
        """What `sample` hands to the artist; ConfigError for what this generator cannot do."""
        if len(seeds) != len(labels):
            raise ConfigError(f"{len(labels)} labels and {len(seeds)} seeds; give one of each")
        if any(seed < 0 for seed in seeds):
            raise ConfigError(f"seed {min(seeds)} is below 0; give whole numbers of at least 0")
        self.check_drawing()
        self.check_guidance(guidance, guidance_interval, guidance_rescale)
        if not 1 <= steps <= MOST_STEPS:
            raise ConfigError(f"steps {steps} should be from 1 to {MOST_STEPS}")
        return Asked(
            self._told(labels, conditions),
            [int(seed) for seed in seeds],
            self._control(masks, len(seeds)),
            guidance=guidance,
            interval=guidance_interval,
            rescale=guidance_rescale,
            sampler=self.sampler(sampler),
            steps=steps,
        )

    def sampler(self, name: str) -> str:
        """The sampler called `name`; auto is the generator's first, "" of one without samplers."""
        known = self.samplers
        if name == "auto":
            return known[0] if known else ""
        if name not in known:
            raise ConfigError(
                f"sampler {name!r} is not one of generator {self.model.about['generator']}; "
                f"choose {', '.join((*known, 'auto'))}"
            )
        return name

    def check_guidance(
        self, guidance: float, interval: tuple[float, float] = (0.0, 1.0), rescale: float = 0.0
    ) -> None:
        """ConfigError for guidance out of range, or of a generator that it cannot act on."""
        if not 0 <= guidance < float("inf"):
            raise ConfigError(f"guidance {guidance:g} should be a number of at least 0; 1 is none")
        if not 0 <= interval[0] < interval[1] <= 1:
            raise ConfigError(f"guidance_interval {interval} should be 0 <= low < high <= 1")
        if not 0 <= rescale <= 1:
            raise ConfigError(f"guidance_rescale {rescale:g} should be a number from 0 to 1")
        about = self.model.about
        told = self.conditions.columns or self.takes_masks
        if guidance != 1 and not (told and self.samplers):
            raise ConfigError(
                f"guidance {guidance:g} does not go with a generator {about['generator']} of mode "
                f"{about['mode']}, which has nothing to guide; use 1"
            )

    def _told(self, labels: Sequence[str], conditions: Mapping[str, Sequence[str]]) -> torch.Tensor:
        """Ids (N, K) of what is told of each image."""
        known = self.conditions
        check_classes(self.model, labels)
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
        if not self.takes_masks:
            if masks is not None:
                self.refuse_masks()
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

    def refuse_masks(self) -> None:
        """ConfigError: they would change nothing."""
        raise ConfigError(
            f"a generator of mode {self.model.about['mode']} takes no masks; leave them out, or "
            "use one of mode mask_to_image"
        )
