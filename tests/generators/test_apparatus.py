"""How generators are optimized, watched and measured while they train."""

import hashlib
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from mammo.data.dataset import Dataset
from mammo.errors import ConfigError, DataError
from mammo.evaluation.extractors import load_extractor
from mammo.evaluation.fidelity import kernel
from mammo.generators import family
from mammo.generators.diffusion import Diffusion
from mammo.generators.gan import Adversarial
from mammo.generators.material import gather
from mammo.generators.measuring import binned, kid_floor, noise_figure
from mammo.generators.searching import settled
from mammo.generators.train import monitored, train
from mammo.generators.watching import asked_like
from mammo.steps import train_generator
from mammo.training import read_checkpoint
from mammo.training.optimizing import LEAST, Optimizing, Schedule


def rates(total, *, steps=None, lr=1.0, **settings):
    """The learning rate of every optimizer step of a training of `total`."""
    weight = torch.nn.Parameter(torch.zeros(1))
    made = Optimizing(lr, **settings).of(
        [weight], SimpleNamespace(estimated_stepping_batches=total)
    )
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    found = []
    for _ in range(steps or total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_s4_12_a_warm_up_is_linear_and_reaches_the_full_rate_at_its_last_step():
    assert rates(100, warm_up=4, schedule="constant")[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_warm_up_takes_a_tenth_of_the_steps_at_most():
    assert rates(20, warm_up=100, schedule="constant")[:3] == [0.5, 1.0, 1.0]


def test_s4_12_a_cosine_is_at_its_middle_half_way_and_at_its_least_after_the_last_step():
    found = rates(110, steps=111, warm_up=10, schedule="cosine")
    assert found[10] == pytest.approx(1.0)
    assert found[60] == pytest.approx((1 + LEAST) / 2)
    assert found[110] == pytest.approx(LEAST)
    assert found[35] == pytest.approx(LEAST + (1 - LEAST) * (1 + math.cos(math.pi / 4)) / 2)


def test_step_over_five_epochs_is_the_step_lr_of_two_epochs():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    expected = []
    for _ in range(5):
        expected += [optimizer.param_groups[0]["lr"]] * 4  # batches of an epoch
        optimizer.step()
        theirs.step()
    assert rates(20, warm_up=0, schedule="step") == expected


def test_plateau_halves_after_five_measurements_without_a_gain_and_from_the_next_step_on():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight], lr=1.0)
    schedule = Schedule(optimizer, Optimizing(1.0, warm_up=0, schedule="plateau"), 100)
    found = []
    for gain in [True, *[False] * 4, True, *[False] * 5, *[False] * 5]:
        optimizer.step()
        schedule.step()
        schedule.hear(gain)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == [*[1.0] * 10, *[0.5] * 5, 0.25]


def test_other_schedules_hear_and_stay():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight], lr=1.0)
    schedule = Schedule(optimizer, Optimizing(1.0, warm_up=0, schedule="constant"), 100)
    for _ in range(20):
        schedule.hear(False)
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_a_schedule_goes_on_from_its_state():
    def fresh():
        optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return optimizer, Schedule(optimizer, Optimizing(1.0, schedule="plateau"), 100)

    optimizer, schedule = fresh()
    for _ in range(7):
        optimizer.step()
        schedule.step()
        schedule.hear(False)
    other, again = fresh()
    again.load_state_dict(schedule.state_dict())
    for each, of in ((optimizer, schedule), (other, again)):
        each.step()
        of.step()
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 0.45


def test_adam_puts_the_weight_decay_into_the_gradient_and_adamw_beside_it():
    """After one step of Adam the gradient's size does not count; AdamW shrinks the weight too."""
    found = {}
    for name in ("adam", "adamw"):
        weight = torch.nn.Parameter(torch.full((1,), 2.0))
        mover = Optimizing(0.1, optimizer=name, weight_decay=0.5).mover([weight])
        weight.grad = torch.ones(1)
        mover.step()
        found[name] = weight.item()
    assert found["adam"] == pytest.approx(2 - 0.1)
    assert found["adamw"] == pytest.approx(2 * (1 - 0.1 * 0.5) - 0.1)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return tiny.write_scans(tmp_path_factory.mktemp("scans")).folder


