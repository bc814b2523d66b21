"""Mixes the training rows of opened datasets: brought together, checked for leaks, explained."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.dataset import Dataset
from mammo.data.guards import (
    Checked,
    check_copies,
    check_generators,
    check_reals,
    check_synthetic,
    warn_of_copies,
)
from mammo.data.mix_settings import MixSettings
from mammo.data.mixing import Mix, mix
from mammo.data.splits import Partition
from mammo.errors import DataError


@dataclass(frozen=True)
class Mixed:
    """Training rows mixed on the fly.

    `data` holds all rows of the real datasets and the drawn synthetic rows after them;
    `partition.train` are the mixed training rows, `val` and `scored` are as they were.
    """

    data: Dataset
    partition: Partition
    mix: Mix
    generators: Checked
    phases: pd.DataFrame  # image_id, phase, source: the mix (1), then its real images alone (2)
    said: dict[str, Any]  # mix.json


def mix_training(
    reals: Sequence[Dataset],
    synthetic: Sequence[Dataset],
    partitions: Sequence[Partition],
    settings: MixSettings,
    *,
    seed: int = 0,
) -> Mixed:
    """Mix the training rows of `reals` (one partition for each) with `synthetic`.

    No other row is touched. DataError when the datasets do not go together, or when a training
    row or the training of a generator shows a patient or an image that validates or tests.
    """
    data, partition = _united(reals, partitions)
    frame = data.manifest
    old = frame.iloc[partition.train]
    if old["is_synthetic"].any():
        raise DataError(
            f"dataset {data.name} already holds {int(old['is_synthetic'].sum())} synthetic images; "
            "mix the real dataset it was made from"
        )
    for each in synthetic:
        check_synthetic(data, each)
    sets = [each.placed() for each in synthetic]
    made = mix(old, sets, settings, class_names=data.classes.names, seed=seed)
    drawn = pd.concat([frame.iloc[:0], *sets], ignore_index=True).iloc[made.synthetic]
    seen = pd.concat(
        [each.generator_training for each in (*reals, *synthetic)], ignore_index=True
    ).drop_duplicates(ignore_index=True)
    checked = _checked(data, frame.iloc[_held_out(data, partition)], drawn, seen)
    united = pd.concat([data.placed(), drawn], ignore_index=True)
    view = Dataset.view(data, united, [*reals, *synthetic])
    view.generator_training = seen[seen["run_id"].isin(drawn["generator_run_id"])]
    rows = [partition.train[made.real], len(frame) + np.arange(len(drawn))]
    mixed = replace(partition, train=np.concatenate(rows).astype(np.int64))
    parts = [each.manifest.iloc[p.train] for each, p in zip(reals, partitions, strict=True)]
    parts += [each.manifest for each in synthetic]
    source = _sources(parts, made, reals=len(reals))
    chosen = united.iloc[mixed.train]
    said = {
        "settings": {**asdict(settings), "seed": seed},
        "inputs": _inputs(reals, synthetic),
        "classes": [asdict(each) for each in made.report],
        "sources": _by_source(parts, made, chosen["label"], source, reals=len(reals)),
        "generators": asdict(checked),
        "realised_real_percentage": made.realised_real_percentage,
    }
    phases = _phases(chosen, [*reals, *synthetic], source)
    return Mixed(view, mixed, made, checked, phases, said)


def write_mix(mixed: Mixed, folder: Path) -> list[Path]:
    """Write mix.json and phases.csv into `folder`; returns their paths."""
    paths = [folder / "mix.json", folder / "phases.csv"]
    paths[0].write_text(json.dumps(mixed.said, indent=1) + "\n")
    mixed.phases.to_csv(paths[1], index=False, lineterminator="\n")
    return paths


def _united(reals: Sequence[Dataset], partitions: Sequence[Partition]) -> tuple[Dataset, Partition]:
    """Several real datasets as one, each row keeping its part; one alone as it is."""
    if len(reals) == 1:
        return reals[0], partitions[0]
    training = [part.train for part in partitions]
    held = [_held_out(each, part) for each, part in zip(reals, partitions, strict=True)]
    check_reals(
        reals,
        [each.manifest.iloc[rows] for each, rows in zip(reals, training, strict=True)],
        [each.manifest.iloc[rows] for each, rows in zip(reals, held, strict=True)],
    )
    warn_of_copies(reals, training, held)
    frame = pd.concat([each.placed() for each in reals], ignore_index=True)
    starts = np.cumsum([0, *(len(each) for each in reals)])[:-1]
    parts = {
        name: np.concatenate(
            [getattr(part, name) + start for part, start in zip(partitions, starts, strict=True)]
        )
        for name in ("train", "val", "scored")
    }
    view = Dataset.view(reals[0], frame, reals[1:])
    view.about["name"] = "+".join(dict.fromkeys(each.name for each in reals))
    return view, Partition(**parts)


def _checked(
    data: Dataset, held_out: pd.DataFrame, drawn: pd.DataFrame, seen: pd.DataFrame
) -> Checked:
    """How the generators of the rows `drawn` were compared with `held_out`; refuses any leak."""
    salt = str(data.about.get("salt") or "")
    runs = drawn["generator_run_id"]
    checked = check_generators(runs, seen, held_out, salt=salt, name=data.name)
    check_copies(drawn, held_out, name=data.name)
    return checked


def _held_out(data: Dataset, partition: Partition) -> NDArray[np.int64]:
    """Rows that validate, are scored or are the test, ascending."""
    tested = np.flatnonzero((data.manifest["split"] == "test").to_numpy())
    return np.unique(np.concatenate([partition.val, partition.scored, tested]))


def _sources(parts: Sequence[pd.DataFrame], made: Mix, *, reals: int) -> NDArray[np.int64]:
    """For each row of the mix the number of its dataset: the `reals` first, then the synthetic."""
    numbers = np.repeat(np.arange(len(parts)), list(map(len, parts)))
    offset = sum(map(len, parts[:reals]))
    found: NDArray[np.int64] = numbers[np.concatenate([made.real, offset + made.synthetic])]
    return found


def _inputs(reals: Sequence[Dataset], synthetic: Sequence[Dataset]) -> list[dict[str, Any]]:
    return [
        {"source": number, "kind": kind, "name": each.name, "digest": each.digest}
        for number, (kind, each) in enumerate(
            [*(("real", each) for each in reals), *(("synthetic", each) for each in synthetic)]
        )
    ]


def _by_source(
    parts: Sequence[pd.DataFrame],
    made: Mix,
    labels: pd.Series,
    source: NDArray[np.int64],
    *,
    reals: int,
) -> list[dict[str, Any]]:
    """Of each dataset and class: training images there, requested (None: of a pool) and taken."""
    found = []
    for number, there in enumerate(parts):
        taken = labels[source == number]
        for report in made.report:
            if number < reals:
                requested = report.real_requested if reals == 1 else None
            else:
                asked = made.requested.get(report.label)
                requested = asked[number - reals] if asked else None
            found.append(
                {
                    "source": number,
                    "label": report.label,
                    "available": int((there["label"] == report.label).sum()),
                    "requested": requested,
                    "taken": int((taken == report.label).sum()),
                }
            )
    return found


def _phases(
    rows: pd.DataFrame, datasets: Sequence[Dataset], source: NDArray[np.int64]
) -> pd.DataFrame:
    """Lists for training in two phases: the mix, then fine-tuning on its real images alone."""
    names = np.asarray([each.name for each in datasets], object)[source]
    first = pd.DataFrame({"image_id": rows["image_id"].to_numpy(), "phase": 1, "source": names})
    second = first[~rows["is_synthetic"].to_numpy()].assign(phase=2)
    return pd.concat([first, second], ignore_index=True)
