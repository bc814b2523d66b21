"""How much memory a piece of work takes, and how much there is, on a GPU or in this machine."""

import contextlib
import gc
import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

from mammo.errors import ConfigError

_STATUS, _MEMORY = Path("/proc/self/status"), Path("/proc/meminfo")
_LIMITS = Path("/sys/fs/cgroup")  # of a container


class Memory(Protocol):
    """Memory of one kind of device; all in bytes."""

    room: float  # free when it was made

    def peak_of(self, work: Callable[[], None]) -> float:
        """The most that `work` took at a time, over what was taken before; inf: not enough."""


def memory_of(device: torch.device) -> Memory:
    """The memory that training on `device` takes."""
    return GpuMemory(device) if device.type == "cuda" else MachineMemory()


class GpuMemory:
    """Memory of one GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.room = float(torch.cuda.mem_get_info(device)[0])

    def peak_of(self, work: Callable[[], None]) -> float:
        gc.collect()  # a trainer and its module refer to each other
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        try:
            work()
            return float(torch.cuda.max_memory_allocated(self._device) - before)
        except torch.cuda.OutOfMemoryError:
            return math.inf


class MachineMemory:
    """Resident memory of this process, and what the machine or its container has left."""

    def __init__(self) -> None:
        if not _MEMORY.exists():
            raise ConfigError(
                "find_batch_size on a CPU reads Linux's /proc, which is not here; give batch_size"
            )
        free = _kibibytes(_MEMORY, "MemAvailable")
        with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit
            limit = int((_LIMITS / "memory.max").read_text())
            free = min(free, limit - int((_LIMITS / "memory.current").read_text()))
        self.room = float(free)
        # once: what a first piece of work has freed stays with the process
        self._before = _kibibytes(_STATUS, "VmRSS")

    def peak_of(self, work: Callable[[], None]) -> float:
        gc.collect()
        with contextlib.suppress(OSError):  # forbidden: then the peak is that of the whole process
            Path("/proc/self/clear_refs").write_text("5")
        work()
        return float(_kibibytes(_STATUS, "VmHWM") - self._before)


def _kibibytes(path: Path, name: str) -> int:
    """Bytes that a line "name: 123 kB" of a file in /proc says."""
    line = next(each for each in path.read_text().splitlines() if each.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
