"""Load on the tracking server: many clients at once, and many runs to list.

    python benchmarks/server_load.py [--clients 50] [--seconds 120] [--runs 5000]

The server is tracking_server/start.py on a real PostgreSQL and MinIO, with the workers that the
compose file gives it. Each client is a process with a run of its own and logs ten metrics a second,
through mammo, through plain calls of MLflow, and through Lightning's MLFlowLogger, one after the
other. Told are the rows that are in the database, the errors, how long a call held its client, and
the memory of the server's processes.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from typing import Any

import mlflow
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import servers

RATE = 10  # metrics a second and client
THREADS = 4  # that make the runs to be listed
COLUMNS = (
    "side",
    "rows",
    "logged",
    "planned",
    "seconds",
    "call, median",
    "99 %",
    "longest",
    "errors",
    "server",
)
Log = Callable[[str, float, int], None]


@dataclass
class Load:
    """What one side did."""

    rows: int = 0  # in the database
    wrong: int = 0  # of these, without the value that was logged, or there twice
    planned: int = 0
    seconds: float = 0.0  # until all clients were done, what they still had to send included
    calls_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    memory_mb: float = 0.0  # highest of all processes of the server together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--metrics", type=int, default=50, help="of each of the listed runs")
    asked = parser.parse_args()
    try:
        measure(asked)
    except servers.Absent as absent:
        print(f"not measured: {absent}")


def measure(asked: argparse.Namespace) -> None:
    """Print the table of all sides, then the times of listing."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with (
            servers.running_postgres() as postgres,
            servers.running_minio(folder / "minio") as minio,
            servers.running_mlflow(
                folder / "mlflow", postgres, minio, MLFLOW_WORKERS="2"
            ) as server,
        ):
            os.environ["MLFLOW_TRACKING_URI"] = server.url
            os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
            print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
            for side in asked.sides.split(","):
                found = loaded(side, server, folder, clients=asked.clients, seconds=asked.seconds)
                print(line(side, found), flush=True)
            if not asked.runs:
                return
            made = make_runs(server, runs=asked.runs, metrics=asked.metrics)
            print(f"{asked.runs} runs of {asked.metrics} metrics made in {made.seconds:.0f} s")
            for name in QUESTIONS:
                times = [listed(server, made, name) for _ in range(3)]
                median = np.median([seconds for seconds, _ in times])
                print(f"{name}: {median:.2f} s ({len(times[0][1])} runs)", flush=True)


def loaded(
    side: str, server: servers.TrackingServer, folder: Path, *, clients: int, seconds: int
) -> Load:
    """Let `clients` processes log for `seconds` through `side`, and look at what arrived."""
    experiment = f"load-{side}-{time.time_ns()}"
    mlflow.MlflowClient(server.url).create_experiment(experiment)  # Lightning's 50 would collide
    load = Load(planned=clients * seconds * RATE)
    processes = multiprocessing.get_context("forkserver")  # clients share the imported packages
    processes.set_forkserver_preload(["mlflow", "lightning.pytorch.loggers", "mammo.tracking"])
    with Memory(server.port) as memory:
        told: Any = processes.SimpleQueue()
        ready = processes.Barrier(clients + 1)
        workers = [
            processes.Process(
                target=client,
                args=(side, number, server.url, folder, experiment, seconds, ready, told),
            )
            for number in range(clients)
        ]
        for each in workers:
            each.start()
        ready.wait(timeout=600)
        start = time.perf_counter()
        for _ in workers:
            calls, error = told.get()
            load.calls_ms += calls
            load.errors += [error] if error else []
        load.seconds = time.perf_counter() - start
        for each in workers:
            each.join()
    load.memory_mb = memory.highest_mb
    query = (
        " FROM metrics JOIN runs USING (run_uuid) JOIN experiments ON"
        " runs.experiment_id = experiments.experiment_id WHERE experiments.name = %s"
        " AND metrics.key LIKE 'load/%%'"
    )
    load.rows = server.postgres.query(f"SELECT count(*){query}", experiment)[0][0]
    # a client logs its step as the value, under one name
    right = f"SELECT count(DISTINCT (run_uuid, step)){query} AND value = step"
    right += " AND metrics.key = 'load/' || step %% %s"
    load.wrong = load.rows - server.postgres.query(right, experiment, RATE)[0][0]
    return load


def client(
    side: str,
    number: int,
    url: str,
    folder: Path,
    experiment: str,
    seconds: int,
    ready: Any,
    told: Any,
) -> None:
    """One client: a value every tenth of a second, as a training loop would log it."""
    calls: list[float] = []
    os.environ |= {"MLFLOW_TRACKING_URI": url, "MLFLOW_EXPERIMENT_NAME": experiment}
    try:
        log, close = SIDES[side](number, folder / f"{side}-{number}")
        ready.wait(timeout=600)
        start = time.perf_counter()
        for step in range(seconds * RATE):
            behind = time.perf_counter()
            if behind - start > seconds:  # the server was too slow: what is left is not logged
                break
            log(f"load/{step % RATE}", float(step), step)
            after = time.perf_counter()
            calls.append(1000 * (after - behind))
            time.sleep(max(0.0, start + (step + 1) / RATE - after))
        close()
        told.put((calls, ""))
    except Exception as error:  # noqa: BLE001  told to the parent
        ready.abort()
        told.put((calls, f"{type(error).__name__}: {str(error)[:200]}"))


