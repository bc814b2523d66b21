"""Training: kills, resumes, seeds, checkpoints."""

import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Sampler

from mammo.errors import CheckpointError, ConfigError
from mammo.run import MemoryRun
from mammo.training import Averaging, choose_device, fit, read_checkpoint
from mammo.training.sharing import shares

EPOCHS = 4


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9, 24, 25])
@pytest.mark.parametrize(("size", "batch"), [(2, 2), (2, 8), (3, 3), (4, 4), (4, 16)])
def test_processes_judge_each_row_once_in_as_many_batches(count, size, batch):
    """Or all judge all, where there is not one for each: weighted means are the same."""
    mine = [shares(range(count), rank, size, batch) for rank in range(size)]
    assert len({len(batches) for batches in mine}) == 1
    assert all(0 < len(each) <= batch for batches in mine for each in batches)
    rows = [[row for each in batches for row in each] for batches in mine]
    if count < size:
        assert rows == [list(range(count))] * size
    else:
        assert sorted(row for each in rows for row in each) == list(range(count))
        assert max(map(len, rows)) - min(map(len, rows)) <= 1


class Order(Sampler[int]):
    """Eight rows in an order that depends on the epoch alone."""

    def __init__(self):
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 8

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.epoch)
        return iter(torch.randperm(8, generator=generator).tolist())


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, row):
        return {"image": torch.full((3,), float(row)), "label": row % 2, "row": row}


class Noisy(LightningModule):
    """A linear model with dropout whose training draws noise from the global generator."""

    def __init__(self, *, draws_in_validation=0, scores=(), pause_s=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(3, 8),
            torch.nn.BatchNorm1d(8),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(8, 1),
        )
        self.draws, self.scores, self.pause_s = draws_in_validation, scores, pause_s
        self.rows = []

    def training_step(self, batch, index):
        time.sleep(self.pause_s)
        self.rows += batch["row"].tolist()
        target = batch["label"].float() + 0.1 * torch.randn(len(batch["label"]))
        loss = (self.layers(batch["image"])[:, 0] - target).square().mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(target))
        return loss

    def validation_step(self, batch, index):
        torch.rand(self.draws)
        score = self.layers(batch["image"]).square().mean()
        if self.scores:
            score = torch.tensor(self.scores[self.current_epoch])
        self.log("val/loss", score, batch_size=len(batch["label"]))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def train(folder, module=None, *, epochs=EPOCHS, **settings):
    folder.mkdir(parents=True, exist_ok=True)
    module = module or Noisy()
    tracked = MemoryRun(folder)
    fitted = fit(
        module,
        train=DataLoader(Rows(), batch_size=3, sampler=Order()),
        val=DataLoader(Rows(), batch_size=4),
        tracked=tracked,
        epochs=epochs,
        device="cpu",
        callbacks=[Averaging(0.9)],
        **{"seed": 1, "mode": "min", "monitor": "val/loss", **settings},
    )
    return fitted, tracked


def same(left, right):
    """Whether two nested states are equal bit by bit, times of day aside."""
    if isinstance(left, dict):
        keys = {*left, *right} - {"seconds"}
        return all(key in left and key in right and same(left[key], right[key]) for key in keys)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


WHAT_MATTERS = (
    "state_dict",
    "current_model_state",
    "averaging_state",
    "optimizer_states",
    "lr_schedulers",
    "global_step",
    "epoch",
)


def assert_same_weights(left, right):
    for name in ("best", "last"):
        one, other = read_checkpoint(getattr(left, name)), read_checkpoint(getattr(right, name))
        for key in WHAT_MATTERS:
            assert same(one[key], other[key]), (name, key)


def test_the_weights_that_are_uploaded_are_those_of_the_epochs_checkpoint(tmp_path):
    fitted, tracked = train(tmp_path, upload_minutes=1e-9, about={"data_digest": "d"})
    for name, path in (("best", fitted.best), ("last", fitted.last)):
        folder = tracked.uploaded[f"checkpoints/{name}"]
        checkpoint, manifest = (
            read_checkpoint(path),
            json.loads((folder / "manifest.json").read_text()),
        )
        assert same(load_file(folder / "weights.safetensors"), dict(checkpoint["state_dict"]))
        assert (manifest["epoch"], manifest["data_digest"]) == (checkpoint["epoch"] + 1, "d")
    assert manifest["step"] == 3 * EPOCHS


class Killed(Exception):
    pass


