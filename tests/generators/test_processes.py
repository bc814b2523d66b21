"""Known answers of every method: conversions, weights, and samplers on Gaussian data."""

import numpy as np
import pytest
import torch

from mammo.errors import ConfigError
from mammo.generators import METHODS, method

KINDS = [(name, prediction) for name in METHODS for prediction in method(name).PREDICTIONS]
SAMPLED = [
    (name, prediction, sampler)
    for name, prediction in KINDS
    for sampler in method(name).SAMPLERS
    if sampler != "ddpm"  # draws noise on the way: its own test below
]
MEAN = torch.tensor([0.5, -0.25])
ROOT = torch.tensor([[0.6, 0.0], [0.3, 0.2]])
COVARIANCE = ROOT @ ROOT.T


def exact_denoiser(process):
    """E[x_0 | x_t] of images (N, 1, 1, 2) that are Gaussian with MEAN and COVARIANCE."""

    def denoise(noisy, times):
        one = torch.ones(1, 1, 1, 1)
        at = times[:1]
        alpha = process.corrupt(one, 0 * one, at)[0].item()
        sigma = process.corrupt(0 * one, one, at)[0].item()
        gain = (
            alpha * COVARIANCE @ torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * torch.eye(2))
        )
        return (MEAN + (noisy.flatten(1) - alpha * MEAN) @ gain.T).view(noisy.shape)

    return denoise


@pytest.mark.parametrize(("name", "prediction", "sampler"), SAMPLED)
def test_a_deterministic_sampler_with_the_exact_denoiser_gives_the_data_s_mean_and_covariance(
    name, prediction, sampler
):
    """The map from noise to image is affine then, so three points of it say all."""
    process = method(name).process(prediction, 64, 0.5)
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).view(3, 1, 1, 2)
    ends = process.integrate(
        exact_denoiser(process), points, sampler=sampler, steps=200, generators=[]
    ).flatten(1)
    linear = (ends[1:] - ends[0]).T
    torch.testing.assert_close(ends[0], MEAN, atol=0.01, rtol=0)
    torch.testing.assert_close(linear @ linear.T, COVARIANCE, atol=0.012, rtol=0)


@pytest.mark.parametrize("prediction", method("ddpm").PREDICTIONS)
def test_the_ancestral_sampler_with_the_exact_denoiser_gives_the_data_s_mean_and_covariance(
    prediction,
):
    process = method("ddpm").process(prediction, 64, 0.5)
    generators = [torch.Generator().manual_seed(seed) for seed in range(1500)]
    noise = torch.stack([torch.randn(1, 1, 2, generator=each) for each in generators])
    ends = process.integrate(
        exact_denoiser(process), noise, sampler="ddpm", steps=100, generators=generators
    ).flatten(1)
    # standard errors with 1500 samples: 0.018 of a mean, 0.013 of a variance
    torch.testing.assert_close(ends.mean(0), MEAN, atol=0.05, rtol=0)
    torch.testing.assert_close(ends.T.cov(), COVARIANCE, atol=0.05, rtol=0)


@pytest.mark.parametrize(("name", "prediction"), KINDS)
def test_the_target_of_the_network_stands_for_the_clean_image(name, prediction):
    process = method(name).process(prediction, 64, 0.5)
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 5, 1, 4, 4, generator=generator)
    times = process.times(torch.tensor([0.01, 0.2, 0.5, 0.7, 0.9]))
    noisy, target = process.corrupt(images, noise, times)
    torch.testing.assert_close(process.denoised(target, noisy, times), images, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "prediction"), KINDS)
def test_the_network_sees_and_owes_unit_variance_at_any_time(name, prediction):
    """On Gaussian images of the stated deviation, the linear guess leaves what it must."""
    sd = 0.3
    process = method(name).process(prediction, 64, sd)
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 4, 1, 1, 20000, generator=generator)
    times = process.times(torch.tensor([0.1, 0.4, 0.7, 0.95]))
    noisy, target = process.corrupt(sd * images, noise, times)
    seen = {}

    def network(value):
        def network(noisy):
            seen["input"] = noisy
            return torch.full_like(noisy, value)

        return network

    guess = process.predict(network(0.0), noisy, times)
    scale = process.predict(network(1.0), noisy, times) - guess
    one = torch.ones(4)
    torch.testing.assert_close(seen["input"].flatten(1).std(1), one, atol=0.03, rtol=0)
    owed = ((target - guess) / scale).flatten(1)
    torch.testing.assert_close(owed.std(1), one, atol=0.03, rtol=0)
    assert (owed * noisy.flatten(1)).mean(1).abs().max() < 0.03  # nothing linear is left


