"""What NVIDIA's driver says of its GPUs, by its own library: no package is needed, nor torch."""

import os
from ctypes import (
    CDLL,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_int,
    c_uint,
    c_ulonglong,
    c_void_p,
    create_string_buffer,
)
from functools import cache
from typing import Any

_NAME_BYTES = 96


class _Memory(Structure):
    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class _Utilization(Structure):
    _fields_ = (("gpu", c_uint), ("memory", c_uint))


@cache
def opened() -> "Gpus | None":
    """The GPUs that this process may use; None where there is no driver or none is left to it."""
    try:
        library = CDLL("libnvidia-ml.so.1")
        if library.nvmlInit_v2() != 0:
            return None
    except (OSError, AttributeError):  # no driver, or one of before 2012
        return None
    gpus = Gpus(library)
    return gpus if gpus.handles else None


class Gpus:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves to this process, in its order."""

    def __init__(self, library: Any) -> None:
        library.nvmlDeviceGetHandleByIndex_v2.argtypes = (c_uint, POINTER(c_void_p))
        library.nvmlDeviceGetHandleByUUID.argtypes = (c_char_p, POINTER(c_void_p))
        self._library = library
        self.handles = [each for each in map(self._handle, self._visible()) if each]

    def names(self) -> list[dict[str, Any]]:
        """Name and memory in bytes of each."""
        found = []
        for handle in self.handles:
            text, memory = create_string_buffer(_NAME_BYTES), _Memory()
            self._library.nvmlDeviceGetName(handle, text, _NAME_BYTES)
            self._library.nvmlDeviceGetMemoryInfo(handle, byref(memory))
            found.append({"name": text.value.decode(), "memory_bytes": int(memory.total)})
        return found

    def driver(self) -> str:
        text = create_string_buffer(_NAME_BYTES)
        self._library.nvmlSystemGetDriverVersion(text, _NAME_BYTES)
        return text.value.decode()

    def cuda(self) -> str:
        """The newest CUDA that the driver runs; torch's own stands in packages.txt."""
        number = c_int()
        self._library.nvmlSystemGetCudaDriverVersion_v2(byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    def readings(self) -> dict[str, float]:
        """Load in percent, memory in MB and percent, power in watts, by MLflow's own names."""
        found: dict[str, float] = {}
        for number, handle in enumerate(self.handles):
            load, memory, power = _Utilization(), _Memory(), c_uint()
            name = f"gpu_{number}"
            if self._library.nvmlDeviceGetUtilizationRates(handle, byref(load)) == 0:
                found[f"{name}_utilization_percentage"] = float(load.gpu)
            if self._library.nvmlDeviceGetMemoryInfo(handle, byref(memory)) == 0:
                found[f"{name}_memory_usage_megabytes"] = memory.used / 1e6
                found[f"{name}_memory_usage_percentage"] = 100 * memory.used / memory.total
            if self._library.nvmlDeviceGetPowerUsage(handle, byref(power)) == 0:
                found[f"{name}_power_usage_watts"] = power.value / 1000  # told in milliwatts
        return found

    def _visible(self) -> list[str]:
        """Numbers or UUIDs; a MIG slice has an own UUID."""
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        if given is not None:
            return [each.strip() for each in given.split(",") if each.strip()]
        count = c_uint()
        self._library.nvmlDeviceGetCount_v2(byref(count))
        return [str(number) for number in range(count.value)]

    def _handle(self, device: str) -> c_void_p | None:
        handle = c_void_p()
        if device.isdigit():
            code = self._library.nvmlDeviceGetHandleByIndex_v2(int(device), byref(handle))
        else:
            code = self._library.nvmlDeviceGetHandleByUUID(device.encode(), byref(handle))
        return handle if code == 0 else None
