"""A loss that is no longer a number ends the training, and what was good before it stays."""

import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader

from mammo.errors import ConfigError
from mammo.run import MemoryRun
from mammo.training import fit, read_checkpoint
from mammo.training.finite import FiniteLoss


class Line(LightningModule):
    """Learns a slope of 2; from epoch `epoch` and batch `batch` on its loss is `value`."""

    def __init__(self, epoch=99, batch=0, value=math.nan):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(1))
        self.place, self.value = (epoch, batch), value
        self.batches = 0

    def training_step(self, batch, index):
        self.batches += 1
        loss = (self.slope * batch["image"] - 2 * batch["image"]).square().mean()
        return loss * self.value if (self.current_epoch, index) >= self.place else loss

    def validation_step(self, batch, index):
        self.log("val/loss", (self.slope - 2).abs().sum(), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(folder, module, **settings):
    rows = [{"image": torch.tensor(float(row)), "label": 0} for row in (1, 1, 1, 1, 1, 1, 1, 1)]
    return fit(
        module,
        train=DataLoader(rows, batch_size=2),
        val=DataLoader(rows, batch_size=8),
        tracked=MemoryRun(folder),
        epochs=3,
        seed=0,
        monitor="val/loss",
        mode="min",
        device="cpu",
        **settings,
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_training_stops_at_the_batch_and_names_it_and_its_epoch(tmp_path, value):
    module = Line(1, 2, value)
    with pytest.raises(ConfigError, match=r"is not finite in batch 3 of epoch 2; .* lower lr") as e:
        train(tmp_path, module)
    assert "\n" not in str(e.value)
    assert module.batches == 4 + 3  # none after it


def test_the_last_good_checkpoint_stays(tmp_path):
    with pytest.raises(ConfigError, match=r"the checkpoint of epoch 1 stays in .*last\.ckpt"):
        train(tmp_path, Line(1, 3))
    for name in ("best", "last"):
        kept = read_checkpoint(tmp_path / "run" / "checkpoints" / f"{name}.ckpt")
        # four steps of 0.1 down the square: what is missing of 2 shrinks by 0.8 each
        assert kept["epoch"] == 0
        assert float(kept["state_dict"]["slope"]) == pytest.approx(2 * (1 - 0.8**4))


def test_in_the_first_epoch_nothing_is_kept(tmp_path):
    with pytest.raises(ConfigError, match="in batch 1 of epoch 1; lower lr"):
        train(tmp_path, Line(0, 0))
    assert not list((tmp_path / "run" / "checkpoints").glob("*.ckpt"))


def test_a_batch_in_parts_is_named_by_its_number(tmp_path):
    module = Line(0, 5)  # the sixth part is of the third batch
    with pytest.raises(ConfigError, match="in batch 3 of epoch 1"):
        train(tmp_path, module, accumulate=2)


def test_a_finite_loss_changes_nothing(tmp_path):
    fitted = train(tmp_path, Line())
    slope = read_checkpoint(fitted.last)["state_dict"]["slope"]
    assert float(slope) == pytest.approx(2 * (1 - 0.8**12))


class Remote(torch.Tensor):
    """A number that says it lies on a GPU and counts how often it is read."""

    reads = 0

    @property
    def device(self):
        return torch.device("cuda")

    def __int__(self):
        Remote.reads += 1
        return super().__int__()


def test_a_gpu_is_asked_now_and_then_and_remembers_the_first_bad_batch_meanwhile(tmp_path):
    callback = FiniteLoss(tmp_path, accumulate=1)
    callback._first = torch.tensor(-1).as_subclass(Remote)
    trainer = SimpleNamespace(current_epoch=0, is_last_batch=False)
    for batch in range(99):
        loss = torch.tensor(math.nan if batch >= 60 else 1.0)
        callback.on_train_batch_end(trainer, None, {"loss": loss}, None, batch)
    assert Remote.reads == 1  # after 50 batches
    with pytest.raises(ConfigError, match="in batch 61 of epoch 1"):
        callback.on_train_batch_end(trainer, None, {"loss": loss}, None, 99)
