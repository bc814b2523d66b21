"""What keeps a comparison honest: no held-out patient in what the generators were trained on."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mammo.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from mammo.data.dataset import Dataset

LOG = logging.getLogger("mammo")


@dataclass(frozen=True)
class Checked:
    """How each generator run was compared with the held-out rows."""

    by_patient: list[str]  # hashed with the same salt: patients and pixels were compared
    by_pixels: list[str]  # another salt: pixel hashes alone could be compared
    unknown: list[str]  # training rows not recorded: nothing could be compared


def check_generators(
    generator_runs: Iterable[str],
    generator_training: "pd.DataFrame",
    held_out: "pd.DataFrame",
    *,
    salt: str,
    name: str,
) -> Checked:
    """Refuse generators that were trained on a patient or an image of `held_out`.

    `generator_training` has the columns run_id, salt, group_id and sha256; `held_out` the real
    rows of the dataset `name` that must stay unseen; `salt` is its salt's fingerprint.
    """
    checked = Checked([], [], [])
    for run_id in sorted(set(generator_runs)):
        seen = generator_training[generator_training["run_id"] == run_id]
        if not len(seen):
            checked.unknown.append(run_id)
            continue
        same = salt != "" and bool((seen["salt"] == salt).all())
        (checked.by_patient if same else checked.by_pixels).append(run_id)
        leaked = held_out["sha256"].isin(seen["sha256"])
        if same:
            leaked |= held_out["group_id"].isin(seen["group_id"])
        if leaked.any():
            rows = held_out[leaked]
            raise DataError(
                f"generator {run_id} was trained on {rows['group_id'].nunique()} of the "
                f"{held_out['group_id'].nunique()} held-out patients of dataset {name} "
                f"(patient {rows.iloc[0]['group_id']}, split {rows.iloc[0]['split']!r}); train a "
                "generator on the training rows of this dataset (of this fold: --fold) alone"
            )
    if checked.by_pixels:
        LOG.info(
            "patients of generators %s are hashed with another salt than those of %s and cannot be "
            "compared: pixel hashes were compared instead, none is the same",
            ", ".join(checked.by_pixels),
            name,
        )
    if checked.unknown:
        LOG.warning(
            "what generators %s were trained on is not recorded: nobody can tell whether they saw "
            "held-out patients of %s",
            ", ".join(checked.unknown),
            name,
        )
    return checked


def check_synthetic(real: "Dataset", synthetic: "Dataset") -> None:
    """Refuse a synthetic dataset that does not go with the real one."""
    if synthetic.classes.names != real.classes.names:
        raise DataError(
            f"classes of synthetic dataset {synthetic.name} are {list(synthetic.classes.names)}, "
            f"those of {real.name} {list(real.classes.names)}; they must be the same, in this order"
        )
    for word in ("label_kind", "positive"):
        theirs, ours = getattr(synthetic.classes, word), getattr(real.classes, word)
        if theirs != ours:
            raise DataError(
                f"{word} of synthetic dataset {synthetic.name} is {theirs!r}, that of {real.name} "
                f"{ours!r}; mix data of one kind"
            )
    if synthetic.shape != real.shape:
        raise DataError(
            f"images of synthetic dataset {synthetic.name} are {_text(synthetic.shape)}, those of "
            f"{real.name} {_text(real.shape)} (channels x height x width); they must be the same"
        )
    rows = synthetic.manifest[~synthetic.manifest["is_synthetic"]]
    if len(rows):
        raise DataError(
            f"synthetic dataset {synthetic.name} holds {len(rows)} real images "
            f"({rows.iloc[0]['image_id']}); give the output of `sample`"
        )


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
