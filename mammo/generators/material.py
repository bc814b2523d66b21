"""What a generator learns from: the real training rows of a dataset, told and batched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.dataset import Dataset
from mammo.data.splits import training_rows
from mammo.errors import DataError
from mammo.generators.balance import Balance
from mammo.generators.conditions import Conditions
from mammo.generators.modes import Mode, mode_of
from mammo.run import Reference
from mammo.seeds import derive

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import DataLoader

Rows = NDArray[np.int64]
Column = Callable[[Rows], NDArray[Any]]  # rows of the dataset -> an array, a row each


@dataclass
class Evidence:
    """What a family finds out before training; the run logs it."""

    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    images: dict[str, NDArray[np.uint8]] = field(default_factory=dict)  # (H, W) by key


@dataclass
class Material:
    """An opened dataset, the rows to learn from and to validate on, and what is told of them.

    `folder` keeps the run's state; `inputs` are the other models and datasets of the run, by
    setting. A family may put columns of its own into `columns`, as latents: batches carry them.
    """

    data: Dataset
    train: Rows
    val: Rows
    mode: Mode
    conditions: Conditions
    folder: Path
    inputs: Mapping[str, Sequence[Reference]]
    columns: dict[str, Column] = field(default_factory=dict)
    # what other models that it builds on have seen: group_id, sha256, is_synthetic, salt
    seen: list[pd.DataFrame] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)
    balance: Balance = field(default_factory=Balance)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Ids (rows of the dataset, columns of the conditions)."""
        return self.conditions.ids(self.data.manifest)

    def mean_and_deviation(self) -> tuple[float, float]:
        """Of the values of what is made, in [-1, 1], over at most 512 training rows.

        To three digits, so that another order of adding up changes nothing.
        """
        some = self.train[np.unique(np.linspace(0, len(self.train) - 1, 512).astype(int))]
        made = self.mode.target(self._batch(some))
        return round(float(made.mean()), 3), max(0.05, round(float(made.std()), 3))

    def control(self, rows: Rows) -> Tensor | None:
        """What controls images like `rows`, (N, c, H, W) in [-1, 1]; None where nothing does."""
        return self.mode.control(self._batch(rows))

    def made(self, rows: Rows) -> NDArray[np.float32]:
        """What is to be made of `rows`, as it is drawn: (N, c, H, W) in [0, 1]."""
        images: NDArray[np.float32] = (self.mode.target(self._batch(rows)) / 2 + 0.5).numpy()
        return images

    def training(self) -> pd.DataFrame:
        """Rows that the model has seen, itself or through what it builds on, each once.

        Columns group_id, sha256, is_synthetic, salt (of the patients' hashes).
        """
        columns = ["group_id", "sha256", "is_synthetic", "salt"]
        own = self.data.manifest.iloc[self.train].assign(
            salt=str(self.data.about.get("salt") or "")
        )
        frames = [own, *self.seen]
        return pd.concat([each[columns] for each in frames]).drop_duplicates(ignore_index=True)

    def masks(self, rows: Rows) -> NDArray[np.float32]:
        """Masks of `rows`: float32 (N, 1, H, W), 1 inside and 0 outside."""
        return (self.data.masks(rows) > 0).astype(np.float32)

    def _batch(self, rows: Rows) -> dict[str, Tensor]:
        """`rows` as a mode takes them."""
        import torch

        batch = {"image": torch.from_numpy(self.data.images(rows))}
        if self.mode.masked:
            batch["mask"] = torch.from_numpy(self.masks(rows))
        return batch

    def batches(self, batch_size: int, seed: int) -> tuple[DataLoader[Any], DataLoader[Any]]:
        """Loaders of the training rows, shuffled by (seed, epoch), and of the validation rows.

        Of the training rows an epoch shows what `balance` says, cut to whole batches.
        """
        from mammo.data.loading import ordered_batches, training_batches

        columns: dict[str, Column] = {"labels": lambda rows: self.labels[rows], **self.columns}
        if self.mode.masked:
            columns["mask"] = self.masks

        classes = self.data.label_ids()[self.train]

        def order(epoch: int) -> NDArray[np.int64]:
            shown = self.balance.positions(classes, seed=seed, epoch=epoch)
            return shown[epoch_order(len(shown), batch_size=batch_size, seed=seed, epoch=epoch)]

        return (
            training_batches(
                self.data, self.train, batch_size=batch_size, order=order, columns=columns
            ),
            ordered_batches(self.data, self.val, batch_size=batch_size, columns=columns),
        )


def gather(
    data: Dataset,
    settings: Mapping[str, Any],
    *,
    folder: Path,
    inputs: Mapping[str, Sequence[Reference]],
) -> Material:
    """The real training and validation rows of `data` that the settings' fold and mode allow."""
    rows = training_rows(data, fold=settings["fold"], val_fraction=settings["val_fraction"])
    mode = mode_of(settings["mode"])
    train = real_training_rows(data, rows.train, settings["fold"])
    if not len(train):
        raise DataError(
            f"dataset {data.name} has no real training image among its {len(rows.train)}; "
            "a generator learns from real images only"
        )
    train, val = mode.rows(data, train), mode.rows(data, rows.val)
    frame = data.manifest.iloc[train]
    conditions = (
        Conditions.of(frame, data.classes.names, settings["conditions"])
        if mode.labelled
        else Conditions.none()
    )
    return Material(
        data, train, val, mode, conditions, folder, inputs, balance=Balance.of(settings)
    )


def real_training_rows(data: Dataset, rows: Rows, fold: str) -> Rows:
    """The real ones of `rows`; a row of another split or of the scored fold is a bug."""
    frame = data.manifest.iloc[rows]
    real = frame[~frame["is_synthetic"]]
    held_out = real[(real["split"] != "train") | (real["fold"].astype(str) == fold)]
    if len(held_out):
        raise AssertionError(f"held-out image {held_out.iloc[0]['image_id']} among training rows")
    kept: Rows = rows[~frame["is_synthetic"].to_numpy()]
    return kept


def epoch_order(count: int, *, batch_size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Positions 0 .. `count` - 1 shuffled for `epoch`, cut to whole batches where one fits."""
    order = np.random.default_rng(derive(seed, "order", epoch)).permutation(count)
    return order[: count - count % batch_size] if count >= batch_size else order
