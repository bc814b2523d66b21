"""Pretrained weights of a backbone: none, the hub's, a file's, or those of a trained classifier."""

import hashlib
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammo.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from mammo.models import SavedModel

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
TORCHVISION = "torchvision/"
_REFERENCE = re.compile(r"runs:/.+|models:/.+|[0-9a-f]{32}")  # of a run or its model


@dataclass(frozen=True)
class Weights:
    """Tensors by name and where they came from; no tensors for random ones."""

    tensors: "dict[str, Tensor] | None"
    source: str  # none, the hub's name, the file's name or the classifier's run
    sha256: str = ""  # of the file
    model: "SavedModel | None" = None  # the classifier, whose patients the new one has seen too

    @property
    def normalisation(self) -> "tuple[list[float], list[float]] | None":
        """Mean and sd by channel that a classifier was trained with; None for the backbone's."""
        if self.model is None:
            return None
        said = self.model.about["normalisation"]
        return said["mean"], said["sd"]


def check_weights(weights: str) -> None:
    """Refuse a file that is not there or cannot be one, without reading it as tensors."""
    path = Path(weights).expanduser()
    if weights in ("none", "default") or _REFERENCE.fullmatch(weights) or _is_model(path):
        return
    if not path.is_file():
        raise ConfigError(
            f"weights {weights!r} is not a file; give none, default, the path of a state dict, or "
            "a trained classifier"
        )
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"weights {weights!r} should end in {', '.join(SUFFIXES)}")


def weights_digest(weights: str) -> str:
    """Hash of the file that the setting names; empty where it names none of this machine."""
    if weights in ("none", "default") or _REFERENCE.fullmatch(weights):
        return ""
    check_weights(weights)
    path = Path(weights).expanduser()
    return _sha256(_model_folder(path) / "model.json" if _is_model(path) else path)


def read_weights(weights: str, model_name: str, found: Path | None = None) -> Weights:
    """The state dict that the setting `weights` names for `model_name`, lying in `found`."""
    if weights == "none":
        return Weights(None, "none")
    if weights == "default":
        return _from_hub(model_name)
    path = found or Path(weights).expanduser()
    if _is_model(path):
        return _from_classifier(
            path if (path / "model.json").is_file() else path / "model", model_name
        )
    check_weights(weights)
    return _from_file(path)


def _is_model(path: Path) -> bool:
    return (_model_folder(path) / "model.json").is_file()


def _model_folder(path: Path) -> Path:
    """The folder of a model itself, where `path` may be that of its run's artifacts."""
    inner = path / "model"
    return inner if (inner / "model.json").is_file() else path


def _from_classifier(folder: Path, model_name: str) -> Weights:
    """The backbone of a classifier that was trained here."""
    from mammo.models import WEIGHTS, open_model

    saved = open_model(folder, "classifier")
    if saved.about["model_name"] != model_name:
        raise ConfigError(
            f"weights: classifier {saved.run_id} is a {saved.about['model_name']}, model_name is "
            f"{model_name!r}; use the same"
        )
    body = {
        name.removeprefix("body."): value
        for name, value in saved.weights().items()
        if name.startswith("body.")
    }
    return Weights(body, f"classifier {saved.run_id}", saved.about["files"][WEIGHTS], saved)


def _from_file(path: Path) -> Weights:
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    damaged = archive.testzip()  # torch.load does not compare the checksums
                if damaged:
                    raise CheckpointError(f"weights {path} are corrupt (checksum of {damaged})")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise _corrupt(path, error) from None
    except Exception as error:
        # safetensors has an error class of its own, torch raises a bare RuntimeError
        if isinstance(error, RuntimeError) or type(error).__name__ == "SafetensorError":
            raise _corrupt(path, error) from None
        raise
    return Weights(_tensors(found, path), path.name, _sha256(path))


def _tensors(found: Any, path: Path) -> "dict[str, Tensor]":
    """The state dict in `found`, which training scripts like to wrap once."""
    import torch

    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"weights {path} hold no state dict; save model.state_dict()")
    wrong = [name for name, value in found.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise CheckpointError(f"weights {path} hold {wrong[0]!r}, which is no tensor")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def _corrupt(path: Path, error: Exception) -> CheckpointError:
    line = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return CheckpointError(f"weights {path} are corrupt ({line}); fetch the file again")


def _from_hub(model_name: str) -> Weights:
    if model_name.startswith(TORCHVISION):
        return _from_torchvision(model_name.removeprefix(TORCHVISION))
    return _from_timm(model_name)


def _from_timm(model_name: str) -> Weights:
    import timm

    about = timm.get_pretrained_cfg(model_name)
    name = f"{about.architecture or model_name}.{about.tag}" if about.tag else model_name
    try:
        model = timm.create_model(model_name, pretrained=True)
    except (OSError, RuntimeError, ValueError):
        raise CheckpointError(
            f"weights 'default' of {model_name} cannot be fetched; bring model.safetensors of the "
            f"hub's {about.hf_hub_id or f'timm/{name}'} to this machine and give its path as "
            "--weights"
        ) from None
    return Weights(dict(model.state_dict()), name)


def _from_torchvision(name: str) -> Weights:
    import torch
    from torchvision.models import get_model_weights

    default = get_model_weights(name).DEFAULT
    file = default.url.rpartition("/")[2]
    try:
        found = default.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError):
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise CheckpointError(
            f"weights 'default' of torchvision/{name} cannot be fetched; bring {file} to {folder} "
            "or give its path as --weights"
        ) from None
    return Weights(dict(found), str(default), file.rpartition("-")[2].partition(".")[0])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