def through_mammo(number: int, folder: Path) -> tuple[Log, Callable[[], None]]:
    from mammo.tracking import TrackedRun, Tracking, closing

    tracking = Tracking(folder)
    run_id = tracking.create_run(f"client {number}", "load")
    run = TrackedRun(tracking, run_id, folder=folder / "run", work=folder, inputs={})
    block = closing(tracking, run_id)
    block.__enter__()

    def close() -> None:
        block.__exit__(None, None, None)
        tracking.close(300)

    return lambda name, value, step: run.metrics({name: value}, step), close


def through_mlflow(number: int, folder: Path) -> tuple[Log, Callable[[], None]]:
    mlflow.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])
    mlflow.start_run(run_name=f"client {number}")
    return lambda name, value, step: mlflow.log_metric(name, value, step=step), mlflow.end_run


def through_lightning(number: int, folder: Path) -> tuple[Log, Callable[[], None]]:
    from lightning.pytorch.loggers import MLFlowLogger

    logger = MLFlowLogger(
        os.environ["MLFLOW_EXPERIMENT_NAME"],
        run_name=f"client {number}",
        tracking_uri=os.environ["MLFLOW_TRACKING_URI"],
    )
    logger.experiment  # noqa: B018  opens the run
    return (
        lambda name, value, step: logger.log_metrics({name: value}, step),
        lambda: logger.finalize("success"),
    )


SIDES: dict[str, Callable[[int, Path], tuple[Log, Callable[[], None]]]] = {
    "mammo": through_mammo,
    "mlflow": through_mlflow,
    "lightning": through_lightning,
}


class Memory:
    """Highest memory (PSS, in MiB) of the processes of the server at a port, once a second."""

    def __init__(self, port: int) -> None:
        self.highest_mb = 0.0
        self._port, self._ended = port, Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        wanted = str(self._port)
        (server,) = (
            each
            for each in psutil.process_iter(["environ", "cmdline"])
            if (each.info["environ"] or {}).get("MLFLOW_PORT") == wanted
            and each.info["cmdline"]
            and any(word.endswith("mlflow") for word in each.info["cmdline"][:2])
        )
        while not self._ended.wait(1.0):
            held = 0
            for each in [server, *server.children(recursive=True)]:
                try:
                    held += each.memory_full_info().pss
                except psutil.NoSuchProcess:
                    continue
            self.highest_mb = max(self.highest_mb, held / 2**20)


@dataclass(frozen=True)
class Made:
    """Runs that were made to be listed: `values` (runs, metrics), and the parameter `parity`."""

    experiment: str
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]]
    seconds: float

    @property
    def odd(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.arange(len(self.values)) % 2 == 1


def make_runs(server: servers.TrackingServer, *, runs: int, metrics: int) -> Made:
    """Make runs through the API: two calls each, without what MLflow's client does around them."""
    experiment = mlflow.MlflowClient(server.url).create_experiment(f"listed-{time.time_ns()}")
    values = np.random.default_rng(0).random((runs, metrics))

    def make(numbers: range) -> None:
        with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as line:
            for number in numbers:
                made = post(line, "runs/create", experiment_id=experiment, run_name=f"run {number}")
                run_id = made["run"]["info"]["run_id"]
                rows = [
                    {"key": f"m{each}", "value": value, "timestamp": 0, "step": 0}
                    for each, value in enumerate(values[number].tolist())
                ]
                params = [{"key": "parity", "value": str(number % 2)}]
                post(line, "runs/log-batch", run_id=run_id, metrics=rows, params=params)

    start = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(make, [range(first, runs, THREADS) for first in range(THREADS)]))
    return Made(experiment, values, time.perf_counter() - start)


def post(line: HTTPConnection, path: str, **content: Any) -> Any:
    """The answer to a request of MLflow's API, on a connection that stays open."""
    sent = {"Content-Type": "application/json"}
    line.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(content), sent)
    answer = line.getresponse()
    told = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {told[:200]!r}")
    return json.loads(told)


# What is asked of the runs: a filter, an order, and how many are wanted (0: all).
QUESTIONS: dict[str, tuple[str, list[str], int]] = {
    "the first 100": ("", [], 100),
    "the 100 best by a metric": ("", ["metrics.m0 DESC"], 100),
    "100 with a metric above 0.5 and a parameter": (
        "metrics.m1 > 0.5 and params.parity = '1'", [], 100,
    ),
    "all of them": ("", [], 0),
}  # fmt: skip


def listed(server: servers.TrackingServer, made: Made, name: str) -> tuple[float, list[Any]]:
    """Seconds of asking one of the QUESTIONS, page by page, and the runs that came."""
    query, order, wanted = QUESTIONS[name]
    calls, most = mlflow.MlflowClient(server.url), wanted or len(made.values)
    start, found, token = time.perf_counter(), [], None
    while len(found) < most:
        page = calls.search_runs(
            [made.experiment], query, max_results=min(most, 1000), order_by=order, page_token=token
        )
        found, token = [*found, *page], page.token
        if not token:
            break
    return time.perf_counter() - start, found


def line(side: str, load: Load) -> str:
    """A row of the table; calls in milliseconds."""
    calls = np.array(load.calls_ms or [0.0])
    middle, late = np.percentile(calls, [50, 99])
    told = f"{len(load.errors)}" + (f" ({json.dumps(load.errors[0])})" if load.errors else "")
    counts = f"{load.rows} | {len(load.calls_ms)} | {load.planned} | {load.seconds:.0f}"
    times = f"{middle:.3f} ms | {late:.2f} ms | {calls.max():.0f} ms"
    return f"| {side} | {counts} | {times} | {told} | {load.memory_mb:.0f} MiB |"


if __name__ == "__main__":
    main()
