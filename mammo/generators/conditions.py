"""What a generator is told of an image: its class, and further columns of the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mammo.errors import ConfigError, DataError
from mammo.generators.modes import mode_of

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("view", "laterality", "density", "birads", "vendor", "subset")  # those one can name
MOST = 32  # values of a column: more are no condition but names


@dataclass(frozen=True)
class Conditions:
    """Columns and the values of each; the id of a value is its place, one past the last is none.

    The first column is the label with all classes of the class map, so its ids are class ids;
    a generator that is told nothing has no columns.
    """

    columns: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, frame: pd.DataFrame, classes: Sequence[str], columns: str) -> Conditions:
        """The label and the `columns` ("view,density") with the values of training rows `frame`."""
        names = tuple(part.strip() for part in columns.split(",") if part.strip())
        values = [tuple(classes)]
        for name in names:
            found = frame[name].astype(str)
            known = tuple(sorted(set(found) - {""}))
            if not known:
                raise DataError(
                    f"condition {name!r} is empty in every training image; leave it out"
                )
            if len(known) > MOST:
                raise DataError(
                    f"condition {name!r} has {len(known)} values, more than {MOST}; leave it out"
                )
            values.append(known)
        return cls(("label", *names), tuple(values))

    @classmethod
    def none(cls) -> Conditions:
        """Nothing is told."""
        return cls((), ())

    @classmethod
    def from_json(cls, said: Mapping[str, Sequence[str]]) -> Conditions:
        """As `to_json` wrote it."""
        return cls(tuple(said), tuple(tuple(values) for values in said.values()))

    def to_json(self) -> dict[str, list[str]]:
        return {name: list(values) for name, values in zip(self.columns, self.values, strict=True)}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values of each column; this number itself is the id of "not told"."""
        return tuple(len(values) for values in self.values)

    def ids(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """Ids (len(frame), columns); an unknown or empty value is "not told"."""
        out = np.empty((len(frame), len(self.columns)), np.int64)
        for place, (name, values) in enumerate(zip(self.columns, self.values, strict=True)):
            number = {value: id for id, value in enumerate(values)}
            out[:, place] = [number.get(str(value), len(values)) for value in frame[name]]
        return out

    def id_of(self, column: str, value: str) -> int:
        """Id of `value` ("" is not told); ConfigError names what is known."""
        if column not in self.columns:
            told = ", ".join(name for name in self.columns if name != "label") or "none"
            other = "mode=class" if column == "label" else f"conditions={column}"
            raise ConfigError(
                f"condition {column!r} is unknown to this generator: it knows {told}; leave it out "
                f"or train with {other}"
            )
        values = self.values[self.columns.index(column)]
        if value and value not in values:
            kind = "class" if column == "label" else column
            raise ConfigError(f"unknown {kind} {value!r}; choose one of {', '.join(values)}")
        return values.index(value) if value else len(values)

    def combinations(self, frame: pd.DataFrame) -> list[dict[str, Any]]:
        """How often each combination of values stands in `frame`: {column: value, "count": n}."""
        if len(self.columns) < 2:
            return []
        counts = frame[list(self.columns)].astype(str).value_counts(sort=False).sort_index()
        return [
            {**dict(zip(self.columns, key, strict=True)), "count": int(number)}
            for key, number in counts.items()
        ]


def check_columns(columns: str) -> None:
    """ConfigError when `columns` names what cannot be a condition."""
    names = [part.strip() for part in columns.split(",") if part.strip()]
    for name in names:
        if name not in COLUMNS or names.count(name) > 1:
            raise ConfigError(
                f"conditions {columns!r}: {name!r} should be one of {', '.join(COLUMNS)}, each once"
            )


def check_label_input(settings: Mapping[str, Any]) -> None:
    """ConfigError when the class's number alone cannot be what the network attends to."""
    if settings["label_input"] != "context":
        return
    if settings["conditions"]:
        raise ConfigError(
            f"label_input 'context' tells the class alone, conditions {settings['conditions']!r} "
            "more than that; use label_input=embedding"
        )
    if not mode_of(settings["mode"]).labelled:
        raise ConfigError(
            f"label_input 'context' has no effect with mode {settings['mode']!r}, which is told "
            "nothing; use mode=class"
        )
