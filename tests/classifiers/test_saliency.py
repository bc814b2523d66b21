"""Grad-CAM maps: by hand on a network of one layer, and where a decision hangs on one place."""

from typing import Any

import numpy as np
import pytest
import small
import torch
from torch import nn

from mammo.classifiers.backbone import Network, build
from mammo.classifiers.predict import Classifier
from mammo.classifiers.saliency import Saliency, last_map
from mammo.errors import ConfigError
from mammo.models import SavedModel
from mammo.steps import evaluate

SIDE = 48


def classifier(body: nn.Module, head: Any, *, side: int = SIDE, name: str = "own") -> Classifier:
    """One whose features are `body`'s maps (1, F, h, w) averaged over their places."""
    weights = torch.tensor(head, dtype=torch.float32)  # (K, F)
    pooled = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = Network(pooled, features=weights.shape[1], classes=2, mean=[0.0], sd=[1.0])
    with torch.no_grad():
        network.head.weight.copy_(weights)
        network.head.bias.zero_()
    return of_network(network, side=side, name=name)


def of_network(network: Network, *, side: int = SIDE, name: str = "own") -> Classifier:
    saved = SavedModel(None, {"model_name": name})  # type: ignore[arg-type]
    return Classifier(
        network.eval().requires_grad_(False), "softmax", small.TWO, (1, side, side),
        {"balanced": 0.5}, "mean", saved,
    )  # fmt: skip


def test_a_map_is_the_positive_part_of_the_maps_weighed_by_their_gradients() -> None:
    body = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        body.weight.copy_(torch.tensor([1.0, -2.0]).reshape(2, 1, 1, 1))
        body.bias.copy_(torch.tensor([0.0, 1.0]))
    found = Saliency(classifier(body, [[3.0, 1.0], [-1.0, 2.0]], side=4))
    image = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4) / 15
    first, second = image[0, 0], 1 - 2 * image[0, 0]
    for number, (one, two) in enumerate([(3.0, 1.0), (-1.0, 2.0)]):
        # the gradient of a logit by a map is its weight over the 16 places
        expected = np.maximum(one / 16 * first + two / 16 * second, 0)
        maps = found.maps(image, np.array([number]))
        np.testing.assert_allclose(maps[0], expected / expected.max(), atol=1e-6)


class Checks(nn.Module):
    """A map (1, 2, h, w) of where the picture is checkered, and of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.find = nn.Conv2d(1, 2, 2, bias=False)
        with torch.no_grad():
            self.find.weight.copy_(
                torch.tensor([[[1.0, -1.0], [-1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])[:, None]
            )
        self.pool = nn.AvgPool2d(4, ceil_mode=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.pool(self.find(images).abs())
        return found


def checkered(row: int, column: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """A soft picture with a brighter plain block, and a checkered one of 8 x 8 at the place."""
    image = np.full((SIDE, SIDE), 0.3, np.float32)
    image[4:16, 4:16] = 0.9  # what catches the eye, and means nothing
    block = np.indices((8, 8)).sum(axis=0) % 2
    image[row : row + 8, column : column + 8] = 0.3 + 0.2 * block
    return image + rng.uniform(0, 0.001, image.shape).astype(np.float32)


@pytest.mark.parametrize("seed", range(8))
def test_the_map_peaks_where_the_decision_lies(seed: int) -> None:
    rng = np.random.default_rng(seed)
    row, column = (int(each) for each in rng.integers(20, 38, 2))
    judge = classifier(Checks(), [[-200.0, 0.0], [200.0, 0.0]])
    with torch.no_grad():  # where nothing is checkered it is benign
        judge.network.head.bias.copy_(torch.tensor([1.0, -1.0]))
    image = checkered(row, column, rng)
    plain, dark = image.copy(), image.copy()
    plain[row : row + 8, column : column + 8] = 0.3
    dark[4:16, 4:16] = 0.3
    called = [judge.predict(each[None, None]).argmax() for each in (image, plain, dark)]
    assert called == [1, 0, 1]  # the decision hangs on the checkered block alone
    heat = Saliency(judge).maps(image[None, None], np.array([1]))[0]
    top = np.unravel_index(heat.argmax(), heat.shape)
    assert row - 4 <= top[0] < row + 12  # a place of the map has 4 pixels
    assert column - 4 <= top[1] < column + 12
    assert heat.max() == pytest.approx(1)
    assert heat[2:14, 2:14].max() < 0.2


def test_where_nothing_speaks_for_a_class_its_map_is_empty() -> None:
    judge = classifier(Checks(), [[-200.0, 0.0], [200.0, 0.0]])
    image = checkered(30, 30, np.random.default_rng(0))[None, None]
    maps = Saliency(judge).maps(np.concatenate([image, image]), np.array([0, 1]))
    assert not maps[0].any()
    assert maps[1].max() == pytest.approx(1)
    assert not any(each.requires_grad for each in judge.network.parameters())


@pytest.mark.parametrize(
    ("model_name", "side", "layer"),
    [
        ("test_resnet", 64, "body.layer4"),
        ("test_resnet", 32, "body.layer3"),  # the last one has one place, and so no map
        ("test_convnext", 64, "body.norm_pre"),
        ("test_efficientnet", 64, "body.bn2"),
        ("torchvision/resnet18", 64, "body.layer4"),
        ("test_vit", 160, ""),
    ],
)
def test_the_last_map_of_a_backbone(model_name: str, side: int, layer: str) -> None:
    network = build(model_name, shape=(1, side, side), classes=2).eval()
    name, module = last_map(network, (1, side, side))
    assert name == layer
    assert module is (network.get_submodule(layer) if layer else None)


def test_a_transformer_is_refused() -> None:
    network = build("test_vit", shape=(1, 160, 160), classes=2)
    with pytest.raises(ConfigError, match=r"test_vit ends in no map of features .* saliency=0"):
        Saliency(of_network(network, side=160, name="test_vit"))


def test_without_a_classifier_there_is_nothing_to_look_into() -> None:
    from mammo.driver import defaults

    settings = {**defaults(evaluate), "data": "d", "synthetic": "s", "saliency": 2}
    with pytest.raises(ConfigError, match="saliency 2 has no classifier to look into"):
        evaluate.check(settings)
