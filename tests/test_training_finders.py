"""Searches before training: the learning rate where the loss falls fastest, the batch that fits."""

import math

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader

from mammo.errors import ConfigError
from mammo.training.finders import kept, largest_batch, steepest, sweep
from mammo.training.memory import MachineMemory

RATES = np.geomspace(1e-7, 1e-1, 100)


def test_the_steepest_fall_per_factor_of_the_rate_is_chosen_in_spite_of_noise_at_small_rates():
    noise = 1e-3 * np.random.default_rng(0).standard_normal(100)
    losses = 1 / (1 + (RATES / 1e-3) ** 2) + noise
    # 1 / (1 + e^(2 u)) falls fastest at u = 0, which is a rate of 1e-3
    assert steepest(RATES, losses) == pytest.approx(1e-3, rel=0.2)
    # per unit of the rate noise decides: its slope at the smallest rates is a thousand times larger
    per_unit = np.gradient(losses[10:-1], RATES[10:-1])
    assert RATES[10:-1][per_unit.argmin()] < 1e-5


def test_a_loss_that_is_no_number_at_the_end_does_not_count():
    losses = 1 / (1 + (RATES / 1e-4) ** 2)
    losses[80:] = math.nan
    assert steepest(RATES, losses) == pytest.approx(1e-4, rel=0.1)


@pytest.mark.parametrize("losses", [np.linspace(0, 1, 100), np.full(100, math.nan)])
def test_a_loss_that_never_falls_suggests_no_rate(losses):
    with pytest.raises(ConfigError, match=r"find_lr found no learning rate .* give lr"):
        steepest(RATES, losses)


def linear(images):
    """Memory of a step: 10 for the weights and 2 an image."""
    return 10 + 2.0 * images


@pytest.mark.parametrize(
    ("room", "most", "expected"),
    [(1000, 10_000, 256), (1000, 100, 64), (74, 10_000, 32), (73.9, 10_000, 16), (26, 8, 8)],
)
def test_the_batch_is_doubled_while_it_fits_and_there_are_images(room, most, expected):
    size, seen = largest_batch(8, most, linear, room)
    assert size == expected
    assert max(seen.values()) <= room  # nothing was tried that does not fit


def test_a_batch_that_runs_out_of_memory_is_not_taken():
    size, _ = largest_batch(8, 1000, lambda images: images if images < 32 else math.inf, 1e9)
    assert size == 16


def test_a_first_batch_that_does_not_fit_is_one_line():
    with pytest.raises(ConfigError, match=r"batch_size 8 does not fit .* raise accumulate"):
        largest_batch(8, 1000, linear, 25)


def test_what_was_found_is_not_searched_twice(tmp_path):
    path = tmp_path / "found.json"
    values = iter([0.1 + 0.2, 7])
    assert kept(path, "lr", lambda: next(values)) == 0.1 + 0.2
    assert kept(path, "lr", lambda: next(values)) == 0.1 + 0.2  # to the last bit
    assert kept(path, "batch_size", lambda: next(values)) == 7


def test_the_peak_of_memory_is_that_of_the_work():
    memory = MachineMemory()
    megabytes = 200

    def work():
        torch.ones(megabytes << 18)  # float32

    assert memory.peak_of(work) == pytest.approx(megabytes << 20, rel=0.1, abs=8 << 20)
    assert memory.room > megabytes << 20


class Constant(LightningModule):
    """Its loss is 3 whatever it learns."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, index):
        return 3 + 0 * self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_losses_of_a_sweep_are_as_high_as_they_were_and_nothing_is_printed(tmp_path, capfd):
    rates, losses = sweep(
        Constant(),
        DataLoader(list(range(8))),
        folder=tmp_path,
        device="cpu",
        precision="32",
        gradient_clip=0,
        accumulate=1,
        seed=0,
    )
    assert len(rates) == 100
    assert losses == pytest.approx([3] * 100)
    assert capfd.readouterr() == ("", "")
