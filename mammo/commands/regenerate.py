"""`mammo regenerate RUN INDEX`: an image of a sampled dataset drawn again, to the bit."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mammo.commands import call, folder_of
from mammo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mammo.data.dataset import Dataset
    from mammo.generators.generator import Generator

SAME, OTHER = 0, 1
SUFFIXES = (".png", ".dcm", ".nii.gz", ".npy")


def command(arguments: Sequence[str]) -> int:
    return call("regenerate", run, arguments)


def run(run: str, index: str, *, output: str = "", generator: str = "", device: str = "") -> int:
    """Draw image INDEX of the dataset of RUN again and compare it with the stored one.

    RUN is a run of sample or mix, runs:/<id>/<path>, or a dataset's folder; INDEX a row of its
    manifest, from 0. The generator is found by what the dataset records, or given by --generator;
    --device is by default the kind of device that drew it. --output writes a .png, .dcm, .nii.gz
    or .npy with its provenance. The exit code is 0 when all pixels are the same, else 1.
    """
    if output:
        _check_output(Path(output).expanduser())
    data, row = _row(_dataset(run), index)
    line = data.manifest.iloc[row]
    from mammo.generators.again import differences, draw_again, machine

    model = _generator(data, str(line["generator_run_id"]), generator, device)
    again, there = draw_again(model, data, row), data.raw([row])[0]
    name = f"image {row} of dataset {data.digest} ({line['label']}, seed {line['sample_seed']})"
    wrong = int((again != there).sum())
    if not wrong:
        print(f"{name}: the same pixels", flush=True)
        if output:
            _write(Path(output).expanduser(), data, row, again)
        return SAME
    most = int(np.abs(again.astype(int) - there.astype(int)).max())
    then = data.about["sampling"].get("drawn_on", {})
    why = differences(then, machine(model.device)) or "nothing that is recorded differs"
    print(
        f"{name}: {wrong} of {there.size} pixels differ, by at most {most} of "
        f"{np.iinfo(there.dtype).max} grey levels ({why})",
        flush=True,
    )
    if output:
        raise DataError(f"output {output} is not written: it would not be the image it says it is")
    return OTHER


def _dataset(reference: str) -> "Dataset":
    """The dataset that `reference` names; a folder needs no tracking store."""
    from mammo.data.dataset import Dataset

    return Dataset(folder_of(reference, "dataset", "run"))


def _row(data: "Dataset", index: str) -> tuple["Dataset", int]:
    """The dataset that holds the pixels of row `index`, and the row there."""
    from mammo.data.provenance import Origins

    if not index.isdecimal() or int(index) >= len(data):
        raise ConfigError(f"index {index!r} is no row of the dataset; give 0 to {len(data) - 1}")
    line = data.manifest.iloc[int(index)]
    if not line["is_synthetic"]:
        raise ConfigError(f"image {index} is real; only synthetic images can be drawn again")
    owner, row = Origins(data).place(line)
    if row < 0:
        raise DataError(f"image {index} is not in the dataset that its pixels lie in; fetch it")
    return owner, row


def _generator(data: "Dataset", run_id: str, given: str, device: str) -> "Generator":
    """The generator that drew the rows of `run_id`, on the kind of device that drew them."""
    from mammo.driver import work_folder
    from mammo.generators import load_generator
    from mammo.generators.again import digest_of_generator, recipe_of

    recipe_of(data)  # before a model is fetched
    digest = digest_of_generator(data, run_id)
    folder = work_folder("") / "models" / digest
    if given or not (folder / "model.json").is_file():
        folder = folder_of(given or f"runs:/{run_id}/model", "model", "generator")
    import torch

    drawn_on = data.about["sampling"].get("drawn_on", {}).get("device", "cpu")
    kind = "cuda" if drawn_on != "cpu" and torch.cuda.is_available() else "cpu"
    return load_generator(folder, device=device or kind)


def _check_output(path: Path) -> None:
    if not path.name.endswith(SUFFIXES):
        raise ConfigError(f"output {path.name!r} should end in {', '.join(SUFFIXES)}")
    if path.exists():
        raise ConfigError(f"output {path} exists already; name a new file")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"output {path} lies in no folder; make {path.absolute().parent} first")


def _write(path: Path, data: "Dataset", row: int, pixels: NDArray[Any]) -> None:
    """Write the image with its provenance in the format that the suffix names."""
    from mammo.data.provenance import Origins, of_planes, save

    planes = [f"image {number}" for number in range(1, len(pixels) + 1)]
    line = next(data.manifest.iloc[[row]].itertuples(index=False))
    save(path, pixels, of_planes(Origins(data).record(line), pixels, planes))
