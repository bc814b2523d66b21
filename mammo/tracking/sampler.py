"""How busy the machine is while a run lasts: processor, memory, disk and GPUs, every few seconds.

MLflow's own monitor asks the server for the run at every sample and writes to it directly, past
what keeps an outage from a training; this one hands its numbers to the run, under MLflow's names.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlflow.exceptions import MlflowException

from mammo.errors import ConfigError, MammoError
from mammo.run import Run
from mammo.tracking.nvidia import opened

LOG = logging.getLogger("mammo")
EVERY_S = 30.0  # ten numbers at each: a day is 29,000, MLflow's own 10 s would be 86,000
SWITCH = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
KEPT = "system_samples"  # file in the run's folder: a run that is gone on with counts on


@contextmanager
def sampled(run: Run) -> Iterator[None]:
    """Log `system/...` metrics of the machine to `run` while the block lasts.

    MLflow's variables decide: `MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false` switches it off,
    `MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL` is the seconds between two samples. The first comes
    after one interval, so a short run has none.
    """
    every_s = interval_s(os.environ)
    if not every_s:
        yield
        return
    stop = threading.Event()
    work = (run.metrics, run.folder, every_s, stop)
    thread = threading.Thread(target=_sample, args=work, daemon=True, name="mammo-system")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)  # a GPU that fell off may never answer its driver


def interval_s(environment: Mapping[str, str]) -> float:
    """Seconds between two samples, 0 for none; ConfigError for what is no number of seconds."""
    if environment.get(SWITCH, "true").lower() in ("false", "0"):
        return 0.0
    text = environment.get(INTERVAL, "") or str(EVERY_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{INTERVAL} {text!r} is no number of seconds above 0")
    return seconds


def readings(folder: Path) -> dict[str, float]:
    """What the machine is at now; the disk is the one of `folder`."""
    import psutil  # type: ignore[import-untyped]  # ships no types

    memory, disk, own = psutil.virtual_memory(), psutil.disk_usage(str(folder)), psutil.Process()
    found = {
        "cpu_utilization_percentage": psutil.cpu_percent(),  # since the last call
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": 100 * memory.used / memory.total,
        "process_memory_megabytes": own.memory_info().rss / 1e6,
        "disk_usage_percentage": disk.percent,
        "disk_usage_megabytes": disk.used / 1e6,
        "disk_available_megabytes": disk.free / 1e6,
    }
    gpus = opened()
    found |= gpus.readings() if gpus else {}
    return {f"system/{name}": round(value, 1) for name, value in found.items()}


def _sample(
    log: Callable[[Mapping[str, float], int], None],
    folder: Path,
    every_s: float,
    stop: threading.Event,
) -> None:
    """Take samples until told to stop; numbers that cannot be kept end them, not the run."""
    import psutil

    kept = folder / KEPT
    try:
        number = int(kept.read_text() or 0) if kept.is_file() else 0  # empty: a kill cut it off
        readings(folder)  # the load is told from one call to the next
        while not stop.wait(every_s):
            log(readings(folder), number)
            number += 1
            kept.write_text(str(number))
    except (OSError, ValueError, psutil.Error, MammoError, MlflowException) as error:
        LOG.warning("no more system metrics: %s", error)
