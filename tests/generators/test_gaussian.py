"""Known answers on Gaussian data: exact estimates and trained networks give back its distribution.

On data of one Gaussian the best estimate of x_0 is affine in x_t, so every sampler's map from
noise to image is affine too, and a few points of it say all about the images.
"""

import lightning
import pytest
import torch
from torch import nn

from mammo.generators.artist import Asked
from mammo.generators.canvas import Pixels
from mammo.generators.diffusion import Diffusion
from mammo.generators.modes import mode_of
from mammo.generators.strategies import STRATEGIES, strategy
from mammo.generators.strategies.samplers import FEWEST, SAMPLERS
from mammo.training.fitting import quiet
from mammo.training.optimizing import Optimizing

strategy("ddpm")  # registers them all
KINDS = [(name, prediction) for name in STRATEGIES for prediction in strategy(name).PREDICTIONS]
EVERY = pytest.mark.parametrize(("name", "prediction"), KINDS, ids=["-".join(k) for k in KINDS])
MEAN = torch.tensor([0.1, -0.2])
ROOT = torch.tensor([[0.24, 0.0], [0.1, 0.06]])
COVARIANCE = ROOT @ ROOT.T
SD = ((COVARIANCE.trace() / 2) + MEAN.var(correction=0)).sqrt().item()
STEPS, BATCH = 500, 16
PAIRS = 64  # samples of the Gaussian in one "image" (PAIRS, 1, 2)


def make(name, prediction, image_size=64, **changes):
    known = {"data_sd": SD, "data_mean": MEAN.mean().item(), **changes}
    return strategy(name)(prediction=prediction, image_size=image_size, **known)


def exact(made):
    """E[x_0 | x_t] for images (N, C, 1, 2) whose last dimension is Gaussian."""

    def denoise(noisy, times):
        alpha, sigma = (each.item() for each in made.signal(times[:1]))
        seen = alpha**2 * COVARIANCE + sigma**2 * torch.eye(2)
        gain = alpha * COVARIANCE @ torch.linalg.inv(seen)
        return MEAN + (noisy - alpha * MEAN) @ gain.T

    return denoise


def ends_of(made, sampler, steps):
    """Mean and covariance of what `sampler` makes with the exact estimate."""
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).view(3, 1, 1, 2)
    denoise = exact(made)
    ends = made.integrate(denoise, points, sampler=sampler, steps=steps, generators=[]).flatten(1)
    linear = (ends[1:] - ends[0]).T
    return ends[0], linear @ linear.T


@EVERY
@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"ddpm", "dpmpp_sde"}))
def test_the_exact_estimate_gives_the_exact_distribution(name, prediction, sampler):
    """Methods of the second order within 1 % of the largest variance, of the first within 5 %."""
    mean, covariance = ends_of(make(name, prediction), sampler, steps=200)
    of_first_order = sampler in ("ddim", "euler")
    torch.testing.assert_close(mean, MEAN, atol=2e-3, rtol=0)
    allowed = (0.05 if of_first_order else 0.01) * COVARIANCE.max().item()
    torch.testing.assert_close(covariance, COVARIANCE, atol=allowed, rtol=0)


@EVERY
def test_thirty_calls_of_the_default_are_enough(name, prediction):
    made = make(name, prediction)
    mean, covariance = ends_of(made, made.SAMPLERS[0], steps=30)
    torch.testing.assert_close(mean, MEAN, atol=2e-3, rtol=0)
    torch.testing.assert_close(covariance, COVARIANCE, atol=0.03 * COVARIANCE.max().item(), rtol=0)


def furthest_off(made, sampler, calls):
    """Largest error of contrast, as a share, of Gaussian textures that are estimated exactly."""
    found = []
    for sd in (0.02, 0.1, 0.5, 12.8):  # 12.8: the brightness of 64 x 64 px, as one value

        def denoise(noisy, times, sd=sd):
            alpha, sigma = (each.item() for each in made.signal(times[:1]))
            return alpha * sd**2 / (alpha**2 * sd**2 + sigma**2) * noisy

        one = torch.ones((1, 1, 1, 1), dtype=torch.float64)
        end = made.integrate(denoise, one, sampler=sampler, steps=calls, generators=[])
        found.append(abs(end.item() / sd - 1))
    return max(found)


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_heun_is_no_worse_than_euler_from_where_no_warning_is_due(name):
    """And in 20 calls it is far off, where the default is not."""
    made = strategy(name)(prediction="v", image_size=64, data_sd=0.5)
    for calls in range(FEWEST["heun"], 61):
        assert furthest_off(made, "heun", calls) <= furthest_off(made, "euler", calls)
    assert furthest_off(made, "heun", 20) > 0.3
    assert furthest_off(made, made.SAMPLERS[0], 20) < 0.1


