"""Prompts: what is told of an image as the words that a text encoder reads."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mammo.errors import ConfigError
from mammo.generators.conditions import COLUMNS, Conditions

TEMPLATE = (
    "{class} mammogram, {view} view, {laterality} breast, {density} breast density, "
    "BI-RADS category {birads}, {vendor} unit, {subset} case, grayscale digital x-ray of breast "
    "tissue, sharp detail, black background"
)
# Codes of manifests that a text encoder has hardly met, by column, and the words for them.
WORDS = {
    "view": {"CC": "craniocaudal", "MLO": "mediolateral oblique", "ML": "mediolateral"},
    "laterality": {"L": "left", "R": "right"},
    "density": {
        "A": "almost entirely fatty",
        "B": "scattered fibroglandular",
        "C": "heterogeneously dense",
        "D": "extremely dense",
    },
}


@dataclass(frozen=True)
class Prompts:
    """The text for the ids of `conditions`, by a template with {class}, {view} and so on.

    A phrase, what stands between two commas, is left out where something it names is not told.
    Nothing told at all is the empty prompt, as Stable Diffusion was trained to be told nothing;
    only a generator whose conditions are empty gets the phrases that name nothing.
    """

    template: str
    conditions: Conditions

    def text(self, ids: Sequence[int]) -> str:
        """The prompt for `ids` (K,), one of each column."""
        told = {
            "class" if column == "label" else column: _words(column, values[id])
            for column, values, id in zip(
                self.conditions.columns, self.conditions.values, ids, strict=True
            )
            if id < len(values)
        }
        if self.conditions.columns and not told:
            return ""
        phrases = [each.strip() for each in self.template.split(",")]
        known = [phrase for phrase in phrases if fields(phrase) <= set(told)]
        return ", ".join(phrase.format_map(told) for phrase in known if phrase)

    def texts(self) -> list[str]:
        """Each value of each column once, in the longest words of the others."""
        columns = list(zip(self.conditions.columns, self.conditions.values, strict=True))
        longest = []
        for column, values in columns:
            lengths = [len(_words(column, value)) for value in values]
            longest.append(lengths.index(max(lengths)))
        found = [self.text(longest)]
        for place, (_, values) in enumerate(columns):
            for id in range(len(values)):
                found.append(self.text([*longest[:place], id, *longest[place + 1 :]]))
        return list(dict.fromkeys(found))

    def to_json(self) -> dict[str, Any]:
        return {"template": self.template, "conditions": self.conditions.to_json()}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Prompts:
        """As `to_json` wrote it."""
        return cls(str(said["template"]), Conditions.from_json(said["conditions"]))


def check_prompt(template: str, *, conditions: str, mode: str) -> None:
    """ConfigError when a user's `template` cannot be filled, or leaves out what is to be told.

    `conditions` are those of train_generator, "view,density"; the empty template is TEMPLATE.
    """
    named = fields(template or TEMPLATE)
    told = {part.strip() for part in conditions.split(",") if part.strip()}
    if mode != "unconditional":
        told.add("class")
    for name in sorted(named - {"class", *COLUMNS}):
        raise ConfigError(
            f"prompt {template!r}: {{{name}}} should be one of class, {', '.join(COLUMNS)}"
        )
    for name in sorted(named - told) if template else ():
        remedy = "use mode=class" if name == "class" else f"add it to conditions={conditions}"
        raise ConfigError(
            f"prompt {template!r} names {{{name}}}, which nothing tells it; {remedy}, or leave "
            "it out"
        )
    for name in sorted(told - named):
        raise ConfigError(
            f"prompt {template!r} does not name {{{name}}}, so that the text would be the same "
            "for all its values; put it in"
        )


def fields(template: str) -> set[str]:
    """Names between braces in `template`; ConfigError when the braces do not pair."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(
            f"prompt {template!r}: {error}; name columns as {{class}} or {{view}}"
        ) from None
    for _, name, how, conversion in parsed:
        if name is not None and (not name.isidentifier() or how or conversion):
            raise ConfigError(
                f"prompt {template!r}: {{{name}}} should be a bare name, as {{class}} or {{view}}"
            )
    return {name for _, name, _, _ in parsed if name is not None}


def _words(column: str, value: str) -> str:
    """`value` of a manifest as a text encoder may know it."""
    return WORDS.get(column, {}).get(value, value.replace("_", " "))
