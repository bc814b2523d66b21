"""What keeps a comparison honest: no held-out patient in what trains, nor in what made it."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mammo.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from mammo.data.dataset import Dataset

    Rows = NDArray[np.int64]

LOG = logging.getLogger("mammo")
LEAST_SIDE = 32  # px: smaller pictures have no structures to tell them apart by
EXTERNAL = "external:"  # start of the generator_run_id of images that came from elsewhere


@dataclass
class Checked:
    """How each generator run was compared with the held-out rows."""

    by_patient: list[str] = field(default_factory=list)  # same salt: patients and pixels compared
    by_pixels: list[str] = field(default_factory=list)  # another salt in part: there pixels alone
    unknown: list[str] = field(default_factory=list)  # training rows, or some, not recorded
    external: list[str] = field(default_factory=list)  # made elsewhere: nothing
    external_images: int = 0


def check_generators(
    generator_runs: Iterable[str],
    generator_training: "pd.DataFrame",
    held_out: "pd.DataFrame",
    *,
    salt: str,
    name: str,
) -> Checked:
    """Refuse generators that were trained on a patient or an image of `held_out`.

    `generator_runs` has the run of every synthetic image, `generator_training` the columns
    run_id, salt, group_id and sha256 (of an image, or of a mask that was drawn around; "" of what
    was not recorded); `held_out` are the real rows of the dataset `name` that
    must stay unseen; `salt` is its salt's fingerprint.
    """
    checked = Checked()
    for run_id, images in sorted(Counter(generator_runs).items()):
        seen = generator_training[generator_training["run_id"] == run_id]
        if not len(seen) and run_id.startswith(EXTERNAL):
            checked.external.append(run_id)
            checked.external_images += images
            continue
        recorded = seen[seen["sha256"] != ""]
        if not len(seen) or len(recorded) < len(seen):
            checked.unknown.append(run_id)
        # what made the masks may have seen patients that are hashed with another salt
        same = (recorded["salt"] == salt) & (salt != "")
        if len(recorded) == len(seen) > 0:
            (checked.by_patient if same.all() else checked.by_pixels).append(run_id)
        leaked = held_out["sha256"].isin(recorded["sha256"])
        leaked |= held_out["mask_sha256"].isin(recorded["sha256"])
        leaked |= held_out["group_id"].isin(recorded.loc[same, "group_id"])
        if leaked.any():
            rows = held_out[leaked]
            raise DataError(
                f"generator {run_id} was trained on {rows['group_id'].nunique()} of the "
                f"{held_out['group_id'].nunique()} held-out patients of dataset {name} "
                f"(patient {rows.iloc[0]['group_id']}, split {rows.iloc[0]['split']!r}), or drew "
                "around masks of theirs; train a generator on the training rows of this dataset "
                "(of this fold: --fold) alone"
            )
    _say(checked, name)
    return checked


def check_copies(synthetic: "pd.DataFrame", held_out: "pd.DataFrame", *, name: str) -> None:
    """Refuse synthetic images that are held-out images of dataset `name`, to the pixel."""
    copies = synthetic[synthetic["sha256"].isin(held_out["sha256"])]
    if len(copies):
        raise DataError(
            f"{len(copies)} synthetic images are held-out images of dataset {name}, pixel by pixel "
            f"({copies.iloc[0]['image_id']}); their source has copied them, leave it out"
        )


def check_synthetic(real: "Dataset", synthetic: "Dataset") -> None:
    """Refuse a synthetic dataset that does not go with the real one."""
    _check_alike(real, synthetic, "synthetic dataset")
    rows = synthetic.manifest[~synthetic.manifest["is_synthetic"]]
    if len(rows):
        raise DataError(
            f"synthetic dataset {synthetic.name} holds {len(rows)} real images "
            f"({rows.iloc[0]['image_id']}); give the output of `sample`"
        )
    if real.about.get("intensity") and synthetic.about.get("intensity"):
        grey, other = (_policy(each.about["intensity"]) for each in (real, synthetic))
        if grey != other:
            LOG.warning(
                "synthetic dataset %s has intensity %s, %s has %s: brightness alone may tell the "
                "generated images from the real ones",
                *(synthetic.name, other, real.name, grey),
            )


def check_reals(
    reals: Sequence["Dataset"], training: Sequence["pd.DataFrame"], held: Sequence["pd.DataFrame"]
) -> None:
    """Refuse real datasets that cannot be one: unlike each other, or one trains on another's test.

    `training` and `held` are the rows of each that train, and that validate or test.
    """
    first = reals[0]
    for each in reals[1:]:
        _check_alike(first, each, "dataset")
        if each.about.get("salt") != first.about.get("salt"):
            raise DataError(
                f"patients of dataset {each.name} are hashed with another salt or group_by than "
                f"those of {first.name}; preprocess both in one work_dir, with one group_by"
            )
        grey, other = (_policy(data.about.get("intensity")) for data in (first, each))
        if grey != other:
            raise DataError(
                f"dataset {each.name} has intensity {other}, {first.name} has {grey}; "
                "preprocess both with one --intensity"
            )
    for one, rows in zip(reals, training, strict=True):
        for other_data, unseen in zip(reals, held, strict=True):
            if other_data is one:
                continue
            for column, what in (("group_id", "patients"), ("sha256", "images")):
                leaked = unseen[unseen[column].isin(rows[column])]
                if len(leaked):
                    raise DataError(
                        f"{leaked[column].nunique()} validation or test {what} of dataset "
                        f"{other_data.name} train in dataset {one.name}; preprocess both with one "
                        "--split_file, or leave one out"
                    )


def warn_of_copies(
    reals: Sequence["Dataset"], training: Sequence["Rows"], held: Sequence["Rows"]
) -> None:
    """Log training images that look like held-out images of another of the datasets.

    `training` and `held` are rows of each. Equal pixels and patients are refused (see
    `check_reals`); the same picture in another release, of another size or with other greys, has
    another hash and another patient. That two look alike is no proof, so it is said and not
    refused. It takes some 30 ms a picture; those of less than `LEAST_SIDE` px are left out.
    """
    from mammo.data.duplicates import COPY, near_duplicates

    if min(reals[0].shape[1:]) < LEAST_SIDE:
        return
    parts = list(enumerate(zip(training, held, strict=True)))
    places = [
        (number, int(row), unseen)
        for number, both in parts
        for unseen, rows in enumerate(both)
        for row in rows
    ]

    def read(place: int) -> Any:
        number, row, _ = places[place]
        return reals[number].images([row])[0, 0]

    leaks: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for pair in near_duplicates(read, len(places)):
        first, second = sorted((places[pair.first], places[pair.second]), key=lambda each: each[2])
        if pair.copies and first[0] != second[0] and first[2] < second[2]:
            leaks.setdefault((first[0], second[0]), []).append((first[1], second[1]))
    for (ours, theirs), rows in sorted(leaks.items()):
        one, other = reals[ours], reals[theirs]
        LOG.warning(
            "%d training images of dataset %s look like held-out images of dataset %s (%s like %s; "
            "similarity of at least %g): if they are copies, scores on %s are too good; look with "
            "mammo doctor %s --against %s, and leave one dataset out or give both one --split_file",
            len({mine for mine, _ in rows}),
            *(one.name, other.name),
            *(one.manifest["image_id"].iat[rows[0][0]], other.manifest["image_id"].iat[rows[0][1]]),
            *(COPY, other.name, one.digest, other.digest),
        )


def _check_alike(real: "Dataset", other: "Dataset", what: str) -> None:
    if other.classes.names != real.classes.names:
        raise DataError(
            f"classes of {what} {other.name} are {list(other.classes.names)}, "
            f"those of {real.name} {list(real.classes.names)}; they must be the same, in this order"
        )
    for word in ("label_kind", "positive"):
        theirs, ours = getattr(other.classes, word), getattr(real.classes, word)
        if theirs != ours:
            raise DataError(
                f"{word} of {what} {other.name} is {theirs!r}, that of {real.name} "
                f"{ours!r}; mix data of one kind"
            )
    if other.shape != real.shape:
        raise DataError(
            f"images of {what} {other.name} are {_text(other.shape)}, those of "
            f"{real.name} {_text(real.shape)} (channels x height x width); they must be the same"
        )


def _say(checked: Checked, name: str) -> None:
    if checked.by_pixels:
        LOG.info(
            "patients of generators %s are hashed with another salt than those of %s and cannot be "
            "compared: pixel hashes were compared instead, none is the same",
            ", ".join(checked.by_pixels),
            name,
        )
    if checked.unknown:
        LOG.warning(
            "what generators %s (or the makers of their masks) were trained on is not recorded: "
            "nobody can tell whether they saw held-out patients of %s",
            ", ".join(checked.unknown),
            name,
        )
    if checked.external:
        LOG.warning(
            "%d SYNTHETIC IMAGES COME FROM ELSEWHERE (%s) and nobody can tell which patients their "
            "generators saw: if these were held-out patients of %s, its scores are too good",
            checked.external_images,
            ", ".join(checked.external),
            name,
        )


def _policy(intensity: Any) -> str:
    return str(intensity.get("policy", "")) if isinstance(intensity, dict) else str(intensity)


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
