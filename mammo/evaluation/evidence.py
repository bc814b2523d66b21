"""What an evaluation found: numbers, tables, figures and the sections of its report."""

from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

from mammo.evaluation.report import Section, Tile


@dataclass
class Evidence:
    """One part of an evaluation, or several added up."""

    rows: int = 0  # images it looked at
    metrics: dict[str, float] = field(default_factory=dict)
    headline: list[str] = field(default_factory=list)  # names of metrics
    tiles: list[Tile] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Evidence") -> None:
        self.rows += other.rows
        self.headline += other.headline
        self.tiles += other.tiles
        self.sections += other.sections
        for mine, theirs in (
            (self.metrics, other.metrics),
            (self.tables, other.tables),
            (self.figures, other.figures),
            (self.facts, other.facts),
        ):
            mine.update(theirs)  # type: ignore[arg-type]
