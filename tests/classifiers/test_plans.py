"""Plans and schedules: which parameters move, in which epochs, and how fast."""

import math
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "steps"))

from classifier_data import tracked, train, write
from safetensors.torch import load_file

from mammo.classifiers import phases
from mammo.classifiers.backbone import build
from mammo.classifiers.blocks import blocks, check_single, rest
from mammo.classifiers.plans import FINETUNES
from mammo.classifiers.unfreezing import Patience, Unfreezing
from mammo.errors import ConfigError
from mammo.run import MemoryRun
from mammo.training import read_checkpoint
from mammo.training.optimizing import Optimizing, Schedule

SHAPE = (1, 32, 32)


def test_one_image_is_refused_where_a_last_map_of_one_value_is_normalised():
    """test_resnet halves the side five times: 32 pixels leave one value, 64 leave four."""
    whole, larger = network().body, build("test_resnet", shape=(1, 64, 64), classes=2).body
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    with pytest.raises(ConfigError, match=r"batch_size 1 .* last map of 32 x 32 pixels") as caught:
        check_single(whole, SHAPE, "test_resnet")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())
    check_single(larger, (1, 64, 64), "test_resnet")
    FINETUNES["gradual"](resting := network(), lr=1e-3)  # its normalisation learns nothing
    check_single(resting.body, SHAPE, "test_resnet")


def network(name="test_resnet"):
    return build(name, shape=SHAPE, classes=2)


def names_of(net, parameters):
    known = {id(each): name for name, each in net.body.named_parameters()}
    return [known[id(each)] for each in parameters]


@pytest.mark.parametrize("name", ["resnet18", "torchvision/resnet18"])
def test_the_stages_of_a_resnet_are_its_stem_and_its_four_layers(name):
    net = network(name)
    starts = [
        {each.split(".")[0] for each in names_of(net, block)} for block in blocks(net.body, "stage")
    ]
    assert starts == [{"conv1", "bn1"}, {"layer1"}, {"layer2"}, {"layer3"}, {"layer4"}]
    assert len(blocks(net.body, "layer")) == 1 + 4 * 2


@pytest.mark.parametrize("kind", ["layer", "stage"])
@pytest.mark.parametrize(
    "name",
    ["convnext_atto", "mobilenetv3_small_050", "test_vit", "torchvision/mobilenet_v3_small"],
)
def test_every_parameter_is_in_one_block_that_has_a_kernel(name, kind):
    net = build(name, shape=(3, 160, 160), classes=2)
    found = blocks(net.body, kind)
    every = [id(parameter) for block in found for parameter in block]
    assert sorted(every) == sorted(map(id, net.body.parameters()))
    assert all(any(parameter.ndim > 1 for parameter in block) for block in found)
    assert len(found) > 3


def test_a_decay_by_layer_gives_the_rates_of_timm():
    import timm
    from timm.optim import param_groups_layer_decay

    theirs = timm.create_model("resnet18", num_classes=2)
    names = {id(each): name for name, each in theirs.named_parameters()}
    expected = {
        names[id(each)]: group["lr_scale"]
        for group in param_groups_layer_decay(theirs, layer_decay=0.7)
        for each in group["params"]
    }
    net = network("resnet18")
    made = FINETUNES["full"](net, lr=1.0, layer_decay=0.7, block="layer")
    rates = {id(each): group["lr"] for group in made for each in group["params"]}
    for name, parameter in net.body.named_parameters():
        assert rates[id(parameter)] == pytest.approx(expected[name]), name
    assert {rates[id(each)] for each in net.head.parameters()} == {expected["fc.weight"]} == {1.0}


def test_each_block_has_its_given_rate_from_the_last_to_the_first():
    net = network("resnet18")
    made = FINETUNES["full"](net, lr=1.0, block_lr="5e-5,1e-5,5e-6,2e-7,1e-7")
    rates = {id(each): group["lr"] for group in made for each in group["params"]}
    found = {name.split(".")[0]: rates[id(each)] for name, each in net.body.named_parameters()}
    assert found == {
        "conv1": 1e-7,
        "bn1": 1e-7,
        "layer1": 2e-7,
        "layer2": 5e-6,
        "layer3": 1e-5,
        "layer4": 5e-5,
    }
    with pytest.raises(ConfigError, match="has 2 rates, and 5 blocks are trained"):
        FINETUNES["full"](net, lr=1.0, block_lr="5e-5,1e-5")


