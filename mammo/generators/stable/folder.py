"""The files of a Stable Diffusion pipeline on disk: which there must be, whole or not, and sums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from mammo.errors import CheckpointError, ConfigError

WORDS = ("tokenizer/vocab.json", "tokenizer/merges.txt")
ONE_FILE = "tokenizer/tokenizer.json"  # of words and merges, as newer libraries save them
FILES = (
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "tokenizer/tokenizer_config.json",
    "scheduler/scheduler_config.json",
    *WORDS,
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)
_HEADER = 100_000_000  # bytes that the format allows the header of a safetensors file


def check_whole(folder: Path) -> None:
    """Refuse a pipeline in `folder` that is not whole, or of another kind than can be tuned."""
    check_files("base", folder, FILES)
    _check_kind(folder)


def check_files(setting: str, folder: Path, names: Sequence[str]) -> None:
    """CheckpointError naming the first file of `folder` that is missing or cut short."""
    for name in names:
        path = folder / name
        if name in WORDS and (folder / ONE_FILE).is_file():
            continue
        if not path.is_file():
            code = list(path.parent.glob("*.bin")) if path.suffix == ".safetensors" else []
            hint = "; weights are read as safetensors only, a .bin can run code" if code else ""
            wrong = f"is missing{hint}"
        elif path.suffix == ".safetensors" and not _is_whole(path):
            wrong = "is cut short or no safetensors file, as an interrupted download leaves it"
        elif path.suffix == ".json" and read_json(path) is None:
            wrong = "is corrupt"
        else:
            continue
        raise CheckpointError(f"{setting} {folder}: {name} {wrong}; fetch it again")


def _check_kind(folder: Path) -> None:
    """Refuse pipelines that look alike but are built otherwise: SDXL, inpainting, refiners."""
    unet, vae, text = (
        read_json(folder / part / "config.json") or {} for part in ("unet", "vae", "text_encoder")
    )
    fits = (
        unet.get("in_channels", 4) == vae.get("latent_channels", 4)
        and unet.get("cross_attention_dim") == text.get("hidden_size")
        and not unet.get("addition_embed_type")
    )
    if not fits:
        raise ConfigError(
            f"base {folder} is no text-to-image Stable Diffusion 1 or 2: its UNet takes "
            f"{unet.get('in_channels')} channels and text of width "
            f"{unet.get('cross_attention_dim')}; use version 1.5 or a model of its kind"
        )


def fingerprint(folder: Path) -> dict[str, str]:
    """Sha256 of every file that decides what the base does."""
    names = [name for name in (*FILES, ONE_FILE) if (folder / name).is_file()]
    with ThreadPoolExecutor(4) as pool:  # hashing releases the interpreter's lock
        digests = list(pool.map(lambda name: _digest(folder / name), names))
    return dict(zip(names, digests, strict=True))


def _digest(path: Path) -> str:
    state = path.stat()
    return _digest_of(str(path), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest_of(path: str, size: int, changed_ns: int) -> str:
    """Read once in a process for each state of a file: a real base has 4 GB."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def difference(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """The first file that is not the same in both; empty if all are."""
    names = sorted({*one, *other})
    return next((name for name in names if one.get(name) != other.get(name)), "")


def factor(folder: Path) -> int:
    """Pixels on a side that one latent of the pipeline in `folder` stands for."""
    return int(2 ** (len((read_json(folder / "vae/config.json") or {})["block_out_channels"]) - 1))


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, _HEADER):
            return False
        try:
            header = json.loads(file.read(length))
            ends = [each["data_offsets"][1] for key, each in header.items() if key[:2] != "__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
    return size == 8 + length + max(ends, default=0)


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None