@pytest.mark.parametrize("batches", [1, 3, 4, 8, 11])
def test_a_run_that_stops_at_any_batch_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path, batches
):
    class Stops(Noisy):
        def training_step(self, batch, index):
            if self.current_epoch * 3 + index == batches:
                raise Killed
            return super().training_step(batch, index)

    whole, _ = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "cut", Stops())
    again = Noisy()
    resumed, tracked = train(tmp_path / "cut", again)
    assert_same_weights(whole, resumed)
    assert len(again.rows) == 8 * (EPOCHS - batches // 3)
    assert resumed.images_seen == 8 * EPOCHS
    assert [step for name, _, step in tracked.history if name == "val/loss"] == list(
        range(batches // 3 + 1, EPOCHS + 1)
    )


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
from test_training import Noisy, train
train(Path({folder!r}), Noisy(pause_s=0.1))
"""


@pytest.mark.doors
def test_sigkill_then_the_same_command_gives_the_same_weights(tmp_path):
    whole, _ = train(tmp_path / "whole")
    tests = Path(__file__).parent
    script = SCRIPT.format(
        tests=str(tests), root=str(tests.parent), folder=str(tmp_path / "killed")
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    last = tmp_path / "killed" / "run" / "checkpoints" / "last.ckpt"
    while not last.exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert read_checkpoint(last)["epoch"] < EPOCHS - 1
    resumed, _ = train(tmp_path / "killed")
    assert_same_weights(whole, resumed)


def test_a_finished_run_started_again_trains_nothing_and_returns_the_averaged_weights(tmp_path):
    whole, _ = train(tmp_path)
    again = Noisy()
    repeated, _ = train(tmp_path, again)
    assert again.rows == []
    assert repeated == whole
    assert same(dict(again.state_dict()), dict(read_checkpoint(whole.best)["state_dict"]))


def test_each_epoch_has_its_own_order_also_after_a_resume(tmp_path):
    train(tmp_path, epochs=2)
    module = Noisy()
    train(tmp_path, module, epochs=3)
    assert module.rows == torch.randperm(8, generator=torch.Generator().manual_seed(2)).tolist()


def test_trap_t4e_validation_that_draws_random_numbers_changes_no_weight(tmp_path):
    silent, _ = train(tmp_path / "silent", Noisy())
    drawing, _ = train(tmp_path / "drawing", Noisy(draws_in_validation=1000))
    assert_same_weights(silent, drawing)


def test_another_seed_gives_other_weights(tmp_path):
    one, _ = train(tmp_path / "one", epochs=1)
    other, _ = train(tmp_path / "other", epochs=1, seed=2)
    key = "layers.0.weight"
    assert not torch.equal(
        *(read_checkpoint(each.last)["state_dict"][key] for each in (one, other))
    )


def test_a_corrupt_checkpoint_is_one_line_and_never_a_fresh_start(tmp_path):
    fitted, _ = train(tmp_path, epochs=1)
    content = bytearray(fitted.last.read_bytes())
    for damage in (content[: len(content) // 2], b"", b"not a checkpoint"):
        fitted.last.write_bytes(damage)
        with pytest.raises(CheckpointError, match=r"last.ckpt is corrupt") as caught:
            train(tmp_path)
        assert "\n" not in str(caught.value)


def test_one_flipped_bit_in_a_weight_is_noticed(tmp_path):
    fitted, _ = train(tmp_path, epochs=1)
    content = bytearray(fitted.last.read_bytes())
    weight = read_checkpoint(fitted.last)["state_dict"]["layers.0.weight"]
    content[content.index(weight.numpy().tobytes())] ^= 1
    fitted.last.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        train(tmp_path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    fitted, _ = train(tmp_path, epochs=1)
    torch.save({"state_dict": Noisy()}, fitted.last)
    with pytest.raises(CheckpointError, match="corrupt"):
        train(tmp_path)


def test_a_full_disk_is_one_line_and_leaves_the_last_whole_checkpoint(tmp_path, monkeypatch):
    fitted, _ = train(tmp_path, epochs=1)
    before = fitted.last.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            train(tmp_path)
    assert fitted.last.read_bytes() == before
    assert sorted(path.name for path in fitted.last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_patience_ends_the_training_and_best_is_the_best_epoch(tmp_path):
    scores = (3.0, 1.0, 2.0, 1.0, 0.0)
    fitted, _ = train(tmp_path, Noisy(scores=scores), epochs=5, patience=2)
    assert (fitted.epochs, fitted.best_score) == (4, 1.0)
    assert read_checkpoint(fitted.best)["epoch"] == 1
    again = Noisy(scores=scores)
    train(tmp_path, again, epochs=5, patience=2)
    assert again.rows == []


def test_epochs_without_a_measurement_are_neither_best_nor_a_reason_to_stop(tmp_path):
    kids = iter([None, 3.0, None, 1.0, None, 2.0, None, 2.0, None, 0.0])

    def measure():
        kid = next(kids)
        return {} if kid is None else {"val/kid": kid}

    fitted, tracked = train(
        tmp_path, epochs=10, monitor="val/kid", patience=4, measures=[measure], mode="min"
    )
    assert (fitted.epochs, fitted.best_epoch, fitted.best_score) == (8, 4, 1.0)
    assert read_checkpoint(fitted.best)["epoch"] == 3
    measured = [(value, step) for name, value, step in tracked.history if name == "val/kid"]
    assert measured == [(3.0, 2), (1.0, 4), (2.0, 6), (2.0, 8)]


def test_a_measurement_that_never_comes_is_refused_at_the_last_epoch(tmp_path):
    with pytest.raises(ConfigError, match="unknown metric 'val/kid' to monitor"):
        train(tmp_path, epochs=2, monitor="val/kid", measures=[dict])


def test_s4_12_gradients_are_scaled_to_the_largest_norm_and_smaller_ones_left(tmp_path):
    class Slope(Noisy):
        norms = ()

        def on_before_optimizer_step(self, optimizer):  # comes after the callbacks' turn
            grads = [each.grad.flatten() for each in self.parameters()]
            self.norms = (*self.norms, torch.cat(grads).norm().item())

    free, clipped = Slope(), Slope()
    train(tmp_path / "free", free, epochs=1)
    train(tmp_path / "clipped", clipped, epochs=1, gradient_clip=0.5)
    assert free.norms[0] > 0.5
    assert clipped.norms[0] == pytest.approx(0.5, rel=1e-4)
    assert max(clipped.norms) < 0.5001


def test_a_gain_below_min_delta_counts_as_none(tmp_path):
    fitted, _ = train(
        tmp_path, Noisy(scores=(1.0, 1.05, 1.2, 1.2)), mode="max", min_delta=0.1, epochs=4
    )
    assert fitted.best_score == pytest.approx(1.2)
    assert read_checkpoint(fitted.best)["epoch"] == 2


def test_a_metric_that_is_not_a_number_chooses_no_checkpoint(tmp_path):
    with pytest.raises(ConfigError, match="val/loss is nan after epoch 1"):
        train(tmp_path, Noisy(scores=(math.nan,) * EPOCHS))


def test_an_unknown_metric_to_monitor_is_refused(tmp_path):
    class Silent(Noisy):
        def validation_step(self, batch, index):
            self.log("val/auc", 0.5, batch_size=1)

    with pytest.raises(ConfigError, match=r"'val/loss' to monitor; choose one of .*val/auc"):
        train(tmp_path, Silent())


def test_an_epoch_is_one_call_with_the_epoch_as_step(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "mammo"):
        _, tracked = train(tmp_path, epochs=2)
    names = {"train/loss", "val/loss", "lr", "images_seen", "images_per_second"}
    logged = {(name, step) for name, _, step in tracked.history if not name.startswith("best/")}
    assert logged == {(name, step) for name in names for step in (1, 2)}
    assert [value for name, value, _ in tracked.history if name == "images_seen"] == [8, 16]
    rates = [value for name, value, _ in tracked.history if name == "lr"]
    assert rates == pytest.approx([0.01 / 4, 0.01 / 7])  # of the steps 3 and 6, which come next
    assert [record.name for record in caplog.records] == ["mammo", "mammo"]


@pytest.mark.parametrize(
    ("mode", "best"),
    [("min", [(3.0, 1), (1.0, 2), (0.5, 4)]), ("max", [(3.0, 1)])],
)
def test_the_best_so_far_stands_beside_the_last_value(tmp_path, mode, best):
    _, tracked = train(tmp_path, Noisy(scores=(3.0, 1.0, 2.0, 0.5)), mode=mode, epochs=4)
    told = [(value, step) for name, value, step in tracked.history if name == "best/val/loss"]
    assert told == best
    assert (tracked.last["best/epoch"], tracked.last["val/loss"]) == (best[-1][1], 0.5)


def test_nothing_is_left_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    train(tmp_path / "there", epochs=1)
    assert list(Path().iterdir()) == []


def test_ctrl_c_stays_an_interrupt(tmp_path):
    class Interrupted(Noisy):
        def training_step(self, batch, index):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Interrupted())


def test_sigterm_ends_with_143_after_the_batch(tmp_path):
    class Terminated(Noisy):
        def training_step(self, batch, index):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().training_step(batch, index)

    with pytest.raises(SystemExit) as caught:
        train(tmp_path, Terminated())
    assert caught.value.code == 143


def test_an_average_of_constant_steps_follows_the_warm_up(tmp_path):
    linear = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(linear.weight, 1.0)
    averaging = Averaging(0.5)
    averaging.setup(None, linear_module(linear), "fit")
    for value in (1.0, 2.0, 3.0):  # the first is copied; then decays 2/11 and 3/12
        torch.nn.init.constant_(linear.weight, value)
        averaging._average_model.update_parameters(linear_module(linear))
    expected = 1 + (1 - 2 / 11) * (2 - 1)
    expected += (1 - 3 / 12) * (3 - expected)
    assert next(averaging._average_model.parameters()).item() == pytest.approx(expected)


def linear_module(linear):
    module = LightningModule()
    module.linear = linear
    return module


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:99", "cpu:1"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(ConfigError, match=json.dumps(device)[1:-1]):
        choose_device(device)
