"""Masks that images are drawn around: those of a dataset, or of a generator of masks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.dataset import Dataset
from mammo.data.splits import NO_FOLD, fold_numbers, training_rows
from mammo.errors import ConfigError, DataError
from mammo.generators import load_generator
from mammo.generators.asking import SEEDS, Told, check_classes
from mammo.generators.mask_areas import (
    INSIDE,
    Bounds,
    Masks,
    binarized,
    broken,
    counted,
    rejection,
    stored_shares,
)
from mammo.generators.redrawing import until_accepted
from mammo.generators.shelf import Effort
from mammo.run import Reference
from mammo.seeds import derive

if TYPE_CHECKING:
    from mammo.generators.drawing import Recipe
    from mammo.generators.generator import Generator

log = logging.getLogger("mammo")


class MaskSource(Protocol):
    """Gives each image its mask, a function of its class and seed alone."""

    parent: dict[str, str]  # as dataset.json lists it

    def check(self, labels: Sequence[str]) -> None:
        """ConfigError or DataError when there is no mask for one of `labels`."""

    def masks(
        self, labels: Sequence[str], seeds: Sequence[int], told: Sequence[Mapping[str, str]]
    ) -> tuple[Masks, Effort]:
        """A mask (N, 1, H, W) for each image, and what it took to draw them."""

    def seen(
        self, labels: Sequence[str], seeds: Sequence[int], told: Sequence[Mapping[str, str]]
    ) -> pd.DataFrame:
        """What is behind the masks of these images, as guards compare it.

        Columns salt, group_id, and sha256 of an image or a mask; "" of what was not recorded.
        """


def source_of(
    generator: Generator,
    labels: Sequence[str],
    recipe: Recipe,
    given: Sequence[Reference],
    *,
    device: str,
) -> MaskSource | None:
    """Where the masks come from that `generator` draws images of classes `labels` around.

    `given` is what the setting names: nothing, a dataset or a generator of masks. Errors say what
    does not go with the generator, or which class has no mask.
    """
    if not generator.takes_masks:
        if given:
            generator.refuse_masks()
        return None
    # of the other classes the generator has seen no mask but empty ones
    marked = [name for name in labels if name in generator.model.about["mask_areas"]]
    if given:
        found = _open(generator, recipe, given[0], device)
        found.check(marked)
        return found
    if marked:
        raise ConfigError(
            f"masks is empty, and a generator of mode {generator.model.about['mode']} draws images "
            f"of {', '.join(marked)} around masks; give a dataset with masks of "
            f"{generator.shape[1]} x {generator.shape[2]} px, or a generator of mode mask"
        )
    return None


def _open(generator: Generator, recipe: Recipe, given: Reference, device: str) -> MaskSource:
    if (given.path / "dataset.json").is_file():
        return StoredMasks(Dataset(given.path), generator, run_id=given.run_id)
    return DrawnMasks(load_generator(given.path, device=device), generator, recipe)


class StoredMasks:
    """Masks of a dataset in turn, of real images those of training rows alone.

    An image gets one of its class and, where there are such, of the view and whatever else it is
    told: the mask of a CC image does not lie as that of an MLO image.
    """

    def __init__(self, data: Dataset, generator: Generator, *, run_id: str = "") -> None:
        """Those that `generator` may draw around; DataError when the sizes differ."""
        check_size(data.shape[1:], generator, f"dataset {data.name}")
        about = generator.model.about
        self.data = data
        self.parent = {"digest": data.digest, "run_id": run_id, "kind": "masks"}
        rows = usable_rows(data, str(about["fold"]), about["settings"]["val_fraction"])
        rows = rows[stored_shares(data, rows) > 0]
        trained = generator.model.training
        self._salt = str(data.about.get("salt") or "")
        same = (trained["salt"] == self._salt) & (self._salt != "")
        self._trained = set(trained.loc[same, "group_id"])
        labels = data.manifest["label"].to_numpy()[rows]
        only = len(data.classes.names) == 1  # a dataset that tells no classes apart
        self._rows = {
            name: rows if only else rows[labels == name] for name in generator.classes.names
        }
        self._alike: dict[tuple[str, tuple[tuple[str, str], ...]], NDArray[np.int64]] = {}

    def check(self, labels: Sequence[str]) -> None:
        """DataError when there is no mask for a class."""
        for label in labels:
            if not len(self._rows[label]):
                raise DataError(
                    f"masks: dataset {self.data.name} has no mask of class {label!r} that may be "
                    "used (of real images, those of training rows with something inside); ask for "
                    "other classes or give masks that have it"
                )

    def masks(
        self, labels: Sequence[str], seeds: Sequence[int], told: Sequence[Mapping[str, str]]
    ) -> tuple[Masks, Effort]:
        found = self.data.masks(self._chosen(labels, seeds, told))
        return np.where(found > 0, INSIDE, np.uint8(0)), Effort()

    def seen(
        self, labels: Sequence[str], seeds: Sequence[int], told: Sequence[Mapping[str, str]]
    ) -> pd.DataFrame:
        """The real rows whose masks were used, and what the generators of the synthetic saw.

        Of patients that the generator was not trained on the masks count too: the image may be
        held out elsewhere, read with other greys, and the mask is the same then. Of those that
        train nothing more can leak, and a mask may chance to be a held-out one's.
        """
        rows = np.unique(self._chosen(labels, seeds, told))
        frame = self.data.manifest.iloc[rows]
        real = frame[~frame["is_synthetic"]]
        strangers = real[~real["group_id"].isin(self._trained)]
        seen = pd.concat(
            [
                real[["group_id", "sha256"]],
                strangers[["group_id"]].assign(sha256=strangers["mask_sha256"]),
            ]
        ).assign(salt=self._salt)
        runs = set(frame.loc[frame["is_synthetic"], "generator_run_id"])
        behind = self.data.generator_training
        unknown = runs - set(behind["run_id"])
        columns = ["salt", "group_id", "sha256"]
        behind = behind.loc[behind["run_id"].isin(runs), columns]
        if unknown:
            log.warning(
                "what made %d kinds of the masks of dataset %s was trained on is not recorded: "
                "nobody can tell whether it saw held-out patients",
                len(unknown),
                self.data.name,
            )
            nothing = pd.DataFrame([["", "", ""]], columns=columns)
            behind = pd.concat([behind, nothing])
        return pd.concat([seen[columns], behind], ignore_index=True)

    def _chosen(
        self, labels: Sequence[str], seeds: Sequence[int], told: Sequence[Mapping[str, str]]
    ) -> NDArray[np.int64]:
        """Seeds of a class follow each other, so its masks are used equally often."""
        chosen = []
        for label, seed, image in zip(labels, seeds, told, strict=True):
            rows = self._like(label, tuple((name, value) for name, value in image.items() if value))
            chosen.append(rows[seed % len(rows)])
        return np.array(chosen, np.int64)

    def _like(self, label: str, told: tuple[tuple[str, str], ...]) -> NDArray[np.int64]:
        """Rows of a class with all that is told, all of the class where there is none."""
        if (label, told) not in self._alike:
            rows = self._rows[label]
            frame = self.data.manifest.iloc[rows]
            same = np.ones(len(rows), bool)
            for name, value in told:
                same &= (frame[name].astype(str) == value).to_numpy()
            self._alike[label, told] = rows[same] if same.any() else rows
        return self._alike[label, told]


class DrawnMasks:
    """Masks that a generator of masks draws: the first of two stages.

    It is told what the image's generator is told, as far as it knows it, and draws without
    guidance, with its own first sampler, in as many steps. Masks that cover too little or too much
    are drawn again.
    """

    def __init__(self, maker: Generator, generator: Generator, recipe: Recipe) -> None:
        """Those that `generator` may draw around; ConfigError when `maker` makes no such masks."""
        about = maker.model.about
        if about["mode"] != "mask":
            raise ConfigError(
                f"masks: generator {maker.model.run_id} is of mode {about['mode']}; give one of "
                "mode mask, or a dataset with masks"
            )
        check_size(maker.shape[1:], generator, f"generator {maker.model.run_id}")
        _check_fold(about, generator.model.about)
        self._maker, self._threshold, self._steps = maker, recipe.mask_threshold, recipe.steps
        self._bounds = Bounds.of(recipe.mask_area, about["mask_areas"])
        self._told = Told.by(about, {})
        run_id, digest = maker.model.run_id, maker.model.digest
        self.parent = {"digest": digest, "run_id": run_id, "kind": "masks"}

    def check(self, labels: Sequence[str]) -> None:
        """ConfigError when a class is none that the generator of masks was shown."""
        try:
            check_classes(self._maker.model, labels)
        except ConfigError as error:
            raise ConfigError(f"masks: {error}") from None

    def masks(
        self, labels: Sequence[str], seeds: Sequence[int], told: Sequence[Mapping[str, str]]
    ) -> tuple[Masks, Effort]:
        own = derive(0, "masks") % SEEDS  # the image's seed would give its mask the same noise
        effort = Effort()

        def draw(
            places: Sequence[int], tried: Sequence[int]
        ) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
            nonlocal effort
            mine = [labels[place] for place in places]
            masks = self._draw(mine, tried, [told[place] for place in places])
            rules = broken(mine, masks, self._bounds)
            effort += counted(rules)
            return {"images": masks}, rules == ""

        found = until_accepted(
            [(label, seed ^ own) for label, seed in zip(labels, seeds, strict=True)],
            draw,
            what="masks",
            why=lambda label: rejection(label, self._bounds, effort),
        )
        return found.arrays["images"], effort + Effort(mask_draws=found.draws)

    def _draw(
        self, labels: Sequence[str], seeds: Sequence[int], told: Sequence[Mapping[str, str]]
    ) -> Masks:
        own = [self._told.of(label, seed) for label, seed in zip(labels, seeds, strict=True)]
        conditions = {
            column: [
                self._known(column, image.get(column, "")) or mine[column]
                for image, mine in zip(told, own, strict=True)
            ]
            for column in self._told.columns
        }
        drawn = self._maker.sample(labels, seeds=seeds, steps=self._steps, conditions=conditions)
        return binarized(drawn, self._threshold)

    def _known(self, column: str, value: str) -> str:
        values = self._told.conditions.values[self._told.conditions.columns.index(column)]
        return value if value in values else ""

    def seen(
        self, labels: Sequence[str], seeds: Sequence[int], told: Sequence[Mapping[str, str]]
    ) -> pd.DataFrame:
        """The training rows of the generator of masks."""
        return self._maker.model.training[["salt", "group_id", "sha256"]]


def usable_rows(data: Dataset, fold: str, val_fraction: float) -> NDArray[np.int64]:
    """Rows whose masks a generator of `fold` may draw around: its training rows, and synthetic."""
    frame = data.manifest
    if fold != NO_FOLD and fold_numbers(data):
        return training_rows(data, fold=fold, val_fraction=val_fraction).train
    return np.flatnonzero((frame["split"] == "train").to_numpy())


def _check_fold(maker: Mapping[str, Any], generator: Mapping[str, Any]) -> None:
    """ConfigError when the masks would bring in patients that the generator was kept from."""
    if maker["train_digest"] == generator["train_digest"] and maker["fold"] != generator["fold"]:
        raise ConfigError(
            f"masks: their generator was trained with fold={maker['fold']}, that of the images "
            f"with fold={generator['fold']}: it saw other patients; train both with one fold"
        )


def check_size(shape: Sequence[int], generator: Generator, what: str) -> None:
    """DataError when masks of `shape` (H, W) are no masks for the images of `generator`."""
    needed = generator.shape[1:]
    if tuple(shape) != needed:
        raise DataError(
            f"masks of another size: those of {what} have {shape[0]} x {shape[1]} px, the "
            f"generator draws {needed[0]} x {needed[1]}; give masks of its size"
        )
