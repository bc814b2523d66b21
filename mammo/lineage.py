"""Where a run comes from and what became of it, from the tags of all runs."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mammo.errors import ConfigError

PREFIX = "mammo.input."


@dataclass(frozen=True)
class Node:
    """A run as lineage sees it; `inputs` maps a setting to run ids or digests."""

    run_id: str
    step: str
    name: str
    status: str
    digest: str = ""
    parent_id: str = ""
    inputs: dict[str, list[str]] = field(default_factory=dict)
    alias: str = ""  # the id it had before the server gave it one


class Graph:
    """All runs of a store, by who used whom."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = {node.run_id: node for node in nodes}
        makers = {node.digest: node.run_id for node in nodes if node.digest}
        makers |= {node.alias: node.run_id for node in nodes if node.alias}
        self._sources: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._users: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for node in nodes:
            # a fold's run has the inputs of the run that started it
            parent = self.nodes.get(makers.get(node.parent_id, node.parent_id))
            named = node.inputs or getattr(parent, "inputs", {})
            for setting, values in sorted(named.items()):
                for value in values:
                    maker = value if value in self.nodes else makers.get(value, value)
                    self._sources[node.run_id].append((setting, maker))
                    self._users[maker].append((setting, node.run_id))

    def tree(self, run_id: str) -> Iterator[str]:
        """Lines of the picture: what the run was made from, then what used it."""
        if run_id not in self.nodes:
            raise ConfigError(f"run {run_id!r} is not among the {len(self.nodes)} runs of mammo")
        yield self._label(run_id)
        yield "made from"
        yield from self._branches(self._sources, run_id, (run_id,))
        yield "used by"
        yield from self._branches(self._users, run_id, (run_id,))

    def ancestors(self, run_id: str) -> set[str]:
        return self._reach(self._sources, run_id)

    def descendants(self, run_id: str) -> set[str]:
        return self._reach(self._users, run_id)

    def _branches(
        self,
        edges: dict[str, list[tuple[str, str]]],
        run_id: str,
        path: tuple[str, ...],
        indent: str = "",
    ) -> Iterator[str]:
        branches = edges.get(run_id, [])
        if not branches and len(path) == 1:
            yield "└─ nothing"
        for number, (setting, other) in enumerate(branches):
            last = number == len(branches) - 1
            yield f"{indent}{'└─' if last else '├─'} {setting}: {self._label(other)}"
            if other not in path:
                deeper = indent + ("   " if last else "│  ")
                yield from self._branches(edges, other, (*path, other), deeper)

    def _label(self, run_id: str) -> str:
        node = self.nodes.get(run_id)
        if node is None:
            return f"{run_id} (a local folder, made outside this store)"
        return f"{node.step} {run_id} {node.status}"

    def _reach(self, edges: dict[str, list[tuple[str, str]]], run_id: str) -> set[str]:
        seen: set[str] = set()
        todo = [run_id]
        while todo:
            for _, other in edges.get(todo.pop(), []):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return seen
