"""Tells how far a long piece of work is: a bar on a terminal, a line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

LOG = logging.getLogger("mammo")
_REPORT_S = 20.0  # seconds between two lines


class Progress:
    """Counts `total` images; those `done` before this run do not enter the rate.

    Used as a context. `sys.stderr` decides: a terminal gets a bar with rate and time left, a file
    or a pipe a line every 20 seconds, with what `note` says at its end.
    """

    def __init__(
        self, name: str, total: int, *, done: int = 0, note: Callable[[], str] = str
    ) -> None:
        self._name = name
        self._total = total
        self._note = note
        self._before = self._done = done
        self._started = self._told = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                desc=self._name,
                total=self._total,
                initial=self._done,
                unit="image",
                file=sys.stderr,
                dynamic_ncols=True,
            )
        return self

    def advance(self, images: int) -> None:
        self._done += images
        if self._bar is not None:
            self._bar.update(images)
        elif time.monotonic() - self._told > _REPORT_S:
            self._told = time.monotonic()
            LOG.info("%s: %s", self._name, self.line(self._told - self._started))

    def line(self, seconds: float) -> str:
        """How far it is after `seconds`, in words."""
        rate = (self._done - self._before) / seconds
        left = f"{(self._total - self._done) / rate / 60:.0f} min left" if rate else "no rate yet"
        told = [f"{self._done} of {self._total} images", f"{rate:.1f} a second", left, self._note()]
        return ", ".join(filter(None, told))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
