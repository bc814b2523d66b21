"""GPUs through the driver's own library: units, order and what CUDA_VISIBLE_DEVICES leaves."""

from types import SimpleNamespace
from typing import Any

import pytest

from mammo.tracking.nvidia import Gpus

UUIDS = ["GPU-a", "GPU-b", "GPU-c"]


class Entry:
    """A function of the library: it takes attributes as those of ctypes do."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __call__(self, *arguments: Any) -> int:
        return int(self.answer(*arguments))


def library(**more: Any) -> Any:
    """A driver with three GPUs of 80 GB: number n is at 10 n percent, with n GB used, 100 n W."""

    def handle(number: Any, place: Any) -> int:
        if not 0 <= number < len(UUIDS):
            return 6  # not found
        place._obj.value = number + 1
        return 0

    def by_name(name: bytes, place: Any) -> int:
        return handle(UUIDS.index(name.decode()) if name.decode() in UUIDS else -1, place)

    def memory(device: Any, place: Any) -> int:
        place._obj.total, place._obj.used = 80 * 10**9, (device.value - 1) * 10**9
        return 0

    def load(device: Any, place: Any) -> int:
        place._obj.gpu = 10 * (device.value - 1)
        return 0

    def setting(value: Any) -> Any:
        def answer(*arguments: Any) -> int:
            arguments[-1]._obj.value = value(*arguments[:-1]) if callable(value) else value
            return 0

        return answer

    def text(value: bytes) -> Any:
        def answer(*arguments: Any) -> int:
            arguments[-2].value = value
            return 0

        return answer

    entries = {
        "nvmlDeviceGetCount_v2": setting(len(UUIDS)),
        "nvmlDeviceGetHandleByIndex_v2": handle,
        "nvmlDeviceGetHandleByUUID": by_name,
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetUtilizationRates": load,
        "nvmlDeviceGetPowerUsage": setting(lambda device: 100_000 * (device.value - 1)),
        "nvmlDeviceGetName": text(b"NVIDIA H200"),
        "nvmlSystemGetDriverVersion": text(b"580.95"),
        "nvmlSystemGetCudaDriverVersion_v2": setting(13_010),
    }
    return SimpleNamespace(**{name: Entry(each) for name, each in (entries | more).items()})


@pytest.mark.parametrize(
    ("visible", "loads"),
    [
        (None, [0, 10, 20]),
        ("2,0", [20, 0]),
        ("GPU-b", [10]),
        ("", []),
        ("7", []),
        ("MIG-of-another", []),
    ],
)
def test_the_gpus_are_those_that_are_left_to_the_process_in_its_order(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, loads: list[float]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = Gpus(library()).readings()
    assert [found[f"gpu_{n}_utilization_percentage"] for n in range(len(loads))] == loads
    assert len(found) == 4 * len(loads)


def test_readings_are_percent_megabytes_and_watts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert Gpus(library()).readings() == {
        "gpu_0_utilization_percentage": 20.0,
        "gpu_0_memory_usage_megabytes": 2000.0,
        "gpu_0_memory_usage_percentage": 2.5,
        "gpu_0_power_usage_watts": 200.0,
    }


def test_what_a_gpu_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    silent = library(nvmlDeviceGetPowerUsage=lambda *arguments: 3)  # not supported
    assert not any("power" in name for name in Gpus(silent).readings())


def test_names_driver_and_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus = Gpus(library())
    assert gpus.names() == [{"name": "NVIDIA H200", "memory_bytes": 80 * 10**9}] * 3
    assert (gpus.driver(), gpus.cuda()) == ("580.95", "13.1")
