"""How real and synthetic training images are mixed: by class, exact to the image, seeded."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mammo.data.counts import apportion, exact, round_half_up
from mammo.data.mix_settings import MIXES, MixSettings, Quota
from mammo.errors import DataError
from mammo.seeds import derive

if TYPE_CHECKING:
    import pandas as pd

LOG = logging.getLogger("mammo")
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class ClassReport:
    """What became of one class: asked for and realised, real and synthetic."""

    label: str
    real_in_data: int
    real_available: int  # after majority_to_minority_ratio
    real_requested: int
    real: int
    synthetic_available: int  # after synthetic_per_class
    synthetic_requested: int
    synthetic: int


@dataclass(frozen=True)
class Mix:
    """Chosen positions, ascending in `real` and in drawn order in `synthetic`, and the counts."""

    real: Positions
    synthetic: Positions  # in the sources one after another
    report: list[ClassReport]
    requested: Mapping[str, Sequence[int]]  # by class, of each source; empty of a pool of several

    @property
    def realised_real_percentage(self) -> float:
        """Real images over all images of the mix."""
        return len(self.real) / (len(self.real) + len(self.synthetic))


def mix(
    real: "pd.DataFrame",
    synthetic: Sequence["pd.DataFrame"],
    settings: MixSettings,
    *,
    class_names: Sequence[str],
    seed: int = 0,
) -> Mix:
    """Choose of `real` (training rows) and of each set of `synthetic` (group_id, image_id, label).

    Real images come in a seeded order of patients, within a patient as in the data, so a smaller
    `real_percentage` takes a subset of a larger one; synthetic images come in a seeded order,
    none twice. The choice goes by the order of the rows, which is that of the release, and not
    by ids, which are hashed with the salt of one work folder.
    """
    settings.check(synthetic=",".join("given" for _ in synthetic))
    shares = settings.shares(class_names)
    _check_ids([real], "real", class_names)
    _check_ids(synthetic, "synthetic", class_names)
    in_data = _by_class(real, _real_order(real, seed), class_names)
    real_of = _capped(in_data, settings.majority_to_minority_ratio)
    quotas = _quotas(real_of, settings, shares)
    weights = settings.weights()
    pools = _synthetic_by_class(synthetic, settings, class_names, seed)
    if not weights:
        weights, pools = [Fraction(1)], [_pooled(pools, synthetic, class_names, seed)]
    asked = {name: apportion(quota.synthetic, weights) for name, quota in quotas.items()}
    drawn = {
        name: np.concatenate([pool[name][:n] for pool, n in zip(pools, asked[name], strict=True)])
        for name in class_names
    }
    report = [
        ClassReport(
            label=name,
            real_in_data=len(in_data[name]),
            real_available=len(real_of[name]),
            real_requested=quota.real,
            real=min(quota.real, len(real_of[name])),
            synthetic_available=sum(len(pool[name]) for pool in pools),
            synthetic_requested=quota.synthetic,
            synthetic=len(drawn[name]),
        )
        for name, quota in quotas.items()
    ]
    _check_shortage(report, pools, asked, settings.on_shortage)
    chosen = np.concatenate([real_of[each.label][: each.real] for each in report])
    made = Mix(
        np.sort(chosen),
        np.concatenate([drawn[name] for name in class_names]),
        report,
        asked if len(pools) == len(synthetic) else {},
    )
    if not len(made.real) + len(made.synthetic):
        raise DataError(f"the mix of {len(real)} real images would be empty; raise real_percentage")
    return made


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


def _quotas(
    real_of: Mapping[str, Positions], settings: MixSettings, shares: Mapping[str, Fraction]
) -> dict[str, Quota]:
    """Real and synthetic images to take of each class."""
    m = exact(settings.synthetic_multiplier)
    total = settings.samples_per_class
    if total:
        real = {name: round_half_up(settings.real_part(f) * total) for name, f in shares.items()}
        return {name: Quota(count, total - count) for name, count in real.items()}
    mode = MIXES[settings.mix_mode]
    quotas = {name: mode(len(real_of[name]), f, m) for name, f in shares.items()}
    if settings.balance == "equal":
        total = max(sum(quota) for quota in quotas.values())
        quotas = {name: Quota(q.real, total - q.real) for name, q in quotas.items()}
    return quotas


def _capped(real_of: Mapping[str, Positions], ratio: float) -> dict[str, Positions]:
    """At most `ratio` (0: any) times the images of the smallest class that has any."""
    smallest = min((len(rows) for rows in real_of.values() if len(rows)), default=0)
    if not ratio:
        return dict(real_of)
    return {name: rows[: round_half_up(exact(ratio) * smallest)] for name, rows in real_of.items()}


def _synthetic_by_class(
    synthetic: Sequence["pd.DataFrame"],
    settings: MixSettings,
    class_names: Sequence[str],
    seed: int,
) -> list[dict[str, Positions]]:
    """Positions of each set and class, in the order they are taken, trimmed where asked for."""
    sets, start, wanted = [], 0, settings.synthetic_per_class
    for number, frame in enumerate(synthetic):
        rows = np.arange(len(frame))
        turn = np.random.default_rng(derive(seed, "mix", "synthetic", number)).permutation(rows)
        found = {}
        for name, mine in _by_class(frame, turn, class_names).items():
            if wanted and len(mine) < wanted:
                text = f"class {name} of synthetic dataset {number + 1}: {wanted} requested"
                text += f" by synthetic_per_class, {len(mine)} available"
                _refuse_or_warn("synthetic", text, settings.on_shortage)
            if wanted and settings.trim == "first":
                mine = mine[np.isin(mine, np.sort(mine)[:wanted])]
            found[name] = start + (mine[:wanted] if wanted else mine)
        sets.append(found)
        start += len(frame)
    return sets


def _pooled(
    sets: Sequence[Mapping[str, Positions]],
    synthetic: Sequence["pd.DataFrame"],
    class_names: Sequence[str],
    seed: int,
) -> dict[str, Positions]:
    """All sets as one, shuffled; of one set, its own order."""
    if len(sets) == 1:
        return dict(sets[0])
    total = sum(map(len, synthetic))
    place = np.random.default_rng(derive(seed, "mix", "pool")).permutation(total)
    joined = {
        name: np.concatenate([np.empty(0, np.int64), *(each[name] for each in sets)])
        for name in class_names
    }
    return {name: rows[np.argsort(place[rows])] for name, rows in joined.items()}


def _check_ids(frames: Sequence["pd.DataFrame"], source: str, class_names: Sequence[str]) -> None:
    """Refuse an image that is there twice or is of no known class."""
    import pandas as pd

    ids = pd.concat([each["image_id"] for each in frames]) if frames else pd.Series(dtype="str")
    twice = ids[ids.duplicated()]
    if len(twice):
        raise DataError(
            f"{source} image {twice.iloc[0]} is there twice ({len(twice)} such images); "
            "name each dataset once"
        )
    for frame in frames:
        strange = frame[~frame["label"].isin(list(class_names))]
        if len(strange):
            raise DataError(
                f"{source} image {strange.iloc[0]['image_id']} is of class "
                f"{strange.iloc[0]['label']!r}, which is not one of {', '.join(class_names)}"
            )


def _check_shortage(
    report: Sequence[ClassReport],
    pools: Sequence[Mapping[str, Positions]],
    asked: Mapping[str, Sequence[int]],
    on_shortage: str,
) -> None:
    """Name what was requested and what is available, of each class and, with weights, set."""
    few_real = [
        f"class {each.label}: {each.real_requested} requested, {each.real_available} available"
        for each in report
        if each.real < each.real_requested
    ]
    few_synthetic = []
    for name, parts in asked.items():
        for number, (pool, count) in enumerate(zip(pools, parts, strict=True)):
            if count > len(pool[name]):
                of = f" of synthetic dataset {number + 1}" if len(pools) > 1 else ""
                text = f"class {name}{of}: {count} requested, {len(pool[name])} available"
                few_synthetic.append(text)
    for kind, short in (("real", few_real), ("synthetic", few_synthetic)):
        if short:
            _refuse_or_warn(kind, ", ".join(short), on_shortage)


def _refuse_or_warn(kind: str, text: str, on_shortage: str) -> None:
    if on_shortage == "error":
        more = "sample more, ask for fewer" if kind == "synthetic" else "ask for fewer"
        raise DataError(
            f"too few {kind} images ({text}); {more}, or take what there is with "
            "--on_shortage clamp"
        )
    LOG.warning("too few %s images, taking what there is (%s)", kind, text)


def _real_order(frame: "pd.DataFrame", seed: int) -> Positions:
    """Positions by patient in seeded order, within a patient as they come."""
    import pandas as pd

    codes, names = pd.factorize(frame["group_id"])
    turn = np.random.default_rng(derive(seed, "mix", "patients")).permutation(len(names))
    return np.argsort(turn[codes], kind="stable").astype(np.int64)


def _by_class(
    frame: "pd.DataFrame", order: Positions, class_names: Sequence[str]
) -> dict[str, Positions]:
    labels = frame["label"].to_numpy(str)[order]
    return {name: order[labels == name] for name in class_names}
