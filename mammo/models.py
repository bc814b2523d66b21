"""A trained model on disk: weights, what it is and what it was trained on; nothing is unpickled."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mammo.data.classes import ClassMap
from mammo.data.dataset import GENERATOR_TRAINING_COLUMNS
from mammo.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA_VERSION = 1
WEIGHTS = "weights.safetensors"
TRAINING = "training.parquet"
GENERATOR_TRAINING = "generator_training.parquet"


@dataclass(frozen=True)
class SavedModel:
    """An opened model folder; `about` is model.json."""

    folder: Path
    about: dict[str, Any]

    @property
    def kind(self) -> str:
        """generator or classifier."""
        return str(self.about["kind"])

    @property
    def digest(self) -> str:
        return str(self.about["digest"])

    @property
    def run_id(self) -> str:
        return str(self.about["run_id"])

    @property
    def classes(self) -> ClassMap:
        return ClassMap.from_json(self.about["classes"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.about["shape"]
        return int(channels), int(height), int(width)

    @cached_property
    def training(self) -> pd.DataFrame:
        """The rows it was trained on: columns group_id, sha256, is_synthetic, salt.

        `salt` is the fingerprint of that by which the patient is hashed: the model's own, but for
        rows that come from a model which it builds on.
        """
        rows = pd.read_parquet(self.folder / TRAINING)
        own = str(self.about.get("salt") or "")
        return rows.assign(salt=rows["salt"].fillna(own) if "salt" in rows else own)

    @cached_property
    def generator_training(self) -> pd.DataFrame:
        """What the generators of its synthetic training rows were trained on, as far as known.

        Columns run_id, salt, group_id, sha256; empty without synthetic rows.
        """
        if GENERATOR_TRAINING in self.about["files"]:
            return pd.read_parquet(self.folder / GENERATOR_TRAINING)
        return pd.DataFrame({name: pd.Series(dtype="str") for name in GENERATOR_TRAINING_COLUMNS})

    def weights(self) -> dict[str, "Tensor"]:
        """Tensors by name, on the CPU; CheckpointError for a file of another format."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors: dict[str, Tensor] = load_file(self.folder / WEIGHTS)
        except SafetensorError as error:
            line = str(error).splitlines()[0][:120]
            raise CheckpointError(
                f"{self.folder / WEIGHTS} is no safetensors file ({line}); pickles are never "
                f"opened: delete {self.folder} and fetch or train it again"
            ) from None
        return tensors


def save_model(
    folder: Path,
    *,
    kind: str,
    run_id: str,
    classes: ClassMap,
    shape: tuple[int, int, int],
    weights: Mapping[str, "Tensor"],
    training: pd.DataFrame,
    settings: Mapping[str, Any],
    about: Mapping[str, Any],
    generator_training: pd.DataFrame | None = None,
    note: Mapping[str, str] | None = None,
) -> SavedModel:
    """Write the model beside `folder`, then rename it there when whole.

    `training` has the manifest columns group_id, sha256 and is_synthetic of the training rows, and
    salt where they are not all of one (see `SavedModel.training`),
    `generator_training` what the generators of the synthetic ones saw (as a dataset has it);
    `about` says what else the model needs to be rebuilt (network, fold, salt, ...); `note` is
    an entry in the header of the weights' file, for other programs that read it.
    """
    from safetensors.torch import save_file

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    # one entry: of several the library mixes the order, and equal models would differ in bytes
    header = dict(note) if note else {"format": "pt"}
    if len(header) > 1:
        raise ValueError(f"a weights' file takes one note, not {len(header)}: {', '.join(header)}")
    save_file(tensors, partial / WEIGHTS, metadata=header)
    columns = ["group_id", "sha256", "is_synthetic"]
    if "salt" in training and (training["salt"] != str(about.get("salt") or "")).any():
        columns.append("salt")
    training[columns].reset_index(drop=True).to_parquet(partial / TRAINING, index=False)
    files = [WEIGHTS, TRAINING]
    if generator_training is not None and len(generator_training):
        seen = generator_training[list(GENERATOR_TRAINING_COLUMNS)].reset_index(drop=True)
        seen.to_parquet(partial / GENERATOR_TRAINING, index=False)
        files.append(GENERATOR_TRAINING)
    described = {
        **about,
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "run_id": run_id,
        "classes": classes.to_json(),
        "shape": list(shape),
        "settings": dict(settings),
        "files": {name: _sha256(partial / name) for name in files},
    }
    write_about(partial, described)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return open_model(folder, kind)


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write model.json with its digest, which covers all else that it says."""
    signed = {**about, "digest": _digest(about)}
    (folder / "model.json").write_text(json.dumps(signed, indent=2, sort_keys=True) + "\n")


def _digest(about: Mapping[str, Any]) -> str:
    """Digest of what a model.json says, its own digest left out."""
    # as it is read again: there every key is a text
    said = {key: value for key, value in json.loads(json.dumps(about)).items() if key != "digest"}
    text = json.dumps(said, indent=2, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def open_model(folder: Path, kind: str = "") -> SavedModel:
    """Open a model folder and check every hash; CheckpointError when it is not whole or altered.

    `kind` is what the caller needs: generator or classifier; empty takes either.
    """
    try:
        about = json.loads((folder / "model.json").read_text())
        files = about["files"]
        found = str(about["kind"])
        genuine = about["digest"] == _digest(about)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a model: it has no model.json") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / 'model.json'} is corrupt ({error}); train it again"
        ) from None
    if kind and found != kind:
        raise CheckpointError(f"{folder} is a {found}, a {kind} is needed")
    for name, expected in files.items():
        path = folder / name
        actual = _sha256(path) if path.is_file() else "there is no such file"
        if actual != expected:
            raise CheckpointError(
                f"{path} is missing or corrupt (sha256 differs from model.json): {actual}, not "
                f"{expected}; delete {folder} and fetch or train it again"
            )
    if not genuine:
        raise CheckpointError(
            f"{folder / 'model.json'} was altered (its digest differs from what it says); "
            f"delete {folder} and fetch or train it again"
        )
    return SavedModel(folder, about)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
