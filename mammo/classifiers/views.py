"""Ways to make one sample of several images of a patient or a breast, by name."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mammo.errors import ConfigError
from mammo.registry import Registry

if TYPE_CHECKING:
    from mammo.classifiers.pooling import Pool

VIEWS = Registry("views")


@VIEWS.register("none")
def none(features: int) -> None:
    """Every image is a sample of its own."""
    return None


@VIEWS.register("mean")
def mean(features: int) -> "Pool":
    """The mean of the images' features."""
    from mammo.classifiers.pooling import Mean

    return Mean()


@VIEWS.register("max")
def maximum(features: int) -> "Pool":
    """The maximum of each of the images' features."""
    from mammo.classifiers.pooling import Max

    return Max()


@VIEWS.register("attention")
def attention(features: int) -> "Pool":
    """The mean of the images' features by weights that are learned."""
    from mammo.classifiers.pooling import GatedAttention

    return GatedAttention(features)


def check_views(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse what does not go together with samples of several images, or without them."""
    views, unit = settings["views"], settings["views_of"]
    if views == "none":
        if unit != defaults["views_of"]:
            raise ConfigError(
                f"views_of {unit!r} has no effect with views none; give views mean, max or "
                "attention"
            )
        return
    if settings["blend"] != "none":
        raise ConfigError(
            f"blend {settings['blend']!r} mixes single images and views {views!r} makes samples "
            "of several; leave one of the two out"
        )
    if unit == "patient" and settings["aggregate"] != defaults["aggregate"]:
        raise ConfigError(
            f"aggregate {settings['aggregate']!r} has no effect with views {views!r}: a patient's "
            "images have one score; leave it out, or use views_of breast"
        )