def test_s1_10_partial_moves_all_but_the_first_blocks_whose_statistics_stay():
    net = network()
    made = FINETUNES["partial"](net, lr=1.0, freeze_blocks=2)
    moved = {name.split(".")[0] for name, each in net.body.named_parameters() if each.requires_grad}
    frozen = {
        name.split(".")[0] for name, each in net.body.named_parameters() if not each.requires_grad
    }
    assert moved == {"layer2", "layer3", "layer4"} and frozen == {"conv1", "bn1", "layer1"}
    listed = {id(each) for group in made for each in group["params"]}
    assert listed == {id(each) for each in net.parameters() if each.requires_grad}
    net.train()
    rest(net.body)
    before = {name: each.clone() for name, each in net.body.named_buffers()}
    net(torch.rand(4, *SHAPE))
    changed = {
        name.split(".")[0]
        for name, each in net.body.named_buffers()
        if not torch.equal(each, before[name])
    }
    assert changed == moved
    with pytest.raises(ConfigError, match="freeze_blocks 5 leaves no block to train"):
        FINETUNES["partial"](network(), lr=1.0, freeze_blocks=5)


def unfreezing(values, **settings):
    """Depth at the end of each epoch, and the head's rate, where the metric takes `values`."""
    net = network()
    made = FINETUNES["gradual"](net, lr=1.0)
    optimizing = Optimizing(1.0, warm_up=0, schedule="constant")
    optimizer = optimizing.mover(made)
    schedule = Schedule(optimizer, optimizing, 100)
    asked = {"after": 0, "epochs": 0, "drop": 0.0, "cooldown": 0, **settings}
    head_factor = asked.pop("head_factor", 1.0)
    callback = Unfreezing(
        made,
        monitor="val/auc",
        mode="max",
        min_delta=0.0,
        patience=Patience(**asked),
        head_factor=head_factor,
    )
    module = SimpleNamespace(log=lambda name, value: None)
    trainer = SimpleNamespace(lr_scheduler_configs=[SimpleNamespace(scheduler=schedule)])
    depths = []
    for epoch, value in enumerate(values):
        trainer.current_epoch, trainer.callback_metrics = epoch, {"val/auc": value}
        callback.on_train_epoch_end(trainer, module)
        depths.append(callback.depth)
    return depths, optimizer.param_groups[0]["lr"]


def test_a_block_follows_after_so_many_epochs_without_a_gain():
    # best at epochs 1, 2 and 5; two epochs without: 4; best of 5; 7; 9
    values = [0.5, 0.6, 0.6, 0.6, 0.7, 0.7, 0.7, 0.6, 0.7]
    assert unfreezing(values, epochs=2)[0] == [0, 0, 0, 1, 1, 1, 2, 2, 3]


