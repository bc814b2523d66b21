"""Where a classifier looked: Grad-CAM of its last map of features (Selvaraju et al. 2017)."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mammo.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mammo.classifiers.predict import Classifier


class Saliency:
    """Heat maps of one classifier; ConfigError for a network without a map of features."""

    def __init__(self, classifier: "Classifier") -> None:
        from captum.attr import LayerGradCam

        network = classifier.network
        name, layer = last_map(network, classifier.shape)
        if layer is None:
            raise ConfigError(
                f"saliency: {classifier.saved.about['model_name']} ends in no map of features "
                "(a transformer, or images too small for it); use saliency=0"
            )
        self.layer = name
        self._device = network.mean.device
        self._network = network
        self._gradcam = LayerGradCam(self._outputs, layer)

    def maps(
        self,
        images: NDArray[np.float32],
        ids: NDArray[np.int64],
        mates: Sequence[NDArray[np.float32]] = (),
    ) -> NDArray[np.float32]:
        """What speaks for class `ids` (N,) in `images` (N, C, H, W): (N, H, W) in [0, 1].

        Each map is divided by its own maximum; one is 0 all over where nothing speaks for the
        class. Its blocks are the pixels of the map of features, smoothed: it tells a region, not
        an outline. `mates` are the other images (M, C, H, W) of the set of each, for a model of
        several views.
        """
        import torch
        from torch.nn.functional import interpolate

        found = np.zeros((len(images), *images.shape[2:]), np.float32)
        for place, (image, number) in enumerate(zip(images, ids, strict=True)):
            # one at a time: the images are few, and their gradients fill the memory
            given = torch.from_numpy(image[None].copy()).to(self._device).requires_grad_()
            coarse = self._gradcam.attribute(
                given,
                target=int(number),
                additional_forward_args=self._features(mates[place] if len(mates) else images[:0]),
                relu_attributions=True,
            )
            fine = interpolate(coarse, images.shape[2:], mode="bilinear", align_corners=False)
            values = fine.detach().cpu().numpy()[0, 0]
            found[place] = values / max(float(values.max()), np.finfo(np.float32).tiny)
        return found

    def _features(self, images: NDArray[np.float32]) -> "Tensor":
        import torch

        if not len(images):  # which not every network takes
            return self._network.feature_mean[None, :][:0]
        with torch.no_grad():
            return self._network.features(torch.from_numpy(images).to(self._device))

    def _outputs(self, image: "Tensor", mates: "Tensor") -> "Tensor":
        """Of one image (1, C, H, W), or of the set that it is with `mates`, features (M, F)."""
        import torch

        every = torch.cat([self._network.features(image), mates])
        return self._network.classify(every, torch.ones(1, len(every), device=self._device) > 0)


def last_map(
    network: "nn.Module", shape: tuple[int, int, int]
) -> tuple[str, "nn.Module"] | tuple[str, None]:
    """The last module whose output is a map of features, with its name; None where there is none.

    A map is (1, C, h, w) with the sides of the image, made smaller, and above 1. After it there may
    be nothing but outputs of one place or of one line: tokens of a transformer end the search.
    """
    narrow: list[str] = []
    for name, module, output in reversed(_run(network, shape)):
        if len(output) != 4:
            if math.prod(output[1:-1]) > 1:
                return "", None
            continue  # a vector
        places = output[2:]
        if min(places) == 1:
            narrow.append(f"{name}.")  # what is inside it is a part, and not the whole
        elif not name.startswith(tuple(narrow)):
            # the sides are rounded, so by up to one place
            off = abs(places[0] * shape[2] - places[1] * shape[1])
            return (name, module) if off <= shape[1] + shape[2] else ("", None)
    return "", None


def _run(
    network: "nn.Module", shape: tuple[int, int, int]
) -> list[tuple[str, "nn.Module", tuple[int, ...]]]:
    """Every module that gives a tensor, with its name and the tensor's shape, as they end."""
    import torch

    ran: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def note(name: str, module: "nn.Module", output: object) -> None:
        if isinstance(output, torch.Tensor):
            ran.append((name, module, tuple(output.shape)))

    hooks = [
        each.register_forward_hook(
            lambda module, given, output, name=name: note(name, module, output)
        )
        for name, each in network.named_modules()
    ]
    try:
        with torch.no_grad():
            network(torch.zeros(1, *shape, device=next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return ran
