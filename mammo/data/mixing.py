"""How real and synthetic training images are mixed: by class, exact to the image, seeded."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mammo.data.counts import exact, round_half_up
from mammo.errors import ConfigError, DataError
from mammo.registry import Registry
from mammo.seeds import derive

if TYPE_CHECKING:
    import pandas as pd

    from mammo.data.dataset import Dataset
    from mammo.data.splits import Partition

LOG = logging.getLogger("mammo")
MIXES = Registry("mix_mode")
BALANCES = ("keep", "equal")
SHORTAGES = ("error", "clamp")


class Quota(NamedTuple):
    """Images of one class to take."""

    real: int
    synthetic: int


@MIXES.register("replace")
def replacing(count: int, f: Fraction, m: Fraction) -> Quota:
    """Keep the share `f` of `count` real images and replace the others, one for one."""
    real = round_half_up(f * count)
    return Quota(real, count - real)


@MIXES.register("append")
def appending(count: int, f: Fraction, m: Fraction) -> Quota:
    """Keep the share `f` of `count` real images, add `m` synthetic ones each (f = 0: for all)."""
    real = round_half_up(f * count)
    return Quota(real, round_half_up(m * (real if f else count)))


@MIXES.register("target_share")
def target_share(count: int, f: Fraction, m: Fraction) -> Quota:
    """Keep all `count` real images and add synthetic ones until the real share is `f`."""
    return Quota(count, round_half_up(count * (1 - f) / f))


@dataclass(frozen=True)
class ClassReport:
    """What became of one class: asked for and realised, real and synthetic."""

    label: str
    real_available: int
    real_requested: int
    real: int
    synthetic_available: int
    synthetic_requested: int
    synthetic: int


@dataclass(frozen=True)
class Mix:
    """Chosen positions, ascending in `real` and in drawn order in `synthetic`, and the counts."""

    real: NDArray[np.int64]
    synthetic: NDArray[np.int64]
    report: list[ClassReport]

    @property
    def realised_real_percentage(self) -> float:
        """Real images over all images of the mix."""
        return len(self.real) / (len(self.real) + len(self.synthetic))


@dataclass(frozen=True)
class Mixed:
    """Training rows mixed on the fly.

    `data` holds all rows of the real dataset under their old numbers and the drawn synthetic
    rows after them; `partition.train` are the mixed training rows, `val` and `scored` are as
    they were.
    """

    data: "Dataset"
    partition: "Partition"
    mix: Mix
    generators: dict[str, list[str]]  # how each generator run was checked for leaks


def check_settings(
    *,
    synthetic: str,
    real_percentage: float,
    mix_mode: str,
    synthetic_multiplier: float,
    balance: str = "keep",
    on_shortage: str = "error",
) -> None:
    """Refuse settings that no data could satisfy; ConfigError names the remedy."""
    if mix_mode not in MIXES:
        MIXES[mix_mode]  # raises with the known names
    if balance not in BALANCES:
        raise ConfigError(f"balance {balance!r}; choose one of {', '.join(BALANCES)}")
    if on_shortage not in SHORTAGES:
        raise ConfigError(f"on_shortage {on_shortage!r}; choose one of {', '.join(SHORTAGES)}")
    if mix_mode == "target_share" and not real_percentage:
        raise ConfigError(
            "real_percentage 0 with mix_mode target_share would need infinitely many synthetic "
            "images; use mix_mode replace or append for synthetic images alone"
        )
    if mix_mode == "append" and not real_percentage and not synthetic_multiplier:
        raise ConfigError(
            "real_percentage 0 and synthetic_multiplier 0 leave no image; raise one of them"
        )
    if balance == "equal" and not synthetic:
        raise ConfigError(
            "balance equal fills the smaller classes with synthetic images, and synthetic is "
            "empty; name a synthetic dataset, or balance the batches with sampler balanced"
        )
    needed = synthetic_multiplier > 0 if mix_mode == "append" else real_percentage < 1
    if needed and not synthetic:
        what = "synthetic_multiplier" if mix_mode == "append" else "real_percentage"
        value = synthetic_multiplier if mix_mode == "append" else real_percentage
        raise ConfigError(
            f"{what} {value:g} with mix_mode {mix_mode} needs synthetic images, and synthetic is "
            "empty; name a synthetic dataset"
        )


def mix(
    real: "pd.DataFrame",
    synthetic: "pd.DataFrame",
    *,
    class_names: Sequence[str],
    real_percentage: float,
    mix_mode: str = "replace",
    synthetic_multiplier: float = 1.0,
    balance: str = "keep",
    on_shortage: str = "error",
    seed: int = 0,
) -> Mix:
    """Choose rows of `real` (training rows) and `synthetic` (columns group_id, image_id, label).

    Real images come in a seeded order of patients, within a patient by image id, so a smaller
    `real_percentage` takes a subset of a larger one; synthetic images come in a seeded order,
    none twice. The choice depends on ids and labels, not on the order of rows. `balance` equal
    keeps the real images of the mode and fills every class with synthetic ones up to the total
    of the largest.
    """
    check_settings(
        synthetic="given",
        real_percentage=real_percentage,
        mix_mode=mix_mode,
        synthetic_multiplier=synthetic_multiplier,
        balance=balance,
        on_shortage=on_shortage,
    )
    for frame, source in ((real, "real"), (synthetic, "synthetic")):
        _check_ids(frame, source, class_names)
    f, m = exact(real_percentage), exact(synthetic_multiplier)
    in_order = {"real": _real_order(real, seed), "synthetic": _synthetic_order(synthetic, seed)}
    real_of = _by_class(real, in_order["real"], class_names)
    synthetic_of = _by_class(synthetic, in_order["synthetic"], class_names)
    quotas = {name: MIXES[mix_mode](len(real_of[name]), f, m) for name in class_names}
    if balance == "equal":
        total = max(sum(quota) for quota in quotas.values())
        quotas = {name: Quota(q.real, total - q.real) for name, q in quotas.items()}
    report = [
        ClassReport(
            label=name,
            real_available=len(real_of[name]),
            real_requested=quota.real,
            real=quota.real,
            synthetic_available=len(synthetic_of[name]),
            synthetic_requested=quota.synthetic,
            synthetic=min(quota.synthetic, len(synthetic_of[name])),
        )
        for name, quota in quotas.items()
    ]
    _check_shortage(report, on_shortage)
    chosen = [real_of[each.label][: each.real] for each in report]
    drawn = [synthetic_of[each.label][: each.synthetic] for each in report]
    made = Mix(np.sort(np.concatenate(chosen)), np.concatenate(drawn), report)
    if not len(made.real) + len(made.synthetic):
        raise DataError(f"the mix of {len(real)} real images would be empty; raise real_percentage")
    return made


def mix_training(
    data: "Dataset",
    synthetic: Sequence["Dataset"],
    partition: "Partition",
    *,
    real_percentage: float,
    mix_mode: str = "replace",
    synthetic_multiplier: float = 1.0,
    balance: str = "keep",
    on_shortage: str = "error",
    seed: int = 0,
) -> Mixed:
    """Mix the training rows of `partition` with `synthetic`; no other row is touched.

    DataError when a synthetic set does not go with `data` or when its generator saw a patient
    of `partition.val`, `partition.scored` or the test split.
    """
    import pandas as pd

    from mammo.data.guards import check_generators, check_synthetic

    frame = data.manifest
    old = frame.iloc[partition.train]
    if old["is_synthetic"].any():
        raise DataError(
            f"dataset {data.name} already holds {int(old['is_synthetic'].sum())} synthetic images; "
            "mix the real dataset it was made from"
        )
    for each in synthetic:
        check_synthetic(data, each)
    pool = pd.concat([frame.iloc[:0], *(each.placed() for each in synthetic)], ignore_index=True)
    made = mix(
        old,
        pool,
        class_names=data.classes.names,
        real_percentage=real_percentage,
        mix_mode=mix_mode,
        synthetic_multiplier=synthetic_multiplier,
        balance=balance,
        on_shortage=on_shortage,
        seed=seed,
    )
    drawn = pool.iloc[made.synthetic]
    seen = pd.concat(
        [data.generator_training, *(each.generator_training for each in synthetic)],
        ignore_index=True,
    ).drop_duplicates(ignore_index=True)
    held_out = frame.iloc[np.sort(np.concatenate([partition.val, partition.scored]))]
    checked = check_generators(
        drawn["generator_run_id"],
        seen,
        pd.concat([held_out, frame[(frame["split"] == "test")]]).drop_duplicates("image_id"),
        salt=str(data.about.get("salt") or ""),
        name=data.name,
    )
    united = pd.concat([data.placed(), drawn], ignore_index=True)
    view = type(data).view(data, united, synthetic)
    view.generator_training = seen[seen["run_id"].isin(drawn["generator_run_id"])]
    rows = [partition.train[made.real], len(frame) + np.arange(len(drawn))]
    mixed = replace(partition, train=np.concatenate(rows).astype(np.int64))
    return Mixed(view, mixed, made, asdict(checked))


def _check_ids(frame: "pd.DataFrame", source: str, class_names: Sequence[str]) -> None:
    twice = frame[frame["image_id"].duplicated()]
    if len(twice):
        raise DataError(
            f"{source} image {twice.iloc[0]['image_id']} is there twice ({len(twice)} such "
            "images); name each dataset once"
        )
    strange = frame[~frame["label"].isin(list(class_names))]
    if len(strange):
        raise DataError(
            f"{source} image {strange.iloc[0]['image_id']} is of class "
            f"{strange.iloc[0]['label']!r}, which is not one of {', '.join(class_names)}"
        )


def _check_shortage(report: Sequence[ClassReport], on_shortage: str) -> None:
    short = [each for each in report if each.synthetic < each.synthetic_requested]
    if not short:
        return
    text = ", ".join(
        f"class {each.label}: {each.synthetic_requested} requested, "
        f"{each.synthetic_available} available"
        for each in short
    )
    if on_shortage == "error":
        raise DataError(
            f"too few synthetic images ({text}); sample more, ask for fewer, or take what there "
            "is with --on_shortage clamp"
        )
    LOG.warning("too few synthetic images, taking what there is (%s)", text)


def _real_order(frame: "pd.DataFrame", seed: int) -> NDArray[np.int64]:
    """Positions by patient in seeded order, within a patient by image id."""
    groups = frame["group_id"].to_numpy(str)
    names, codes = np.unique(groups, return_inverse=True)
    turn = np.random.default_rng(derive(seed, "mix", "patients")).permutation(len(names))
    return np.lexsort((frame["image_id"].to_numpy(str), turn[codes])).astype(np.int64)


def _synthetic_order(frame: "pd.DataFrame", seed: int) -> NDArray[np.int64]:
    """Positions in a seeded order that depends on the image ids alone."""
    by_id = np.argsort(frame["image_id"].to_numpy(str), kind="stable")
    rng = np.random.default_rng(derive(seed, "mix", "synthetic"))
    return by_id[rng.permutation(len(by_id))].astype(np.int64)


def _by_class(
    frame: "pd.DataFrame", order: NDArray[np.int64], class_names: Sequence[str]
) -> dict[str, NDArray[np.int64]]:
    labels = frame["label"].to_numpy(str)[order]
    return {name: order[labels == name] for name in class_names}


def counts(made: Mix) -> dict[str, Any]:
    """The metrics of a mix under their public names."""
    by_class = {
        f"count/{each.label}/{source}": float(getattr(each, source))
        for each in made.report
        for source in ("real", "synthetic")
    }
    return {
        "real_images": float(len(made.real)),
        "synthetic_images": float(len(made.synthetic)),
        "realised_real_percentage": made.realised_real_percentage,
        **by_class,
    }