def test_s2_11_a_block_follows_a_fall_after_the_warm_up_and_the_cooldown():
    values = [0.8, 0.7, 0.79, 0.7, 0.7, 0.7, 0.799, 0.7, 0.7]
    depths, head = unfreezing(values, after=3, drop=0.0025, cooldown=2, head_factor=0.5)
    # 0.79 lies 0.01 below the best at epoch 3; the block trains 4 and 5; 0.799 is no fall of 0.0025
    assert depths == [0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert head == 0.125


def test_the_last_block_is_the_last():
    assert unfreezing([0.5] * 9, epochs=1)[0] == [0, 1, 2, 3, 4, 5, 5, 5, 5]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    import timm

    path = tmp_path_factory.mktemp("weights") / "resnet.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    return path


GRADUAL = {
    "finetune": "gradual",
    "epochs": 7,
    "patience": 0,
    "lr_patience": 1,
    "unfreeze_after": 1,
    "unfreeze_patience": 1,
    "unfreeze_head_factor": 0.5,
    "lr_schedule": "cosine_plateau",
    "augment": "basic",
}


def gradually(folder, data, weights, monkeypatch, *, killed_after=0):
    """A run in which the monitored value never rises, so that each epoch thaws a block."""
    monkeypatch.setattr(phases, "judge", lambda frame, classes, how: {"auc": 0.5})
    run = tracked(folder, data)
    seen = []
    metrics = MemoryRun.metrics

    def spy(values, step=None):
        if "train/loss" in values:  # an epoch's own; the best so far come in a call of theirs
            seen.append(read_state(run))
            if step == killed_after:
                raise KeyboardInterrupt
        metrics(run, values, step)

    run.metrics = spy
    given = {**GRADUAL, "weights": str(weights)}
    if killed_after:
        with pytest.raises(KeyboardInterrupt):
            train(run, **given)
    else:
        train(run, **given)
    return run, seen


def read_state(run):
    """Weights after the epoch before this one; none in the first."""
    path = run.folder / "checkpoints" / "last.ckpt"
    return read_checkpoint(path)["state_dict"] if path.exists() else {}


def test_s2_11_gradual_trains_exactly_the_blocks_that_are_due_and_no_normalisation(
    tmp_path, pretrained, monkeypatch
):
    data = write(tmp_path / "datasets")
    run, seen = gradually(tmp_path, data, pretrained, monkeypatch)
    source = torch.load(pretrained, weights_only=True)
    start = build("test_resnet", shape=SHAPE, classes=2, weights=source).state_dict()
    states = [start, *seen[1:], read_state(run)]
    states = [{k.removeprefix("trained."): v for k, v in each.items()} for each in states]
    stages = ["head", "layer4", "layer3", "layer2", "layer1", "conv1"]
    for epoch, (before, after) in enumerate(pairwise(states), 1):
        if epoch == 1:
            del before["head.weight"], before["head.bias"]  # drawn from the run's seed
        changed = {
            name.removeprefix("body.")
            for name in before
            if not torch.equal(before[name], after[name])
        }
        moved = {name.split(".")[0] for name in changed}
        # the value of epoch 1 is the first; from epoch 2 on none is better, and a block follows
        expected = set(stages[: max(1, epoch - 1)]) - ({"head"} if epoch == 1 else set())
        assert moved == expected, epoch
        norms = {"bn", "running", "num_batches", "downsample.2", "conv1.1", "conv1.4"}
        assert not [name for name in changed for norm in norms if f".{norm}" in f".{name}"]
    values = [value for name, value, _ in run.history if name == "unfrozen_blocks"]
    assert values == [0, 0, 1, 2, 3, 4, 5]


def test_a_last_batch_of_one_is_left_out_where_features_are_served_too(tmp_path, pretrained):
    data = write(tmp_path / "datasets")
    rows = int((data.manifest["split"] == "train").sum())
    run = tracked(tmp_path, data)
    given = {"finetune": "head", "head": "batch_norm", "weights": str(pretrained)}
    train(run, **given, batch_size=rows - 1, epochs=1)
    assert run.last["images_seen"] == rows - 1


def test_dropout_acts_where_the_head_alone_is_trained(tmp_path, pretrained):
    data = write(tmp_path / "datasets")
    found = []
    for dropout in (0.0, 0.5):
        run = tracked(tmp_path / str(dropout), data)
        train(run, finetune="head", weights=str(pretrained), dropout=dropout, epochs=1)
        found.append(load_file(run.folder / "model" / "weights.safetensors")["head.weight"])
    assert not torch.equal(*found)


@pytest.mark.doors
@pytest.mark.parametrize("killed_after", [3, 7])
def test_a_killed_gradual_run_ends_with_the_same_bits(
    tmp_path, pretrained, monkeypatch, killed_after
):
    data = write(tmp_path / "datasets")
    whole, _ = gradually(tmp_path / "whole", data, pretrained, monkeypatch)
    gradually(tmp_path / "cut", data, pretrained, monkeypatch, killed_after=killed_after)
    cut, _ = gradually(tmp_path / "cut", data, pretrained, monkeypatch)
    one, other = (load_file(run.folder / "model" / "weights.safetensors") for run in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)
    ends = [read_checkpoint(run.folder / "checkpoints" / "last.ckpt") for run in (whole, cut)]
    assert ends[0]["lr_schedulers"] == ends[1]["lr_schedulers"]
    one, other = (end["optimizer_states"][0] for end in ends)
    assert one["param_groups"] == other["param_groups"]
    for key, state in one["state"].items():
        assert all(torch.equal(state[name], other["state"][key][name]) for name in state)


def rates(total, gains=(), **settings):
    """The rate of each of `total` steps; after each step a measurement says whether it gained."""
    optimizing = Optimizing(1.0, warm_up=0, least=0.0, **settings)
    optimizer = optimizing.mover([torch.nn.Parameter(torch.zeros(1))])
    schedule = Schedule(optimizer, optimizing, total)
    found = []
    for step in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        if step < len(gains):
            schedule.hear(gains[step])
    return found


def test_a_cosine_of_a_classifier_ends_at_0():
    assert rates(4, schedule="cosine")[0] == 1.0
    # the first step is the warm-up, the other three the cosine from 0 to two thirds
    expected = [(1 + math.cos(math.pi * done)) / 2 for done in (0, 1 / 3, 2 / 3)]
    assert rates(4, schedule="cosine")[1:] == pytest.approx(expected)


def test_s1_9_a_fall_every_so_many_epochs_is_torch_s_step_lr():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.95)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert rates(12, schedule="step", every=5, drop=0.95) == pytest.approx(expected)


