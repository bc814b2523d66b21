"""How generators are optimized, watched and measured while they train."""

import math
from types import SimpleNamespace

import pytest
import torch

from mammo.generators.optimizing import LEAST, Optimizing, Schedule


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
