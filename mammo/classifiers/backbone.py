"""Networks: a timm or torchvision backbone for any number of channels, with a head."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mammo.classifiers.bodies import adapt_first_layer, create, for_channels, load_body
from mammo.classifiers.pooling import Pool, laid
from mammo.classifiers.views import VIEWS
from mammo.errors import ConfigError


class Network(nn.Module):
    """Images (B, C, H, W) in [0, 1] to logits (B, K); whatever normalises them lies inside.

    Kept in channels_last, the order that convolutions prefer on a CPU and on a GPU.
    One with `views` gives the logits (S, K) of sets of images too.
    """

    mean: Tensor
    sd: Tensor
    feature_mean: Tensor
    feature_sd: Tensor

    def __init__(
        self,
        body: nn.Module,
        *,
        features: int,
        classes: int,
        mean: Sequence[float],
        sd: Sequence[float],
        dropout: float = 0.0,
        head: str = "linear",
        views: str = "none",
    ) -> None:
        super().__init__()
        self.body = body
        self.pool: Pool | None = VIEWS[views](features)
        self.frozen = False  # whether nothing of the backbone is ever trained; a plan says so
        self.dropout = nn.Dropout(dropout if head == "linear" else 0.0)
        self.head = make_head(head, features, classes, dropout)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("sd", torch.tensor(sd).reshape(1, -1, 1, 1))
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_sd", torch.ones(features))
        self.to(memory_format=torch.channels_last)

    @property
    def top(self) -> nn.Module:
        """All that is learned behind the features."""
        return self.head if self.pool is None else nn.ModuleList([self.pool, self.head])

    @property
    def last_layer(self) -> nn.Linear:
        """What gives the logits."""
        return [each for each in self.head.modules() if isinstance(each, nn.Linear)][-1]

    def features(self, images: Tensor) -> Tensor:
        """Features (B, F) of `images`, before they are scaled."""
        normal = ((images - self.mean) / self.sd).contiguous(memory_format=torch.channels_last)
        found: Tensor = self.body(normal)
        return found

    def classify(self, features: Tensor, held: Tensor | None = None) -> Tensor:
        """Logits (B, K) of `features` (B, F), in float32: among those of bf16 many are equal.

        With `held` (S, M) they are not each image's but those (S, K) of the sets that the images
        are in, one after the other; see `Sets.pick`.
        """
        with torch.autocast(features.device.type, enabled=False):
            scaled = self._scaled(features)
            if held is not None and self.pool is not None:
                scaled = self.pool(laid(scaled, held), held)
            logits: Tensor = self.head(self.dropout(scaled))
        return logits

    def attention(self, features: Tensor, held: Tensor) -> Tensor | None:
        """Weight (n,) of each image in its set; None where none is learned."""
        if self.pool is None:
            return None
        weights = self.pool.weights(laid(self._scaled(features), held), held)
        return None if weights is None else weights[held]

    def _scaled(self, features: Tensor) -> Tensor:
        return (features.float() - self.feature_mean) / self.feature_sd

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images))

    @torch.no_grad()
    def scale_features(self, features: Tensor) -> None:
        """Bring each feature to mean 0 and sd 1 over `features` (N, F) of training images."""
        self.feature_mean.copy_(features.mean(dim=0))
        self.feature_sd.copy_(features.std(dim=0).clamp_min(1e-3))  # a dead feature stays small


def make_head(head: str, features: int, classes: int, dropout: float) -> nn.Module:
    """Features (B, F) to logits (B, K): linear, or batch_norm, a head for features of any scale.

    The latter is the head of system 0: BatchNorm, ReLU, Dropout, Linear.
    """
    if head == "linear":
        return nn.Linear(features, classes)
    return nn.Sequential(
        nn.BatchNorm1d(features),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(features, classes),
    )


def build(
    model_name: str,
    *,
    shape: tuple[int, int, int],
    classes: int,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    head: str = "linear",
    views: str = "none",
    weights: dict[str, Tensor] | None = None,
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None,
    source: str = "",
    seed: int = 0,
) -> Network:
    """A fresh network for images of `shape` (C, H, W).

    `weights` is a state dict of the backbone for any number of channels, read from `source`, and
    `normalisation` the mean and sd by channel that they expect, where these are not the model's;
    without weights every layer is drawn from `seed`, as the head is in any case.
    """
    channels, height, width = shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = create(model_name, (height, width), drop_path=drop_path)
        if weights is not None:
            taken = weights.get(f"{body.first}.weight")
            if taken is not None and taken.ndim == 4:
                adapt_first_layer(body.module.get_submodule(body.first), taken.shape[1])
            load_body(body, weights, model_name=model_name, source=source)
        adapt_first_layer(body.module.get_submodule(body.first), channels)
        features = _feature_count(body.module, shape, model_name)
        own = normalisation or (body.mean, body.sd)
        mean, sd = own if weights is not None else ((0.5,) * 3, (0.5,) * 3)
        return Network(
            body.module,
            features=features,
            classes=classes,
            mean=for_channels(mean, channels),
            sd=for_channels(sd, channels),
            dropout=dropout,
            head=head,
            views=views,
        )


def _feature_count(module: nn.Module, shape: tuple[int, int, int], model_name: str) -> int:
    """Size of a feature vector, by trying one empty image."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            found = module(torch.zeros(1, *shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"model_name {model_name!r} does not take images of {shape}: {line}; "
            "choose another model or image_size"
        ) from None
    module.train(training)
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise ConfigError(f"model_name {model_name!r} gives no feature vector; choose another")
    return int(found.shape[1])
