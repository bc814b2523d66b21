"""Trials without training: a function in a thread, which says what the process of a trial says."""

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from mammo.errors import MammoError
from mammo.run import Listener, Pruned, Result
from mammo.search.trial import Message

Training = Callable[[Mapping[str, Any], Listener | None], Result]


class Stopped(BaseException):
    """The worker wants the trial to end."""


class Crash(BaseException):
    """The process of a trial ends at once, with `code`, and says nothing."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class InThread:
    """Carries out trials with `train`, which takes settings of train_classifier and a listener."""

    def __init__(self, train: Training) -> None:
        self._train = train
        self.orders: list[Mapping[str, Any]] = []
        self._said: queue.Queue[Message] = queue.Queue()
        self._heard: queue.Queue[bool | None] = queue.Queue()
        self._thread: threading.Thread | None = None

    @property
    def given(self) -> list[dict[str, Any]]:
        """Settings of every training, in their order."""
        trainings = [each for order in self.orders for each in order.get("trainings", [])]
        return [each["settings"]["train_classifier"] for each in trainings]

    def start(self, order: Mapping[str, Any]) -> None:
        self.orders.append(order)
        self._said, self._heard = queue.Queue(), queue.Queue()
        self._thread = threading.Thread(target=self._run, args=(order,), daemon=True)
        self._thread.start()

    def receive(self, timeout_s: float) -> Message | None:
        try:
            message = self._said.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if "end" in message:
            self._thread = None
        return message

    def answer(self, *, go: bool) -> None:
        self._heard.put(go)

    def stop(self) -> None:
        self._heard.put(None)
        while self._thread is not None:
            self.receive(1)

    def close(self) -> None: ...

    def _run(self, order: Mapping[str, Any]) -> None:
        metric, code = order.get("metric"), 0

        def listen(values: Mapping[str, float], step: int | None) -> None:
            if not self._ask({"epoch": {metric: values[metric]}, "step": step}):
                raise Pruned(f"in epoch {step}")

        try:
            outputs: Mapping[str, str] = {}
            for each in order.get("trainings", []):
                result = self._train(each["settings"]["train_classifier"], listen)
                outputs = result.outputs
                if not self._ask({"training": result.metrics}):
                    raise Pruned("after a training")
            self._said.put({"done": dict(outputs)})
        except Pruned as reason:
            self._said.put({"pruned": str(reason)})
        except MammoError as error:
            self._said.put({"failed": str(error)})
        except MemoryError:
            self._said.put({"failed": "out of memory", "memory": "train_classifier"})
        except Crash as crash:
            code = crash.code
        except Stopped:
            self._said.put({"stopped": 15})
        self._said.put({"end": code})

    def _ask(self, message: Message) -> bool:
        self._said.put(message)
        answer = self._heard.get()
        if answer is None:
            raise Stopped
        return answer
