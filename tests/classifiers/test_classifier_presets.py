"""Presets of classifiers: files that the command line takes, with the settings as published."""

import re

import pytest
import timm
import torch
import yaml
from torchvision import models

from mammo import cli
from mammo.classifiers.backbone import Network
from mammo.classifiers.plans import FINETUNES
from mammo.classifiers.unfreezing import Patience
from mammo.steps import train_classifier

FOLDER = cli.PRESETS
FILES = sorted(FOLDER.glob("*_classifier.yaml"))
each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)

# As the systems' code has them, by our names
PUBLISHED = {
    "unfreezing_classifier": {
        **{"model_name": "resnet101", "loss": "bce", "pos_weight": "sqrt", "augment": "turn"},
        **{"block_lr": "5e-5,1e-5,5e-6,2e-7,1e-7", "lr_schedule": "cosine_plateau"},
        **{"unfreeze_after": 15, "unfreeze_drop": 0.0025, "unfreeze_cooldown": 12},
        **{"patience": 10, "min_delta": 0.002, "patience_after": 25},
        **{"top_k": 3, "snapshot_every": 5},
    },
    "unfreezing_baseline_classifier": {
        **{"model_name": "resnet101", "optimizer": "adam", "lr": 1e-3, "weight_decay": 5e-4},
        **{"lr_schedule": "plateau", "lr_drop": 0.5, "lr_patience": 3},
        **{"epochs": 50, "batch_size": 128, "pos_weight": "sqrt", "augment": "turn"},
        **{"patience": 5, "min_delta": 0.01, "patience_after": 5},
    },
    "u24_classifier": {
        **{"head": "batch_norm", "dropout": 0.3, "optimizer": "adamw", "backbone_lr_factor": 0.1},
        **{"lr_schedule": "cosine", "loss": "ce", "label_smoothing": 0.1, "seed": 42},
        **{"sampler": "ratio", "sampler_ratio": 1.0, "patience": 10, "min_delta": 0.001},
    },
    "mammography_ai_classifier": {
        **{"model_name": "convnext_small", "drop_path": 0.4, "sampler": "weighted", "seed": 42},
        **{"loss": "bce", "uncertainty": "attenuation", "uncertainty_draws": 10},
        **{"lr": 5e-7, "lr_schedule": "step", "lr_every": 5, "lr_drop": 0.95},
        **{"batch_size": 32, "epochs": 10, "class_augment": "malignant=cutout"},
    },
    "busi_classifier": {
        **{"model_name": "torchvision/vgg16", "finetune": "head", "optimizer": "adam"},
        **{"lr": 1e-3, "epochs": 10, "loss": "ce"},
    },
}


def settings_of(path, *options):
    """What the command line makes of a preset."""
    return cli.parse("train_classifier", [f"--config={path}", "--data=somewhere", *options])


@each
def test_a_preset_is_what_the_command_line_takes_and_equals_what_was_published(path):
    settings = settings_of(path)
    train_classifier.check(settings)
    written = yaml.safe_load(path.read_text())
    assert {name: settings[name] for name in written} == written
    published = PUBLISHED[path.stem]
    assert {name: settings[name] for name in published} == published


@each
def test_the_commands_of_a_header_go_together(path):
    """Those that name the preset, and each choice that it offers beside it."""
    header = re.sub(r"\n#", "", "".join(re.findall(r"^#.*\n", path.read_text(), re.M)))
    assert re.match(r"# System [0-3]'s .*\(rows S\d", header)
    assert f"mammo train_classifier --config presets/{path.name} --data <dataset>" in header
    assert "Cost: " in header and "What differs" in header
    told = header.partition("--data <dataset>")[2]
    told = told.replace("<file>", "default").replace("<dataset>", "another")
    for options in re.findall(r"(?:--[a-z_]+ [\w.]+ ?)+", told):
        pairs = re.findall(r"(--[a-z_]+) ([\w.]*\w)", options)
        given = [f"{name}={value}" for name, value in pairs if name != "--warmup_negatives"]
        train_classifier.check(settings_of(path, *given))


def test_system_2_unfreezes_layer_4_to_the_stem_each_at_its_rate():
    settings = settings_of(FOLDER / "unfreezing_classifier.yaml")
    with torch.device("meta"):
        body = timm.create_model("resnet101", num_classes=0)
        network = Network(body, features=2048, classes=2, mean=[0.5], sd=[0.5])
        groups = FINETUNES.bound("gradual", settings)(network)
    names = {id(value): name for name, value in body.named_parameters()}
    rates: dict[str, set[float]] = {}
    for group in groups:
        for parameter in group["params"]:
            part = names.get(id(parameter), "head").split(".")[0]
            rates.setdefault(part, set()).add(group["lr"])
    assert rates == {
        "head": {1e-3}, "layer4": {5e-5}, "layer3": {1e-5}, "layer2": {5e-6}, "layer1": {2e-7},
        "conv1": {1e-7},
    }  # fmt: skip
    asked = Patience(
        *(settings[f"unfreeze_{name}"] for name in ("after", "patience", "drop", "cooldown"))
    )
    assert asked == Patience(after=15, epochs=0, drop=0.0025, cooldown=12)
    assert settings["epochs"] >= asked.after + 5 * asked.cooldown


@each
def test_a_header_tells_the_size_of_the_network(path):
    name, classes = settings_of(path)["model_name"], 3 if path.stem == "busi_classifier" else 2
    with torch.device("meta"):
        if name.startswith("torchvision/"):
            network = models.get_model(name.split("/")[1], weights=None, num_classes=classes)
        else:
            network = timm.create_model(name, num_classes=classes)
    millions = sum(value.numel() for value in network.parameters()) / 1e6
    assert f"Cost: {millions:.1f} million parameters" in path.read_text()
