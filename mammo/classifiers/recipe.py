"""How a classifier is to be trained: the settings of one run, checked and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mammo.errors import ConfigError


@dataclass(frozen=True)
class Recipe:
    """Everything but data, fold and seed; defaults and meanings stand in the step's signature."""

    model_name: str
    weights: str
    loss: str
    label_smoothing: float
    focal_gamma: float
    focal_alpha: float
    pos_weight: str
    eql_gamma: float
    eql_tail: float
    uncertainty: str
    uncertainty_draws: int
    sampler: str
    sampler_ratio: float
    augment: str
    class_augment: str
    randaugment_ops: int
    randaugment_strength: float
    erasing: float
    blend: str
    mixup_alpha: float
    cutmix_alpha: float
    finetune: str
    optimizer: str
    lr: float
    lr_schedule: str
    warm_up: int
    lr_drop: float
    lr_every: int
    lr_patience: int
    weight_decay: float
    backbone_lr_factor: float
    layer_decay: float
    block_lr: str
    block: str
    freeze_blocks: int
    unfreeze_after: int
    unfreeze_patience: int
    unfreeze_drop: float
    unfreeze_cooldown: int
    unfreeze_head_factor: float
    dropout: float
    drop_path: float
    head: str
    views: str
    views_of: str
    epochs: int
    subset_epochs: int
    real_epochs: int
    real_lr_factor: float
    batch_size: int
    monitor: str
    patience: int
    patience_after: int
    min_delta: float
    top_k: int
    snapshot_every: int
    find_lr: bool
    devices: int
    nodes: int
    limit: int
    overfit: float
    val_fraction: float
    aggregate: str
    device: str
    precision: str
    compile: bool
    workers: int
    upload_minutes: float

    @property
    def processes(self) -> int:
        """That share each batch."""
        return self.devices * self.nodes

    @property
    def monitors(self) -> list[str]:
        """The metrics in `monitor`; the first chooses the model and ends the training."""
        return [each.strip() for each in self.monitor.split(",")]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Recipe":
        """The recipe among the settings of a step."""
        return cls(**{each.name: settings[each.name] for each in fields(cls)})


def seeds_of(seeds: str, seed: int) -> list[int]:
    """The numbers in `seeds`, as "0,1,2"; only `seed` when it is empty."""
    parts = [each.strip() for each in seeds.split(",")] if seeds.strip() else [str(seed)]
    try:
        numbers = [int(each) for each in parts]
    except ValueError:
        raise ConfigError(f"seeds {seeds!r} should be numbers with commas, as 0,1,2") from None
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"seeds {seeds!r} names a seed twice; give each once")
    return numbers


def check_folds(folds: str) -> None:
    """Refuse a value of `folds` that is not none, all or a number."""
    if folds not in ("none", "all") and not folds.isdecimal():
        raise ConfigError(f"folds {folds!r} should be none, all or the number of a fold")