def trained(folder, scans, generator="ddpm", **settings):
    """A run in `folder` that has trained, or trained on; and what training hands back."""
    tracked = tiny.run_with(folder, data=scans)
    return tracked, train(tracked, tiny.recipe(generator, "class", **settings))


def last(result):
    return read_checkpoint(result.fitted.last)


def same(one, other):
    """Whether weights, averages, optimizer and schedule of two trainings are equal to the bit."""
    keys = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers")
    return all(equal(last(one)[key], last(other)[key]) for key in keys)


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


class Killed(Exception):
    pass


@pytest.mark.doors
@pytest.mark.parametrize(
    "settings",
    [
        {"lr_schedule": "plateau", "accumulate": 3, "optimizer": "adam", "channels_last": True},
        {"lr_schedule": "step", "precision": "bf16", "gradient_clip": 0.0, "patience": 7},
    ],
    ids=["plateau", "bf16"],
)
def test_a_killed_run_ends_with_the_same_bits(tmp_path, scans, monkeypatch, settings):
    monkeypatch.setattr("mammo.training.optimizing.PATIENCE", 1)
    settings = {"epochs": 3, "lr": 0.05, **settings}
    _, whole = trained(tmp_path / "whole", scans, **settings)
    with monkeypatch.context() as patch:

        def killed(self, batch, index):
            if self.current_epoch == 2:
                raise Killed
            return step(self, batch, index)

        step = Diffusion.training_step
        patch.setattr(Diffusion, "training_step", killed)
        with pytest.raises(Killed):
            trained(tmp_path / "cut", scans, **settings)
    _, resumed = trained(tmp_path / "cut", scans, **settings)
    assert same(whole, resumed)


def test_a_batch_in_parts_has_the_gradient_of_the_whole(tmp_path, scans):
    one, other = (
        last(trained(tmp_path / str(parts), scans, accumulate=parts, epochs=1)[1])
        for parts in (1, 3)
    )
    assert one["global_step"] == other["global_step"] == 3
    for key, state in one["optimizer_states"][0]["state"].items():
        theirs = other["optimizer_states"][0]["state"][key]
        torch.testing.assert_close(state["exp_avg"], theirs["exp_avg"], rtol=1e-3, atol=1e-6)


def test_channels_last_is_a_memory_order_and_changes_no_number_beyond_rounding(tmp_path, scans):
    _, plain = trained(tmp_path / "plain", scans, epochs=1)
    _, ordered = trained(tmp_path / "ordered", scans, epochs=1, channels_last=True)
    weights = dict(ordered.learner.named_parameters())
    wide = [each for each in weights.values() if each.ndim == 4 and min(each.shape[1:]) > 1]
    assert wide
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in wide)
    assert ordered.fitted.best_score == pytest.approx(plain.fitted.best_score, rel=1e-4)


@pytest.mark.doors
def test_s4_9_a_found_rate_trains_as_if_it_were_given_and_is_kept(
    tmp_path, scans, monkeypatch, caplog
):
    caplog.set_level("INFO", logger="mammo")
    asked = {"epochs": 1, "find_lr": True, "find_batch_size": True}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    tracked = tiny.run_with(tmp_path / "found", data=scans)
    settings = tiny.recipe("ddpm", "class", **asked)
    data = Dataset(scans)
    material = gather(data, settings, folder=tracked.folder, inputs=tracked.inputs)
    plan = family("ddpm").plan(material, settings)
    effective = settled(tracked, material, plan, settings)
    assert torch.equal(torch.get_rng_state(), before)
    assert effective["batch_size"] == 12  # of 18 training images, doubled from 6
    assert 1e-7 < effective["lr"] < 1e-1
    assert tracked.logged_params == {
        "effective.lr": effective["lr"],
        "effective.batch_size": effective["batch_size"],
    }
    assert tracked.figures == ["lr_finder"]
    assert [each for each in caplog.messages if each.startswith("find_")] == [
        "find_batch_size: trains with batch_size 12",
        f"find_lr: trains with lr {effective['lr']:g} (figures/lr_finder.png)",
    ]
    monkeypatch.setattr("mammo.generators.searching.sweep", None)  # a second search would fail
    _, found = trained(tmp_path / "found", scans, **asked)
    chosen = {name: effective[name] for name in ("lr", "batch_size")}
    _, given = trained(tmp_path / "given", scans, epochs=1, **chosen)
    assert same(found, given)
    assert found.settings["lr"] == effective["lr"]


