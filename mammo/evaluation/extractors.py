"""Feature extractors of the fidelity metrics: each has a name, a weights hash and one input path.

Distances between features mean nothing without the network that made them, so its name, the first
eight digits of its weights' hash and the feature dimension are part of every metric's name.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mammo.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

STAND_IN = "random"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and SD of RGB in [0, 1]
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_HEADS = ("fc", "classifier", "heads", "head")  # last layer of a torchvision classifier
_RADIMAGENET = "backbone."  # what the names in RadImageNet's files begin with


@dataclass(frozen=True)
class Extractor:
    """A frozen network from uint8 images to features (N, dim)."""

    name: str  # clean, as it stands in metric names
    sha256: str  # of the weights
    dim: int
    size: int  # side in pixels that images are resized to
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    stand_in: bool  # random weights: shows that the pipeline runs, not how good images are
    network: "nn.Module" = field(repr=False)

    def features(
        self,
        images: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        rows: NDArray[np.int64],
        *,
        batch_size: int = 32,
        device: str = "cpu",
    ) -> NDArray[np.float64]:
        """Features (len(rows), dim); `images(rows)` reads float (n, C, H, W) in [0, 1]."""
        import torch

        # the order of memory that convolutions prefer
        network = self.network.to(device).to(memory_format=torch.channels_last)
        out = np.empty((len(rows), self.dim))
        with torch.inference_mode():
            for start in range(0, len(rows), batch_size):
                part = slice(start, start + batch_size)
                batch = self.prepare(quantise(images(rows[part]))).to(device)
                batch = batch.contiguous(memory_format=torch.channels_last)
                out[part] = network(batch).double().cpu().numpy()
        return out

    def prepare(self, images: NDArray[np.uint8]) -> "Tensor":
        """Network input (N, 3, size, size) of uint8 `images` (N, C, H, W).

        One channel is repeated, two get their mean as the third; bilinear with antialiasing;
        normalised with the network's own mean and SD.
        """
        import torch
        from torch.nn import functional

        pixels = torch.from_numpy(images).float() / 255
        if pixels.shape[1] == 1:
            pixels = pixels.expand(-1, 3, -1, -1)
        elif pixels.shape[1] == 2:
            pixels = torch.cat([pixels, pixels.mean(1, keepdim=True)], 1)
        side = (self.size, self.size)
        pixels = functional.interpolate(
            pixels, side, mode="bilinear", align_corners=False, antialias=True
        )
        mean, sd = torch.tensor(self.mean), torch.tensor(self.sd)
        return (pixels - mean[:, None, None]) / sd[:, None, None]


def quantise(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round `images` in [0, 1] to 8 bits: the same depth for real and synthetic ones."""
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)


def check_extractor(setting: str) -> None:
    """Refuse an extractor setting that cannot work; ConfigError says what can."""
    if setting == STAND_IN:
        return
    network, at, given = setting.partition("@")
    if not at or not network or not given:
        raise ConfigError(
            f"extractor {setting!r} is not random or NAME@WEIGHTS, as in inception@FILE, "
            "torchvision/mobilenet_v2@FILE or a timm name with @FILE"
        )
    if not _weights_path(setting).is_file():
        raise ConfigError(
            f"extractor weights {given} do not exist; bring the state dict of {network} "
            "(.pth or .safetensors) there"
        )


def load_extractor(setting: str) -> Extractor:
    """The extractor that `setting` names: `random`, or NAME@WEIGHTS with local weights.

    NAME is `inception` (torchvision's inception_v3), `torchvision/<name>` or a name of timm.
    """
    check_extractor(setting)
    if setting == STAND_IN:
        return _random_conv()
    network, _, _ = setting.partition("@")
    path = _weights_path(setting)
    tensors = read_weights(path)
    build = _torchvision if network == "inception" or "/" in network else _timm
    module, size, (mean, sd) = build(network, tensors, path)
    sha256 = weights_sha256(setting)
    dim = _dim(module, size)
    name = f"{network.rpartition('/')[2]}-{sha256[:8]}-{dim}d"
    return Extractor(name, sha256, dim, size, mean, sd, False, module)


