"""The search space: which settings of which steps vary, over what, and under which condition."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError

if TYPE_CHECKING:
    import optuna

# Steps that a trial may run, in their order; an undotted name is a setting of the last.
TRIAL_STEPS = ("train_generator", "sample", "train_classifier")
TRAINING = TRIAL_STEPS[-1]

Value = bool | int | float | str


@dataclass(frozen=True)
class Dimension:
    """One setting that varies: over `choices`, or from `low` to `high`."""

    name: str  # as a trial's parameter is called: "lr", "sample.guidance"
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float = 0.0  # between the values of a range; 0 for any value
    whole: bool = False  # a range of whole numbers
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)  # all of these hold

    @property
    def of_step(self) -> str:
        """The step whose setting it is."""
        return self.name.rpartition(".")[0] or TRAINING

    @property
    def setting(self) -> str:
        """The setting's name in its step."""
        return self.name.rpartition(".")[2]

    def active(self, chosen: Mapping[str, Any]) -> bool:
        """Whether it has a value where the dimensions before it have those in `chosen`."""
        return all(chosen.get(name, _Nothing) in values for name, values in self.when.items())

    def grid(self) -> tuple[Value, ...] | None:
        """Its values, None for a range without a step."""
        if self.choices:
            return self.choices
        if not self.step:
            return None
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        values = [self.low + number * self.step for number in range(count)]
        return tuple(int(each) if self.whole else round(each, 12) for each in values)

    def near(self, value: Any) -> Value:
        """`value` where the dimension has it, else one that it has: the first, or the nearest."""
        if self.choices:
            return value if value in self.choices else self.choices[0]
        known = self.grid()
        if known is not None:
            return min(known, key=lambda each: abs(float(each) - float(value)))
        return min(max(float(value), self.low), self.high)

    def ends(self) -> tuple[Value, ...]:
        """The values that a step is asked about: every choice, or both ends of a range."""
        return self.choices or tuple(
            int(each) if self.whole else float(each) for each in (self.low, self.high)
        )

    def suggest(self, trial: "optuna.Trial") -> Value:
        """Ask `trial` for a value."""
        value: Value
        if self.choices:
            value = trial.suggest_categorical(self.name, self.choices)
        elif self.whole:
            low, high, step = int(self.low), int(self.high), int(self.step) or 1
            value = trial.suggest_int(self.name, low, high, log=self.log, step=step)
        else:
            value = trial.suggest_float(
                self.name, self.low, self.high, log=self.log, step=self.step or None
            )
        return value

    def distribution(self) -> "optuna.distributions.BaseDistribution":
        from optuna import distributions as kinds

        if self.choices:
            return kinds.CategoricalDistribution(self.choices)
        if self.whole:
            step = int(self.step) or 1
            return kinds.IntDistribution(int(self.low), int(self.high), log=self.log, step=step)
        return kinds.FloatDistribution(self.low, self.high, log=self.log, step=self.step or None)

    def described(self) -> dict[str, Any]:
        """As a file would say it, with everything that tells it from another."""
        if self.choices:
            said: dict[str, Any] = {"choices": list(self.choices)}
        else:
            number = int if self.whole else float
            said = {"low": number(self.low), "high": number(self.high)}
            said |= {"log": True} if self.log else {}
            said |= {"step": number(self.step)} if self.step else {}
        return said | (
            {"when": {name: list(each) for name, each in self.when.items()}} if self.when else {}
        )


@dataclass(frozen=True)
class Space:
    """The dimensions of a search, each behind those that its conditions name."""

    dimensions: tuple[Dimension, ...]

    def __iter__(self) -> Iterator[Dimension]:
        return iter(self.dimensions)

    def __len__(self) -> int:
        return len(self.dimensions)

    def __contains__(self, name: object) -> bool:
        return any(each.name == name for each in self.dimensions)

    def __getitem__(self, name: str) -> Dimension:
        return next(each for each in self.dimensions if each.name == name)

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that have a setting here, in the order in which a trial runs them."""
        return tuple(step for step in TRIAL_STEPS if any(d.of_step == step for d in self))

    def suggest(self, trial: "optuna.Trial") -> dict[str, Value]:
        """Ask `trial` for a value of every dimension that is active; its configuration."""
        chosen: dict[str, Value] = {}
        for each in self.dimensions:
            if each.active(chosen):
                chosen[each.name] = each.suggest(trial)
        return chosen

    def canonical(self, values: Mapping[str, Any]) -> dict[str, Value]:
        """The configuration in `values`: in the space's order, without what is inactive."""
        chosen: dict[str, Value] = {}
        for each in self.dimensions:
            if each.name in values and each.active(chosen):
                chosen[each.name] = values[each.name]
        return chosen

    def configurations(
        self, values: Callable[[Dimension], Sequence[Value]]
    ) -> Iterator[dict[str, Value]]:
        """Every configuration in which each dimension has one of its `values`."""

        def further(chosen: dict[str, Value], left: tuple[Dimension, ...]) -> Any:
            if not left:
                yield chosen
            elif not left[0].active(chosen):
                yield from further(chosen, left[1:])
            else:
                for value in values(left[0]):
                    yield from further({**chosen, left[0].name: value}, left[1:])

        yield from further({}, self.dimensions)

    def by_step(self, chosen: Mapping[str, Any]) -> dict[str, dict[str, Value]]:
        """A configuration as settings of steps: {"train_classifier": {"lr": 0.1}}."""
        found: dict[str, dict[str, Value]] = {}
        for name, value in chosen.items():
            found.setdefault(self[name].of_step, {})[self[name].setting] = value
        return found

    def described(self) -> dict[str, Any]:
        """The space as a mapping that can be written down and compared."""
        return {each.name: each.described() for each in self.dimensions}

    @classmethod
    def of(cls, described: Mapping[str, Mapping[str, Any]]) -> "Space":
        """The space of which `described` was said."""
        return cls(tuple(_dimension(name, said) for name, said in described.items()))


def name_of(step: str, setting: str) -> str:
    """What a setting of a step is called in a space and in a study."""
    return setting if step == TRAINING else f"{step}.{setting}"


class _Nothing:
    """The value of a dimension that has none."""


def _dimension(name: str, said: Mapping[str, Any]) -> Dimension:
    when = {key: tuple(each) for key, each in said.get("when", {}).items()}
    if "choices" in said:
        return Dimension(name, choices=tuple(said["choices"]), when=when)
    whole = isinstance(said["low"], int) and isinstance(said["high"], int)
    return Dimension(
        name,
        low=said["low"],
        high=said["high"],
        log=bool(said.get("log", False)),
        step=float(said.get("step", 0)),
        whole=whole,
        when=when,
    )


def parents_first(dimensions: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """`dimensions` in their order, each behind those that its conditions name."""
    left, placed = list(dimensions), dict[str, Dimension]()
    while left:
        ready = next((each for each in left if set(each.when) <= set(placed)), None)
        if ready is None:
            names = ", ".join(each.name for each in left)
            raise ConfigError(f"space: the conditions of {names} go round in a circle")
        left.remove(ready)
        placed[ready.name] = ready
    return tuple(placed.values())
