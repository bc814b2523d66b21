"""Drawing a dataset: images of a generator, with masks, as they will be stored."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.dataset import GENERATOR_TRAINING_COLUMNS
from mammo.data.progress import Progress
from mammo.generators.asking import Told, seed_of
from mammo.generators.mask_areas import Bounds, Masks, binarized, broken, counted, rejection
from mammo.generators.masks import MaskSource
from mammo.generators.redrawing import until_accepted
from mammo.generators.shelf import Chunk, Drawn, Effort, Shelf
from mammo.seeds import derive

if TYPE_CHECKING:
    from mammo.generators.generator import Generator

log = logging.getLogger("mammo")
FLAT = 1 / 64  # range of values below which an image shows nothing


@dataclass(frozen=True)
class Recipe:
    """How images are drawn: with class and seed, all that an image depends on."""

    guidance: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = 0.0
    steps: int = 30
    sampler: str = ""
    conditions: Mapping[str, str] = field(default_factory=dict)  # told of all images
    mask_threshold: float = 0.5
    mask_area: str = "auto"
    masks: str = ""  # digest of the dataset or generator that they are of

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "guidance_interval": list(self.guidance_interval)}

    @property
    def short(self) -> str:
        """Six digits that tell it from others: a seed drawn in another way is another image."""
        return f"{derive(0, json.dumps(self.to_json(), sort_keys=True)):016x}"[-6:]

    def sampling(self) -> dict[str, Any]:
        """What the generator's `sample` takes of it."""
        names = ("guidance", "guidance_interval", "guidance_rescale", "steps", "sampler")
        return {name: getattr(self, name) for name in names} | {"sampler": self.sampler or "auto"}