def weights_sha256(setting: str) -> str:
    """Hash of the weights file that `setting` names; empty for the stand-in."""
    if setting == STAND_IN:
        return ""
    with _weights_path(setting).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weights_path(setting: str) -> Path:
    return Path(setting.partition("@")[2]).expanduser()


def _random_conv() -> Extractor:
    """Three strided convolutions with fixed random weights: 64 features, always at hand."""
    import torch
    from torch import nn

    rng = np.random.default_rng(64)
    layers: list[nn.Module] = []
    digest = hashlib.sha256()
    for inside, outside in ((3, 16), (16, 32), (32, 64)):
        layer = nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False)
        # He et al. 2015: variance 2 / fan-in keeps the scale of the features through a ReLU
        weight = rng.standard_normal((outside, inside, 3, 3)) * np.sqrt(2 / (9 * inside))
        layer.weight.data = torch.from_numpy(weight.astype(np.float32))
        digest.update(layer.weight.data.numpy().tobytes())
        layers += [layer, nn.ReLU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    half = (0.5, 0.5, 0.5)
    return Extractor("random_conv64", digest.hexdigest(), 64, 128, half, half, True, module)


def _torchvision(network: str, tensors: dict[str, "Tensor"], path: Path) -> tuple[Any, int, Any]:
    from torch import nn
    from torchvision import models

    name = "inception_v3" if network == "inception" else network.removeprefix("torchvision/")
    if name not in models.list_models(module=models):
        raise ConfigError(f"extractor {network!r} is not a classification network of torchvision")
    # init_weights is slow (truncated normals by SciPy) and the weights are replaced below
    extra = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    module = models.get_model(name, weights=None, **extra)
    head = next(each for each in _HEADS if hasattr(module, each))
    radimagenet = any(each.startswith(_RADIMAGENET) for each in tensors)
    if radimagenet:
        tensors = _named_as_in(module, tensors)
    # the last layer is not used: weights may come without one, or with one of other classes
    own = {f"{head}.{each}": value for each, value in getattr(module, head).state_dict().items()}
    body = {each: value for each, value in tensors.items() if not each.startswith(f"{head}.")}
    _load(module, body | own, network, path)
    setattr(module, head, nn.Identity())
    side = 299 if "inception" in name else 224
    return module.eval().requires_grad_(False), side, _HALF if radimagenet else _IMAGENET


def _named_as_in(module: Any, tensors: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
    """RadImageNet's `tensors` under torchvision's names: it numbers the children of `module`.

    (Mei et al. 2022; its networks see images in [-1, 1].)
    """
    names = [name for name, _ in module.named_children()]
    renamed = {}
    for name, value in tensors.items():
        number, _, rest = name.removeprefix(_RADIMAGENET).partition(".")
        known = number.isdigit() and int(number) < len(names)
        renamed[f"{names[int(number)]}.{rest}" if known else name] = value
    return renamed


def _timm(network: str, tensors: dict[str, "Tensor"], path: Path) -> tuple[Any, int, Any]:
    import timm

    if not timm.is_model(network):
        raise ConfigError(
            f"extractor {network!r} is not random, inception, torchvision/… or timm's"
        )
    module = timm.create_model(network, pretrained=False)
    _load(module, tensors, network, path)
    module.reset_classifier(0)
    about = module.pretrained_cfg
    side = int(about["input_size"][-1])
    return module.eval().requires_grad_(False), side, (tuple(about["mean"]), tuple(about["std"]))


def _load(module: Any, tensors: dict[str, "Tensor"], network: str, path: Path) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise CheckpointError(f"{path} does not fit {network}: {first[0].strip()[:200]}") from None


def read_weights(path: Path) -> dict[str, "Tensor"]:
    """The state dict in `path`; only tensors are read, no code is run."""
    import pickle

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        import torch

        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0][:200]
        raise CheckpointError(f"{path} is not a file of weights: {reason}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, not a state dict")
    return found


def _dim(module: Any, size: int) -> int:
    import torch

    with torch.inference_mode():
        out = module(torch.zeros(1, 3, size, size))
    if out.ndim != 2:
        raise ConfigError(f"the extractor yields {tuple(out.shape)}, one vector an image is needed")
    return int(out.shape[1])
