"""What a sweep costs beside its trainings, on PostgreSQL: storage a trial, and workers at once.

    python benchmarks/sweep.py storage       # beside Optuna's own loop, both in one process
    python benchmarks/sweep.py efficiency --figure docs/images/sweep_efficiency.png

A trial is one of mammo without its training: four settings, five reports, a result. It needs
PostgreSQL's programs, and no other work on the machine.
"""

import argparse
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import optuna

from mammo.search.objective import read_objective
from mammo.search.plan import Plan
from mammo.search.space import Dimension, Space
from mammo.search.start import Start
from mammo.search.storage import open_storage
from mammo.search.study import found_study, join_study
from mammo.search.trial import Message
from mammo.search.worker import Worker

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from servers import running_postgres

EPOCHS = 5
SLEEP_S = 10.0
COUNTS = (1, 2, 4, 8, 16, 32)
EACH = 3  # trials of a worker
PLAN = Plan(
    space=Space(
        (
            Dimension("lr", low=0.0, high=1.0),
            Dimension("weight_decay", low=0.0, high=1.0),
            Dimension("loss", choices=("ce", "bce", "focal")),
            Dimension("batch_size", low=4, high=64, whole=True),
        )
    ),
    objective=read_objective("val/auc", seeds=(0,)),
    inputs={},
    settings={"train_classifier": {"lr": 0.5, "weight_decay": 0.0, "loss": "ce", "batch_size": 8}},
    search="random",
    pruner="none",
)


class Sleeping:
    """Trials that report and do nothing else but sleep, in the process of their worker."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._left: deque[Message] = deque()
        self._over = 0.0

    def start(self, order: Mapping[str, Any]) -> None:
        value = float(order["trainings"][0]["settings"]["train_classifier"]["lr"])
        self._left.extend({"epoch": {"val/auc": value}, "step": n} for n in range(EPOCHS))
        self._left += [{"training": {"best/val/auc": value}}, {"done": {}}, {"end": 0}]
        self._over = time.monotonic() + self._seconds

    def receive(self, timeout_s: float) -> Message | None:
        left = self._over - time.monotonic()
        if len(self._left) == 3 and left > 0:  # its epochs are over
            time.sleep(min(left, timeout_s))
            return None
        return self._left.popleft()

    def answer(self, *, go: bool) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


def storage(uri: str, *, trials: int, turns: int) -> None:
    """Milliseconds a trial of both sides, in turns."""
    sides = {"Optuna": _optuna, "mammo": _mammo}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns + 1):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            seconds = sides[name](uri, trials, f"{name} {turn}")
            if turn:  # the first one warms up
                found[name].append(1000 * seconds / trials)
    print(f"PostgreSQL, {trials} trials a turn, median of {turns} turns: ms a trial")
    for name, values in found.items():
        print(f"{name:10}{median(values):8.1f}   ({min(values):.1f} to {max(values):.1f})")
    ratios = [ours / raw for ours, raw in zip(found["mammo"], found["Optuna"], strict=True)]
    print(f"mammo / Optuna {median(ratios):.2f}")


def _optuna(uri: str, trials: int, name: str) -> float:
    """Optuna's own loop, with its heartbeats."""

    def train(trial: optuna.Trial) -> float:
        for each in PLAN.space:
            each.suggest(trial)
        for epoch in range(EPOCHS):
            trial.report(trial.params["lr"], epoch)
            trial.should_prune()
        return float(trial.params["lr"])

    kept = optuna.storages.RDBStorage(uri, heartbeat_interval=60)
    sampler, pruner = optuna.samplers.RandomSampler(seed=0), optuna.pruners.NopPruner()
    study = optuna.create_study(study_name=name, storage=kept, sampler=sampler, pruner=pruner)
    start = time.perf_counter()
    study.optimize(train, n_trials=trials)
    seconds = time.perf_counter() - start
    kept.engine.dispose()
    return seconds


def _mammo(uri: str, trials: int, name: str) -> float:
    """A worker, its queue filled within the time."""
    kept = open_storage(uri)
    start = time.perf_counter()
    study = found_study(name, kept, PLAN, n_trials=trials)
    Worker(study, PLAN, Start("parent", "folder", "work", {}), Sleeping()).work()
    seconds = time.perf_counter() - start
    kept.engine.dispose()
    return seconds


def efficiency(uri: str, figure: str) -> None:
    """Time of EACH trials a worker, beside EACH times a trial's sleep."""
    found = {}
    print(f"trials of {SLEEP_S:.0f} s, {EACH} a worker: seconds in all, share of linear")
    for count in COUNTS:
        seconds = _together(uri, count)
        found[count] = EACH * SLEEP_S / seconds
        print(f"{count:3} workers{seconds:8.2f} s{found[count]:8.1%}", flush=True)
    if figure:
        _draw(found, Path(figure))


def _together(uri: str, count: int) -> float:
    """Seconds from the first beginning of a trial to the last end, by workers that are all there."""
    name = f"{count} workers"
    study = found_study(name, open_storage(uri), PLAN, n_trials=count * EACH)
    words = [sys.executable, __file__, "worker", "--uri", uri, "--name", name]
    pipe = subprocess.PIPE
    workers = [
        subprocess.Popen([*words, "--number", str(number)], stdin=pipe, stdout=pipe, text=True)
        for number in range(count)
    ]
    for each in workers:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in workers:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in workers:
        assert each.wait() == 0
    trials = study.trials
    assert {each.state.name for each in trials} == {"COMPLETE"}, name
    begun = min(each.datetime_start for each in trials if each.datetime_start)
    ended = max(each.datetime_complete for each in trials if each.datetime_complete)
    study._storage._backend.engine.dispose()
    return float((ended - begun).total_seconds())


def worker(uri: str, name: str, number: int) -> None:
    """One of the workers, which waits until all are there."""
    study, plan = join_study(name, open_storage(uri), worker=number)
    print("ready", flush=True)
    sys.stdin.readline()
    Worker(study, plan, Start("parent", "folder", "work", {}), Sleeping(SLEEP_S)).work()


def _draw(found: Mapping[int, float], path: Path) -> None:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6, 3.4), layout="constrained")
    axes = drawn.subplots()
    axes.plot(list(found), list(found.values()), "o-", color="#1f6f8b")
    axes.axhline(0.9, color="#b45309", linewidth=1, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(found), [str(count) for count in found])
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("workers")
    axes.set_ylabel("share of linear")
    axes.set_title(f"{EACH} trials of {SLEEP_S:.0f} s a worker, one PostgreSQL", fontsize=10)
    drawn.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("storage", "efficiency", "worker"))
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--figure", default="")
    parser.add_argument("--uri", default="", help="of a database; by default one is started")
    parser.add_argument("--name", default="", help="of the study of a worker")
    parser.add_argument("--number", type=int, default=0, help="of a worker")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if asked.what == "worker":
        worker(asked.uri, asked.name, asked.number)
        return
    with running_postgres() as server:
        if asked.what == "storage":
            storage(asked.uri or server.uri, trials=asked.trials, turns=asked.turns)
        else:
            efficiency(asked.uri or server.uri, asked.figure)


if __name__ == "__main__":
    main()
