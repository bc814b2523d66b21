"""What is found about synthetic images: their distance to real ones, in numbers and pictures."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.dataset import Dataset
from mammo.data.guards import check_generators
from mammo.errors import DataError
from mammo.evaluation import figures
from mammo.evaluation.evidence import Evidence
from mammo.evaluation.extractors import Extractor
from mammo.evaluation.fidelity import Fidelity, fidelity, ms_ssim_scales, pair_similarity
from mammo.evaluation.report import Section, Tile
from mammo.seeds import derive

HELD_OUT = ("val", "test")  # splits
SHOWN = 8  # images in a row of the grid


def fidelity_evidence(
    real: Dataset,
    synthetic: Dataset,
    extractor: Extractor,
    *,
    split: str,
    max_images: int,
    batch_size: int,
    seed: int,
    device: str,
) -> Evidence:
    """Distance of the synthetic images to the real ones of `split`, beside its floor.

    DataError where those are held out, and a generator has seen a patient of theirs: it would be
    praised for what it remembers.
    """
    rows, made = _fidelity_rows(real, synthetic, split, max_images=max_images, seed=seed)
    if split in HELD_OUT:
        check_generators(
            synthetic.manifest["generator_run_id"].iloc[made],
            synthetic.generator_training,
            real.manifest.iloc[rows],
            salt=str(real.about.get("salt", "")),
            name=real.name,
        )
    features = [
        extractor.features(data.images, chosen, batch_size=batch_size, device=device)
        for data, chosen in ((real, rows), (synthetic, made))
    ]
    patients = real.manifest["group_id"].to_numpy(str)[rows]
    found = fidelity(features[0], patients, features[1], seed=derive(seed, "fidelity"))
    stem = f"fidelity/{extractor.name}"
    names = ("fid", "fid_floor", "kid", "kid_sd", "kid_floor")
    metrics = {f"{stem}/{name}": float(getattr(found, name)) for name in names}
    similar, similar_notes = _similarity(real, rows, synthetic, made, seed=seed)
    table = _fidelity_table(found, extractor, real)
    warnings = _fidelity_warnings(found, extractor) + similar_notes
    label = f"{extractor.name}{', a stand-in' if extractor.stand_in else ''}"
    bars = figures.fidelity_figure(
        {
            f"{name.upper()}, {label}": {
                "value": getattr(found, name),
                "sd": getattr(found, f"{name}_sd"),
                "floor": getattr(found, f"{name}_floor"),
                "floor_sd": getattr(found, f"{name}_floor_sd"),
            }
            for name in ("kid", "fid")
        }
    )
    grid = figures.grid_figure(_grid(real, rows, synthetic, made))
    text = (
        f"{found.n_synthetic} synthetic against {found.n_real} real images ({split}) in the "
        f"{found.dim} features of {label}. The floor is the same distance between real images of "
        f"disjoint patients; each Frechet distance (FID) is between two sets of {found.n} images. "
        "Values under one extractor's name cannot be compared with those under another's. A value "
        "well below its floor is a sign of copied training images."
    )
    return Evidence(
        rows=len(made),
        metrics={**metrics, **similar},
        headline=list(metrics),
        tiles=[
            Tile(
                f"KID ({label})",
                f"{found.kid:.3g}",
                f"SD {found.kid_sd:.2g}; real against real {found.kid_floor:.2g}",
            ),
            Tile(
                f"FID ({label}, {found.dim}-d)",
                f"{found.fid:.3g}",
                f"real against real {found.fid_floor:.3g}, n = {found.n}",
            ),
        ],
        sections=[
            Section(
                "Fidelity of the synthetic images",
                text,
                {"Distances": table.drop(columns=["weights_sha256"])},
                {"Real and synthetic images": grid, "Distances beside their floor": bars},
                warnings,
            )
        ],
        tables={"fidelity": table},
        figures={"fidelity_grid": grid, "fidelity": bars},
        facts={"Extractor": f"{label}, weights sha256 {extractor.sha256}"},
    )


def _fidelity_rows(
    real: Dataset, synthetic: Dataset, split: str, *, max_images: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Real rows of `split` and synthetic rows, at most `max_images` each, drawn by seed."""
    if real.shape != synthetic.shape:
        raise DataError(
            f"synthetic images have shape {synthetic.shape}, real ones {real.shape}; resizing one "
            "side alone would be measured as a difference"
        )
    frame = real.manifest
    wanted = ~frame["is_synthetic"] & ((frame["split"] == split) | (split == "all"))
    made = synthetic.manifest["is_synthetic"]
    chosen = []
    for what, mask in (("real", wanted), ("synthetic", made)):
        rows = np.flatnonzero(mask)
        if len(rows) < 2:
            where = f"in split {split} of {real.name}" if what == "real" else f"in {synthetic.name}"
            raise DataError(
                f"fidelity needs 2 {what} images or more, there are {len(rows)} {where}"
            )
        if len(rows) > max_images:
            rng = np.random.default_rng(derive(seed, "fidelity", what))
            rows = np.sort(rng.choice(rows, max_images, replace=False))
        chosen.append(rows)
    return chosen[0], chosen[1]


