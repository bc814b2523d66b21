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

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "names": list(self.names)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ClassMap":
        return cls(values["task"], tuple(values["names"]), values["positive"], values["label_kind"])


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
        _map("normal_benign_malignant", "normal benign malignant", "malignant"),
        _map("birads", "1 2 3 4 5 6", "5", "birads"),
        _map("density2", "not_dense dense", "dense", "reader"),
        _map("density4", "A B C D", "D", "reader"),
        _map("view", "CC MLO", "MLO", "acquisition"),
    )
}
