"""The order of a step in parts: what is left of it to read, whose it is, and when it is over."""

import stat
from pathlib import Path

import pytest

from mammo import cli
from mammo.errors import ConfigError
from mammo.launch import Local, Order
from mammo.run import MemoryRun, Reference, Result


def test_an_order_is_read_as_it_was_written(tmp_path: Path) -> None:
    given = [Reference("runs:/a/dataset", tmp_path, "d1", "a"), Reference("b", tmp_path, "d2")]
    run = MemoryRun(tmp_path, {"data": given})
    order = Order.of(run, "sample", {"count": 3, "guidance": 1.5}, 4)
    order.write()
    assert Order.read(run.folder) == order
    parts, gather = order.commands()
    assert [each.words[-1] for each in [*parts, gather]] == ["0", "1", "2", "3", "gather"]


def test_what_an_order_and_its_processes_write_is_the_owners_alone(tmp_path: Path) -> None:
    """The address of a study has a password; a traceback may have the name of a patient."""
    order = Order.of(MemoryRun(tmp_path), "sample", {}, 1)
    order.write()
    place = order.folder / "launch"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    parts, gather = order.commands()
    assert all(place in each.log.parents for each in [*parts, gather])
    assert all(place in path.parents for path in order.folder.rglob("*.json"))


def test_a_part_of_an_order_that_is_over_has_nothing_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A job may be put back into the queue when its run is finished already."""
    order = Order.of(MemoryRun(tmp_path), "sample", {}, 1)
    order.write()
    order.keep(Result({}, {"images": 1.0}))
    for word in ("0", "gather"):
        assert cli.main(["part", str(order.folder), word]) == 0
        assert "has been gathered; nothing is left to do" in caplog.text
        caplog.clear()
    order.write()  # it is to be done again
    assert not order.is_over


def test_a_part_is_not_done_by_other_code_than_its_order_was_given_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job may wait for days, and the fingerprint of its run names the code."""
    order = Order.of(MemoryRun(tmp_path), "sample", {}, 1, code="0123456789abcdef")
    order.write()
    assert Order.read(order.folder) == order
    assert cli.main(["part", str(order.folder), "0"]) == 2
    assert "the code has changed since this step was launched" in capsys.readouterr().err


def test_the_end_of_one_part_of_four_says_nothing_of_one_of_two(tmp_path: Path) -> None:
    run = MemoryRun(tmp_path)
    for command in Order.of(run, "sample", {}, 4).commands()[0]:
        command.note(0)
    with pytest.raises(ConfigError, match="part 0 of 2 was ended from outside"):
        Order.of(run, "sample", {}, 2).refuse_undone()
    Order.of(run, "sample", {}, 4).refuse_undone()


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        ("echo 'part: count 0 is wrong' >&2; exit 2", ConfigError, "^count 0 is wrong$"),
        ("exit 1", RuntimeError, "part 1 of 2 failed; its traceback is in .*0001.log"),
        ("kill -9 $$", ConfigError, r"part 1 of 2 was ended from outside \(exit code -9\)"),
        ("exit 143", ConfigError, r"part 1 of 2 was ended .* \(exit code 143\): .* or cancelled"),
    ],
)
def test_what_went_wrong_in_a_part_is_raised(
    tmp_path: Path, script: str, error: type[Exception], text: str
) -> None:
    order = Order.of(MemoryRun(tmp_path), "sample", {}, 2)
    commands, _ = order.commands()
    for command, words in zip(commands, ["true", script], strict=True):
        command.words = ["sh", "-c", words]
    Local().start(commands, name="test").wait()
    with pytest.raises(error, match=text):
        order.refuse_undone()


def test_a_part_that_never_ended_is_told(tmp_path: Path) -> None:
    order = Order.of(MemoryRun(tmp_path), "sample", {}, 1)
    with pytest.raises(ConfigError, match=r"part 0 of 1 was ended from outside \(without a word\)"):
        order.refuse_undone()
    with pytest.raises(ConfigError, match=r"its machine does not see .*launch/of-1;"):
        order.refuse_undone()


def test_a_part_of_no_order_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["part", str(tmp_path), "0"]) == 2
    assert "is no order of a launcher; give the folder of a run" in capsys.readouterr().err