def test_s2_12_a_plateau_falls_when_torch_s_does():
    values = [0.5, 0.6, *[0.6] * 5, 0.7, *[0.65] * 9]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.5, patience=3, threshold=0.0
    )
    expected = [1.0]
    for value in values:
        theirs.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    gains = [value > max([0, *values[:place]]) for place, value in enumerate(values)]
    # torch falls when more than `patience` measurements have passed, this when so many have
    found = rates(len(values) + 1, gains, schedule="plateau", drop=0.5, patience=4)
    assert found == expected
    assert min(expected) == 0.125


def test_cosine_plateau_holds_its_rate_once_all_blocks_train_and_falls_from_there():
    optimizing = Optimizing(1.0, warm_up=0, least=0.0, schedule="cosine_plateau", patience=2)
    optimizer = optimizing.mover([torch.nn.Parameter(torch.zeros(1))])
    schedule = Schedule(optimizer, optimizing, 10)
    found = []
    for step in range(10):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        schedule.hear(gain=False)
        if step == 4:
            schedule.follow()
    cosine = [(1 + math.cos(math.pi * step / 9)) / 2 for step in range(10)]
    held = cosine[4]  # of the sixth step, the first being the warm-up
    assert found[1:6] == pytest.approx(cosine[:5])
    assert found[6:] == pytest.approx([held, held / 2, held / 2, held / 4])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"freeze_blocks": 2},
            "freeze_blocks 2 does not apply to finetune full; it goes",
        ),
        ({"unfreeze_drop": 0.1}, "unfreeze_drop 0.1 does not apply to finetune full"),
        ({"lr_every": 2}, "lr_every 2 does not apply to lr_schedule cosine; it goes with step"),
        ({"block_lr": "1e-3,x"}, "block_lr '1e-3,x' should be rates above 0 with commas"),
        ({"block_lr": "1e-3", "layer_decay": 0.5}, "gives each block its rate; leave out"),
        ({"lr_schedule": "cosine_plateau"}, "use it with finetune gradual"),
        ({"layer_decay": 0.0}, "layer_decay 0 would stop the backbone"),
        ({"finetune": "gradual"}, "finetune 'gradual' would keep a random backbone"),
        ({"finetune": "partial", "weights": "default"}, "freeze_blocks blocks, which is 0"),
        (
            {"finetune": "gradual", "weights": "default", "unfreeze_patience": 0},
            "never unfreeze a block",
        ),
        ({"finetune": "head", "weights": "default", "layer_decay": 0.5}, "layer_decay 0.5 does"),
        ({"finetune": "head", "weights": "default", "drop_path": 0.2}, "drop_path 0.2 does not"),
        (
            {"finetune": "gradual", "weights": "default", "unfreeze_after": 2},
            "unfreeze_after 2 leaves no epoch of 2",
        ),
    ],
)
def test_a_setting_that_does_not_go_with_the_plan_is_refused(tmp_path, settings, line):
    run = tracked(tmp_path, write(tmp_path / "datasets"))
    with pytest.raises(ConfigError, match=line) as caught:
        train(run, **settings)
    assert "\n" not in str(caught.value)
    assert not list(run.folder.rglob("*.ckpt"))
