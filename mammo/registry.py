"""Named parts: a loss, a sampler or a mixing mode is a function registered under its name."""

from collections.abc import Callable
from typing import Any, TypeVar

from mammo.errors import ConfigError

Part = TypeVar("Part", bound=Callable[..., Any])


class Registry(dict[str, Any]):
    """Parts of one kind by name; an unknown name is a ConfigError that lists the known ones."""

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

    def __missing__(self, name: str) -> Any:
        raise ConfigError(f"unknown {self.kind} {name!r}; choose one of {', '.join(sorted(self))}")
