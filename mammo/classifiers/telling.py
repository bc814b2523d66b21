"""What a trained network says of images, or of the sets that they belong to."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammo.classifiers.activations import Activation
from mammo.classifiers.backbone import Network
from mammo.classifiers.pooling import over_images
from mammo.data.sets import Sets
from mammo.errors import DataError

Columns = dict[str, NDArray[np.float64]]
Keys = Sequence[Hashable] | NDArray[Any]  # (N,): images with the same one are a set


@torch.no_grad()
def see(network: Network, batches: Iterable[Tensor]) -> Tensor:
    """What is kept (N, ...) of the images of `batches` (B, C, H, W); see `keep`."""
    device, none = network.mean.device, network.feature_mean.new_empty(0, len(network.feature_mean))
    found = [keep(network, network.features(images.to(device))) for images in batches]
    return torch.cat([keep(network, none), *found])


@torch.no_grad()
def keep(network: Network, features: Tensor) -> Tensor:
    """What is kept of images with `features` (B, F), on the CPU.

    It is what the head says (B, K), or the features where sets are still to be pooled.
    """
    given = features.to(network.mean.device)
    return (network.classify(given) if network.pool is None else given).float().cpu()


@torch.no_grad()
def tell(
    network: Network,
    activation: Activation,
    names: Sequence[str],
    seen: Tensor,
    keys: Keys | None = None,
) -> Columns:
    """Columns (N,) of a predictions frame, of all that was `seen` of N images.

    A network with views says of each image what it says of its set, and beside it the image's
    weight in the set as `attention` where that is learned; without `keys` each image is a set of
    its own. Another network asks for none.
    """
    if network.pool is None:
        return activation.columns(seen, names)
    whose = range(len(seen)) if keys is None else keys
    if len(whose) != len(seen):
        raise DataError(f"{len(whose)} numbers of sets for {len(seen)} images; give one for each")
    sets = Sets.of(whose)
    images, filled = sets.pick(range(len(sets)))
    device, held = network.mean.device, torch.from_numpy(filled)
    features = seen[torch.from_numpy(images)].to(device)
    outputs = network.classify(features, held.to(device)).float().cpu()
    found = activation.columns(over_images(outputs, held), names)
    weights = network.attention(features, held.to(device))
    if weights is not None:
        found["attention"] = weights.double().cpu().numpy()
    back = np.argsort(images)  # as the images came
    return {name: values[back] for name, values in found.items()}
