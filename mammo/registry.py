"""Named parts: a loss, a sampler or a mixing mode is a function registered under its name."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from mammo.errors import ConfigError

Part = TypeVar("Part", bound=Callable[..., Any])


class Registry(dict[str, Any]):
    """Parts of one kind by name; an unknown name is a ConfigError that lists the known ones.

    The keyword-only parameters of a part are the settings that it reads.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, name: str) -> Callable[[Part], Part]:
        def add(part: Part) -> Part:
            if name in self:
                raise ValueError(f"two parts are called {self.kind} {name!r}")
            self[name] = part
            return part

        return add

    def reads(self, name: str) -> list[str]:
        """Settings that the part `name` reads."""
        parameters = inspect.signature(self[name]).parameters.values()
        return [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]

    def bound(self, name: str, settings: Mapping[str, Any]) -> Callable[..., Any]:
        """The part `name` with those of `settings` that it reads."""
        return partial(self[name], **{each: settings[each] for each in self.reads(name)})

    def refuse_idle(
        self, names: Iterable[str], settings: Mapping[str, Any], defaults: Mapping[str, Any]
    ) -> None:
        """Refuse a setting that only parts other than `names` read: it would change nothing.

        `defaults` are those of all settings of the step; a part may read others, of the data.
        """
        chosen = list(names)
        readers: dict[str, list[str]] = {}
        for name in sorted(self):
            for setting in self.reads(name):
                readers.setdefault(setting, []).append(name)
        for setting, parts in readers.items():
            if setting not in defaults or set(parts) & set(chosen):
                continue
            value = settings.get(setting, defaults[setting])
            if value != defaults[setting]:
                raise ConfigError(
                    f"{setting} {value!r} has no effect with {self.kind} {', '.join(chosen)}; "
                    f"it goes with {', '.join(parts)}"
                )

    def __missing__(self, name: str) -> Any:
        raise ConfigError(f"unknown {self.kind} {name!r}; choose one of {', '.join(sorted(self))}")
