"""Adapters of low rank on a frozen UNet (Hu et al. 2022), by peft: one for all or one per class."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mammo.generators.stable.base import Parts
from mammo.generators.stable.prompts import Prompts

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")  # of every attention, of self and of text
FOR_ALL = ""  # name of the one adapter that has no class


@dataclass
class Use:
    """How the images of the present call use the adapters."""

    shares: Tensor | None = None  # (N, adapters): how much of each; None is all of the one
    drawing: list[torch.Generator] = field(default_factory=list)  # of each, for dropout, if any


class Adapters:
    """The adapters that peft has put into a UNet, which of them an image uses, and their dropout.

    `names` are the classes that have one, or (FOR_ALL,). A new adapter changes nothing: its B is 0.
    A copy is the same object, as the UNet is.
    """

    def __init__(
        self, unet: Any, names: Sequence[str], *, rank: int, alpha: float, dropout: float, seed: int
    ) -> None:
        from peft import LoraConfig, LoraModel

        self.names = tuple(names)
        self._use = Use()
        keys = [f"adapter{place}" for place in range(len(names))]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS))
            model = LoraModel(unet, dict.fromkeys(keys, config), keys[0])
            for key in keys[1:]:
                model.inject_adapter(unet, key)
        unet.requires_grad_(False)
        self._layers = {
            path: layer for path, layer in unet.named_modules() if hasattr(layer, "lora_A")
        }
        for layer in self._layers.values():
            layer.set_adapter(keys)
            for place, key in enumerate(keys):
                layer.lora_dropout[key] = Gate(self._use, place, dropout)

    def __deepcopy__(self, memo: dict[int, Any]) -> Adapters:
        return self

    def trees(self) -> nn.ModuleDict:
        """Their layers alone, an entry for each adapter, named as they are in the UNet.

        The names of tensors are then those of LoRA files: unet.<path>.lora_A.weight.
        """
        made = nn.ModuleDict()
        for place, name in enumerate(self.names):
            tree = made[f"class{place}" if name else "unet"] = nn.Module()
            for path, layer in self._layers.items():
                leaf = _branch(tree, path)
                leaf.lora_A = layer.lora_A[f"adapter{place}"].requires_grad_(True)
                leaf.lora_B = layer.lora_B[f"adapter{place}"].requires_grad_(True)
        return made

    def changes(self) -> dict[str, Tensor]:
        """What the one adapter adds to each layer's weight, by the layer's path in the UNet."""
        return {path: layer.get_delta_weight("adapter0") for path, layer in self._layers.items()}

    @contextmanager
    def used(self, shares: Tensor | None) -> Iterator[None]:
        """Give each image `shares` (N, adapters) of them; None is all of the one."""
        self._use.shares = shares
        try:
            yield
        finally:
            self._use.shares = None

    @contextmanager
    def dropping(self, drawing: list[torch.Generator]) -> Iterator[None]:
        """Drop what adapters see, drawn from a generator for each image."""
        self._use.drawing = drawing
        try:
            yield
        finally:
            self._use.drawing = []


class Gate(nn.Module):
    """What adapter `place` sees of features (N, tokens, C): dropout, and 0 of other images.

    An adapter is linear, so that nothing in is nothing out.
    """

    def __init__(self, use: Use, place: int, dropout: float) -> None:
        super().__init__()
        self._use, self._place, self._dropout = use, place, dropout

    def forward(self, features: Tensor) -> Tensor:
        shares = self._use.shares
        if self._dropout and self._use.drawing:
            features = self._thinned(features)
        if shares is not None:
            features = features * shares[:, self._place, None, None].to(features.dtype)
        return features

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it draws from generators
    def _thinned(self, features: Tensor) -> Tensor:
        """Dropout: each image's features drawn from its own generator."""
        size = features.shape[1:]
        drawn = [torch.rand(size, generator=g, device=g.device) for g in self._use.drawing]
        kept = torch.stack(drawn) >= self._dropout
        return features * kept / (1 - self._dropout)


