"""Quality of each sampler against its cost: KID to held-out real images by calls of the network.

    python studies/samplers.py --generator <model> --data <dataset> --extractor <name or file>

The reference is the generator's most faithful sampler at 250 calls, drawn from several blocks of
seeds: their spread says what of a difference is chance. Every other point has the first block.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mammo
from mammo.data.dataset import Dataset
from mammo.evaluation.extractors import Extractor, load_extractor
from mammo.evaluation.fidelity import halve, kernel
from mammo.generators import artist, family
from mammo.generators.generator import Generator

CALLS = (5, 8, 12, 20, 30, 50)
REFERENCE = 250  # calls
WIDE = 1.96  # standard deviations that hold 95 % of a normal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--extractor", default="random")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=5, help="of seeds, for the reference")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--reference", default="", help="sampler of the reference")
    parser.add_argument("--figure", default="samplers.png")
    asked = parser.parse_args()
    artist.MOST["cpu"] = 100  # of a small network; it moves no more than the last bits
    generator, data = mammo.load_generator(asked.generator), mammo.open_dataset(asked.data)
    extractor = load_extractor(asked.extractor)
    scale = Scale(generator, data, extractor, images=asked.images, guidance=asked.guidance)
    offered = family(str(generator.model.about["generator"])).samplers(generator.model.about)
    samplers = [each for each in offered if each != "euler"]  # ddim under another name
    reference = asked.reference or ("ddpm" if "ddpm" in samplers else samplers[0])
    blocks = [scale.kid(reference, REFERENCE, block) for block in range(asked.blocks)]
    rows = [
        {"sampler": sampler, "calls": calls, "kid": scale.kid(sampler, calls, 0)}
        for sampler in samplers
        for calls in CALLS
    ]
    table = pd.DataFrame(rows)
    mean, spread = float(np.mean(blocks)), WIDE * float(np.std(blocks, ddof=1))
    table["within_spread"] = (table["kid"] - mean).abs() <= spread
    print(f"extractor {extractor.name}, {asked.images} samples, {scale.real_images} real images")
    print(f"reference {reference} at {REFERENCE} calls: KID {mean:.5f} +- {spread:.5f} (95 %)")
    print(f"real against real, by patient halves: KID {scale.floor:.5f}")
    print(table.to_string(index=False))
    draw(table, mean, spread, scale, Path(asked.figure), f"{reference}, {REFERENCE} calls")


class Scale:
    """Measures samples of one generator against the held-out images of one dataset."""

    def __init__(
        self,
        generator: Generator,
        data: Dataset,
        extractor: Extractor,
        *,
        images: int,
        guidance: float,
    ) -> None:
        self._generator, self._extractor, self._guidance = generator, extractor, guidance
        held_out = np.flatnonzero(data.manifest["split"].isin(["val", "test"]))
        self.real_images = len(held_out)
        self._real = extractor.features(data.images, held_out, batch_size=64, device="cpu")
        halves = halve(data.manifest["group_id"].to_numpy(str)[held_out], 0)
        self.floor = kernel(self._real[halves[0]], self._real[halves[1]])
        labels = data.manifest["label"].to_numpy()[held_out]
        self._labels = [str(labels[place % len(labels)]) for place in range(images)]
        self.name = extractor.name + (", a stand-in" if extractor.stand_in else "")

    def kid(self, sampler: str, calls: int, block: int) -> float:
        """KID of a block of samples, with the classes in the held-out images' shares."""
        start = time.perf_counter()
        first = block * len(self._labels)
        made: Any = self._generator.sample(
            self._labels,
            seeds=range(first, first + len(self._labels)),
            guidance=self._guidance,
            sampler=sampler,
            steps=calls,
        )
        found = self._extractor.features(
            lambda rows: made[rows], np.arange(len(made)), batch_size=64, device="cpu"
        )
        value = float(kernel(self._real, found))
        seconds = time.perf_counter() - start
        print(f"{sampler} {calls} calls, block {block}: {value:.5f}, {seconds:.0f} s", flush=True)
        return value


def draw(
    table: pd.DataFrame, mean: float, spread: float, scale: Scale, path: Path, reference: str
) -> None:
    """KID by calls, one line a sampler, with the band of the reference and the floor."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.axhspan(mean - spread, mean + spread, color="0.85", label=f"{reference}: 95 % by seed")
    axes.axhline(scale.floor, color="0.3", linestyle=":", label="real against real")
    for marker, (sampler, rows) in zip(
        "osv^Dx", table.groupby("sampler", sort=False), strict=False
    ):
        axes.plot(rows["calls"], rows["kid"], marker=marker, markersize=5, label=sampler)
    # a sampler that is far off at few calls would press all others flat
    axes.set_ylim(0, min(1.05 * table["kid"].max(), 1.8 * mean))
    axes.set_xscale("log")
    axes.set_xticks(CALLS, [str(calls) for calls in CALLS])
    axes.minorticks_off()
    axes.set_xlabel("calls of the network for an image")
    axes.set_ylabel(f"KID ({scale.name})")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