def _similarity(
    real: Dataset,
    rows: NDArray[np.int64],
    synthetic: Dataset,
    made: NDArray[np.int64],
    *,
    seed: int,
) -> tuple[dict[str, float], list[str]]:
    """MS-SSIM of pairs within a class, synthetic and real: higher means less diverse."""
    scales = ms_ssim_scales(min(real.shape[1:]))
    found: dict[str, float] = {}
    for what, data, chosen in (("synthetic", synthetic, made), ("real", real, rows)):
        some = np.random.default_rng(derive(seed, "pairs", what)).permutation(chosen)[:200]
        value = pair_similarity(data.images(some), data.label_ids()[some], seed=seed)
        if not math.isnan(value):
            found[f"fidelity/ms_ssim_{scales}scales_{what}"] = value
    if len(found) < 2:
        return found, []
    one, other = found.values()
    more = "more alike than real ones: a sign of collapse" if one > other else "as diverse as real"
    text = f"MS-SSIM of pairs of a class ({scales} scales): synthetic {one:.3f}, real {other:.3f}"
    return found, [f"{text}; synthetic images are {more}."] if one > other + 0.1 else []


def _fidelity_table(found: Fidelity, extractor: Extractor, real: Dataset) -> pd.DataFrame:
    """One row a distance, with all that a number needs beside it to be compared."""
    shared: Mapping[str, object] = {
        "extractor": extractor.name,
        "stand_in": extractor.stand_in,
        "weights_sha256": extractor.sha256,
        "dim": found.dim,
        "n_real": found.n_real,
        "n_synthetic": found.n_synthetic,
        "image_size": "x".join(map(str, real.shape[1:])),
        "bits": 8,
        "resize": f"{extractor.size} px, bilinear, antialiased",
    }
    few = "fewer images than features: mostly bias" if found.n < found.dim else ""
    rows = []
    for name, n, note in (("fid", found.n, few), ("kid", min(found.n_real, found.n_synthetic), "")):
        rows.append(
            {
                "metric": f"fidelity/{extractor.name}/{name}",
                "value": getattr(found, name),
                "sd": getattr(found, f"{name}_sd"),
                "floor": getattr(found, f"{name}_floor"),
                "floor_sd": getattr(found, f"{name}_floor_sd"),
                "n": n,
                **shared,
                "note": note,
            }
        )
    return pd.DataFrame(rows)


def _fidelity_warnings(found: Fidelity, extractor: Extractor) -> list[str]:
    warnings = []
    if extractor.stand_in:
        warnings.append(
            f"{extractor.name} is a stand-in with random weights: its numbers show that the "
            "pipeline runs and rank coarse differences, they are no FID or KID of the literature. "
            "Give extractor=NAME@WEIGHTS for real ones."
        )
    if found.n < found.dim:
        warnings.append(
            f"The Frechet distances rest on {found.n} images for {found.dim} features: they are "
            "mostly bias. Read them against their floor alone, or read KID."
        )
    return warnings


def _grid(
    real: Dataset, rows: NDArray[np.int64], synthetic: Dataset, made: NDArray[np.int64]
) -> list[tuple[str, NDArray[np.float32]]]:
    """Rows of the picture: of each class the first real and the first synthetic images."""
    out = []
    for number, name in enumerate(real.classes.names):
        for what, data, chosen in (("real", real, rows), ("synthetic", synthetic, made)):
            ids = data.label_ids()[chosen]
            mine = chosen[ids == number] if data.classes == real.classes else chosen[:0]
            if len(mine):
                out.append((f"{what}\n{name}", data.images(mine[:SHOWN])))
    if not out:
        out = [("real", real.images(rows[:SHOWN])), ("synthetic", synthetic.images(made[:SHOWN]))]
    return out
