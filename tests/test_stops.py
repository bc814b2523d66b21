"""A process that is told to stop does so, wherever the signal finds it."""

import signal
import sys
import time
import weakref

from mammo import cli


class Thing:
    """Something that can be referred to weakly."""


def test_a_stop_that_comes_where_python_drops_it_comes_again() -> None:
    """In the end of a weak reference, of which SQLAlchemy has many."""
    heard = []

    def work() -> int:
        thing = Thing()
        kept = weakref.ref(thing, lambda _: heard.append(1) or signal.raise_signal(signal.SIGTERM))
        del thing
        assert heard and kept() is None  # nothing was raised here
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            time.sleep(0.01)
        return 0

    assert cli.guarded("test", work) == 128 + signal.SIGTERM


def test_what_else_is_dropped_goes_to_who_heard_it_before() -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("in a destructor")

    def work() -> int:
        Broken()
        return 0

    told = []
    before, sys.unraisablehook = sys.unraisablehook, lambda dropped: told.append(dropped.exc_type)
    try:
        assert cli.guarded("test", work) == 0
        assert told == [ValueError]
        assert sys.unraisablehook is not before
    finally:
        sys.unraisablehook = before