@EVERY
@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 1000), ("dpmpp_sde", 100)])
def test_samplers_that_draw_give_the_exact_distribution(name, prediction, sampler, steps):
    """10,000 samples: standard errors 0.0024 of a mean and 0.0008 of the largest variance."""
    made = make(name, prediction)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((1, 10_000, 1, 2), generator=generator)
    ends = made.integrate(
        exact(made), noise, sampler=sampler, steps=steps, generators=[generator]
    ).view(-1, 2)
    torch.testing.assert_close(ends.mean(0), MEAN, atol=0.008, rtol=0)
    torch.testing.assert_close(ends.T.cov(), COVARIANCE, atol=0.003, rtol=0)


@EVERY
@pytest.mark.parametrize("side", [64, 256])
def test_dark_images_stay_dark_at_any_size(name, prediction, side):
    """Images of one brightness each, N(-0.6, 0.2^2): what noise that ends too early brightens.

    The mean of `side` x `side` px of noise has the deviation 1 / side.
    """
    made = make(name, prediction, side, data_mean=-0.6, data_sd=0.2)

    def denoise(noisy, times):
        alpha, sigma = (each.item() for each in made.signal(times[:1]))
        gain = alpha * 0.2**2 / (alpha**2 * 0.2**2 + sigma**2 / side**2)
        seen = noisy.mean((1, 2, 3), keepdim=True)
        return (-0.6 + gain * (seen + 0.6 * alpha)).expand_as(noisy)

    noise = torch.stack([torch.zeros(1, side, side), torch.full((1, side, side), 1 / side)])
    sampler = made.SAMPLERS[0]
    ends = made.integrate(denoise, noise, sampler=sampler, steps=60, generators=[]).mean((1, 2, 3))
    assert ends[0].item() == pytest.approx(-0.6, abs=0.005)
    assert (ends[1] - ends[0]).item() == pytest.approx(0.2, abs=0.005)


@pytest.mark.parametrize(("name", "kept"), [("ddpm", 0.95), ("rflow", 0.98), ("edm", 0.98)])
def test_fine_texture_keeps_its_contrast_in_thirty_calls(name, kept):
    """Of Gaussian texture with deviation 0.02: five steps of 8 bits."""
    made = make(name, "v", data_mean=0.0)

    def denoise(noisy, times):
        alpha, sigma = (each.item() for each in made.signal(times[:1]))
        return alpha * 0.02**2 / (alpha**2 * 0.02**2 + sigma**2) * noisy

    noise = torch.ones(1, 1, 1, 1)
    end = made.integrate(denoise, noise, sampler=made.SAMPLERS[0], steps=30, generators=[])
    assert kept < end.item() / 0.02 < 1.05


class Affine(nn.Module):
    """An affine map of pairs at every time, called as the U-Net is."""

    def __init__(self):
        super().__init__()
        self.register_buffer("none", torch.zeros(0, dtype=torch.long))
        self.map = nn.Sequential(
            nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 6)
        )

    def forward(self, noisy, times, labels, control=None):
        at = times.float()[:, None] / 1000
        found = self.map(torch.cat([at, at**2, (5 * at).sin()], dim=1))
        linear, shift = found[:, :4].view(-1, 1, 2, 2), found[:, 4:].view(-1, 1, 1, 2)
        return noisy @ linear + shift


class Samples(torch.utils.data.Dataset):
    """A batch of PAIRS samples a row, again and again, with exactly the mean and covariance."""

    def __init__(self):
        drawn = torch.randn((BATCH * PAIRS, 2), generator=torch.Generator().manual_seed(0))
        drawn = drawn - drawn.mean(0)
        root = torch.linalg.cholesky(drawn.T.cov())
        white = torch.linalg.solve_triangular(root, drawn.T, upper=False).T
        self.images = ((white @ ROOT.T + MEAN + 1) / 2).view(BATCH, PAIRS, 1, 2)

    def __len__(self):
        return STEPS * BATCH

    def __getitem__(self, place):
        row = place % BATCH
        return {"image": self.images[row], "labels": torch.zeros(0, dtype=torch.long), "row": row}


@pytest.mark.doors
@EVERY
def test_a_small_network_learns_mean_and_covariance(name, prediction):
    """Trained and sampled as any generator is; the tolerances are 4 % of the largest deviation
    and 10 % of the largest variance."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Affine()
    module = Diffusion(
        network,
        make(name, prediction),
        Pixels(mode_of("unconditional"), (PAIRS, 1, 2)),
        optimizing=Optimizing(7e-3),
        label_dropout=0.0,
        min_snr_gamma=0.0,
        seed=0,
    )
    module.validation_step = None
    with quiet():
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, torch.utils.data.DataLoader(Samples(), batch_size=BATCH))
    asked = Asked(torch.zeros((200, 0), dtype=torch.long), range(200))
    pairs = (module.artist().draw(asked) * 2 - 1).view(-1, 2)
    torch.testing.assert_close(pairs.mean(0), MEAN, atol=0.01, rtol=0)
    torch.testing.assert_close(
        pairs.T.cov(), COVARIANCE, atol=0.1 * COVARIANCE.max().item(), rtol=0
    )
