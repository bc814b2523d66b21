"""The adversarial network: its penalty, its critic, whose turn it is, and what it learns."""

import pytest
import tiny
import torch
from lightning.pytorch import Callback
from torch import nn

from mammo.data.dataset import Dataset
from mammo.errors import ConfigError
from mammo.generators.artist import Asked
from mammo.generators.canvas import Pixels
from mammo.generators.families import gan as family
from mammo.generators.gan import Adversarial, gradient_penalty
from mammo.generators.gan_networks import NETWORKS, build_critic, build_maker
from mammo.generators.material import gather
from mammo.generators.modes import mode_of
from mammo.generators.one_call import describe
from mammo.steps import train_generator
from mammo.training import fit
from mammo.training.optimizing import Optimizing

SIDE = 8
BATCH = 16


def described(network="unet", *, shape=(SIDE, SIDE), labels=(2,), control=0):
    said = describe(made=(1, *shape), control=control, labels=labels, channels="8,16", latent_dim=4)
    return {**said, "network": network}


def make(
    network="unet",
    *,
    lr=1e-3,
    schedule="constant",
    critic_steps=3,
    penalty=10.0,
    clip=0.0,
    **changes,
):
    said = described(network, **changes)
    return Adversarial(
        build_maker(said, seed=1),
        build_critic(said, seed=2),
        Pixels(mode_of("class"), tuple(said["made"])),
        labels=tuple(said["labels"]),
        optimizing=Optimizing(lr, betas=family.BETAS, schedule=schedule, warm_up=0),
        critic_steps=critic_steps,
        gradient_penalty=penalty,
        gradient_clip=clip,
        label_dropout=0.0,
        seed=0,
    )


def flat(rows, shape=(SIDE, SIDE)):
    """A batch of flat images: class c = row modulo 2 normal around its level, deviation 0.05."""
    rows = torch.as_tensor(rows)
    drawing = torch.Generator().manual_seed(int(rows[0]))
    level = torch.tensor([0.3, 0.7])[rows % 2] + 0.05 * torch.randn(len(rows), generator=drawing)
    image = level.view(-1, 1, 1, 1).expand(-1, 1, *shape)
    return {"image": image, "row": rows, "label": rows % 2, "labels": (rows % 2)[:, None]}


def train(module, tmp_path, *, batches, callbacks=(), shape=(SIDE, SIDE)):
    """One epoch of `batches` batches by the trainer that every generator has."""
    seen = [flat(range(BATCH * place, BATCH * (place + 1)), shape) for place in range(batches)]
    fit(
        module,
        train=torch.utils.data.DataLoader(seen, batch_size=None),
        val=torch.utils.data.DataLoader(seen[:1], batch_size=None),
        tracked=tiny.run_with(tmp_path),
        epochs=1,
        seed=0,
        monitor="val/loss",
        mode="min",
        device="cpu",
        callbacks=callbacks,
    )


class Watch(Callback):
    """Notes after every batch which networks it moved."""

    def __init__(self, module):
        self.moved = []
        self._networks = {"critic": module.critic, "maker": module.maker}
        self._before = {}

    def _values(self):
        return {
            name: torch.cat([each.detach().flatten() for each in network.parameters()])
            for name, network in self._networks.items()
        }

    def on_train_start(self, trainer, module):
        self._before = self._values()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        now = self._values()
        self.moved.append([name for name in now if not torch.equal(now[name], self._before[name])])
        self._before = now


@pytest.mark.parametrize("length", [0.0, 1.0, 3.0])
def test_the_penalty_of_a_linear_critic_is_its_slope_less_1_squared(length):
    slope = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    slope *= length / slope.norm()
    real, made = torch.zeros(3, 2, 4, 4), torch.ones(3, 2, 4, 4)
    found = gradient_penalty(lambda x: (slope * x).sum((1, 2, 3)), real, made, torch.rand(3))
    assert found.tolist() == pytest.approx([(length - 1) ** 2] * 3, abs=1e-5)


