"""`mammo trial`: trains what a worker says on stdin, each trial in a process of its own.

What a training needs is imported once; a trial is a fork, so that an error of the GPU, memory that
ran out or a segmentation fault ends it alone. mammo/search/trial.py tells what is said.
"""

import json
import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from math import isfinite, nan
from pathlib import Path
from statistics import mean
from typing import Any

from mammo import driver
from mammo.cli import guarded
from mammo.commands import call
from mammo.errors import MammoError
from mammo.run import Pruned, Result, Run, Stopped
from mammo.search.objective import OF_GENERATOR

# imported once for all trials: what each would spend its first seconds on
PRELOADED = (
    "mammo.classifiers.experiment",
    "mammo.classifiers.train",
    "mammo.steps.train_classifier",
    "mammo.tracking",
    "lightning.pytorch.loggers",
    "matplotlib.pyplot",
    "pandas",
    "sklearn.metrics",
    "timm.models",
    "torchmetrics",
    "torch.utils.data",
)
GENERATOR, SAMPLE, TRAINING = "train_generator", "sample", "train_classifier"
PATIENCE_S = 60.0  # that a trial has to save its state when its worker is gone
_POLL_S = 0.1


def command(arguments: Sequence[str]) -> int:
    return call("trial", trial, arguments)


def trial() -> int:
    """Train the trials that a worker sends on stdin, one after the other, until it is gone."""
    talk = Talk(os.dup(0), os.dup(1))
    os.dup2(2, 1)  # what a library prints is no message
    _prepare()
    told: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: told.append(number))
    for order in talk.orders():
        child = os.fork()
        if not child:
            work = partial(_bury, order) if "bury" in order else partial(_carry_out, talk, order)
            _leave(work)
        talk.say(process=child)
        talk.say(end=_end(child, talk, told))
        if told:
            break
    os._exit(0)  # nothing is open here, and what was imported takes its time to go


def _prepare() -> None:
    """Do once what is the same for all trials, and starts no thread and opens nothing."""
    for name in PRELOADED:
        import_module(name)
    from mammo.tracking import preload

    preload()
    driver.code_digest()


class Talk:
    """Two pipes to the worker, which the process of a trial uses while it lives."""

    def __init__(self, heard: int, said: int) -> None:
        self._heard, self._said = heard, said

    def say(self, **message: Any) -> None:
        with suppress(BrokenPipeError):  # the worker is gone, which is noticed elsewhere
            os.write(self._said, json.dumps(message).encode() + b"\n")

    def hear(self) -> dict[str, Any] | None:
        """The next line, byte by byte: what follows may be another process's. None at the end."""
        line = b""
        while not line.endswith(b"\n"):
            got = os.read(self._heard, 1)
            if not got:
                return None
            line += got
        found: dict[str, Any] = json.loads(line)
        return found

    def orders(self) -> Iterator[dict[str, Any]]:
        """What is to be trained, until the worker is gone.

        A trial may have died between its report and the answer, which is left in the pipe.
        """
        while (said := self.hear()) is not None:
            if "go" not in said:
                yield said

    def ask(self, **message: Any) -> bool:
        """Report, and hear whether to go on."""
        self.say(**message)
        answer = self.hear()
        if answer is None:
            raise Stopped(signal.SIGTERM)
        return bool(answer["go"])

    @property
    def is_alone(self) -> bool:
        """Whether the worker is gone."""
        poll = select.poll()
        poll.register(self._heard, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))


def _leave(work: Callable[[], int]) -> None:
    """Do the work of a fork, and end it, whatever happens, without what the first process does."""
    code = 1
    try:
        code = guarded("trial", work)
    except BaseException:  # noqa: BLE001 - a fork must never go on in its parent's place
        traceback.print_exc()
    finally:
        os._exit(code)


def _end(child: int, talk: Talk, told: list[int]) -> int:
    """The exit code of a trial, minus the signal that ended it; it is told to stop as we are."""
    kill_at = 0.0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if not kill_at and (told or talk.is_alone):
            os.kill(child, signal.SIGTERM)
            kill_at = time.monotonic() + PATIENCE_S
        elif kill_at and time.monotonic() > kill_at:
            os.kill(child, signal.SIGKILL)
        time.sleep(_POLL_S)


def _carry_out(talk: Talk, order: Mapping[str, Any]) -> int:
    """Train one trial and tell how it ended."""
    threading.Thread(target=_stop_alone, args=(talk,), daemon=True).start()
    doing = [TRAINING]  # the step that goes on is the last
    try:
        talk.say(done=_tracked(talk, order, doing))
    except Pruned as reason:
        talk.say(pruned=str(reason))
    except Stopped as stopped:
        talk.say(stopped=stopped.signal)
        raise
    except MammoError as error:
        talk.say(failed=" ".join(str(error).split()))
        raise
    except Exception as error:
        from mammo.tracking import ending

        talk.say(failed=ending.reason(error), memory=doing[-1] if _is_memory(error) else "")
        raise
    return 0


