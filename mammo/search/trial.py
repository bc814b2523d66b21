"""A worker's hold on the process that trains its trials: what is said over two pipes, and its end.

Messages are lines of JSON. The worker sends an order, and an answer to each report:

    {"name": "trial_7", "trainings": [{"name": ..., "settings": {step: {...}}}], ...}
    {"go": true}, or false for a trial that is to end early

The process sends, in this order:

    {"run": id}                        a run in MLflow is open
    {"epoch": {...}, "step": 3}        metrics of an epoch; waits for an answer
    {"training": {...}}                what one training measured; waits for an answer
    {"done": {...}}, {"pruned": text}, {"failed": text, "memory": step} or {"stopped": signal}
    {"end": code}                      the exit code, or minus the signal that ended it
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

PATIENCE_S = 60.0  # that a trial has to save its state
Message = dict[str, Any]


class Trials(Protocol):
    """Something that carries out one trial after the other."""

    def start(self, order: Mapping[str, Any]) -> None: ...

    def receive(self, timeout_s: float) -> Message | None:
        """The next message of the trial; None where none comes in time. The last one is an end."""

    def answer(self, *, go: bool) -> None: ...

    def stop(self) -> None:
        """Have the trial save its state and end, and wait for that."""

    def close(self) -> None: ...


class TrialProcess:
    """Trials in a process each, all children of one that has imported what they need."""

    def __init__(self, program: tuple[str, ...] = (sys.executable, "-m", "mammo", "trial")) -> None:
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""  # of a line that has come in part
        self._child = 0  # process of the trial that goes on
        self._busy = False  # from an order until its end

    def start(self, order: Mapping[str, Any]) -> None:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            self._rest = b""
            # its own output goes where that of the worker goes
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(self._program, stdin=pipe, stdout=pipe, bufsize=0)
        self._busy = True
        self._send(order)

    def receive(self, timeout_s: float) -> Message | None:
        assert self._process is not None and self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                return None
            got = os.read(self._process.stdout.fileno(), 65536)
            if not got:  # with it went the trial, or will
                self._child, self._busy = 0, False
                return {"end": self._process.wait()}
            self._rest += got
        line, _, self._rest = self._rest.partition(b"\n")
        message: Message = json.loads(line)
        self._child = int(message.get("process", self._child))
        if "end" in message:
            self._child, self._busy = 0, False
        return message

    def answer(self, *, go: bool) -> None:
        self._send({"go": go})

    def stop(self) -> None:
        if self._process is None or not self._busy:
            return
        self._process.send_signal(signal.SIGTERM)  # it hands that on to the trial
        deadline = time.monotonic() + PATIENCE_S
        while self._busy and time.monotonic() < deadline:
            self.receive(0.5)
        if self._child:
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
        if self._busy:
            self._busy = False
            self._process.kill()
        self.close()  # it takes no further order

    def close(self) -> None:
        """End the process that the trials come from, once the last of them has ended."""
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.wait()

    def _send(self, said: Mapping[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        with suppress(BrokenPipeError):  # `receive` tells of its end
            self._process.stdin.write(json.dumps(said).encode() + b"\n")