class TunedUNet(nn.Module):
    """A base's UNet with adapters, called as `UNet` is: labels (N, K) become prompts.

    Only the adapters are parameters; the base is held, moved and called, and never copied or saved.
    """

    none: Tensor

    def __init__(self, parts: Parts, prompts: Prompts, adapters: Adapters | None) -> None:
        super().__init__()
        none = torch.tensor(prompts.conditions.sizes, dtype=torch.long)
        self.register_buffer("none", none, persistent=False)
        for name, tree in (adapters.trees() if adapters else nn.ModuleDict()).items():
            self.add_module(name, tree)
        self._parts, self._prompts, self._adapters = parts, prompts, adapters
        self._read: dict[str, Tensor] = {}  # embedding (tokens, D) of each prompt so far

    def forward(
        self,
        noisy: Tensor,
        times: Tensor,
        labels: Tensor,
        control: Tensor | None = None,
        **residuals: Any,
    ) -> Tensor:
        """The prediction (N, c, h, w); `residuals` are what a ControlNet adds."""
        told = self.told(labels)
        if self._adapters is None:
            return self._call(noisy, times, told, residuals)
        with self._adapters.used(self._shares(labels)):
            return self._call(noisy, times, told, residuals)

    def told(self, labels: Tensor) -> Tensor:
        """Embeddings (N, tokens, D) of the prompts for `labels` (N, K)."""
        texts = [self._prompts.text(ids) for ids in labels.tolist()]
        return torch.stack([self._embedded(text) for text in texts])

    def changes(self) -> dict[str, Tensor]:
        """What the one adapter for all adds to the weights of the UNet, by the layer's path."""
        return self._adapters.changes() if self._adapters else {}

    def dropping(self, drawing: list[torch.Generator]) -> Any:
        """A context in which the adapters drop what they see, by a CPU generator for each image."""
        assert self._adapters is not None
        device = self.none.device
        if device.type != "cpu":  # the mask of a layer is large, and is drawn where it is used
            drawing = [torch.Generator(device).manual_seed(each.initial_seed()) for each in drawing]
        return self._adapters.dropping(drawing)

    def _call(
        self, noisy: Tensor, times: Tensor, told: Tensor, residuals: Mapping[str, Any]
    ) -> Tensor:
        output: Tensor = self._parts.unet(
            noisy, times, encoder_hidden_states=told, return_dict=False, **residuals
        )[0]
        return output

    def _shares(self, labels: Tensor) -> Tensor | None:
        """Shares (N, adapters): 1 of the class's own, none where no class is told."""
        assert self._adapters is not None
        if self._adapters.names == (FOR_ALL,):
            return None
        classes = self._prompts.conditions.values[0]
        ids = [classes.index(name) for name in self._adapters.names]
        return labels[:, :1] == torch.tensor(ids, device=labels.device)

    def _embedded(self, text: str) -> Tensor:
        """The text encoder's last state for `text`, read alone and once."""
        if text not in self._read:
            encoder = self._parts.text_encoder
            tokens = self._parts.tokenizer(
                text,
                padding="max_length",
                max_length=encoder.config.max_position_embeddings,
                truncation=True,
                return_tensors="pt",
            ).input_ids.to(self.none.device)
            # it may first be read while a sample is drawn, and serves training next
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast(tokens.device.type, enabled=False),
            ):
                self._read[text] = encoder(tokens).last_hidden_state[0]
        return self._read[text]

    def _apply(self, function: Any, recurse: bool = True) -> Any:
        self._read = {}
        self._parts.unet._apply(function)
        self._parts.text_encoder._apply(function)
        return super()._apply(function, recurse)  # type: ignore[no-untyped-call]


def lora_note(rank: int, alpha: float) -> dict[str, str]:
    """What diffusers reads in the header of a LoRA file: without it, alpha is taken to be rank."""
    said = {"unet.r": rank, "unet.lora_alpha": alpha, "unet.target_modules": list(TARGETS)}
    return {"lora_adapter_metadata": json.dumps(said, sort_keys=True)}


def _branch(tree: nn.Module, path: str) -> nn.Module:
    """The module of `tree` at `path`, with whatever leads there."""
    for name in path.split("."):
        if name not in dict(tree.named_children()):
            tree.add_module(name, nn.Module())
        tree = tree.get_submodule(name)
    return tree
