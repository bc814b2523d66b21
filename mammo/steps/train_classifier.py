"""Trains classifiers on real and synthetic images: a hold-out, one fold, or all folds and seeds."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammo.classifiers.augment import AUGMENTS
from mammo.classifiers.blends import BLENDS
from mammo.classifiers.losses import LOSSES, POS_WEIGHTS, UNCERTAINTIES
from mammo.classifiers.plans import BLOCKS, FINETUNES, LR_SCHEDULES, OPTIMIZERS
from mammo.classifiers.recipe import Recipe
from mammo.classifiers.refusals import check_classes, check_settings
from mammo.classifiers.views import VIEWS
from mammo.classifiers.weights import weights_digest
from mammo.data import UNITS
from mammo.data.mix_settings import BALANCES, MIXES, SHORTAGES, TRIMS
from mammo.data.samplers import SAMPLERS
from mammo.evaluation import AGGREGATES
from mammo.loggers import LOGGERS
from mammo.run import Result, Run
from mammo.settings import Count, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, one_of

if TYPE_CHECKING:
    from mammo.classifiers.experiment import Experiment

    LossName = str
    SamplerName = str
    UncertaintyName = str
    AugmentName = str
    BlendName = str
    FinetuneName = str
    OptimizerName = str
    LrSchedule = str
    BlockName = str
    HeadName = str
    ViewsName = str
    UnitName = str
    MixMode = str
    Balance = str
    OnShortage = str
    Trim = str
    PosWeight = str
    Aggregate = str
    PrecisionName = str
    LoggerName = str
else:
    LossName = one_of(LOSSES)
    SamplerName = one_of(SAMPLERS)
    UncertaintyName = one_of(UNCERTAINTIES)
    AugmentName = one_of(AUGMENTS)
    BlendName = one_of(BLENDS)
    FinetuneName = one_of(FINETUNES)
    OptimizerName = one_of(OPTIMIZERS)
    LrSchedule = one_of(LR_SCHEDULES)
    BlockName = one_of(BLOCKS)
    HeadName = one_of(("linear", "batch_norm"))
    ViewsName = one_of(VIEWS)
    UnitName = one_of(UNITS)
    MixMode = one_of(MIXES)
    Balance = one_of(BALANCES)
    OnShortage = one_of(SHORTAGES)
    Trim = one_of(TRIMS)
    PosWeight = one_of(POS_WEIGHTS)
    Aggregate = one_of(AGGREGATES)
    PrecisionName = one_of(("auto", "32", "bf16"))
    LoggerName = one_of(LOGGERS)

INPUTS = {"data": "dataset", "synthetic": "dataset", "weights": "model or files or hub"}
SEVERAL = ("synthetic",)


def check(settings: Mapping[str, Any]) -> None:
    """Refuse settings that do not go together."""
    check_settings(settings, _defaults())
    if settings["nodes"] > 1 and settings.get("launcher", "local") == "local":
        from mammo.training.nodes import check_nodes

        check_nodes(settings["nodes"])


def _defaults() -> dict[str, Any]:
    return {name: each.default for name, each in inspect.signature(run).parameters.items()}


def source_digest(settings: Mapping[str, Any]) -> str:
    """Hash of the weights' file: other weights under the same path are another run."""
    return weights_digest(settings["weights"])


