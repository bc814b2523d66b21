"""What a dataset on disk must be before anything in it is believed: it may come from anybody."""

import json
import os
import re
import tokenize
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammo.data.classes import ClassMap
from mammo.data.manifest import COLUMNS, check_manifest
from mammo.errors import DataError, MammoError

SCHEMA_VERSION = 1
_MOST_BYTES = 64 << 20  # of dataset.json, which holds a few kB and a line for each parent
_SHARD = re.compile(r"(?:[0-9a-f]{32}/)?images-\d{4,}\.npy")  # of another dataset: its digest first
_DIGEST = re.compile(r"[0-9a-f]{32}")
_PIXELS = ("uint8", "uint16")
# What numpy raises on headers that are cut, lie, or are no Python literal
_NO_NPY = (
    *(OSError, ValueError, TypeError, EOFError, OverflowError, IndexError),
    *(SyntaxError, tokenize.TokenError, RecursionError, MemoryError),
)
_KINDS = {"str": "text", "float64": "number", "int64": "whole number", "bool": "truth value"}


def read_about(folder: Path) -> tuple[dict[str, Any], ClassMap]:
    """dataset.json and the class map in it; DataError says what is wrong with it."""
    path = folder / "dataset.json"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        about = json.loads(path.read_text())
        if not isinstance(about, dict):
            raise TypeError(f"it is a {type(about).__name__}, no object")
        version = about["schema_version"]
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise DataError(
                f"{folder} has schema version {str(version)[:20]}, this mammo reads "
                f"{SCHEMA_VERSION}; make the dataset again with this mammo"
            )
        _check_about(about)
        return about, _classes(about["classes"])
    except RecursionError:
        raise _broken(path, "its lists are nested too deep") from None
    except KeyError as error:
        raise _broken(path, f"it has no {error.args[0]}") from None
    except (OSError, ValueError, TypeError) as error:
        raise _broken(path, str(error)) from None
    except MammoError as error:
        raise DataError(str(error)) from None


def _check_about(about: dict[str, Any]) -> None:
    """Refuse values of another type than every step relies on."""
    if not isinstance(about["name"], str):
        raise TypeError("its name is no text")
    if not isinstance(about["digest"], str) or not _DIGEST.fullmatch(about["digest"]):
        raise ValueError("its digest is not 32 hexadecimal digits")
    shape = about["shape"]
    if not isinstance(shape, list) or len(shape) != 3 or not all(_is_side(side) for side in shape):
        raise ValueError("its shape is not channels, height and width, each from 1 to 65535")
    parents = about.get("parents", [])
    known = isinstance(parents, list) and all(
        isinstance(each, dict)
        and isinstance(each.get("uri", ""), str)
        and isinstance(each.get("digest"), str)
        and _DIGEST.fullmatch(each["digest"])
        for each in parents
    )
    if not known:
        raise ValueError("its parents are no list of digest and uri")


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535


def _classes(said: Any) -> ClassMap:
    names = said["names"]
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise TypeError("its class names are no list of texts")
    if not all(isinstance(said[key], str) for key in ("task", "positive", "label_kind")):
        raise TypeError("its class map has no task, positive and label_kind as texts")
    return ClassMap.from_json(said)


def read_manifest(folder: Path, classes: ClassMap) -> pd.DataFrame:
    """The manifest, which keeps the data contract and points only into shards of datasets."""
    path = folder / "manifest.parquet"
    frame = _read_parquet(path)
    for name, (kind, _) in COLUMNS.items():
        if name in frame and not _is_of(frame[name].dtype, kind):
            raise _broken(path, f"its column {name} is {frame[name].dtype}, no {_KINDS[kind]}")
    check_manifest(frame, classes.names)
    shards = frame["shard"].unique()
    strange = [shard for shard in shards if not _SHARD.fullmatch(str(shard))]
    if strange:
        raise _broken(path, f"{len(strange)} of its {len(shards)} shards are no images-0000.npy")
    if len(frame) and frame["index"].min() < 0:
        raise _broken(path, "an index is negative")
    return frame


def read_training(folder: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """generator_training.parquet, texts in `columns`; without rows where there is no such file."""
    path = folder / "generator_training.parquet"
    if not path.exists():
        return pd.DataFrame({name: pd.Series(dtype="str") for name in columns})
    frame = _read_parquet(path)
    if not set(columns) <= set(frame.columns):
        raise _broken(path, f"it needs the columns {', '.join(columns)}")
    if not all(_is_of(frame[name].dtype, "str") for name in columns):
        raise _broken(path, "its columns are no texts")
    return frame


def map_pixels(path: Path, *, channels: int, shape: tuple[int, int]) -> NDArray[Any]:
    """The shard at `path`, memory-mapped: uint8 or uint16 (N, channels, *shape)."""
    if not path.is_file():  # nor a pipe, which would never end
        raise _broken(path, "it is not there, or no file")
    if path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve()):
        raise _broken(path, "it is a link that leads out of the dataset")
    try:
        with path.open("rb") as file:
            count, dtype, start = _npy_header(file, (channels, *shape))
            whole = os.fstat(file.fileno()).st_size
    except _NO_NPY:
        raise _broken(path, "it is no .npy file, or a broken one") from None
    held = (whole - start) // (channels * shape[0] * shape[1] * dtype.itemsize)
    if not 0 < count <= held:
        raise _broken(path, f"it says {min(count, 10**18)} images and holds {held}")
    return np.memmap(path, dtype, "r", start, (count, channels, *shape))


def _npy_header(file: BinaryIO, shape: tuple[int, ...]) -> tuple[int, np.dtype[Any], int]:
    """Number of images, type of a pixel and place of the first in an opened .npy file.

    Nothing in the header is believed but a plain array of images of `shape`; ValueError.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError
    read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
    said, in_columns, dtype = read(file)
    if in_columns or dtype.name not in _PIXELS or said[1:] != shape or type(said[0]) is not int:
        raise ValueError
    return said[0], dtype, file.tell()


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow

    try:
        if not path.is_file():
            raise ValueError("it is no file")
        return pd.read_parquet(path)
    except (OSError, ValueError, TypeError, KeyError, pyarrow.ArrowException) as error:
        raise _broken(path, " ".join(str(error).split())[:200]) from None


def _is_of(dtype: Any, kind: str) -> bool:
    kinds = pd.api.types
    if kind == "str":
        return bool(kinds.is_string_dtype(dtype) and not kinds.is_object_dtype(dtype))
    if kind == "bool":
        return bool(kinds.is_bool_dtype(dtype))
    whole = bool(kinds.is_integer_dtype(dtype))
    return whole if kind == "int64" else whole or bool(kinds.is_float_dtype(dtype))


def _broken(path: Path, why: str) -> DataError:
    return DataError(f"{path} cannot be used: {why}; fetch or make the dataset again")
