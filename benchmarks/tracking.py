"""What logging at every training step costs: mammo's journal against Lightning's MLFlowLogger.

Both log the same five metrics to the same real server (PostgreSQL, MinIO, MLflow on loopback)
after each of the same steps of work. Printed are the times that a step waits for its logging, and
what the sender's thread takes beside it.

    python benchmarks/tracking.py
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

STEP_S = 0.05  # of training
STEPS, TURN = 400, 100
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

Log = Callable[[Mapping[str, float], int], None]


def main() -> None:
    import servers

    try:
        with (
            tempfile.TemporaryDirectory() as scratch,
            servers.running_postgres() as postgres,
            servers.running_minio(Path(scratch) / "minio") as minio,
            servers.running_mlflow(Path(scratch) / "mlflow", postgres, minio) as server,
        ):
            os.environ["MLFLOW_TRACKING_URI"] = server.url
            report(*measure(server.url, Path(scratch)))
    except servers.Absent as absent:
        print(f"not measured: {absent}")


def measure(url: str, folder: Path) -> tuple[list[float], float, list[float]]:
    """Seconds of each call of mammo, of its thread a step, and of each call of Lightning's logger.

    They take turns of 100 steps, so that both meet the same machine.
    """
    from lightning.pytorch.loggers import MLFlowLogger

    from mammo.tracking import TrackedRun, Tracking

    lightning = MLFlowLogger("benchmark", tracking_uri=url)
    ours, beside, theirs = list[float](), 0.0, list[float]()
    with Tracking(folder) as tracking:
        run_id = tracking.create_run("benchmark", "train_classifier")
        run = TrackedRun(tracking, run_id, folder=folder / "run", work=folder, inputs={})
        _, _ = steps(run.metrics, 0, 5), steps(lightning.log_metrics, 0, 5)  # warm-up
        tracking.outbox.flush(60)
        for turn in range(STEPS // TURN):
            took, other = steps(run.metrics, 5 + TURN * turn, TURN)
            ours += took
            beside += other
            tracking.outbox.flush(60)  # none of it falls into the other's turn
            theirs += steps(lightning.log_metrics, 5 + TURN * turn, TURN)[0]
        tracking.set_status(run_id, "FINISHED")
    lightning.finalize("success")
    return ours, beside / STEPS, theirs


def steps(log: Log, first: int, count: int) -> tuple[list[float], float]:
    """Seconds of each call of `log`, and CPU seconds of all other threads meanwhile."""
    took = []
    process, thread = time.process_time(), time.thread_time()
    for step in range(first, first + count):
        until = time.perf_counter() + STEP_S
        while time.perf_counter() < until:  # the work, which holds the interpreter
            sum(range(1000))
        values = {f"train/loss_{number}": 1 / (step + number + 1) for number in range(5)}
        start = time.perf_counter()
        log(values, step)
        took.append(time.perf_counter() - start)
    return took, (time.process_time() - process) - (time.thread_time() - thread)


def report(ours: list[float], beside: float, theirs: list[float]) -> None:
    mean, other = statistics.mean(ours), statistics.mean(theirs)
    print(f"{STEPS} steps of {STEP_S * 1000:.0f} ms, 5 metrics at each, seconds a step")
    for name, value in (
        ("mammo, a step waits", mean),
        ("mammo, half the steps wait at most", statistics.median(ours)),
        ("mammo, the longest wait", max(ours)),
        ("mammo, the sender's thread beside it", beside),
        ("Lightning's MLFlowLogger, a step waits", other),
    ):
        print(f"{name:42} {value:.6f}   {100 * value / STEP_S:8.3f} % of the step")
    print(f"MLFlowLogger / mammo, waiting alone = {other / mean:.0f}")
    print(f"MLFlowLogger / mammo, with the thread = {other / (mean + beside):.1f}")


if __name__ == "__main__":
    main()
