"""Loggers beside MLflow: TensorBoard files or a Weights & Biases run see what a run sees."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from mammo.errors import ConfigError
from mammo.registry import Registry
from mammo.run import Run

LOGGERS = ("mlflow", "tensorboard", "wandb")
WRITERS = Registry("logger")
log = logging.getLogger("mammo")


class Writer(Protocol):
    """A further logger; it writes below a folder of its own, which the run keeps as artifacts."""

    def __init__(self, folder: Path, tracked: Run, settings: Mapping[str, Any]) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def image(self, key: str, image: NDArray[np.uint8], step: int) -> None:
        """`image` is (H, W) or (H, W, 3)."""

    def close(self) -> None: ...


def check_logger(logger: str) -> None:
    """Refuse a logger whose package is missing."""
    if logger != "mlflow" and find_spec(logger) is None:
        raise ConfigError(
            f"logger {logger!r} needs the package {logger}, which is not installed; install it or "
            "use logger=mlflow"
        )


@contextmanager
def logged_by(logger: str, tracked: Run, settings: Mapping[str, Any]) -> Iterator[Run]:
    """`tracked`, whose metrics and images also go to `logger`; its files are uploaded at the end.

    A run that is continued writes on into the same folder.
    """
    if logger == "mlflow":
        yield tracked
        return
    digests = {name: [each.digest for each in found] for name, found in tracked.inputs.items()}
    # no path leaves the machine: it may name people, a hospital or a release
    settings = {name: _without_folder(value) for name, value in settings.items()} | digests
    folder = tracked.folder / logger
    folder.mkdir(parents=True, exist_ok=True)
    writer: Writer = WRITERS[logger](folder, tracked, settings)
    try:
        yield cast("Run", _Both(tracked, writer))
    finally:
        writer.close()
    tracked.artifacts(folder, logger)


def _without_folder(value: Any) -> Any:
    """A setting; of FILE or NAME@FILE that are there, the file's own name in place of its path."""
    if not isinstance(value, str):
        return value
    for name, at, path in (("", "", value), value.partition("@")):
        if path and Path(path).expanduser().exists():
            return f"{name}{at}{Path(path).name}"
    return value


class _Both:
    """A run that hands its metrics and images to a writer too; all else is the run's own."""

    def __init__(self, tracked: Run, writer: Writer) -> None:
        self._tracked, self._writer = tracked, writer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracked, name)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self._tracked.metrics(values, step)
        self._writer.metrics(values, step or 0)

    def image(self, key: str, image: NDArray[np.uint8], step: int) -> None:
        self._tracked.image(key, image, step)
        self._writer.image(key, image, step)


@WRITERS.register("tensorboard")
class TensorBoard:
    """Event files for `tensorboard --logdir`."""

    def __init__(self, folder: Path, tracked: Run, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        rows = [f"| {name} | {value} |" for name, value in sorted(settings.items())]
        text = "\n".join(["| setting | value |", "| --- | --- |", *rows])
        self._writer.add_text("settings", text, 0)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # a kill loses no epoch

    def image(self, key: str, image: NDArray[np.uint8], step: int) -> None:
        self._writer.add_image(key, image, step, dataformats="HW" if image.ndim == 2 else "HWC")

    def close(self) -> None:
        self._writer.close()


@WRITERS.register("wandb")
class WeightsAndBiases:
    """A run of Weights & Biases: online with a key from WANDB_API_KEY or WANDB_KEY, else offline.

    An offline run is sent later by `wandb sync`. The key goes to the client's own settings and
    nowhere else.
    """

    def __init__(self, folder: Path, tracked: Run, settings: Mapping[str, Any]) -> None:
        import wandb

        self._folder = folder
        key = os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_KEY") or ""
        mode = os.environ.get("WANDB_MODE") or ("online" if key else "offline")
        if mode == "offline":
            log.info("wandb: no WANDB_API_KEY; written offline, send it with wandb sync")
        own = {"api_key": key} if key and mode == "online" else {}
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mammo"),
            id=tracked.id,
            resume="allow",
            dir=str(folder),
            mode=cast("Any", mode),
            config=dict(settings),
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                save_code=False,
                x_disable_meta=True,
                x_disable_stats=True,
                **own,
            ),
        )

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "epoch": step})

    def image(self, key: str, image: NDArray[np.uint8], step: int) -> None:
        import wandb

        self._run.log({key: wandb.Image(image), "epoch": step})

    def close(self) -> None:
        self._run.finish()
        for path in sorted(self._folder.rglob("*"), reverse=True):  # a folder after what is in it
            if path.is_symlink() or (path.suffix == ".log" and path.is_file()):
                path.unlink()  # of the client: it names this machine