class Drawer:
    """Draws what a dataset of images stores, class by class and seed by seed."""

    def __init__(
        self, generator: Generator, recipe: Recipe, told: Told, source: MaskSource | None
    ) -> None:
        self.generator, self.recipe, self.told, self.source = generator, recipe, told, source
        about = generator.model.about
        self.dtype = np.dtype(about["dtype"])
        self.makes_masks = about["mode"] == "mask"
        self._areas = about.get("mask_areas", {})
        self._bounds = Bounds.of(recipe.mask_area, self._areas)

    def chunk(self, asked: Sequence[tuple[str, int]]) -> Chunk:
        """The images of `asked`, classes and first seeds; DataError when too many are rejected."""
        started = time.monotonic()
        labels = [label for label, _ in asked]
        effort = Effort()

        def draw(
            places: Sequence[int], seeds: Sequence[int]
        ) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
            nonlocal effort
            arrays, accepted, more = self._draw([labels[place] for place in places], seeds)
            effort += more
            return arrays, accepted

        what = "masks" if self.makes_masks else "images"
        made = until_accepted(asked, draw, what=what, why=lambda label: self._why(label, effort))
        effort += Effort(draws=made.draws, seconds=time.monotonic() - started)
        images, masks = made.arrays["images"], made.arrays.get("masks")
        return Chunk(labels, made.seeds, images, masks, effort)

    def _draw(
        self, labels: Sequence[str], seeds: Sequence[int]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_], Effort]:
        """Stored images and masks by name, which may stay, and what their masks took."""
        told = [self.told.of(label, seed) for label, seed in zip(labels, seeds, strict=True)]
        masks, of_masks = self._masks(labels, seeds, told)
        images = self.generator.sample(
            labels,
            seeds=seeds,
            conditions={name: [each[name] for each in told] for name in self.told.columns},
            masks=masks,
            **self.recipe.sampling(),
        )
        if self.makes_masks:
            made = binarized(images, self.recipe.mask_threshold)
            arrays = {"images": stored((made > 0).astype(np.float32), self.dtype), "masks": made}
            rules = broken(labels, made, self._bounds)
            return arrays, rules == "", counted(rules)
        shown = np.isfinite(images).all((1, 2, 3)) & (np.ptp(images, axis=(1, 2, 3)) >= FLAT)
        arrays = {"images": stored(np.nan_to_num(images, posinf=1, neginf=0), self.dtype)}
        return arrays | ({} if masks is None else {"masks": masks}), shown, of_masks

    def _masks(
        self, labels: Sequence[str], seeds: Sequence[int], told: Sequence[Mapping[str, str]]
    ) -> tuple[Masks | None, Effort]:
        """Masks (N, 1, H, W) to draw around, empty for classes that never had any."""
        if not self.generator.takes_masks:
            return None, Effort()
        masks = np.zeros((len(labels), 1, *self.generator.shape[1:]), np.uint8)
        marked = [place for place, label in enumerate(labels) if label in self._areas]
        if not marked or self.source is None:
            return masks, Effort()
        masks[marked], effort = self.source.masks(
            [labels[place] for place in marked],
            [seeds[place] for place in marked],
            [told[place] for place in marked],
        )
        return masks, effort

    def rows(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """The manifest's row of each image of `chunk`."""
        model = self.generator.model
        for label, seed in zip(chunk.labels, chunk.seeds, strict=True):
            name = f"{model.run_id[:12]}-{self.recipe.short}-{label}-{seed}"
            yield {
                **self.told.of(label, seed),
                "group_id": f"synthetic-{name}",
                "exam_id": f"synthetic-{name}",
                "image_id": name,
                "label": label,
                "label_kind": model.classes.label_kind,
                "split": "train",
                "is_synthetic": True,
                "generator_run_id": model.run_id,
                "sample_seed": seed,
            }

    def seen(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """What all that made images of `rows` was trained on, as a dataset keeps it."""
        model = self.generator.model
        behind = [model.training[["salt", "group_id", "sha256"]]]
        marked = [row for row in rows if row["label"] in self._areas]
        if self.source is not None and marked:
            labels, seeds = ([row[name] for row in marked] for name in ("label", "sample_seed"))
            told = [{name: row[name] for name in self.told.columns} for row in marked]
            behind.append(self.source.seen(labels, seeds, told))
        named = pd.concat(behind).astype("str").assign(run_id=model.run_id)
        return named[list(GENERATOR_TRAINING_COLUMNS)].drop_duplicates(ignore_index=True)

    def _why(self, label: str, effort: Effort) -> str:
        if self.makes_masks:
            return rejection(label, self._bounds, effort)
        return (
            f"they show nothing (their values span less than {FLAT:g}); train the generator longer"
        )


def stored(images: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Images in [0, 1] in the scale and depth of the real ones: 1 is the largest value of dtype."""
    found: NDArray[Any] = np.rint(images * np.iinfo(dtype).max).astype(dtype)
    return found


def draw_all(
    drawer: Drawer,
    wanted: Mapping[str, int],
    folder: Path,
    *,
    first_seed: int,
    batch_size: int,
    memory: Callable[[], str],
    part: int = 0,
    parts: int = 1,
) -> Drawn:
    """Draw `wanted` images by class, in chunks of `batch_size`, all that `folder` has not yet.

    `part` of `parts` is a range of the seeds: so many processes fill one folder.
    `memory` says in words how much memory of the device is used at most.
    """
    asked = [
        (name, seed_of(name, first_seed + place))
        for name, number in wanted.items()
        for place in range(number)
    ]
    chunks = [asked[start : start + batch_size] for start in range(0, len(asked), batch_size)]
    shelf = Shelf(folder)
    mine = range(part * len(chunks) // parts, (part + 1) * len(chunks) // parts)
    missing = [number for number in mine if shelf.get(number) is None]
    count = sum(len(chunks[number]) for number in mine)
    there = count - sum(len(chunks[number]) for number in missing)
    if there:
        log.info("%d of %d images are there already and are kept", there, count)
    with Progress("sample", count, done=there, note=memory) as progress:
        for number in missing:
            shelf.put(number, drawer.chunk(chunks[number]))
            progress.advance(len(chunks[number]))
    return Drawn(shelf, len(chunks))