def test_the_penalty_is_taken_between_real_and_made_images():
    """Of x^2 / 2 the slope is x itself: a mix of 1/4 from made 2 to real 4 has slope 2.5."""
    real, made = torch.full((1, 1, 1, 1), 4.0), torch.full((1, 1, 1, 1), 2.0)
    found = gradient_penalty(
        lambda x: x.square().sum((1, 2, 3)) / 2, real, made, torch.tensor([0.25])
    )
    assert found.item() == pytest.approx((2.5 - 1) ** 2)


def test_the_penalty_teaches_the_critic():
    """d/da (|a| - 1)^2 = 2 (|a| - 1) sign a: of a slope of 3 it is 4."""
    slope = torch.tensor(3.0, requires_grad=True)
    one = torch.ones(1, 1, 1, 1)
    gradient_penalty(
        lambda x: slope * x.sum((1, 2, 3)), one, 0 * one, torch.tensor([0.5])
    ).backward()
    assert slope.grad.item() == pytest.approx(4.0)


def test_every_layer_of_the_critic_has_spectral_norm_1():
    critic = build_critic(described(labels=(2, 3)), seed=0)
    drawing = torch.Generator().manual_seed(0)
    for weight in critic.parameters():
        weight.data = 3 * torch.randn(weight.shape, generator=drawing)
    for _ in range(100):  # each call brings the estimate of the largest singular value closer
        critic(torch.zeros(2, 1, SIDE, SIDE), torch.zeros(2, 2, dtype=torch.long), None)
    layers = [each for each in critic.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    norms = [torch.linalg.matrix_norm(each.weight.flatten(1), 2).item() for each in layers]
    assert norms == pytest.approx([1.0] * len(norms), rel=1e-3)
    assert len(norms) == 2 * 3 + 2  # two blocks of three, the linear function, the embedding


def test_trap_t3c_the_critic_projects_the_labels_on_what_it_sees():
    """Miyato and Koyama 2018, eq. 3: one label more adds the product with its embedding."""
    critic = build_critic(described(labels=(2, 3)), seed=0).eval()
    image = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    seen = []
    critic.last.register_forward_pre_hook(lambda module, args: seen.append(args[0]))

    def score(*labels):
        return critic(image, torch.tensor([labels]), None).item()

    nothing = score(2, 3)
    features, embedding = seen[0][0].detach(), critic.told.weight.detach()  # (16,), (16, 2 + 3)
    assert nothing == pytest.approx(critic.last(features[None]).item())
    first, second = float(embedding[:, 1] @ features), float(embedding[:, 2 + 0] @ features)
    assert min(abs(first), abs(second)) > 1e-4
    assert score(1, 3) - nothing == pytest.approx(first, rel=1e-3)
    assert score(1, 0) - nothing == pytest.approx(first + second, rel=1e-3)


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_no_network_mixes_the_images_of_a_batch(network):
    """With statistics of a batch the penalty of an image would be that of its neighbours too."""
    module = make(network)
    drawing = torch.Generator().manual_seed(0)
    image = torch.rand(4, 1, SIDE, SIDE, generator=drawing).requires_grad_()
    labels = torch.tensor([[0], [1], [0], [1]])
    module.critic(image, labels, None)[1].backward()
    assert [bool(each.abs().max() > 0) for each in image.grad] == [False, True, False, False]
    latent = torch.randn(4, 4, generator=drawing).requires_grad_()
    module.maker(latent, labels, None)[1].sum().backward()
    assert [bool(each.abs().max() > 0) for each in latent.grad] == [False, True, False, False]


def test_the_maker_takes_a_step_after_each_third_of_the_critic(tmp_path):
    module = make(critic_steps=3)
    watch = Watch(module)
    train(module, tmp_path, batches=7, callbacks=[watch])
    critic, both = ["critic"], ["critic", "maker"]
    assert watch.moved == [critic, critic, both, critic, critic, both, critic]


@pytest.mark.parametrize("network", sorted(NETWORKS))
@pytest.mark.parametrize("shape", [(8, 8), (12, 20)])
def test_trap_t0i_images_are_made_and_judged_at_the_data_s_own_size(tmp_path, network, shape):
    """Images of one size mixed with images of another cannot be: a step would fail."""
    module = make(network, shape=shape, critic_steps=1)
    train(module, tmp_path, batches=2, shape=shape)
    drawn = module.artist().draw(Asked(torch.zeros(3, 1, dtype=torch.long), range(3)))
    assert drawn.shape == (3, *flat(range(3), shape)["image"].shape[1:])


@pytest.mark.doors
@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_it_learns_the_brightness_of_each_class(tmp_path, network):
    """Flat images, classes around 0.3 and 0.7; untrained they are no more than 0.1 apart.

    They differ along one direction alone. A critic that starts with the wrong sign there has to
    pass slope 0, which a penalty of 10 makes dearer than these images are far apart.
    """
    module = make(network, lr=2e-3, schedule="cosine", critic_steps=2, penalty=1.0)
    asked = [Asked(torch.full((100, 1), label), range(100)) for label in (0, 1)]

    def levels():
        return [float(module.artist().draw(each).mean()) for each in asked]

    before = levels()
    assert abs(before[0] - before[1]) < 0.1
    train(module, tmp_path, batches=160)
    assert levels() == pytest.approx([0.3, 0.7], abs=0.1)


def test_the_gradient_of_each_step_is_clipped_where_asked(tmp_path):
    norms = []

    class Norms(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            grads = [p.grad.flatten() for g in optimizer.param_groups for p in g["params"]]
            norms.append(torch.cat(grads).norm().item())

    for clip in (0.0, 1e-3):
        train(make(clip=clip, critic_steps=1), tmp_path / str(clip), batches=2, callbacks=[Norms()])
    assert min(norms[:4]) > 2e-3
    assert norms[4:] == pytest.approx([1e-3] * 4, rel=1e-2)


def learner_of(tmp_path, **changes):
    settings = tiny.recipe("gan", "class", **changes)
    tracked = tiny.run_with(tmp_path, data=tiny.write_scans(tmp_path).folder)
    data = Dataset(tracked.inputs["data"][0].path)
    material = gather(data, settings, folder=tmp_path, inputs=tracked.inputs)
    return family.learner(family.plan(material, settings), material, settings)


def test_its_own_rate_and_momenta_are_the_published_ones_each_over_its_own_steps(tmp_path):
    """Gulrajani et al. 2017, algorithm 1: lr 1e-4, betas 0 and 0.9, five steps of the critic."""

    class Trainer:
        estimated_stepping_batches = 100

    learner = learner_of(tmp_path, critic_steps=5, lr_schedule="constant", warm_up=0)
    learner._trainer = Trainer()
    found = learner.configure_optimizers()
    for each in found:
        assert each["optimizer"].param_groups[0]["lr"] == pytest.approx(1e-4)
        assert each["optimizer"].param_groups[0]["betas"] == (0.0, 0.9)
    falling = learner_of(tmp_path / "falling", critic_steps=5)
    falling._trainer = Trainer()
    lasts = []
    for each, steps in zip(falling.configure_optimizers(), (100, 20), strict=True):
        for _ in range(steps):
            each["optimizer"].step()
            each["lr_scheduler"]["scheduler"].step()
        lasts.append(each["optimizer"].param_groups[0]["lr"])
    assert lasts == pytest.approx([0.05 * 1e-4] * 2)  # the end of the cosine, for both


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulate": 2}, "accumulate 2 does not go with generator gan"),
        ({"find_lr": True}, "find_lr does not go with generator gan, .* give lr"),
        ({"monitor": "val/loss"}, "monitor 'val/loss' does not go with generator gan"),
    ],
)
def test_what_its_game_cannot_do_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        train_generator.check(tiny.recipe("gan", "class", **changes))
