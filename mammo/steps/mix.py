"""Mix real and synthetic training images into one dataset, exactly and without copying pixels."""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mammo.data.mixing import BALANCES, MIXES, SHORTAGES, Mixed, check_settings, counts
from mammo.run import Result, Run
from mammo.settings import Fraction, NonNegativeFloat, one_of

if TYPE_CHECKING:
    import pandas as pd

    from mammo.data.dataset import Dataset
    from mammo.data.splits import Partition

    MixMode = str
    Balance = str
    Shortage = str
else:
    MixMode = one_of(MIXES)
    Balance = one_of(BALANCES)
    Shortage = one_of(SHORTAGES)

LOG = logging.getLogger("mammo")
INPUTS = {"real": "dataset", "synthetic": "dataset"}
SEVERAL = ("synthetic",)
PREVIEW = 8  # images of a class and source in preview.png


def check(settings: Mapping[str, Any]) -> None:
    names = (
        "synthetic",
        "real_percentage",
        "mix_mode",
        "synthetic_multiplier",
        "balance",
        "on_shortage",
    )
    check_settings(**{name: settings[name] for name in names})


def run(
    tracked: Run,
    *,
    real: str,
    synthetic: str = "",
    real_percentage: Fraction = 1.0,
    mix_mode: MixMode = "replace",
    synthetic_multiplier: NonNegativeFloat = 1.0,
    balance: Balance = "keep",
    on_shortage: Shortage = "error",
    fold: str = "none",
    val_fraction: Fraction = 0.15,
    seed: int = 0,
) -> Result:
    """Mix real and synthetic training images; validation and test images stay as they are.

    With a fold, the result is a hold-out dataset: the mixed training rows of that fold train,
    its inner validation validates and the scored fold is the test split.

    Args:
        real: dataset of real images.
        synthetic: synthetic datasets, with commas between; empty for real images alone.
        real_percentage: share of real images kept (replace, append) or reached (target_share).
        mix_mode: replace real images, append to them, or fill up to a target share of real ones.
        synthetic_multiplier: synthetic images for each real one kept (append).
        balance: keep the class shares, or fill every class up to the largest (equal).
        on_shortage: what to do when there are too few synthetic images.
        fold: none for a hold-out, or the number of the scored fold.
        val_fraction: share of the other folds' patients that validate, when fold is a number.
        seed: seed of the order in which patients and synthetic images are taken.
    """
    from mammo.data.dataset import Dataset
    from mammo.data.mixing import mix_training
    from mammo.data.splits import training_rows

    data = Dataset(tracked.inputs["real"][0].path)
    others = [Dataset(each.path) for each in tracked.inputs.get("synthetic", [])]
    partition = training_rows(data, fold=fold, val_fraction=val_fraction)
    mixed = mix_training(
        data,
        others,
        partition,
        real_percentage=real_percentage,
        mix_mode=mix_mode,
        synthetic_multiplier=synthetic_multiplier,
        balance=balance,
        on_shortage=on_shortage,
        seed=seed,
    )
    sealed = _seal(tracked, data, others, mixed, fold)
    tracked.input(data.name, data.digest, len(partition.train), "training")
    for each in others:
        tracked.input(each.name, each.digest, len(each), "synthetic")
    metrics = counts(mixed.mix)
    tracked.metrics(metrics)
    _explain(tracked, mixed, metrics)
    _preview(tracked, mixed)
    tracked.artifacts(sealed.folder, "dataset")
    return Result({"dataset": tracked.uri("dataset")}, metrics, sealed.digest)


def _seal(
    tracked: Run, data: "Dataset", others: list["Dataset"], mixed: Mixed, fold: str
) -> "Dataset":
    """Write the mixed manifest, which points into the shards of its parents, as a dataset."""
    from mammo.data.writer import seal

    partial = tracked.folder / "dataset.partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    frame = _kept_rows(mixed.data.manifest, mixed.partition, fold)
    about = {key: value for key, value in data.about.items() if key not in _OF_ONE_DATASET}
    used = {str(shard).rpartition("/")[0] for shard in frame["shard"].unique()}
    parents: dict[str, dict[str, str]] = {}
    references = [*tracked.inputs["real"], *tracked.inputs.get("synthetic", [])]
    for reference, each in zip(references, [data, *others], strict=True):
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


def _explain(tracked: Run, mixed: Mixed, metrics: Mapping[str, float]) -> None:
    """Log what was asked for and what came of it, by class, and how generators were checked."""
    import pandas as pd

    rows = [asdict(each) for each in mixed.mix.report]
    tracked.table("mix", pd.DataFrame(rows))
    path = tracked.folder / "mix.json"
    said = {
        "classes": rows,
        "generators": mixed.generators,
        "realised_real_percentage": metrics["realised_real_percentage"],
    }
    path.write_text(json.dumps(said, indent=2) + "\n")
    tracked.artifacts(path)
    LOG.info(
        "mixed %d real and %d synthetic training images",
        metrics["real_images"],
        metrics["synthetic_images"],
    )


def _preview(tracked: Run, mixed: Mixed) -> None:
    """Upload preview.png: a few images in a row for each class and source."""
    import numpy as np
    from PIL import Image

    from mammo.generators.preview import grid

    chosen = mixed.data.manifest.iloc[mixed.partition.train].reset_index(drop=True)
    kinds = chosen.groupby(["label", "is_synthetic"], sort=True).indices.values()
    shown = np.zeros((len(kinds), PREVIEW, *mixed.data.shape), np.float32)
    for number, mine in enumerate(kinds):
        rows = mixed.partition.train[mine[:PREVIEW]]
        shown[number, : len(rows)] = mixed.data.images(rows)
    path = tracked.folder / "preview.png"
    picture = grid(shown.reshape(-1, *mixed.data.shape), columns=PREVIEW)
    Image.fromarray(picture).save(path)
    tracked.artifacts(path)
