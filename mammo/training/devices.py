"""Where and in which numbers training computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mammo.errors import ConfigError

PRECISIONS = ("auto", "32", "bf16")


def choose_device(device: str) -> torch.device:
    """Torch device named by the setting `device`: auto, cpu, cuda or cuda:<number>."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = device.partition(":")
    if device != "cpu" and (kind != "cuda" or not (number.isdigit() or device == "cuda")):
        raise ConfigError(f"unknown device {device!r}; choose auto, cpu, cuda or cuda:<number>")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r} is not there: this machine has {torch.cuda.device_count()} "
            "CUDA devices; use device=cpu or device=auto"
        )
    return torch.device(device)


def device_of(device: str, slot: int) -> str:
    """The device of the process in `slot`, where several share what `device` names.

    Processes are dealt out over the GPUs, unless one GPU or the CPU is named.
    """
    if device not in ("auto", "cuda") or not torch.cuda.device_count():
        return device
    return f"cuda:{slot % torch.cuda.device_count()}"


def check_devices(device: str, devices: int) -> None:
    """Refuse more devices than there are."""
    chosen = choose_device(device)
    if devices == 1 or chosen.type == "cpu":
        return
    if ":" in device:
        raise ConfigError(f"device {device!r} is one GPU and devices {devices}; use device=cuda")
    if devices > torch.cuda.device_count():
        raise ConfigError(
            f"devices {devices}: this machine has {torch.cuda.device_count()} CUDA devices; use as "
            "many, or device=cpu"
        )


def lightning_precision(precision: str, device: torch.device) -> Any:
    """bf16 autocast where the device computes in it, float32 elsewhere; `auto` chooses."""
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if precision == "auto":
        able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if able else "32-true"
    return {"32": "32-true", "bf16": "bf16-mixed"}[precision]


@contextmanager
def fast_matrices(device: torch.device) -> Iterator[None]:
    """Multiply and convolve float32 in TF32 on a GPU: three times the speed, ten bits of mantissa.

    What computes in bf16 is not touched by it.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
