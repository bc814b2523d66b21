"""Training of a classifier against memory, a bare loop, and the loaders of systems 0 and 2.

All sides have the same network, loss, optimizer, batch size, memory order and precision, and take
turns in one run. A side's speed is the median of its turns; each ratio is of one turn, then the
median. On a GPU, and with --variants, orders of memory and compilation are compared, too.
"""

import argparse
import inspect
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from _turns import OURS, Clock, Sides, Speeds, autocast, in_turns, now, of_the_peak, report
from reading import read_volume, written
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mammo.classifiers.backbone import Network, build
from mammo.classifiers.changing import make_changing
from mammo.classifiers.features import Features
from mammo.classifiers.material import Material
from mammo.classifiers.phases import Fitting, Phase
from mammo.classifiers.plans import FINETUNES
from mammo.classifiers.recipe import Recipe
from mammo.data.loading import ordered_batches, training_batches
from mammo.data.workers import cores
from mammo.run import MemoryRun
from mammo.steps import train_classifier
from mammo.training import fit

ASKED = {"convnext_tiny": 1000, "resnet50": 1500}  # images/s of an H200 at 512 pixels in bf16
Pairs = Iterable[tuple[Tensor, Tensor]]  # images (B, 1, H, W) with labels (B,), on the device


def settings(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line, or `words` in its place, asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--augment", default="u24_geometric", help="of all sides but system 2's")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=cores(), help="of systems 0 and 2")
    parser.add_argument("--only", default="", help="part of the name of the one side of training")
    parser.add_argument("--variants", action="store_true", help="of memory order and compilation")
    return parser.parse_args(words)


def main() -> None:
    asked = settings()
    logging.getLogger("mammo").setLevel(logging.ERROR)
    print(f"{asked}\n{torch.get_num_threads()} threads, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), asked)
        report("training, images/s", bench.training(), bench.of_the_peak())
        print(f"of mammo's time {median(bench.stalls):.1%} is its loader's")
        if not asked.only:
            report("reading and changing alone, images/s", bench.reading())
        if asked.variants:
            report("training, images/s", bench.variants(), bench.of_the_peak())
    if asked.device.startswith("cuda"):
        for model, wanted in ASKED.items():
            large = {"model": model, "side": 512, "batch_size": 128, "images": 2048}
            with tempfile.TemporaryDirectory() as folder:
                bench = Bench(Path(folder), argparse.Namespace(**{**vars(asked), **large}))
                title = f"{model} at 512 pixels, images/s ({wanted} asked of an H200)"
                report(title, bench.variants(), bench.of_the_peak())


class Bench:
    """The images and settings that all sides share."""

    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self.folder, self.asked = folder, asked
        self.stalls: list[float] = []  # shares of the epochs of mammo that its loader took
        self.device = torch.device(asked.device)
        self.data = written(folder, asked.images, asked.side, dtype="uint8")
        self.rows = np.arange(asked.images)
        self.labels = torch.from_numpy(self.data.label_ids())
        self.in_memory = torch.from_numpy(self.data.images(self.rows)).to(self.device)
        defaults = inspect.signature(train_classifier.run).parameters
        settings = {name: each.default for name, each in defaults.items()} | {
            "model_name": asked.model,
            "augment": asked.augment,
            "batch_size": asked.batch_size,
            "precision": asked.precision,
            "device": asked.device,
            "epochs": 1,
        }
        self.recipe = Recipe.of(settings)
        self.change = make_changing(settings, self.data.classes.names)

    def network(self, *, channels_last: bool = True, compiled: bool = False) -> Network:
        network = build(self.asked.model, shape=self.data.shape, classes=2).to(self.device)
        if not channels_last:
            network.to(memory_format=torch.contiguous_format)
        if compiled:
            network.body.compile()
        return network

    def of_the_peak(self) -> Callable[[float], str]:
        return of_the_peak(self.network(), torch.zeros(1, *self.data.shape, device=self.device))

    def training(self) -> Speeds:
        own = self._loader()
        sides: Sides = {
            OURS: partial(self._epoch, self.network(), own, self.stalls),
            "mammo, random tensors in memory": partial(self._epoch, self.network(), self._random()),
            "a bare PyTorch loop, images in memory": self._bare(self._in_memory),
            "the same loop, fed as by system 0": self._bare(self._fed(Volumes)),
            "the same loop, fed as by system 2": self._bare(self._fed(Pictures)),
        }
        chosen = {name: side for name, side in sides.items() if self.asked.only in name}
        return self._in_turns({OURS: sides[OURS]} | chosen)

    def reading(self) -> Speeds:
        """Batches as a step takes them, without a step."""
        own = self._loader()
        sides: Sides = {
            OURS: partial(self._drained, lambda: (self._changed(each) for each in own)),
            "system 0: NIfTI, changes an image": partial(self._drained, self._fed(Volumes)),
            "system 2: PNG, turns an image": partial(self._drained, self._fed(Pictures)),
        }
        return self._in_turns(sides)

    def variants(self) -> Speeds:
        """Whole trainings by mammo; what differs is the network."""
        own = self._loader()
        networks = {
            OURS: self.network(),
            "not channels_last": self.network(channels_last=False),
            "compiled": self.network(compiled=True),
            "compiled, not channels_last": self.network(channels_last=False, compiled=True),
        }
        return self._in_turns(
            {name: partial(self._epoch, network, own) for name, network in networks.items()}
        )

    def _in_turns(self, sides: Sides) -> Speeds:
        return in_turns(sides, images=self.asked.images, turns=self.asked.turns)

    def _epoch(self, network: Network, batches: Any, stalls: list[float] | None = None) -> float:
        """An epoch of a run: loader, changes, Lightning, schedule, logging."""
        material = Material(self.data, self.rows, self.rows[:8], self.rows[:0], "none")
        groups = FINETUNES.bound("full", vars(self.recipe))(network)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            tracked = MemoryRun(Path(folder))
            names, features = self.data.classes.names, Features(self.data)
            fitting = Fitting(tracked, network, groups, self.recipe, features, names=names, seed=0)
            phase = Phase("all", material, epochs=1, lr_factor=1, seed=0)
            clock = Clock(self.device)
            fit(
                fitting.module(phase, self.recipe.lr, len(batches)), train=batches,
                val=ordered_batches(self.data, material.val, batch_size=8), tracked=tracked,
                epochs=1, seed=0, monitor="val/loss", mode="min", device=self.asked.device,
                precision=self.asked.precision, callbacks=[clock],
            )  # fmt: skip
        if stalls is not None:
            stalls.append(clock.stall)
        return clock.seconds

    def _loader(self) -> Any:
        order = np.random.default_rng(0).permutation(self.rows)
        size = self.asked.batch_size
        return training_batches(self.data, self.rows, batch_size=size, order=lambda epoch: order)

    def _random(self) -> Any:
        """Batches that are there before they are asked for, where a GPU reads them from."""
        parts = torch.from_numpy(self.rows).split(self.asked.batch_size)
        shape = self.data.shape
        batches = [
            {"image": torch.rand(len(part), *shape), "label": self.labels[part], "row": part}
            for part in parts
        ]
        if self.device.type == "cuda":
            batches = [{name: each.pin_memory() for name, each in one.items()} for one in batches]
        return DataLoader(batches, batch_size=None, collate_fn=_as_it_is)

    def _bare(self, batches: Callable[[], Pairs]) -> Callable[[], float]:
        """What people write; `batches` begins an epoch."""
        network = self.network().train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)

        def epoch() -> float:
            start = now(self.device)
            for images, labels in batches():
                with autocast(self.device, self.asked.precision):
                    loss = torch.nn.functional.cross_entropy(network(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return now(self.device) - start

        return epoch

    def _in_memory(self) -> Pairs:
        """Batches of what already lies on the device, changed as by mammo."""
        order = torch.randperm(len(self.rows), device=self.device)
        labels = self.labels.to(self.device)
        for rows in order.split(self.asked.batch_size):
            yield self.change(self.in_memory[rows], labels[rows])

    def _changed(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.change(batch["image"].to(self.device), batch["label"].to(self.device))

    def _fed(self, kind: Callable[[Path, Tensor], Dataset[Any]]) -> Callable[[], Pairs]:
        workers = self.asked.workers
        loader = DataLoader(
            kind(self.folder, self.labels), batch_size=self.asked.batch_size, shuffle=True,
            num_workers=workers, persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
        )  # fmt: skip

        def batches() -> Pairs:
            for images, labels in loader:
                yield (
                    images.to(self.device, non_blocking=True),
                    labels.to(self.device, non_blocking=True),
                )

        return batches

    def _drained(self, batches: Callable[[], Pairs]) -> float:
        start = now(self.device)
        for _ in batches():
            pass
        return now(self.device) - start


class Volumes(Dataset[tuple[Tensor, Tensor]]):
    """As by system 0: a NIfTI file an image, its minimum 0 and maximum 1, changed one by one."""

    def __init__(self, folder: Path, labels: Tensor) -> None:
        from torchvision import transforms

        self._folder, self._labels = folder / "nifti", labels
        self._change = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(0.5),
                transforms.RandomVerticalFlip(0.3),
                transforms.RandomAffine(8, translate=(0.02, 0.02), scale=(0.95, 1.05)),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        image = torch.from_numpy(read_volume(self._folder / str(row)))[None]
        low, high = image.min(), image.max()
        return self._change((image - low) / (high - low)), self._labels[row]


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """As by system 2: a PNG file an image, turned by up to 20 degrees as a picture of Pillow."""

    def __init__(self, folder: Path, labels: Tensor) -> None:
        from torchvision import transforms

        self._folder, self._labels = folder / "png", labels
        self._change = transforms.Compose([transforms.RandomRotation(20), transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        from PIL import Image

        with Image.open(self._folder / f"{row}.png") as picture:
            image: Tensor = self._change(picture)
        return image, self._labels[row]


def _as_it_is(batch: Any) -> Any:
    return batch


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints of Lightning and of torch's compiler
        main()
