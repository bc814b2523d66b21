"""Training and sampling of diffusion against a bare loop, MONAI's and diffusers' own ways.

All sides have the same network, the same batch size and the same images, and take turns in one
run. A side's speed is the median of its turns; each ratio is of one turn, then the median.
"""

import argparse
import inspect
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _turns import OURS, Clock, Sides, Speeds, autocast, in_turns, now, of_the_peak, report
from torch.utils.data import DataLoader, Dataset

from mammo.data.classes import TASKS
from mammo.data.dataset import Dataset as Scans
from mammo.data.writer import DatasetWriter
from mammo.generators.families import pixel
from mammo.generators.material import Material, gather
from mammo.generators.unet import build_unet
from mammo.run import MemoryRun
from mammo.steps import train_generator
from mammo.training import fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--channels", default="32,64,96")
    parser.add_argument("--patch", type=int, default=2)
    parser.add_argument("--attention", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--sampled", type=int, default=8, help="images of a call; 0: no sampling")
    asked = parser.parse_args()
    logging.getLogger("mammo").setLevel(logging.ERROR)
    print(f"{asked}\n{torch.get_num_threads()} threads, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), asked)
        report("training, images/s", bench.training(), bench.of_the_peak())
        if asked.sampled:
            report("sampling with 50 steps, images/s", bench.sampling())


class Bench:
    """The images and settings that all sides share."""

    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self.folder, self.asked = folder, asked
        self.device = torch.device(asked.device)
        self.data = written(folder, asked.images, asked.side)
        self.pixels = torch.from_numpy(self.data.images(np.arange(asked.images)))
        defaults = inspect.signature(train_generator.run).parameters
        self.settings = {name: each.default for name, each in defaults.items()} | {
            "mode": "unconditional",
            "prediction": "epsilon",
            "channels": asked.channels,
            "patch": asked.patch,
            "attention": asked.attention,
            "batch_size": asked.batch_size,
            "epochs": 1,
            "ema": 0.0,
            "sample_every": 0,
            "device": asked.device,
            "compile": asked.compile,
            "data": "",
        }

    def network(self) -> Any:
        """The same network as mammo trains, as MONAI and diffusers call one."""
        description = self._plan()["network"]
        network = Called(build_unet(description, seed=0), self.asked.side).to(self.device)
        if self.asked.compile:
            network.compile()
        return network

    def training(self) -> Speeds:
        sides: Sides = {
            OURS: self._mammo,
            "a bare PyTorch loop": self._bare(),
            "MONAI, as its tutorial": self._monai(),
            "diffusers, as its example": self._diffusers(),
        }
        return in_turns(sides, images=self.asked.images, turns=self.asked.turns)

    def sampling(self) -> Speeds:
        sides = {OURS: self._draw(), "diffusers, DDIMPipeline": self._pipeline()}
        return in_turns(sides, images=self.asked.sampled, turns=self.asked.turns)

    def of_the_peak(self) -> Callable[[float], str]:
        side = self.asked.side
        image = torch.zeros(1, 1, side, side, device=self.device)
        return of_the_peak(self.network(), image, image.new_zeros(1, dtype=torch.long))

    def _plan(self) -> dict[str, Any]:
        return pixel.plan(self._material(), self.settings)

    def _material(self) -> Material:
        return gather(self.data, self.settings, folder=self.folder, inputs={})

    def _mammo(self) -> float:
        """An epoch of a run: loader, Lightning, schedule, clipping, logging."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            material = self._material()
            learner = pixel.learner(self._plan(), material, self.settings)
            train, val = material.batches(self.asked.batch_size, seed=0)
            clock = Clock(self.device)
            fit(
                learner, train=train, val=val, tracked=MemoryRun(Path(folder)), epochs=1, seed=0,
                monitor="val/loss", mode="min", device=self.asked.device, gradient_clip=1.0,
                callbacks=[clock],
            )  # fmt: skip
            return clock.seconds

    def _bare(self) -> Callable[[], float]:
        from diffusers import DDPMScheduler

        network = self.network()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
        kept = DDPMScheduler().alphas_cumprod.to(self.device)
        images, size = (self.pixels * 2 - 1).to(self.device), self.asked.batch_size

        def epoch() -> float:
            start = self._now()
            for rows in torch.randperm(len(images), device=self.device).split(size):
                clean = images[rows]
                noise = torch.randn_like(clean)
                times = torch.randint(0, 1000, (len(rows),), device=self.device)
                share = kept[times].view(-1, 1, 1, 1)
                with self._autocast():
                    output = network(share.sqrt() * clean + (1 - share).sqrt() * noise, times)
                    loss = (output.sample.float() - noise).square().mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
            return self._now() - start

        return epoch

    def _monai(self) -> Callable[[], float]:
        """As in MONAI's 2-D DDPM tutorial: cached dictionaries, its inferer and its scheduler."""
        from monai.data import CacheDataset
        from monai.data import DataLoader as MonaiLoader
        from monai.inferers import DiffusionInferer
        from monai.networks.schedulers import DDPMScheduler
        from monai.transforms import Compose, EnsureTyped, ScaleIntensityRanged

        network = self.network()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
        scheduler = DDPMScheduler(num_train_timesteps=1000)
        inferer = DiffusionInferer(scheduler)
        prepare = Compose(
            [EnsureTyped(["image"]), ScaleIntensityRanged(["image"], 0, 1, -1, 1, clip=True)]
        )
        items = [{"image": image.numpy()} for image in self.pixels]
        cached = CacheDataset(items, prepare, progress=False)
        loader = MonaiLoader(cached, batch_size=self.asked.batch_size, shuffle=True)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.device.type == "cuda")

        def epoch() -> float:
            start = self._now()
            for batch in loader:
                images = batch["image"].as_tensor().to(self.device)
                optimizer.zero_grad(set_to_none=True)
                with self._autocast():
                    noise = torch.randn_like(images)
                    times = torch.randint(0, 1000, (len(images),), device=self.device).long()
                    output = inferer(
                        inputs=images, diffusion_model=network, noise=noise, timesteps=times
                    )
                    loss = torch.nn.functional.mse_loss(output.sample.float(), noise)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            return self._now() - start

        return epoch

    def _diffusers(self) -> Callable[[], float]:
        """As in diffusers' unconditional example: PNG files, transforms an image, Accelerate."""
        from accelerate import Accelerator
        from diffusers import DDPMScheduler
        from diffusers.optimization import get_scheduler

        accelerator = Accelerator(
            cpu=self.device.type == "cpu",
            mixed_precision="bf16" if self.device.type == "cuda" else "no",
        )
        network = self.network()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.95, 0.999))
        loader = DataLoader(
            Pictures(self.folder / "png"), batch_size=self.asked.batch_size, shuffle=True
        )
        schedule = get_scheduler(
            "cosine", optimizer, num_warmup_steps=500, num_training_steps=100_000
        )
        network, optimizer, loader, schedule = accelerator.prepare(
            network, optimizer, loader, schedule
        )
        scheduler = DDPMScheduler(num_train_timesteps=1000)

        def epoch() -> float:
            start = self._now()
            for clean in loader:
                noise = torch.randn_like(clean)
                times = torch.randint(0, 1000, (len(clean),), device=clean.device)
                noisy = scheduler.add_noise(clean, noise, times)
                with accelerator.accumulate(network):
                    output = network(noisy, times).sample
                    loss = torch.nn.functional.mse_loss(output.float(), noise.float())
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(network.parameters(), 1.0)
                    optimizer.step()
                    schedule.step()
                    optimizer.zero_grad()
            return self._now() - start

        return epoch

    def _draw(self) -> Callable[[], float]:
        from mammo.generators.artist import Asked
        from mammo.generators.sampling import DiffusionArtist

        plan = self._plan()
        network = build_unet(plan["network"], seed=0).to(self.device).eval()
        artist = DiffusionArtist(
            network,
            pixel.planned_strategy(plan, "epsilon"),
            pixel.planned_canvas(plan, "unconditional"),
        )
        count = self.asked.sampled
        labels = torch.zeros(count, 0, dtype=torch.long)
        asked = Asked(labels, list(range(count)), sampler="ddim", steps=50)

        def draw() -> float:
            start = self._now()
            artist.draw(asked)
            return self._now() - start

        return draw

    def _pipeline(self) -> Callable[[], float]:
        from diffusers import DDIMPipeline, DDIMScheduler

        pipeline = DDIMPipeline(self.network().eval(), DDIMScheduler(clip_sample=True))
        pipeline.set_progress_bar_config(disable=True)
        count = self.asked.sampled

        def draw() -> float:
            start = self._now()
            generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
            pipeline(count, generator=generators, num_inference_steps=50, output_type="np")
            return self._now() - start

        return draw

    def _autocast(self) -> Any:
        return autocast(self.device)

    def _now(self) -> float:
        return now(self.device)


