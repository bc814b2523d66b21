"""The one thread of a process that brings what its runs logged to the tracking server."""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable

from mlflow import MlflowClient

from mammo.errors import TrackingError
from mammo.tracking.answers import UNWRITABLE, Away, unwritable
from mammo.tracking.delivery import Delivery
from mammo.tracking.journal import Journal

LOG = logging.getLogger("mammo")
TICK_S = (
    3.0  # what is logged in this time goes in one batch: a request costs as much as 150 numbers
)
LONGEST_S = 10.0  # between two tries


class Patience:
    """When to ask again a server that did not do `what`: later each time, up to `LONGEST_S`."""

    def __init__(self, what: str) -> None:
        self.since = 0.0  # when it was first missed; 0 while it answers
        self._what, self._told = what, False
        self._tries, self._next = 0, 0.0

    @property
    def wait_s(self) -> float:
        return max(0.0, self._next - time.monotonic())

    def answered(self) -> None:
        if self._told:
            after_s = time.monotonic() - self.since
            LOG.info("after %d s the tracking store does %s again", after_s, self._what)
        self.__init__(self._what)  # type: ignore[misc]

    def missed(self, reason: str, *, tell: bool = True) -> None:
        now = time.monotonic()
        if not self.since:
            self.since = now
            self._told = tell
            if tell:
                told = (self._what, reason)
                LOG.warning("the tracking store does not %s (%s); kept until it does", *told)
        self._tries += 1
        longest = min(LONGEST_S, 0.5 * 2.0 ** min(self._tries, 10))
        self._next = now + longest * random.uniform(0.5, 1.0)


class Sender:
    """Sends journals while there are any; its thread ends with the last of them."""

    def __init__(
        self, client: MlflowClient, known: Callable[[str], str], sent: Callable[[Delivery], None]
    ) -> None:
        self.deliveries: list[Delivery] = []
        self.words, self.files = Patience("answer"), Patience("take a file")
        self.broken = ""  # why the store, a file of this machine, cannot be written
        self._client, self._known, self._sent = client, known, sent
        self._changed = threading.Condition()
        self._urgent = False
        self._thread: threading.Thread | None = None

    def add(self, journal: Journal) -> Delivery:
        """Send this journal too, from now on."""
        delivery = Delivery(journal, self._client, self._known)
        with self._changed:
            self.deliveries.append(delivery)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="mammo-sender", daemon=True)
                self._thread.start()
        return delivery

    def flush(self, timeout_s: float, only: Iterable[Delivery] | None = None) -> bool:
        """Whether all that was logged until now is at the server, within `timeout_s`.

        TrackingError at once where the store cannot be written at all.
        """
        with self._changed:
            chosen = list(self.deliveries if only is None else only)
            wanted = [(each, each.journal.lines) for each in chosen]

            def there() -> bool:
                return bool(self.broken) or all(each.reached(lines) for each, lines in wanted)

            self._urgent = True
            self._changed.notify_all()
            self._changed.wait_for(there, max(0.0, timeout_s))
            if self.broken:
                raise TrackingError(self.broken)
            return there()

    def release(self, delivery: Delivery) -> None:
        """Let go of a journal, with what is not sent of it."""
        with self._changed:
            delivery.beating = False
            self._let_go(delivery)
            if delivery in self.deliveries:
                self.deliveries.remove(delivery)

    def stop(self) -> list[Delivery]:
        """End the thread and let go of all journals; returns those that are not sent."""
        with self._changed:
            for each in self.deliveries:
                each.beating = False
            for each in list(self.deliveries):
                self._let_go(each)
            left, self.deliveries = self.deliveries, []
            thread = self._thread
            self._urgent = True
            self._changed.notify_all()
        if thread is not None:
            thread.join(timeout=10)  # it may hang in a request; it ends with the process
        for each in left:
            each.journal.close()
        return left

    def _work(self) -> None:
        more = False
        while True:
            with self._changed:
                if not (self._urgent or more):
                    self._changed.wait(TICK_S)
                urgent, self._urgent = self._urgent, False
                if not self.deliveries:
                    self._thread = None
                    return
                deliveries = list(self.deliveries)
            try:
                more = self._round(deliveries, urgent)
            except Exception:
                LOG.exception("the sender of the tracking met a bug; it tries again")
                more = False
                self.words.missed("a bug in the sender")
            with self._changed:
                for each in deliveries:
                    self._let_go(each)
                self._changed.notify_all()

    def _round(self, deliveries: list[Delivery], urgent: bool) -> bool:
        """Send once what there is; whether there is more to send at once."""
        if urgent or not self.words.wait_s:
            self._send_words(deliveries)
        if self.words.since or (self.files.wait_s and not urgent):
            return False
        until, any_sent = time.monotonic() + 1.0, False
        # a run whose file was not taken comes last next time
        for each in sorted(deliveries, key=lambda each: each.put_off):
            try:
                while each.send_file():
                    any_sent = True
                    self.files.answered()
                    if time.monotonic() > until or self._urgent:  # numbers are not kept waiting
                        return True
            except Away as away:
                each.put_off = time.monotonic()
                self._missed(self.files, away, tell=each.parcels.stuck[-1].tries == 1)
                return False
        return any_sent  # an end may have waited for them

    def _send_words(self, deliveries: list[Delivery]) -> None:
        missed = None
        for each in deliveries:
            try:
                each.send_words()
            except Away as away:
                missed = away
                if not away.reached:
                    break
        if missed:
            self._missed(self.words, missed)
        else:
            self.broken = ""
            self.words.answered()

    def _missed(self, patience: Patience, away: Away, *, tell: bool = True) -> None:
        if UNWRITABLE.search(str(away)):
            self.broken = unwritable(str(away))
        patience.missed(str(away), tell=tell and not self.broken)

    def _let_go(self, delivery: Delivery) -> None:
        """Forget a run that is over and sent; its folder goes, but for what was refused."""
        journal = delivery.journal
        done = delivery.taken_over or not delivery.waiting
        if delivery.beating or not done or delivery not in self.deliveries:
            return
        lines = journal.lines
        self._sent(delivery)
        if delivery.taken_over:
            journal.set_aside()
        elif delivery.rejected or journal.dropped:
            journal.close()
        elif not journal.retire(lines):
            return
        self.deliveries.remove(delivery)