def test_the_batch_of_a_gan_is_searched_with_steps_of_both_networks(tmp_path, scans, monkeypatch):
    """Of 5 steps of the critic for one of the maker, a trial of two batches would see none."""
    moved = []
    whole = Adversarial._train_maker
    monkeypatch.setattr(
        Adversarial, "_train_maker", lambda *all: (moved.append(len(all[1])), whole(*all))
    )
    tracked = tiny.run_with(tmp_path, data=scans)
    settings = tiny.recipe("gan", "class", batch_size=18, critic_steps=5, find_batch_size=True)
    material = gather(Dataset(scans), settings, folder=tracked.folder, inputs=tracked.inputs)
    settled(tracked, material, family("gan").plan(material, settings), settings)
    assert moved == [18, 18]  # all training images, before and after the optimizer has its state


def test_a_distance_to_a_single_image_is_refused_before_anything_is_planned(tmp_path, monkeypatch):
    few = tiny.write_scans(tmp_path, patients=8)
    few.manifest["split"] = ["val", *["train"] * (len(few) - 1)]
    monkeypatch.setattr("mammo.generators.train.Dataset", lambda path: few)
    # a family that cannot be asked to plan, which may take long
    planless = SimpleNamespace(MONITOR=family("gan").MONITOR)
    monkeypatch.setattr("mammo.generators.train.family", lambda name: planless)
    with pytest.raises(DataError, match="val/kid needs 2 validation images, dataset scans has 1"):
        trained(tmp_path / "run", few.folder, "gan")


def test_what_cannot_be_searched_or_shared_is_refused(tmp_path, scans):
    for settings, line in (
        ({"accumulate": 4}, "batch of 6 images cannot be shared evenly"),
        ({"device": "cpu:1"}, "unknown device"),
    ):
        with pytest.raises(ConfigError, match=line):
            trained(tmp_path / line[:9], scans, **settings)
    settings = tiny.recipe("ddpm", "class", data="d", find_lr=True, lr=0.1)
    with pytest.raises(ConfigError, match=r"lr 0\.1 is given and find_lr would replace it"):
        train_generator.check(settings)
    settings = tiny.recipe("ddpm", "class", data="d", kid_every=1, extractor="inception")
    with pytest.raises(ConfigError, match="extractor 'inception' is not"):
        train_generator.check(settings)


def test_other_weights_under_the_same_path_are_another_run(tmp_path):
    path = tmp_path / "weights.pth"
    measured = tiny.recipe("ddpm", "class", kid_every=1, extractor=f"resnet18@{path}")
    digests = []
    for content in (b"one", b"other"):
        path.write_bytes(content)
        digests.append(train_generator.source_digest(measured))
    assert digests[0] != digests[1]
    assert digests[0] == hashlib.sha256(b"one").hexdigest()
    assert train_generator.source_digest({**measured, "kid_every": 0}) == ""
    assert train_generator.source_digest(tiny.recipe("gan", "class")) == ""


def test_a_kernel_distance_chooses_among_the_epochs_that_measured_it(tmp_path, scans):
    tracked, result = trained(
        tmp_path, scans, monitor="val/kid", kid_every=2, epochs=5, sample_every=0
    )
    kids = {step: value for name, value, step in tracked.history if name == "val/kid"}
    assert sorted(kids) == [2, 4, 5]
    assert result.fitted.best_score == min(kids.values())
    assert kids[result.fitted.best_epoch] == min(kids.values())
    assert read_checkpoint(result.fitted.best)["epoch"] + 1 == result.fitted.best_epoch
    assert tracked.logged_tags["mammo.kid_extractor"].startswith("random_conv64 ")


@pytest.mark.doors
def test_what_is_measured_moves_no_weight(tmp_path, scans):
    """Trap T4.e: neither samples nor distances draw from what training draws from."""
    _, plain = trained(tmp_path / "plain", scans)
    _, watched = trained(tmp_path / "watched", scans, kid_every=1, sample_every=1)
    assert same(plain, watched)


def test_the_kernel_distance_is_that_of_the_averaged_weights(tmp_path, scans):
    tracked, result = trained(tmp_path, scans, kid_every=1, epochs=1)
    material = result.material
    artist = result.learner.artist()  # with the averaged weights of the one epoch
    drawn = artist.draw(asked_like(material, material.val)).numpy()
    extractor = load_extractor("random")
    made = extractor.features(lambda rows: drawn[rows], np.arange(len(drawn)))
    real = extractor.features(material.data.images, material.val)
    assert tracked.last["val/kid"] == pytest.approx(kernel(real, made), rel=1e-9)


