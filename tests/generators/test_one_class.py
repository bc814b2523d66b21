"""A new strategy or a new mode is one class: it trains and draws with nothing else changed."""

import pytest
import tiny
import torch

from mammo.generators import FAMILIES
from mammo.generators.modes import MODES, OfClass
from mammo.generators.strategies import STRATEGIES
from mammo.generators.strategies.gaussian import Gaussian
from mammo.generators.train import train
from mammo.generators.watching import asked_like


class Circle(Gaussian):
    """x_t = cos(t) x_0 + sin(t) noise for t in (0, pi / 2], predicting the noise's rest of x_t."""

    PREDICTIONS = ("v",)
    SCHEDULES = ("auto",)
    WEIGHTED = False

    def __init__(self, *, prediction, image_size, data_sd, data_mean=0.0, schedule="auto"):
        super().__init__(data_sd=data_sd, data_mean=data_mean)

    def times(self, uniform):
        return (uniform * torch.pi / 2).clamp(min=1e-3)

    def network_time(self, times):
        return 600 * times

    def signal(self, times):
        return torch.cos(times.double()), torch.sin(times.double())

    def parts(self, alpha, sigma):
        return -sigma, alpha

    def loss_weight(self, times, gamma):
        return torch.ones_like(times)

    def line(self, count):
        return torch.linspace(0.999, 0.01, count) * torch.pi / 2


class Negative(OfClass):
    """Images of a class in negative."""

    def target(self, batch):
        return 1 - batch["image"] * 2


@pytest.mark.doors
def test_a_new_class_is_all_that_a_strategy_or_a_mode_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(STRATEGIES, "circle", Circle)
    monkeypatch.setitem(MODES, "negative", Negative)
    monkeypatch.setitem(FAMILIES, "circle", "pixel")  # as at import, from the strategies there are
    data = tiny.write_scans(tmp_path)
    settings = tiny.recipe("ddpm", "class", epochs=30, lr=5e-3, ema=0.0)
    settings |= {"generator": "circle", "mode": "negative"}
    trained = train(tiny.run_with(tmp_path / "run", data=data.folder), settings)
    images = trained.learner.artist().draw(asked_like(trained.material, trained.material.val))
    real = torch.from_numpy(data.images(trained.material.train)).mean()
    assert images.mean() == pytest.approx(1 - float(real), abs=0.1)  # a third of the scale off
