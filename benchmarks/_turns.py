"""Sides of a comparison that take turns in one run, and the table of their speeds."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.profilers import Profiler

PEAK = {"H200": 790e12}  # operations a second, dense bf16; the presets predict with it too
OURS = "mammo"
Sides = dict[str, Callable[[], float]]  # each does its work once and returns its seconds
Speeds = dict[str, list[float]]  # images/s of each turn


def in_turns(sides: Sides, *, images: int, turns: int) -> Speeds:
    """The speed of every side in every turn; every second turn goes through them backwards."""
    for side in sides.values():
        side()  # warm-up: caches, compilation
    speeds: Speeds = {name: [] for name in sides}
    for turn in range(turns):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            speeds[name].append(images / sides[name]())
    return speeds


def ratio(speeds: Speeds, name: str, over: str = OURS) -> float:
    """Median over the turns of the speed of `over` by that of `name`."""
    return statistics.median(a / b for a, b in zip(speeds[over], speeds[name], strict=True))


def report(title: str, speeds: Speeds, more: Callable[[float], str] = lambda speed: "") -> None:
    """Print a line a side; `more` says more of its images/s."""
    print(f"\n{title}")
    for name, values in speeds.items():
        speed = statistics.median(values)
        line = f"{name:44} {speed:9.2f}"
        line += "" if name == OURS else f"   mammo / this = {ratio(speeds, name):.3f}"
        print(line + more(speed), flush=True)


def of_the_peak(network: Callable[..., Any], *inputs: torch.Tensor) -> Callable[[float], str]:
    """From images/s to the share of the device's peak that training takes, where it is known.

    `inputs` are those of one image; a step of training is three forwards.
    """
    from torch.utils.flop_counter import FlopCounterMode

    device = inputs[0].device
    peak = next((value for name, value in PEAK.items() if name in device_name(device)), 0.0)
    if not peak:
        return lambda speed: ""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    operations = counter.get_total_flops()
    return lambda speed: f"   {3 * operations * speed / peak:.1%} of the peak"


class Clock(Callback):
    """Seconds from the start of an epoch to the end of its last batch, and what its loader took."""

    def __init__(self, device: torch.device) -> None:
        self._device, self.seconds, self._waits = device, 0.0, _Waits()

    @property
    def stall(self) -> float:
        """Share of the time that the trainer spent in its loader; a GPU may compute meanwhile."""
        return self._waits.seconds / self.seconds

    def on_fit_start(self, trainer: Any, *_: Any) -> None:
        trainer.profiler = self._waits

    def on_train_epoch_start(self, *_: Any) -> None:
        self._waits.seconds, self._start = 0.0, now(self._device)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.is_last_batch:  # reading the clock waits for the device
            self.seconds = now(self._device) - self._start


class _Waits(Profiler):
    """Seconds that Lightning's training loop spends in its loader."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def start(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self._start = time.perf_counter()

    def stop(self, action_name: str) -> None:
        if action_name.endswith("train_dataloader_next"):
            self.seconds += time.perf_counter() - self._start


def autocast(device: torch.device, precision: str = "auto") -> Any:
    """bf16 where mammo's `precision` computes in it."""
    wanted = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
