"""Perceptual distances: LPIPS, or what any backbone with local weights sees, differentiable.

A distance maps images (N, C, H, W) in [0, 1] to numbers (N,). With three channels they are RGB;
otherwise each channel is looked at as a grey image of its own, and the mean counts: the two
images of a pair are no colours. The networks are frozen, and no modules of the model that is
trained: they follow the images to their device, and are neither optimised, averaged nor saved.
"""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mammo.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

HUB_FILE = "alexnet-owt-7be5be79.pth"  # of torchvision, AlexNet_Weights.IMAGENET1K_V1
PROBE = 64  # pixels of the image that shows where a network's last feature map is


class Distance(Protocol):
    """How far apart two images look."""

    def __call__(self, made: Tensor, true: Tensor) -> Tensor:
        """Distances (N,) of images (N, C, H, W) in [0, 1]; 0 for equal ones."""


def check_distance(setting: str) -> None:
    """ConfigError when `setting` names no weights that are there; "" is torchvision's hub."""
    if setting.partition("@")[1] and not Path(setting).expanduser().exists():
        from mammo.evaluation.extractors import check_extractor

        check_extractor(setting)
    elif setting and not Path(setting).expanduser().is_file():
        raise ConfigError(
            f"perceptual {setting!r} is no file; give the weights of AlexNet's features for LPIPS, "
            "or NAME@FILE for another network, as torchvision/resnet50@RadImageNet.pt"
        )


def load_distance(setting: str) -> Distance:
    """LPIPS with the weights that `setting` names, or NAME@FILE as in mammo.evaluation.extractors.

    The weights of LPIPS are those of AlexNet's features (Krizhevsky et al. 2012), from
    torchvision's hub where `setting` is empty; its heads come with the package lpips.
    """
    check_distance(setting)
    if setting.partition("@")[1] and not Path(setting).expanduser().exists():
        return BackboneDistance(setting)
    return Lpips(_from_file(Path(setting).expanduser()) if setting else _from_hub())


class _Frozen:
    """A network that only looks, in float32: shared by copies of whatever holds it."""

    def __init__(self, network: Any) -> None:
        self.network = network.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Frozen:
        return self

    def __call__(self, made: Tensor, true: Tensor) -> Tensor:
        import torch

        self.network.to(made.device)
        count, channels = made.shape[:2]
        made, true = made.float(), true.float()
        if channels != 3:
            made, true = (
                each.flatten(0, 1)[:, None].expand(-1, 3, -1, -1) for each in (made, true)
            )
        # what two alike images excite differs by less than half precision rounds to
        with torch.autocast(made.device.type, enabled=False):
            return self.distances(made, true).view(count, -1).mean(1)

    def distances(self, made: Tensor, true: Tensor) -> Tensor:
        """Distances (N,) of RGB images (N, 3, H, W) in [0, 1]."""
        raise NotImplementedError


class Lpips(_Frozen):
    """Learned perceptual image patch similarity, version 0.1 (Zhang et al. 2018) on AlexNet."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        import lpips
        import torch

        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # the package's own call of torchvision; the random weights are replaced below
            warnings.filterwarnings("ignore", "The parameter 'pretrained' is deprecated")
            warnings.filterwarnings("ignore", "Arguments other than a weight enum")
            network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        layers = {
            name: tensors[f"features.{name.partition('.')[2]}"] for name in network.net.state_dict()
        }
        network.net.load_state_dict(layers)
        super().__init__(network)

    def distances(self, made: Tensor, true: Tensor) -> Tensor:
        """The package's own sum over layers, with a gradient where no feature answers.

        Its division by a norm of 0 passes back nan, and air in a mammogram can excite nothing.
        """
        from torch.nn import functional

        looks = [self.network.net(self.network.scaling_layer(2 * x - 1)) for x in (made, true)]
        found: Any = 0
        for head, *pair in zip(self.network.lins, *looks, strict=True):
            one, other = (functional.normalize(each, dim=1, eps=1e-10) for each in pair)
            found = found + head((one - other).square()).mean((1, 2, 3))
        distances: Tensor = found
        return distances


class BackboneDistance(_Frozen):
    """Squared distance of the last feature maps, each position's features of unit length.

    Summed over the features and averaged over the positions, as in system 4's perceptual loss
    (MONAI's RadImageNet similarity). Images keep their size.
    """

    def __init__(self, setting: str) -> None:
        import torch

        from mammo.evaluation.extractors import load_extractor

        extractor = load_extractor(setting)
        super().__init__(extractor.network)
        self._mean = torch.tensor(extractor.mean)[:, None, None]
        self._sd = torch.tensor(extractor.sd)[:, None, None]
        self._seen: Any = None
        self._last_map(setting.partition("@")[0]).register_forward_hook(self._keep)

    def distances(self, made: Tensor, true: Tensor) -> Tensor:
        one, other = (self._features(each) for each in (made, true))
        return (one - other).square().sum(1).flatten(1).mean(1)

    def _features(self, images: Tensor) -> Tensor:
        """The last feature map (N, D, h, w), of unit length along D."""
        from torch.nn import functional

        mean, sd = self._mean.to(images.device), self._sd.to(images.device)
        self.network((images - mean) / sd)
        seen, self._seen = self._seen, None
        return functional.normalize(seen, dim=1, eps=1e-10)

    def _keep(self, module: Any, inputs: Any, output: Tensor) -> None:
        self._seen = output

    def _last_map(self, name: str) -> Any:
        """The module that ends the last feature map of the network called `name`."""
        import torch

        found = []

        def note(module: Any, inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
                found.append(module)

        hooks = [each.register_forward_hook(note) for each in self.network.modules()]
        with torch.inference_mode(), contextlib.suppress(AssertionError, RuntimeError):
            self.network(torch.zeros(1, 3, PROBE, PROBE))
            for hook in hooks:
                hook.remove()
            return found[-1]
        # a transformer takes images of its own size alone
        raise ConfigError(
            f"perceptual: {name} has no feature maps for images of any size; choose a "
            "convolutional network"
        )


def _from_file(path: Path) -> dict[str, Tensor]:
    """AlexNet's weights in `path`: of its features alone, or of all of it."""
    from mammo.evaluation.extractors import read_weights

    tensors = read_weights(path)
    missing = [name for name in _FEATURES if name not in tensors]
    if missing:
        raise CheckpointError(
            f"{path} has no {missing[0]}: these are not the weights of AlexNet's features; "
            "bring torchvision's alexnet, or name the network as NAME@FILE"
        )
    return tensors


_FEATURES = [
    f"features.{layer}.{kind}" for layer in (0, 3, 6, 8, 10) for kind in ("weight", "bias")
]


def _from_hub() -> dict[str, Tensor]:
    """AlexNet's weights from torchvision's hub, or from where torch has kept them."""
    from urllib.error import URLError

    from torchvision.models import AlexNet_Weights

    try:
        found: dict[str, Tensor] = AlexNet_Weights.IMAGENET1K_V1.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (URLError, OSError, RuntimeError):
        raise ConfigError(
            f"perceptual: the weights {HUB_FILE} of torchvision's hub cannot be fetched; bring the "
            "file and name it, perceptual=FILE, or leave the perceptual term out "
            "(perceptual_weight=0 of an autoencoder)"
        ) from None
    return found
