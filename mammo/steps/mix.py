"""Mix real and synthetic training images into one dataset, exactly and without copying pixels."""

import logging
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammo.data.mix_settings import BALANCES, MIXES, SHORTAGES, TRIMS, MixSettings
from mammo.run import Result, Run
from mammo.settings import Count, Fraction, NonNegativeFloat, one_of

if TYPE_CHECKING:
    import pandas as pd

    from mammo.data.dataset import Dataset
    from mammo.data.mixed import Mixed
    from mammo.data.splits import Partition

    MixMode = str
    Balance = str
    Shortage = str
    Trim = str
else:
    MixMode = one_of(MIXES)
    Balance = one_of(BALANCES)
    Shortage = one_of(SHORTAGES)
    Trim = one_of(TRIMS)

LOG = logging.getLogger("mammo")
INPUTS = {"real": "dataset", "synthetic": "dataset"}
SEVERAL = ("real", "synthetic")
PREVIEW = 8  # images of a class and source in preview.png


def check(settings: Mapping[str, Any]) -> None:
    MixSettings.of(settings).check(str(settings["synthetic"]))


def run(
    tracked: Run,
    *,
    real: str,
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
    on_shortage: Shortage = "error",
    fold: str = "none",
    val_fraction: Fraction = 0.15,
    seed: int = 0,
) -> Result:
    """Mix real and synthetic training images; validation and test images stay as they are.

    With a fold, the result is a hold-out dataset: the mixed training rows of that fold train,
    its inner validation validates and the scored fold is the test split.

    Args:
        real: datasets of real images, with commas between; each keeps its splits.
        synthetic: synthetic datasets, with commas between; empty for real images alone.
        real_percentage: share of real images kept (replace, append) or reached (target_share).
        class_real_percentage: real_percentage of single classes, as malignant=0.5,benign=1.
        mix_mode: replace real images, append to them, or fill up to a target share of real ones.
        synthetic_multiplier: synthetic images for each real one kept (append).
        balance: keep the class shares, or fill every class up to the largest (equal).
        majority_to_minority_ratio: most real images for each of the smallest class; 0 for any.
        samples_per_class: images of each class in the mix, real ones by the mode; 0 for any.
        synthetic_per_class: images of each class to use of each synthetic dataset; 0 for all.
        trim: of synthetic_per_class: the first images, or random ones.
        synthetic_weights: parts of the synthetic datasets, as 0.7,0.3; empty makes them one pool.
        on_shortage: what to do when there are too few images: error, or clamp to what there is.
        fold: none for a hold-out, or the number of the scored fold.
        val_fraction: share of the other folds' patients that validate, when fold is a number.
        seed: seed of the order in which patients and synthetic images are taken.
    """
    asked = MixSettings.of(locals())
    from mammo.data.dataset import Dataset
    from mammo.data.mixed import mix_training, write_mix
    from mammo.data.mixing import counts
    from mammo.data.splits import training_rows

    reals = [Dataset(each.path) for each in tracked.inputs["real"]]
    others = [Dataset(each.path) for each in tracked.inputs.get("synthetic", [])]
    parts = [training_rows(each, fold=fold, val_fraction=val_fraction) for each in reals]
    mixed = mix_training(reals, others, parts, asked, seed=seed)
    sealed = _seal(tracked, reals, others, mixed, fold)
    for data, part in zip(reals, parts, strict=True):
        tracked.input(data.name, data.digest, len(part.train), "training")
    for each in others:
        tracked.input(each.name, each.digest, len(each), "synthetic")
    metrics = counts(mixed.mix)
    tracked.metrics(metrics)
    for path in write_mix(mixed, tracked.folder):
        tracked.artifacts(path)
    _explain(tracked, mixed, metrics)
    _preview(tracked, mixed)
    tracked.artifacts(sealed.folder, "dataset")
    return Result({"dataset": tracked.uri("dataset")}, metrics, sealed.digest)


def _seal(
    tracked: Run, reals: list["Dataset"], others: list["Dataset"], mixed: "Mixed", fold: str
) -> "Dataset":
    """Write the mixed manifest, which points into the shards of its parents, as a dataset."""
    from mammo.data.writer import seal

    partial = tracked.folder / "dataset.partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    frame = _kept_rows(mixed.data.manifest, mixed.partition, fold)
    data = mixed.data
    about = {key: value for key, value in data.about.items() if key not in _OF_ONE_DATASET}
    used = {str(shard).rpartition("/")[0] for shard in frame["shard"].unique()}
    parents: dict[str, dict[str, str]] = {}
    references = [*tracked.inputs["real"], *tracked.inputs.get("synthetic", [])]
    for reference, each in zip(references, [*reals, *others], strict=True):
        parents[each.digest] = {"digest": each.digest, "uri": reference.uri, "name": each.name}
        parents |= {parent["digest"]: parent for parent in each.about.get("parents", [])}
    about["parents"] = [parents[digest] for digest in parents if digest in used]
    about["name"] = f"{data.name}-mix"
    if fold != "none":
        about["fold"] = int(fold)
    return seal(
        partial,
        tracked.work / "datasets",
        frame,
        data.classes,
        about,
        mixed.data.generator_training,
    )


# What dataset.json says of one dataset's own rows, written anew by `seal`.
_OF_ONE_DATASET = frozenset({"digest", "images", "patients", "counts", "parents", "run_id"})


def _kept_rows(frame: "pd.DataFrame", partition: "Partition", fold: str) -> "pd.DataFrame":
    """Rows of the mixed dataset: the mix, and the held-out rows as they were."""
    import numpy as np

    if fold == "none":
        kept = np.flatnonzero((frame["split"] != "train").to_numpy())
        rows = np.sort(np.concatenate([partition.train, kept]))
        return frame.iloc[rows].reset_index(drop=True)
    parts = {"train": partition.train, "val": partition.val, "test": partition.scored}
    names = np.full(len(frame), "", dtype="U5")
    for name, rows in parts.items():
        names[rows] = name
    kept = np.flatnonzero(names != "")
    return frame.iloc[kept].assign(split=names[kept], fold=-1).reset_index(drop=True)


def _explain(tracked: Run, mixed: "Mixed", metrics: Mapping[str, float]) -> None:
    """Tabulate what was asked for and what came of it, by class and by dataset."""
    import pandas as pd

    tracked.table("mix", pd.DataFrame(mixed.said["classes"]))
    tracked.table("sources", pd.DataFrame(mixed.said["sources"]))
    LOG.info(
        "mixed %d real and %d synthetic training images",
        metrics["real_images"],
        metrics["synthetic_images"],
    )


def _preview(tracked: Run, mixed: "Mixed") -> None:
    """Upload preview.png: a few images in a row for each class and source, which is named."""
    from PIL import Image

    from mammo.data.sheet import captioned

    chosen = mixed.data.manifest.iloc[mixed.partition.train].reset_index(drop=True)
    kinds = chosen.groupby(["label", "is_synthetic"], sort=True).indices
    shown = {
        f"{label}_{'synthetic' if synthetic else 'real'}": mixed.partition.train[mine[:PREVIEW]]
        for (label, synthetic), mine in kinds.items()
    }
    path = tracked.folder / "preview.png"
    Image.fromarray(captioned(mixed.data, shown, columns=PREVIEW)).save(path)
    tracked.artifacts(path)