def test_v_and_epsilon_are_two_views_of_the_same_noise():
    """v = alpha epsilon - sigma x_0 and epsilon = sigma x_t + alpha v."""
    v, epsilon = (method("ddpm").process(name, 64, 0.5) for name in ("v", "epsilon"))
    v._kept = epsilon._kept = np.array([0.64])  # alpha 0.8, sigma 0.6
    v.__dict__["_scheduler"] = epsilon._scheduler
    epsilon._scheduler.alphas_cumprod = torch.tensor([0.64])
    image, noise = torch.tensor([[2.0]]), torch.tensor([[5.0]])
    time = torch.tensor([0])
    noisy, velocity = v.corrupt(image, noise, time)
    assert noisy.item() == pytest.approx(0.8 * 2 + 0.6 * 5)
    assert velocity.item() == pytest.approx(0.8 * 5 - 0.6 * 2)
    assert epsilon.corrupt(image, noise, time)[1].item() == 5
    assert (0.6 * noisy + 0.8 * velocity).item() == pytest.approx(5)


def test_min_snr_weights_are_those_of_the_paper_for_each_prediction():
    """SNR 4 and 1/4 with gamma 2: epsilon min(SNR, 2)/SNR, v min(SNR, 2)/(SNR + 1)."""
    v, epsilon = (method("ddpm").process(name, 64, 0.5) for name in ("v", "epsilon"))
    v._kept = epsilon._kept = np.array([0.8, 0.2])
    times = torch.tensor([0, 1])
    assert epsilon.loss_weight(times, 2.0).tolist() == pytest.approx([0.5, 1.0])
    assert v.loss_weight(times, 2.0).tolist() == pytest.approx([2 / 5, 0.25 / 1.25])


def test_v_ends_without_signal_and_epsilon_with_some():
    v, epsilon = (method("ddpm").process(name, 64, 0.5) for name in ("v", "epsilon"))
    assert v._kept[-1] == 0
    assert epsilon._kept[-1] == pytest.approx(4.04e-5, rel=0.01)  # Ho et al. 2020


def test_twice_the_side_has_a_quarter_of_the_signal_to_noise_ratio():
    small, large = (method("ddpm").process("epsilon", side, 0.5)._kept for side in (64, 128))
    np.testing.assert_allclose(large / (1 - large), small / (1 - small) / 4, rtol=1e-6)
    small, large = (method("rflow").process("v", side, 0.5) for side in (64, 128))
    one, two = (each.times(torch.tensor([0.3])).item() for each in (small, large))
    assert (1 - two) / two == pytest.approx((1 - one) / one / 2)


def test_the_times_of_rflow_are_logit_normal():
    """The logit of the quantile of 0.8413 is 1, the normal's standard deviation."""
    times = method("rflow").process("v", 64, 0.5).times(torch.tensor([0.5, 0.8413447]))
    assert torch.logit(times).tolist() == pytest.approx([0, 1], abs=1e-4)


@pytest.mark.parametrize("steps", [1, 5, 12])
@pytest.mark.parametrize(
    ("name", "sampler"), [(name, sampler) for name in METHODS for sampler in method(name).SAMPLERS]
)
def test_trap_t4a_the_network_is_called_once_a_step(name, sampler, steps):
    process = method(name).process("v", 64, 0.5)
    calls = []

    def denoise(noisy, times):
        calls.append(times[0].item())
        return torch.zeros_like(noisy)

    process.integrate(
        denoise,
        torch.ones(1, 1, 2, 2),
        sampler=sampler,
        steps=steps,
        generators=[torch.Generator().manual_seed(0)],
    )
    assert len(calls) == steps
    assert calls == sorted(calls, reverse=True)
    assert calls[0] == {"ddpm": 999, "rflow": 1.0}[name]  # from pure noise on


def test_an_unknown_method_is_named():
    with pytest.raises(ConfigError, match="unknown generator 'dppm'; choose one of ddpm, rflow"):
        method("dppm")


def test_rflow_refuses_a_weight_that_is_not_its_own():
    with pytest.raises(ConfigError, match="min_snr_gamma 5 does not apply to generator rflow"):
        method("rflow").check({"min_snr_gamma": 5.0})
