"""Backbones of timm and torchvision without their last layer, for any number of channels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mammo.classifiers.weights import TORCHVISION
from mammo.errors import CheckpointError, ConfigError

IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_AUXILIARY = ("googlenet", "inception_v3")  # in training they give three outputs
_HEADS = ("classifier", "fc", "head", "heads")  # where torchvision keeps its last layer


@dataclass(frozen=True)
class Body:
    """A network without its last layer: images (B, 3, H, W) to features (B, F)."""

    module: nn.Module
    mean: tuple[float, ...]  # of what its pretrained weights expect, by colour, of [0, 1]
    sd: tuple[float, ...]
    head_names: tuple[str, ...]  # prefixes of the last layer's tensors in a state dict
    first: str  # name of the first convolution


def create(model_name: str, size: tuple[int, int], *, drop_path: float = 0.0) -> Body:
    """The backbone `model_name` with random weights; ConfigError when nobody knows the name.

    `drop_path` is the chance that an image skips the last block, less for those before it
    (stochastic depth, Huang et al. 2016), for networks that know it.
    """
    try:
        if model_name.startswith(TORCHVISION):
            return _create_torchvision(model_name, drop_path)
        return _create_timm(model_name, size, drop_path)
    except TypeError:
        if not drop_path:
            raise
        raise ConfigError(
            f"drop_path {drop_path} does not apply to model_name {model_name!r}, which cannot "
            "leave out blocks; use 0, or a ResNet, ConvNeXt or EfficientNet"
        ) from None


def adapt_first_layer(first: nn.Module, channels: int) -> None:
    """Make the first convolution take `channels` channels, in place.

    Each gets the mean over the colours of its weights, times 3 / channels: a grey image in every
    channel gives the response that it gives as a colour image of three equal colours.
    """
    if not isinstance(first, nn.Conv2d) or channels == first.in_channels:
        return
    colours = first.in_channels
    mean = first.weight.detach().mean(dim=1, keepdim=True)
    first.weight = nn.Parameter(mean.repeat(1, channels, 1, 1) * (colours / channels))
    first.in_channels = channels


def for_channels(values: Sequence[float], channels: int) -> list[float]:
    """Values of three colours for `channels` channels: their mean in each, unless there are 3."""
    return list(values) if channels == len(values) else [math.fsum(values) / len(values)] * channels


def load_body(body: Body, weights: dict[str, Tensor], *, model_name: str, source: str) -> None:
    """Load a state dict, whose last layer is dropped, into the whole of the backbone."""
    own = body.module.state_dict()
    # some tools save a counter that others leave out, and it changes nothing in use
    own_names = {name for name in own if not name.endswith("num_batches_tracked")}
    kept = {name: value for name, value in weights.items() if name in own}
    foreign = [name for name in weights if name not in own and not name.startswith(body.head_names)]
    missing = sorted(own_names - set(kept))
    if missing or foreign:
        found = f"it lacks {missing[0]!r}" if missing else f"it has {foreign[0]!r}"
        raise CheckpointError(
            f"weights {source} do not fit {model_name}: {found} ({len(missing)} tensors missing, "
            f"{len(foreign)} of another network); give the file of {model_name}"
        )
    for name, value in kept.items():
        if value.shape != own[name].shape:
            raise CheckpointError(
                f"weights {source} do not fit {model_name}: {name!r} is {tuple(value.shape)}, "
                f"{tuple(own[name].shape)} is needed; give the file of {model_name}"
            )
    body.module.load_state_dict({**own, **kept})


def _create_timm(model_name: str, size: tuple[int, int], drop_path: float) -> Body:
    import timm

    if not timm.is_model(model_name):
        near = timm.list_models(f"*{model_name.split('_')[0]}*")[:3]
        hint = f" (near: {', '.join(near)})" if near else ""
        raise ConfigError(
            f"unknown model_name {model_name!r}{hint}; give a name that timm knows, as resnet18, "
            "or torchvision/<name>"
        )
    about: dict[str, Any] = timm.get_pretrained_cfg(model_name).to_dict()
    asked: dict[str, Any] = {"img_size": size} if about.get("fixed_input_size") else {}
    asked |= {"drop_path_rate": drop_path} if drop_path else {}
    module = timm.create_model(model_name, pretrained=False, num_classes=0, **asked)
    heads = about.get("classifier") or "classifier"
    first = about.get("first_conv") or ""
    first = first[0] if isinstance(first, (list, tuple)) else first
    return Body(
        module,
        mean=tuple(about.get("mean") or IMAGENET_MEAN),
        sd=tuple(about.get("std") or IMAGENET_SD),
        head_names=(heads,) if isinstance(heads, str) else tuple(heads),
        first=first or _first_convolution(module, model_name),
    )


def _create_torchvision(model_name: str, drop_path: float) -> Body:
    from torchvision import models

    name = model_name.removeprefix(TORCHVISION)
    known = models.list_models(module=models)
    if name not in known:
        near = [each for each in known if each[:4] == name[:4]][:3] or known[:3]
        raise ConfigError(
            f"unknown model_name {model_name!r} (torchvision has {', '.join(near)}, ...); "
            "give torchvision/<name> or a name that timm knows"
        )
    asked = {"stochastic_depth_prob": drop_path} if drop_path else {}
    if name in _AUXILIARY:
        raise ConfigError(
            f"model_name {model_name!r} trains with auxiliary heads, which have no place here; "
            "use another, as inception_v3 of timm"
        )
    module = models.get_model(name, weights=None, **asked)
    head = next((each for each in _HEADS if hasattr(module, each)), "")
    linears = [
        f"{head}.{inner}" if inner else head
        for inner, layer in module.get_submodule(head).named_modules()
        if head and isinstance(layer, nn.Linear)
    ]
    if not linears:
        raise ConfigError(f"model_name {model_name!r} has no linear last layer to replace")
    parent, _, last = linears[-1].rpartition(".")
    setattr(module.get_submodule(parent), last, nn.Identity())
    first = _first_convolution(module, model_name)
    return Body(module, IMAGENET_MEAN, IMAGENET_SD, head_names=(linears[-1],), first=first)


def _first_convolution(module: nn.Module, model_name: str) -> str:
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            return str(name)
    raise ConfigError(f"model_name {model_name!r} has no convolution that takes the image")