def _stop_alone(talk: Talk) -> None:
    """End this process as a signal would once its worker is gone, whose trial another takes."""
    while not talk.is_alone:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out, the device's or the machine's."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "out of memory" in str(error).lower())


def _tracked(talk: Talk, order: Mapping[str, Any], doing: list[str]) -> dict[str, str]:
    """Train a trial in child runs of the study's; returns what it hands on."""
    from mammo.tracking import Branch, Tracking, store_in_plain_words

    name, work = order["name"], Path(order["work"])
    with store_in_plain_words(), Tracking(work, offline=order["offline"]) as tracking:
        launcher = partial(
            driver.launch,
            reuse=order["reuse"],
            patient=True,
            opened=lambda run_id: talk.say(run=run_id),
        )
        folder = Path(order["folder"])
        parent = Branch(tracking, order["run_id"], folder, work, launcher=launcher)
        trainings = order["trainings"]
        if len(trainings) == 1 and list(trainings[0]["settings"]) == [TRAINING]:
            result = _training(parent, talk, order, trainings[0], doing, name)
            outputs = result.outputs
        else:
            with parent.child(name, TRAINING, order["chosen"]) as run:
                talk.say(run=run.id)
                outputs = _several(run, talk, order, doing)
        tracking.settle()
    return dict(outputs)


def _several(run: Run, talk: Talk, order: Mapping[str, Any], doing: list[str]) -> dict[str, str]:
    """Train each fold and seed of a trial; its run has their means."""
    results: list[Result] = []
    for each in order["trainings"]:
        results.append(_training(run, talk, order, each, doing, each["name"]))
        metric = f"best/{order['metric']}"
        value = results[-1].metrics.get(metric, nan)
        run.metrics({f"each/{metric}": value}, step=len(results) - 1)
    first, *rest = (each.metrics for each in results)
    shared = [name for name in first if all(name in other for other in rest)]
    means = {name: mean(each.metrics[name] for each in results) for name in shared}
    run.metrics({name: value for name, value in means.items() if isfinite(value)})
    made = results[0].outputs.items()  # each its own model, but perhaps the same images
    return {name: uri for name, uri in made if all(uri == o.outputs.get(name) for o in results)}


def _training(
    run: Run,
    talk: Talk,
    order: Mapping[str, Any],
    training: Mapping[str, Any],
    doing: list[str],
    name: str,
) -> Result:
    """One training, after the generator and the images that it needs."""
    steps, metric = training["settings"], order["metric"]
    given = dict(steps[TRAINING])

    seen: dict[str, float] = {}

    def listen(values: Mapping[str, float], step: int | None) -> None:
        seen.update({name: float(value) for name, value in values.items()})
        if metric in values and step is not None:
            value = float(values[metric])
            # trainings count their epochs from 1, pruners from 0
            if not talk.ask(epoch={metric: value}, step=step - 1):
                raise Pruned(f"{metric} {value:.4f} in epoch {step}")

    made: dict[str, str] = {}  # the best settings name it
    if GENERATOR in steps:
        doing.append(GENERATOR)
        trained = run.launch(GENERATOR, steps[GENERATOR])
        made["generator"] = trained.outputs["model"]
        seen.update({OF_GENERATOR + name: value for name, value in trained.metrics.items()})
    if SAMPLE in steps:
        doing.append(SAMPLE)
        drawn = run.launch(SAMPLE, {**steps[SAMPLE], **made})
        given["synthetic"] = made["synthetic"] = drawn.outputs["dataset"]
    doing.append(TRAINING)
    result = run.launch(TRAINING, given, name=name, listener=listen)
    if not talk.ask(training={**seen, **result.metrics}):
        raise Pruned(f"{metric} after {name}")
    return replace(result, outputs={**result.outputs, **made})


def _bury(order: Mapping[str, Any]) -> int:
    """End the runs of a trial whose process was gone without a word."""
    from mammo.tracking import Tracking, store_in_plain_words

    with (
        store_in_plain_words(),
        Tracking(Path(order["work"]), offline=order["offline"]) as tracking,
    ):
        for run_id in order["bury"]:
            if tracking.is_open(run_id):
                tracking.claim(run_id)
                tracking.set_status(run_id, "FAILED", error=order["error"])
    return 0
