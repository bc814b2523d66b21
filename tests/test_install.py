"""The aliases of a promotion move whole or not at all."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mammo.errors import DataError
from mammo.promotion import verdict
from mammo.promotion.case import Case
from mammo.promotion.policy import Policy
from mammo.registrar import Version
from mammo.run import Stopped


class Shelf:
    """A registry of one name, in memory."""

    def __init__(self, **aliases: str) -> None:
        self.aliases, self.numbers = aliases, {"1", "2"}

    def add(self, name: str, *rest: Any, **more: Any) -> Version:
        self.numbers.add("3")
        return Version(name, "3", "run")

    def remove(self, version: Version) -> None:
        self.numbers.remove(version.number)
        self.aliases = {k: v for k, v in self.aliases.items() if v != version.number}

    def point(self, name: str, alias: str, number: str) -> None:
        self.aliases[alias] = number

    def unpoint(self, name: str, alias: str) -> None:
        del self.aliases[alias]

    def holder(self, name: str, alias: str) -> Version | None:
        number = self.aliases.get(alias)
        return Version(name, number, "run") if number else None


def install(shelf: Shelf, seen: str) -> Version:
    """Install a model that was compared with version `seen`."""
    champion = Version("a", seen, "run") if seen else None
    case = SimpleNamespace(
        registrar=shelf, name="a", alias="champion", champion=champion, run_id="run", path="model"
    )
    policy = Policy("default", {"reload": {}}, ())
    return verdict.install(cast("Case", case), policy, tags={}, note="")


@pytest.fixture
def reloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast("Any", verdict.AGAIN), "reload", lambda case, uri: "as recorded")


def test_the_old_holder_becomes_previous(reloads: None) -> None:
    shelf = Shelf(champion="1")
    assert install(shelf, "1").number == "3"
    assert shelf.aliases == {"champion": "3", "previous": "1"}


@pytest.mark.parametrize(("seen", "now"), [("1", {"champion": "2"}), ("", {"champion": "2"})])
def test_a_champion_of_meanwhile_was_not_compared_with_and_stays(
    reloads: None, seen: str, now: dict[str, str]
) -> None:
    """Two promotions at once: the second knows the champion of before the first."""
    shelf = Shelf(**now)
    with pytest.raises(DataError, match=r"champion of a moved .* to version 2; promote again"):
        install(shelf, seen)
    assert (shelf.aliases, shelf.numbers) == (now, {"1", "2"})


def test_a_signal_on_the_way_leaves_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(case: Case, uri: str) -> str:
        raise Stopped(15)

    monkeypatch.setitem(cast("Any", verdict.AGAIN), "reload", stopped)
    shelf = Shelf(champion="1")
    with pytest.raises(Stopped):
        install(shelf, "1")
    assert (shelf.aliases, shelf.numbers) == ({"champion": "1"}, {"1", "2"})
