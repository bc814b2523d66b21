"""Several processes train a classifier as one: same batches, same numbers, one of them writes."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "steps"))

from classifier_data import TINY, tracked, train, write
from safetensors.torch import load_file

from mammo.classifiers.refusals import check_settings
from mammo.errors import ConfigError
from mammo.steps import train_classifier

# without batch normalization, which looks at a process's share of a batch on a CPU
SETTINGS = {"model_name": "test_convnext", "batch_size": 6, "lr_schedule": "constant"}


def distance(one, other):
    """Of the weights of two runs, as a share of the length of the first."""
    one, other = (load_file(each.folder / "model" / "weights.safetensors") for each in (one, other))
    assert one.keys() == other.keys()
    one, other = (
        torch.cat([many[name].flatten().double() for name in sorted(one)]) for many in (one, other)
    )
    return float((one - other).norm() / one.norm())


@pytest.mark.doors
def test_two_processes_are_one_with_the_same_global_batch(tmp_path):
    """24 training images are four batches."""
    data = write(tmp_path / "datasets", patients=11)
    runs = {}
    for devices in (1, 2):
        runs[devices] = tracked(tmp_path / str(devices), data)
        train(runs[devices], devices=devices, **SETTINGS)
    assert distance(*runs.values()) < 1e-4
    alone, both = (each.last for each in runs.values())
    assert alone.keys() == both.keys()
    for name in alone:
        if "second" not in name:
            assert both[name] == pytest.approx(alone[name], rel=1e-4), name
    steps = [step for name, _, step in runs[2].history if name == "val/auc"]
    assert steps == [1, 2]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"batch_size": 5}, "batch_size 5 cannot be shared evenly by devices 2 times nodes 1"),
        ({"batch_size": 2}, "use a multiple of 2, 4 or more"),
        ({"finetune": "head", "weights": "default"}, "do not go with finetune head; use full or"),
        ({"jobs": 2, "seeds": "0,1"}, "do not go with jobs 2; use 1, or one device"),
    ],
)
def test_what_a_team_cannot_do_is_refused(changes, text):
    import inspect

    defaults = {
        name: each.default
        for name, each in inspect.signature(train_classifier.run).parameters.items()
    }
    with pytest.raises(ConfigError, match=text):
        check_settings({**defaults, **TINY, "data": "x", "devices": 2, **changes}, defaults)
