"""What happens to a training batch: changed class by class, erased, blended with one another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mammo.classifiers.augment import AUGMENTS, Amounts, Draw, erased
from mammo.classifiers.blends import BLENDS, Blend
from mammo.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Changing:
    """Changes a batch on its device; all it draws follows from torch's generator."""

    draws: tuple[Draw, ...]  # all that any class takes, each once
    of_class: tuple[int, ...]  # which of them each class takes
    erasing: float  # share of the images with an erased rectangle
    blend: Blend
    nothing: bool  # whether images and labels stay what they are

    def __call__(self, images: "Tensor", labels: "Tensor") -> tuple["Tensor", "Tensor"]:
        """Images (B, C, H, W) as changed, with their labels (B,), or shares (B, K) if blended."""
        import torch
        from torch.nn import functional

        from mammo.classifiers.operations import change

        if self.nothing:
            return images, labels
        size = (len(images), *images.shape[2:])
        changed = change(images, self._amounts(size, labels))
        if self.erasing:
            changed = change(changed, erased(*size, share=self.erasing))
        if self.blend is BLENDS["none"]:
            return changed, labels
        with torch.no_grad():
            shares = functional.one_hot(labels, len(self.of_class)).float()
            return self.blend(changed, shares)

    def _amounts(self, size: tuple[int, int, int], labels: "Tensor") -> Amounts:
        """Those of each image's class; every draw is made for every image, whatever its class."""
        import torch

        from mammo.classifiers.operations import NEUTRAL

        found = [draw(*size) for draw in self.draws]
        if len(found) == 1:
            return found[0]
        names = [name for name in NEUTRAL if any(name in each for each in found)]
        neutral = {name: torch.full(size[:1], NEUTRAL[name]) for name in names}
        rows = [torch.stack([(neutral | each)[name].float() for name in names]) for each in found]
        # (draws, names, B), picked on the labels' device: nobody waits for it
        table = torch.stack(rows).to(labels.device)
        which = torch.tensor(self.of_class).to(labels.device)[labels]
        picked = table.gather(0, which.expand(1, len(names), -1))[0]
        return dict(zip(names, picked, strict=True))


def make_changing(settings: Mapping[str, Any], class_names: tuple[str, ...]) -> Changing:
    """What the settings ask for, for these classes in the order of their ids."""
    own = class_augments(settings["class_augment"])
    for name in own:
        if name not in class_names:
            raise ConfigError(
                f"class_augment names class {name!r}; the classes are {', '.join(class_names)}"
            )
    asked = [own.get(name, settings["augment"]) for name in class_names]
    names = list(dict.fromkeys(asked))
    blend = settings["blend"]
    return Changing(
        tuple(AUGMENTS.bound(name, settings)() for name in names),
        tuple(names.index(name) for name in asked),
        settings["erasing"],
        BLENDS[blend] if blend == "none" else BLENDS.bound(blend, settings),
        names == ["none"] and not settings["erasing"] and blend == "none",
    )


def class_augments(text: str) -> dict[str, str]:
    """The augmentation of each class named in a text as "malignant=strong,benign=basic"."""
    found: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, augment = (each.strip() for each in part.rpartition("="))
        if not name or name in found or augment not in AUGMENTS:
            raise ConfigError(
                f"class_augment {text!r}: {part!r} should be <class>=<augment>, each class once "
                f"and one of {', '.join(sorted(AUGMENTS))}, as in malignant=strong"
            )
        found[name] = augment
    return found


def check_changing(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse augmentations that do not exist, and settings that none of the asked ones reads."""
    named = class_augments(settings["class_augment"]).values()
    AUGMENTS.refuse_idle(dict.fromkeys([settings["augment"], *named]), settings, defaults)
    BLENDS.refuse_idle([settings["blend"]], settings, defaults)