def run(
    tracked: Run,
    *,
    data: str,
    synthetic: str = "",
    real_percentage: Fraction = 1.0,
    class_real_percentage: str = "",
    mix_mode: MixMode = "replace",
    synthetic_multiplier: NonNegativeFloat = 1.0,
    balance: Balance = "keep",
    majority_to_minority_ratio: NonNegativeFloat = 0.0,
    samples_per_class: Count = 0,
    synthetic_per_class: Count = 0,
    trim: Trim = "first",
    synthetic_weights: str = "",
    on_shortage: OnShortage = "error",
    model_name: str = "resnet18",
    weights: str = "none",
    loss: LossName = "ce",
    label_smoothing: Fraction = 0.0,
    focal_gamma: NonNegativeFloat = 2.0,
    focal_alpha: Fraction = 0.25,
    pos_weight: PosWeight = "balanced",
    eql_gamma: Fraction = 0.9,
    eql_tail: Fraction = 0.0,
    uncertainty: UncertaintyName = "none",
    uncertainty_draws: PositiveInt = 10,
    sampler: SamplerName = "random",
    sampler_ratio: PositiveFloat = 1.0,
    augment: AugmentName = "basic",
    class_augment: str = "",
    randaugment_ops: PositiveInt = 2,
    randaugment_strength: Fraction = 0.5,
    erasing: Fraction = 0.0,
    blend: BlendName = "none",
    mixup_alpha: PositiveFloat = 0.2,
    cutmix_alpha: PositiveFloat = 1.0,
    finetune: FinetuneName = "full",
    optimizer: OptimizerName = "adamw",
    lr: PositiveFloat = 1e-3,
    find_lr: bool = False,
    lr_schedule: LrSchedule = "cosine",
    warm_up: Count = 100,
    lr_drop: Fraction = 0.5,
    lr_every: Count = 0,
    lr_patience: PositiveInt = 5,
    weight_decay: NonNegativeFloat = 0.01,
    backbone_lr_factor: PositiveFloat = 1.0,
    layer_decay: Fraction = 1.0,
    block_lr: str = "",
    block: BlockName = "stage",
    freeze_blocks: Count = 0,
    unfreeze_after: Count = 5,
    unfreeze_patience: Count = 3,
    unfreeze_drop: NonNegativeFloat = 0.0,
    unfreeze_cooldown: Count = 0,
    unfreeze_head_factor: Fraction = 1.0,
    dropout: Fraction = 0.0,
    drop_path: Fraction = 0.0,
    head: HeadName = "linear",
    views: ViewsName = "none",
    views_of: UnitName = "patient",
    epochs: PositiveInt = 30,
    subset_epochs: Count = 0,
    real_epochs: Count = 0,
    real_lr_factor: PositiveFloat = 1.0,
    batch_size: PositiveInt = 32,
    monitor: str = "val/auc",
    patience: Count = 10,
    patience_after: Count = 0,
    min_delta: NonNegativeFloat = 0.0,
    top_k: Count = 0,
    snapshot_every: Count = 0,
    folds: str = "none",
    seeds: str = "",
    jobs: PositiveInt = 1,
    devices: PositiveInt = 1,
    nodes: PositiveInt = 1,
    val_fraction: Fraction = 0.15,
    score_fold: bool = True,
    limit: Count = 0,
    overfit: Fraction = 0.0,
    aggregate: Aggregate = "mean",
    seed: int = 0,
    device: str = "auto",
    precision: PrecisionName = "auto",
    compile: bool = False,
    workers: Count = 0,
    upload_minutes: NonNegativeFloat = 15.0,
    logger: LoggerName = "mlflow",
) -> Result:
    """Train a classifier on real and, where given, synthetic images.

    Args:
        data: dataset of real images, or a mixed one: path, run id or runs:/<id>/dataset
        synthetic: datasets of synthetic images to mix in, with commas between; empty for none
        real_percentage: share of real images, 0 to 1, in the way that mix_mode says
        class_real_percentage: real_percentage of single classes, as malignant=0.5,benign=1
        mix_mode: replace keeps the size, append adds to the real images, target_share aims
        synthetic_multiplier: synthetic images for each real one (append)
        balance: keep the class shares, or make classes equal
        majority_to_minority_ratio: most real images for each of the smallest class; 0 for any
        samples_per_class: images of each class to train on, real ones by the mode; 0 for any
        synthetic_per_class: images of each class to use of each synthetic dataset; 0 for all
        trim: of synthetic_per_class: the first images, or random ones
        synthetic_weights: parts of the synthetic datasets, as 0.7,0.3; empty makes them one pool
        on_shortage: what too few images mean: error, or clamp to what there is
        model_name: backbone, a name of timm or torchvision/<name>
        weights: none, default (the hub's), the path of a state dict, or a trained classifier, whose
            backbone is the start: path, run id, runs:/<id>/model or models:/<name>@<alias>
        loss: ce, bce (each class against the rest), focal, focal_counts, eql or eql_weights
        label_smoothing: share of each label spread over the classes (ce)
        focal_gamma: how much less a well classified image counts (focal, focal_counts)
        focal_alpha: weight of the positive class, 1 - alpha of the others; 0 for equal (focal)
        pos_weight: of a positive, by training counts: balanced, sqrt, none (bce, focal_counts)
        eql_gamma: chance that a rare class is spared (eql), or is weighed up (eql_weights)
        eql_tail: share of the training images below which a class is rare; 0 for 1/classes (eql)
        uncertainty: attenuation learns how uncertain each image is (ce, bce); none does not
        uncertainty_draws: logits drawn for each image of a training step (attenuation)
        sampler: of training rows: random, weighted, balanced, ratio, or one_positive for each batch
        sampler_ratio: most images an epoch for each of the smallest class, drawn anew (ratio)
        augment: random changes of training images; the flips are for ultrasound
        class_augment: other changes for single classes, as malignant=strong,benign=none
        randaugment_ops: operations of each image (randaugment)
        randaugment_strength: share of their largest amounts (randaugment)
        erasing: share of training images with an erased rectangle
        blend: training images with another of their batch: none, mixup, cutmix or mixup_cutmix
        mixup_alpha: of the Beta from which weights are drawn (mixup)
        cutmix_alpha: of the Beta from which areas are drawn (cutmix)
        finetune: full, head alone, partial (first blocks frozen) or gradual (block after block)
        optimizer: adamw, adam or sgd
        lr: highest learning rate
        find_lr: search lr in a sweep before training
        lr_schedule: cosine to 0, constant, step, plateau, or cosine_plateau (gradual)
        warm_up: optimizer steps over which the rate rises, at most a tenth of all
        lr_drop: factor of each fall of the rate (step, plateau)
        lr_every: epochs between falls; 0 for two fifths of all (step)
        lr_patience: epochs without gain before a fall (plateau)
        weight_decay: of kernels and matrices; biases and normalisation do not decay
        backbone_lr_factor: learning rate of the backbone over that of the head
        layer_decay: factor of the rate from one block to the next towards the image
        block_lr: rate of each block from the last to the first, as 5e-5,1e-5; empty for the above
        block: what a block is: a stage of the backbone, or a single layer of a stage
        freeze_blocks: blocks that stay as they are, counted from the image (partial)
        unfreeze_after: epochs of the head alone (gradual)
        unfreeze_patience: epochs without gain before the next block trains; 0 for never (gradual)
        unfreeze_drop: fall below the best that lets the next block train; 0 for none (gradual)
        unfreeze_cooldown: epochs that a block trains before the next may follow (gradual)
        unfreeze_head_factor: factor of the head's rate with each further block (gradual)
        dropout: share of features dropped before the last layer
        drop_path: chance that an image skips the last block, less for those before it
        head: linear, or batch_norm: BatchNorm, ReLU, Dropout, Linear
        views: make one sample of several images by the mean, max or attention of their features
        views_of: whose images are one sample: a patient's or a breast's (views)
        epochs: most passes over the training rows
        subset_epochs: passes over the warm-up subset of the dataset before them; 0 for none
        real_epochs: passes over the real images alone after them, with a fresh optimizer
        real_lr_factor: learning rate of these over lr
        batch_size: images of one optimizer step, or sets of images with views
        monitor: metric that chooses the epoch, as val/auc; further ones, as val/auc,val/loss, have
            the weights of their best epoch kept beside it
        patience: epochs without gain that end the training; 0 for all epochs
        patience_after: epochs before patience begins to count
        min_delta: smallest gain of the monitored metric that counts
        top_k: models kept of the best epochs beside the best one; 0 for none
        snapshot_every: epochs between models kept on the way; 0 for none
        folds: none for the hold-out, the number of the fold to score, or all
        seeds: several seeds, as 0,1,2; empty for seed alone
        jobs: folds and seeds that train at once, in processes; GPUs are dealt out in turn
        devices: GPUs, or processes on a CPU, of each machine that share each batch
        nodes: machines of a Slurm job that share each batch
        val_fraction: share of the other folds' patients that validate a fold
        score_fold: score the fold at the end; false leaves it unopened, for who still chooses
        limit: patients to train on, the class shares kept; 0 for all
        overfit: share of the training patients to learn by heart, a check and no result; 0 for off
        aggregate: a patient's score is the mean or the max of the images', or none judges images
        seed: of weights, order, augmentation and mixing
        device: auto, cpu, cuda or cuda:<number>
        precision: auto is bf16 where the device computes in it, else 32
        compile: compile the backbone first (minutes; pays off on a GPU)
        workers: processes that read images; 0 reads in this one
        upload_minutes: least time between uploads of the best and last weights; 0 for none
        logger: also write TensorBoard files or a Weights & Biases run; MLflow always
    """
    settings = {name: value for name, value in locals().items() if name != "tracked"}
    experiment = _experiment(tracked, settings)
    runs = experiment.runs()
    if len(runs) == 1:
        return experiment.single(tracked, *runs[0])
    return experiment.many(tracked, runs)


def parts(tracked: Run, settings: Mapping[str, Any]) -> int:
    """Folds times seeds, each a job of a cluster; one is the job that would gather them."""
    if settings["launcher"] == "local":  # `jobs` shares them among processes
        return 0
    experiment = _experiment(tracked, settings)
    runs = experiment.runs()
    if len(runs) == 1:
        return 0
    experiment.check_held_out(runs)
    return len(runs)


def part(tracked: Run, number: int, of: int, **settings: Any) -> None:
    """Train fold and seed `number` in its child run."""
    experiment = _experiment(tracked, settings)
    experiment.children(tracked, [experiment.runs()[number]])


def _experiment(tracked: Run, settings: Mapping[str, Any]) -> "Experiment":
    from mammo.classifiers.experiment import Experiment

    mine = {name: settings[name] for name in inspect.signature(run).parameters if name in settings}
    experiment = Experiment.open(tracked, Recipe.of(mine), mine)
    check_classes(mine, _defaults(), experiment.data.classes.names)
    return experiment
