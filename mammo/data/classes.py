"""What a label means: tasks with their classes in order, the positive class, the kind of truth."""

from dataclasses import asdict, dataclass
from typing import Any

from mammo.errors import ConfigError, DataError

LABEL_KINDS = ("pathology", "birads", "follow-up", "reader", "acquisition")


@dataclass(frozen=True)
class ClassMap:
    """Class names in the order of their ids, which of them is positive, and what labelled them.

    It travels inside every dataset and every model, so an id never changes its meaning.
    """

    task: str
    names: tuple[str, ...]
    positive: str
    label_kind: str

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names) or len(self.names) < 2:
            raise ConfigError(
                f"classes {list(self.names)} of task {self.task!r}: "
                "two distinct names or more are needed"
            )
        if self.positive not in self.names:
            raise ConfigError(f"positive class {self.positive!r} is not one of {list(self.names)}")
        if self.label_kind not in LABEL_KINDS:
            raise ConfigError(
                f"label_kind {self.label_kind!r} is not one of {', '.join(LABEL_KINDS)}"
            )

    def id_of(self, name: str) -> int:
        """Id of class `name`; DataError when the map has no such class."""
        if name not in self.names:
            raise DataError(f"class {name!r} is not in the class map {list(self.names)}")
        return self.names.index(name)

    @property
    def positive_id(self) -> int:
        return self.names.index(self.positive)

    @property
    def scale(self) -> tuple[str, ...]:
        """The names in rising order; empty where they are two, or have no order."""
        for ordered in _SCALES:
            if len(self.names) > 2 and set(self.names) <= set(ordered):
                return tuple(name for name in ordered if name in self.names)
        return ()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "names": list(self.names)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ClassMap":
        return cls(values["task"], tuple(values["names"]), values["positive"], values["label_kind"])


# Classes that are grades of one thing, in rising order, whatever the order of their ids
_SCALES = (
    ("normal", "benign_without_callback", "benign", "probably_benign", "suspicious", "malignant"),
    ("A", "B", "C", "D"),
    ("1", "2", "3", "4", "5", "6"),
)


def _map(task: str, names: str, positive: str, kind: str = "pathology") -> ClassMap:
    return ClassMap(task, tuple(names.split()), positive, kind)


# Ids of the malignancy tasks are those of system 0's training code: benign 0, malignant 1,
# suspicious 2, probably_benign 3.
TASKS: dict[str, ClassMap] = {
    each.task: each
    for each in (
        _map("malignancy2", "benign malignant", "malignant"),
        _map("malignancy3", "benign malignant suspicious", "malignant"),
        _map("malignancy4", "benign malignant suspicious probably_benign", "malignant"),
        # the same classes by the reader's assessment, which is no proof: another task
        _map("malignancy2_birads", "benign malignant", "malignant", "birads"),
        _map("malignancy3_birads", "benign malignant suspicious", "malignant", "birads"),
        _map(
            "malignancy4_birads",
            "benign malignant suspicious probably_benign",
            "malignant",
            "birads",
        ),
        _map("normal_benign_malignant", "normal benign malignant", "malignant"),
        _map("cbis_pathology3", "benign malignant benign_without_callback", "malignant"),
        _map("cmmd_subtype4", "luminal_a luminal_b her2 triple_negative", "triple_negative"),
        _map("birads", "1 2 3 4 5 6", "5", "birads"),
        _map("density2", "not_dense dense", "dense", "reader"),
        _map("density4", "A B C D", "D", "reader"),
        _map("view", "CC MLO", "MLO", "acquisition"),
    )
}

_BY_BIRADS = {
    "1": "benign", "2": "benign", "3": "probably_benign", "4": "suspicious",
    "5": "malignant", "6": "malignant",
}  # fmt: skip
_DENSITY2 = {"A": "not_dense", "B": "not_dense", "C": "dense", "D": "dense"}


def class_of_birads(task: str, grade: str) -> str:
    """Class of BI-RADS `grade` (`4` or `4B`) in a malignancy task; empty where it has none.

    0 is an assessment not yet finished and has no class; nor have 3 and 4 in a task that lacks
    probably_benign and suspicious.
    """
    name = _BY_BIRADS.get(grade[:1], "")
    return name if name in TASKS[task].names else ""


def class_of_density(task: str, letter: str) -> str:
    """Class of BI-RADS density `letter` (A to D) in density2 or density4; empty for other text."""
    if letter not in _DENSITY2:
        return ""
    return _DENSITY2[letter] if task == "density2" else letter
