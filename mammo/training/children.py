"""Runs of one parent in processes of their own, whose logging the parent does for them."""

import logging
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mammo.errors import ConfigError
from mammo.run import Run, SilentRun, Stopped
from mammo.training.processes import end_with_parent

_DONE, _FAILED = "done", "failed"


@dataclass(frozen=True)
class Task:
    """Work of one child run: `work(run, slot)` is pickled; two at once never have one slot."""

    open: Callable[[], AbstractContextManager[Run]]
    work: Callable[[Run, int], Any]


@dataclass
class _Child:
    number: int
    slot: int
    run: Run
    stack: ExitStack  # closes the run
    process: BaseProcess
    pipe: Connection


def in_processes(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[int, Run, Any]]:
    """Do `tasks`, `jobs` at a time; yields number, run and result of each as it ends.

    The run is open while the result is yielded and ends FINISHED after it. When one fails, or this
    process is told to stop, all others are ended too; they can be continued.
    """
    left, running = list(enumerate(tasks)), list[_Child]()
    threads = max(1, torch.get_num_threads() // jobs)
    try:
        while left or running:
            free = sorted({*range(jobs)} - {each.slot for each in running})
            while left and free:
                number, task = left.pop(0)
                running.append(_start(number, task, free.pop(0), threads))
            ready = wait([each.pipe for each in running])
            for child in [each for each in running if each.pipe in ready]:
                word, answer = _answered(child)
                if word == _FAILED:
                    running.remove(child)
                    _close(child, answer)
                    raise answer
                if word == _DONE:
                    running.remove(child)
                    child.process.join()
                    with child.stack:
                        yield child.number, child.run, answer
    except BaseException as error:
        for child in running:
            child.process.kill()
            own = isinstance(error, Stopped | KeyboardInterrupt)
            _close(child, error if own else Stopped(signal.SIGTERM))
        raise


def _start(number: int, task: Task, slot: int, threads: int) -> _Child:
    stack = ExitStack()
    run = stack.enter_context(task.open())
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    seen = (run.id, run.folder, run.work, dict(run.inputs))
    # no daemon: it may have processes of its own that read images
    process = context.Process(target=_work, args=(task.work, seen, slot, threads, theirs))
    child = _Child(number, slot, run, stack, process, ours)
    try:
        process.start()
    except BaseException as error:
        _close(child, error)
        raise
    theirs.close()
    return child


def _answered(child: _Child) -> tuple[str, Any]:
    """Take in one word of a child: log what it says, or hand on how it ended."""
    try:
        word, content = child.pipe.recv()
    except (EOFError, ConnectionResetError):
        child.process.join()
        return _FAILED, ConfigError(
            f"jobs: the system ended a process (exit code {child.process.exitcode}), most likely "
            "for lack of memory; use fewer jobs or a smaller batch_size"
        )
    if word not in (_DONE, _FAILED):
        getattr(child.run, word)(*content)
        child.pipe.send(None)
    return word, content


def _close(child: _Child, error: BaseException) -> None:
    """End the run of a child as `error` says."""
    child.process.join()
    child.stack.__exit__(type(error), error, error.__traceback__)


def _work(
    work: Callable[[Run, int], Any],
    seen: tuple[Any, ...],
    slot: int,
    threads: int,
    pipe: Connection,
) -> None:
    """Do `work` in this process; signals reach all of a terminal, and the parent decides."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    logging.getLogger("mammo").setLevel(logging.WARNING)  # the parent tells of the epochs
    torch.set_num_threads(threads)
    try:
        pipe.send((_DONE, work(Relayed(pipe, *seen), slot)))
    except Exception as error:  # noqa: BLE001  # raised again by the parent
        told = _sendable(error)
        told.add_note(f"in a process of its own:\n{traceback.format_exc()}")
        pipe.send((_FAILED, told))
        os._exit(1)


def _sendable(error: Exception) -> Exception:
    """`error`, or where it cannot travel between processes, its kind, words and place."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:  # noqa: BLE001  # of whatever kind: the error may be anybody's
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        return RuntimeError(f"{kind}: {error} ({last.filename}, line {last.lineno})")
    return error


class Relayed(SilentRun):
    """A run in a process of its own: what it logs, the parent logs, one thing after the other."""

    def __init__(self, pipe: Connection, *seen: Any) -> None:
        super().__init__(*seen)
        self._pipe = pipe

    def params(self, values: Mapping[str, Any]) -> None:
        self._tell("params", dict(values))

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self._tell("metrics", dict(values), step)

    def tags(self, values: Mapping[str, str]) -> None:
        self._tell("tags", dict(values))

    def image(self, key: str, image: NDArray[np.uint8], step: int) -> None:
        self._tell("image", key, image, step)

    def figure(self, name: str, figure: Any) -> None:
        self._tell("figure", name, figure)

    def table(self, name: str, frame: Any) -> None:
        self._tell("table", name, frame)

    def artifacts(self, path: Path, folder: str = "") -> None:
        self._tell("artifacts", path, folder)

    def model(self, folder: Path) -> None:
        self._tell("model", folder)

    def input(self, name: str, digest: str, rows: int, context: str) -> None:
        self._tell("input", name, digest, rows, context)

    def _tell(self, word: str, *content: Any) -> None:
        self._pipe.send((word, content))
        self._pipe.recv()  # a file may be changed again once it is uploaded
