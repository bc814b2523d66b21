"""The classifier as Lightning trains it: augment, score, and judge each epoch by patient."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor

from mammo.classifiers.activations import ACTIVATIONS
from mammo.classifiers.backbone import Network
from mammo.classifiers.blocks import rest
from mammo.classifiers.losses import Loss
from mammo.classifiers.plans import Group
from mammo.classifiers.pooling import over_images
from mammo.classifiers.scores import finite
from mammo.errors import ConfigError
from mammo.training.optimizing import Optimizing, Schedule

Judge = Callable[[NDArray[np.int64], NDArray[np.float64]], dict[str, float]]
# images (B, C, H, W) and labels (B,) to changed images with labels, or shares (B, K) of classes
Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class ClassifierModule(LightningModule):
    """Trains `network`; `judge(rows, scores)` gives the metrics of the validation rows.

    A batch has `label` (B,), `row` (B,) and either `image` (B, C, H, W) in [0, 1] or, where the
    backbone is frozen and nothing is augmented, its `features` (B, F). One of sets of images has
    `held` too, and a label for each set; see `mammo.data.loading`.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        *,
        augment: Change,
        judge: Judge,
        optimizing: Optimizing,
        groups: list[Group],
        total_steps: int,
    ) -> None:
        super().__init__()
        # What a checkpoint holds: a frozen backbone is the same in every one.
        self.trained = network.top if network.frozen else network
        self._whole = [network]  # in a list, so that it is no part of the module
        self.history: list[dict[str, float]] = []  # metrics of every epoch so far
        self.loss = loss
        self.activation = ACTIVATIONS[loss.activation]
        self._augment = augment
        self._judge = judge
        self._optimizing = optimizing
        self._groups = groups
        self._total_steps = total_steps
        self._seen: list[tuple[Tensor, Tensor]] = []

    @property
    def network(self) -> Network:
        return self._whole[0]

    def on_fit_start(self) -> None:
        self.network.to(self.device)

    def on_train_epoch_start(self) -> None:
        self.train()  # the trainer leaves each part in the mode in which it was handed over

    def train(self, mode: bool = True) -> "ClassifierModule":
        """Training mode, in which what is frozen of the backbone stays in evaluation mode."""
        super().train(mode)
        self.network.train(mode)
        rest(self.network.body)
        return self

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        targets = batch["label"]
        if "held" in batch and "features" not in batch:
            # of a set's label, for what is changed may depend on it; sets are never blended
            images, _ = self._augment(batch["image"], over_images(targets, batch["held"]))
            batch = {**batch, "image": images}
        elif "features" not in batch:
            images, targets = self._augment(batch["image"], targets)
            batch = {"image": images}
        loss = self.loss.value(self._outputs(batch), targets)
        self._log_mean("train/loss", loss, len(targets))
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        outputs, labels = self._outputs(batch), batch["label"]
        loss = self.loss.value(outputs, labels)
        self._log_mean("val/loss", loss, len(labels))
        if "held" in batch:
            outputs = over_images(outputs, batch["held"])
        self._seen.append((batch["row"].cpu(), outputs.float().cpu()))

    def on_validation_epoch_end(self) -> None:
        rows, outputs = self._all_seen()
        scores = self.activation(outputs).double().numpy()
        self._seen.clear()
        if not np.isfinite(scores).all():
            raise ConfigError(
                f"the scores of {int((~np.isfinite(scores)).any(axis=1).sum())} validation images "
                f"are not finite after epoch {self.current_epoch + 1}; lower lr"
            )
        for name, value in finite(self._judge(rows, scores)).items():
            self.log(f"val/{name}", torch.tensor(value, dtype=torch.float64), sync_dist=True)

    def _all_seen(self) -> tuple[NDArray[np.int64], Tensor]:
        """Rows and outputs of all validation images, those of the other processes too."""
        rows, outputs = (torch.cat(each) for each in zip(*self._seen, strict=True))
        size = self.trainer.world_size
        if size > 1:
            parts: list[Any] = [None] * size
            torch.distributed.all_gather_object(parts, (rows, outputs))
            rows, outputs = (torch.cat(each) for each in zip(*parts, strict=True))
            # few images are judged by each of them
            _, first = np.unique(rows.numpy(), return_index=True)
            rows, outputs = rows[first], outputs[first]
        return rows.numpy(), outputs

    def _log_mean(self, name: str, value: Tensor, samples: int) -> None:
        """Log a mean over so many samples; its mean over batches and processes weighs them.

        The number is a float: Lightning averages it over processes as it is.
        """
        weight: Any = float(samples)
        self.log(name, value, on_step=False, on_epoch=True, batch_size=weight, sync_dist=True)

    def on_train_epoch_end(self) -> None:
        values = self.trainer.callback_metrics
        self.history.append({name: float(value) for name, value in values.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint["history"])

    def configure_optimizers(self) -> Any:
        # copies: an optimizer writes into its groups, and another may start from the same
        optimizer = self._optimizing.mover([dict(group) for group in self._groups])
        schedule = Schedule(optimizer, self._optimizing, self._total_steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def _outputs(self, batch: dict[str, Tensor]) -> Tensor:
        network = self.network
        features = batch["features"] if "features" in batch else network.features(batch["image"])
        return network.classify(features, batch.get("held"))


def curves(history: list[dict[str, float]]) -> pd.DataFrame:
    """The epochs as a table: column epoch from 1, then a column a metric."""
    frame = pd.DataFrame(history)
    frame.insert(0, "epoch", range(1, len(frame) + 1))
    return frame