def test_a_floor_is_the_distance_of_patients_from_each_other():
    rng = np.random.default_rng(0)
    patients = np.repeat([f"p{number}" for number in range(50)], 4)
    floor = kid_floor(rng.standard_normal((200, 3)), patients)["val/kid_floor"]
    assert abs(floor) < 0.1  # of one distribution: 0, on average
    apart = rng.standard_normal((200, 3)) + np.repeat(np.eye(3)[np.arange(50) % 3] * 9, 4, axis=0)
    assert kid_floor(apart, patients)["val/kid_floor"] > floor
    assert kid_floor(rng.standard_normal((4, 3)), patients[:4]) == {}


def test_monitor_and_interval_are_the_families_own_where_nothing_is_said():
    for generator, settings, expected in (
        ("ddpm", {}, ("val/loss", 0)),
        ("ddpm", {"kid_every": 3}, ("val/loss", 3)),
        ("ddpm", {"monitor": "val/kid", "epochs": 100}, ("val/kid", 5)),
        ("gan", {}, ("val/kid", 1)),
        ("gan", {"epochs": 200}, ("val/kid", 10)),
        ("gan", {"monitor": "val/loss"}, ("val/loss", 0)),
    ):
        assert monitored(tiny.recipe(generator, "class", **settings)) == expected


def test_s4_14_losses_are_told_by_share_of_noise():
    noise = np.array([0.0, 0.05, 0.1, 0.95, 1.0])
    counts, sums = binned(noise, np.array([1.0, 3.0, 5.0, 7.0, 9.0]), 10)
    assert counts.tolist() == [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert sums.tolist() == [4, 5, 0, 0, 0, 0, 0, 0, 0, 16]


def test_a_bin_without_images_is_a_gap_in_the_line_and_not_bridged():
    """Of three bins the middle one has no image: two points, and nan between them."""
    table = pd.DataFrame(
        {
            "epoch": [1, 1, 1, 2, 2, 2],
            "noise_from": [0.0, 0.4, 0.8] * 2,
            "noise_to": [0.2, 0.6, 1.0] * 2,
            "images": [3, 0, 1] * 2,
            "loss": [0.5, math.nan, 2.0, 0.25, math.nan, 1.0],
        }
    )
    (axes,) = noise_figure(table, [1, 2]).axes
    for line, expected in zip(
        axes.lines, ([0.5, math.nan, 2.0], [0.25, math.nan, 1.0]), strict=True
    ):
        np.testing.assert_allclose(line.get_xdata(), [0.1, 0.5, 0.9])
        np.testing.assert_array_equal(line.get_ydata(), expected)
    assert axes.get_xlim() == (0, 1)


@pytest.mark.doors
def test_s4_14_the_table_of_a_continued_run_is_that_of_a_whole_one(tmp_path, scans):
    whole, result = trained(tmp_path / "whole", scans, epochs=2, lr_schedule="constant")
    table = whole.tables["loss_by_noise"]
    assert list(table.columns) == ["epoch", "noise_from", "noise_to", "images", "loss"]
    last_epoch = table[table["epoch"] == 2].dropna()
    images = len(result.material.val)
    mean = (last_epoch["loss"] * last_epoch["images"]).sum() / images
    assert last_epoch["images"].sum() == images
    assert mean == pytest.approx(whole.last["val/loss"], rel=1e-5)
    trained(tmp_path / "cut", scans, epochs=1, lr_schedule="constant")
    resumed, _ = trained(tmp_path / "cut", scans, epochs=2, lr_schedule="constant")
    pd.testing.assert_frame_equal(resumed.tables["loss_by_noise"], table)
    assert resumed.figures == ["loss_by_noise"]


@pytest.mark.slow
def test_a_compiled_network_trains_to_the_same_loss(tmp_path, scans):
    _, plain = trained(tmp_path / "plain", scans, epochs=1)
    _, compiled = trained(tmp_path / "compiled", scans, epochs=1, compile=True)
    assert compiled.fitted.best_score == pytest.approx(plain.fitted.best_score, rel=1e-3)
