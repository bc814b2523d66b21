"""Spreads tasks over processes that share nothing, and that end when their parent does."""

import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterable
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from mammo.errors import ConfigError

Task = TypeVar("Task")
Done = TypeVar("Done")


def cores() -> int:
    """Cores that this process may use."""
    if "SLURM_CPUS_PER_TASK" in os.environ:  # not every cluster binds a job to its cores
        return int(os.environ["SLURM_CPUS_PER_TASK"])
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def spread(
    work: Callable[[Task], Done], tasks: Iterable[Task], *, workers: int
) -> Generator[Done, None, None]:
    """Yield `work(task)` for each of `tasks` as they come to an end, on `workers` processes.

    `tasks` is read one task at a time, when a process is free. One worker is this very process.
    `work` travels to each process once, a task once, and what a task raises is raised here.
    """
    if workers <= 1:
        yield from map(work, tasks)
        return
    todo = iter(tasks)
    # spawned, not forked: the parent may hold threads of MLflow and torch
    context = get_context("spawn")
    busy: dict[Connection, BaseProcess] = {}
    try:
        for task in todo:
            if len(busy) == workers:
                free, done = _first_done(busy, workers)
                yield done
            else:
                free, theirs = context.Pipe()
                busy[free] = context.Process(target=_serve, args=(work, theirs), daemon=True)
                busy[free].start()
                theirs.close()  # or the end of the process would not be seen
            free.send(task)
        while busy:
            free, done = _first_done(busy, workers)
            free.close()  # the process ends of itself
            busy.pop(free).join()
            yield done
    finally:
        for process in busy.values():
            process.kill()
            process.join()


def _first_done(busy: dict[Connection, BaseProcess], workers: int) -> tuple[Connection, Any]:
    """A process that is free again, and what it has done."""
    ready = wait(list(busy))[0]
    assert isinstance(ready, Connection)
    try:
        done, error = ready.recv()
    except (EOFError, ConnectionResetError):
        process = busy.pop(ready)
        process.join()
        raise ConfigError(
            f"workers {workers}: the system ended a process (exit code {process.exitcode}), most "
            "likely for lack of memory; the same command with fewer workers goes on where this "
            "one stopped"
        ) from None
    if error is not None:
        raise error
    return ready, done


def _serve(work: Callable[[Any], Any], pipe: Connection) -> None:
    """Work until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        answer: tuple[Any, Exception | None]
        try:
            answer = work(task), None
        except Exception as error:  # noqa: BLE001  # raised again by the parent
            error.add_note(f"in a process of its own:\n{traceback.format_exc()}")
            answer = None, error
        pipe.send(answer)


def _end_with_parent() -> None:
    """A killed parent tells nobody; without this a worker would write on beside its successor."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