class Called(torch.nn.Module):
    """A U-Net of mammo with the calling convention of MONAI and of diffusers."""

    def __init__(self, network: torch.nn.Module, side: int) -> None:
        super().__init__()
        from types import SimpleNamespace

        self.network = network
        self.config = SimpleNamespace(in_channels=1, sample_size=side)
        self._answer = SimpleNamespace

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, context: Any = None) -> Any:
        times = timesteps.expand(len(x)) if timesteps.ndim == 0 else timesteps
        labels = torch.zeros(len(x), 0, dtype=torch.long, device=x.device)
        return self._answer(sample=self.network(x, times.to(x.device), labels))


class Pictures(Dataset[torch.Tensor]):
    """PNG files through torchvision's transforms, an image at a time."""

    def __init__(self, folder: Path) -> None:
        from torchvision import transforms

        self._paths = sorted(folder.glob("*.png"))
        self._prepare = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> torch.Tensor:
        from PIL import Image

        with Image.open(self._paths[place]) as picture:
            image: torch.Tensor = self._prepare(picture.convert("L"))
        return image


def written(folder: Path, images: int, side: int) -> Scans:
    """Noisy half discs as a dataset and as PNG files."""
    from PIL import Image

    (folder / "png").mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    writer = DatasetWriter(
        folder / "scans.partial", name="scans", classes=TASKS["malignancy2"],
        shape=(1, side, side), dtype="uint8",
    )  # fmt: skip
    for number in range(images + 8):
        breast = (y - 0.5) ** 2 + x**2 < rng.uniform(0.1, 0.25)
        image = (breast * rng.integers(90, 200, (side, side))).astype(np.uint8)
        row = {"group_id": f"p{number}", "image_id": f"i{number}", "label": "benign"}
        writer.add(image[None], {**row, "split": "train" if number < images else "val"})
        if number < images:
            Image.fromarray(image).save(folder / "png" / f"{number:05}.png")
    return writer.finish(folder / "datasets")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints of the peers
        main()
