"""Known answers of every strategy: conversions, weights, times and schedules."""

import math

import numpy as np
import pytest
import torch

from mammo.errors import ConfigError
from mammo.generators.strategies import STRATEGIES, check_strategy, strategy

strategy("ddpm")  # registers them all
KINDS = [
    (name, prediction, schedule)
    for name in STRATEGIES
    for prediction in strategy(name).PREDICTIONS
    for schedule in strategy(name).SCHEDULES
]
EVERY = pytest.mark.parametrize(
    ("name", "prediction", "schedule"), KINDS, ids=["-".join(each) for each in KINDS]
)


def make(name, prediction="v", image_size=64, data_sd=0.5, **changes):
    return strategy(name)(prediction=prediction, image_size=image_size, data_sd=data_sd, **changes)


def ddpm_with(kept, prediction):
    """A DDPM whose steps keep these shares of the signal's variance."""
    made = make("ddpm", prediction)
    made.kept = np.array(kept)
    return made


@EVERY
def test_what_is_predicted_stands_for_the_clean_image(name, prediction, schedule):
    made = make(name, prediction, schedule=schedule, data_mean=-0.4)
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 5, 1, 4, 4, generator=generator)
    times = made.times(torch.tensor([0.01, 0.2, 0.5, 0.7, 0.9]))
    noisy, target = made.corrupt(images, noise, times)
    torch.testing.assert_close(made.denoised(target, noisy, times), images, atol=2e-3, rtol=1e-3)


@EVERY
def test_the_network_sees_and_owes_unit_variance_at_any_time(name, prediction, schedule):
    """On Gaussian images of the stated mean and deviation, the linear guess leaves what it must."""
    made = make(name, prediction, data_sd=0.3, data_mean=-0.6, schedule=schedule)
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 4, 1, 1, 20000, generator=generator)
    times = made.times(torch.tensor([0.1, 0.4, 0.7, 0.95]))
    noisy, target = made.corrupt(0.3 * images - 0.6, noise, times)
    seen = {}

    def network(value):
        def network(noisy):
            seen["input"] = noisy
            return torch.full_like(noisy, value)

        return network

    guess = made.predict(network(0.0), noisy, times)
    scale = made.predict(network(1.0), noisy, times) - guess
    for each in (seen["input"], (target - guess) / scale):
        values = each.flatten(1)
        torch.testing.assert_close(values.std(1), torch.ones(4), atol=0.03, rtol=0)
        torch.testing.assert_close(values.mean(1), torch.zeros(4), atol=0.03, rtol=0)
    owed = ((target - guess) / scale).flatten(1)
    assert (owed * seen["input"].flatten(1)).mean(1).abs().max() < 0.03  # nothing linear is left


def test_v_and_epsilon_are_two_views_of_the_same_noise():
    """v = alpha epsilon - sigma x_0, epsilon = sigma x_t + alpha v; alpha is 0.8, sigma 0.6."""
    v, epsilon = (ddpm_with([0.64], name) for name in ("v", "epsilon"))
    image, noise = torch.tensor([[2.0]]), torch.tensor([[5.0]])
    time = torch.tensor([0])
    noisy, velocity = v.corrupt(image, noise, time)
    assert noisy.item() == pytest.approx(0.8 * 2 + 0.6 * 5)
    assert velocity.item() == pytest.approx(0.8 * 5 - 0.6 * 2)
    assert epsilon.corrupt(image, noise, time)[1].item() == 5
    assert (0.6 * noisy + 0.8 * velocity).item() == pytest.approx(5)


def test_trap_t4b_min_snr_weights_are_those_of_the_paper_for_each_prediction():
    """SNR 4 and 1/4 with gamma 2: min(SNR, 2) over SNR (epsilon), SNR + 1 (v) and 1 (x0)."""
    times = torch.tensor([0, 1])
    for prediction, expected in (
        ("epsilon", [2 / 4, 1.0]),
        ("v", [2 / 5, 0.25 / 1.25]),
        ("x0", [2.0, 0.25]),
    ):
        weights = ddpm_with([0.8, 0.2], prediction).loss_weight(times, 2.0)
        assert weights.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_the_step_from_pure_noise_is_trained_under_min_snr(prediction):
    """min(0, gamma) would leave it out; the step before it keeps the weight of the paper."""
    made = make("ddpm", prediction)
    last, before = made.loss_weight(torch.tensor([999, 998]), 5.0).tolist()
    snr = made.kept[998] / (1 - made.kept[998])
    assert last == 1
    assert before == pytest.approx(snr / (snr + 1 if prediction == "v" else 1), rel=1e-5)
    assert before < 1e-5


def test_without_gamma_every_time_weighs_the_same():
    assert make("ddpm").loss_weight(torch.tensor([0, 500, 999]), 0.0).tolist() == [1, 1, 1]
    assert make("rflow").loss_weight(torch.tensor([0.1, 0.9]), 0.0).tolist() == [1, 1]


def test_the_published_schedules_keep_what_their_papers_say():
    """Signal left after half and all steps: Ho et al. 2020; Nichol and Dhariwal 2021, eq. 17."""
    linear, cosine = (make("ddpm", "epsilon", schedule=name).kept for name in ("linear", "cosine"))
    assert linear[0] == pytest.approx(1 - 1e-4)
    assert linear[499] == pytest.approx(0.0789, rel=0.01)
    assert linear[-1] == pytest.approx(4.04e-5, rel=0.01)
    half, none = (math.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2 for at in (0.5, 0))
    assert cosine[499] == pytest.approx(half / none)
    assert cosine[499] == pytest.approx(0.494, abs=0.001)


@pytest.mark.parametrize("schedule", strategy("ddpm").SCHEDULES)
def test_v_and_x0_end_without_signal_and_epsilon_always_with_some(schedule):
    for side in (64, 256):
        v, epsilon, x0 = (
            make("ddpm", prediction, side, schedule=schedule).kept
            for prediction in ("v", "epsilon", "x0")
        )
        assert v[-1] == x0[-1] == 0
        assert 0 < epsilon[-1] < 1e-4
        assert (np.diff(v) < 0).all()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_end_without_signal_is_that_of_algorithm_1(schedule):
    """Lin et al. 2024, as diffusers has it."""
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    kept = make("ddpm", "epsilon", schedule=schedule).kept
    betas = torch.tensor(1 - kept / np.concatenate([[1.0], kept[:-1]]))
    expected = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0)
    ours = make("ddpm", "v", schedule=schedule).kept
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-12)


def test_auto_is_linear_for_epsilon_and_cosine_else_and_both_shift():
    for side in (64, 128):
        auto, shifted = (make("ddpm", "v", side, schedule=name) for name in ("auto", "shifted"))
        assert (auto.kept == shifted.kept).all()
    same = [make("ddpm", "epsilon", schedule=name).kept for name in ("auto", "linear")]
    assert (same[0] == same[1]).all()
    for fixed in ("linear", "cosine"):
        small, large = (make("ddpm", "v", side, schedule=fixed).kept for side in (64, 128))
        assert (small == large).all()


@pytest.mark.parametrize(
    ("name", "prediction", "schedule"),
    [each for each in KINDS if each[2] not in ("linear", "cosine")],  # those stay as they are
)
def test_twice_the_side_has_a_quarter_of_the_signal_to_noise_ratio(name, prediction, schedule):
    """log SNR falls by 2 log 2 where a strategy shifts (Hoogeboom et al. 2023, eq. 3)."""
    # with v and x0 the end is moved to 0 behind the shift, which the noisy half of times shows
    uniform = torch.tensor([0.1, 0.2, 0.3])
    for small_side, large_side, factor in ((64, 128, 2), (16, 64, 1)):
        small, large = (
            make(name, prediction, side, schedule=schedule) for side in (small_side, large_side)
        )
        ratios = []
        for made in (small, large):
            alpha, sigma = made.signal(made.times(uniform))
            ratios.append((sigma / alpha).tolist())
        expected = [factor * each for each in ratios[0]]
        moved = name == "ddpm" and prediction != "epsilon"
        assert ratios[1] == pytest.approx(expected, rel=0.01 if moved else 1e-5)


def test_the_times_of_rflow_are_logit_normal():
    """The logit of the quantile of 0.8413 is 1, the normal's standard deviation."""
    times = make("rflow").times(torch.tensor([0.5, 0.8413447]))
    assert torch.logit(times).tolist() == pytest.approx([0, 1], abs=1e-4)


def test_rflow_shifts_as_monai_does_in_two_dimensions():
    from monai.networks.schedulers.rectified_flow import timestep_transform

    plain, large = make("rflow"), make("rflow", image_size=256)
    uniform = torch.tensor([0.2, 0.5, 0.9])
    theirs = timestep_transform(
        plain.times(uniform) * 1000,
        torch.tensor(256 * 256),
        base_img_size_numel=64 * 64,
        spatial_dim=2,
    )
    torch.testing.assert_close(large.times(uniform) * 1000, theirs)


def test_edm_has_the_numbers_of_its_table():
    """Karras et al. 2022, table 1, at sigma = sigma_data = 1/2: c_skip 1/2, c_out 1/(2 sqrt 2),
    c_in sqrt 2, lambda 8; times log-normal with -1.2 and 1.2."""
    made = make("edm")
    sigma, seen = torch.tensor([0.5]), []

    def network(x):
        seen.append(x.item())
        return 0 * x + 1

    out = made.predict(network, torch.full((1, 1, 1, 1), 3.0), sigma).item()
    assert seen[0] == pytest.approx(3 * math.sqrt(2))
    assert out == pytest.approx(3 / 2 + 1 / (2 * math.sqrt(2)))
    assert made.loss_weight(sigma, 0.0).item() == pytest.approx(8)
    times = made.times(torch.tensor([0.5, 0.8413447])).tolist()
    assert times == pytest.approx([math.exp(-1.2), 1.0], rel=1e-4)
    assert made.network_time(torch.tensor([0.002, 0.4, 80.0])).tolist() == pytest.approx(
        [0, 500, 1000], abs=1e-3
    )


def test_edm_samples_at_the_noise_of_its_paper():
    """The well-known 18 noise levels for rho 7."""
    sigmas = make("edm").line(18).tolist()
    assert sigmas[:4] == pytest.approx([80, 57.586, 40.786, 28.375], rel=1e-4)
    assert sigmas[-3:] == pytest.approx([0.023, 0.008, 0.002], abs=6e-4)


def test_the_network_of_edm_predicts_a_velocity_with_the_sign_turned():
    """Of x_0 / sd at the angle atan(sigma / sd): F = -(cos noise - sin x_0 / sd)."""
    made = make("edm")
    image, noise, sigma = torch.tensor([[0.3]]), torch.tensor([[-1.1]]), torch.tensor([0.8])
    noisy, clean = made.corrupt(image, noise, sigma)
    guess = made.predict(torch.zeros_like, noisy, sigma)
    scale = made.predict(torch.ones_like, noisy, sigma) - guess
    angle = math.atan(0.8 / 0.5)
    velocity = math.cos(angle) * -1.1 - math.sin(angle) * 0.3 / 0.5
    assert ((clean - guess) / scale).item() == pytest.approx(-velocity, rel=1e-5)


def test_noisiness_is_the_share_of_noise_in_every_strategy():
    """1/2 where signal and noise are as large; the time itself in a flow."""
    assert ddpm_with([0.5, 0.64], "v").noisiness(torch.tensor([0, 1])).tolist() == pytest.approx(
        [0.5, 0.6 / 1.4]
    )
    assert make("ddpm").noisiness(torch.tensor([999])).item() == 1
    assert make("rflow").noisiness(torch.tensor([0.3])).item() == pytest.approx(0.3)
    assert make("edm").noisiness(torch.tensor([1.0, 3.0])).tolist() == pytest.approx([0.5, 0.75])


def asked(**changes):
    return {"prediction": "v", "min_snr_gamma": 0.0, "noise_schedule": "auto", **changes}


def test_an_unknown_strategy_is_named():
    with pytest.raises(
        ConfigError, match="unknown strategy 'dppm'; choose one of ddpm, edm, rflow"
    ):
        strategy("dppm")


@pytest.mark.parametrize("name", ["rflow", "edm"])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"min_snr_gamma": 5.0}, "min_snr_gamma 5 does not apply to strategy {}"),
        ({"noise_schedule": "cosine"}, "noise_schedule 'cosine' does not go with strategy {}; "),
        ({"prediction": "epsilon"}, "prediction 'epsilon' does not go with strategy {}; choose v"),
    ],
)
def test_what_a_strategy_cannot_do_is_refused(name, changes, told):
    check_strategy(name, asked())
    with pytest.raises(ConfigError, match=told.format(name)):
        check_strategy(name, asked(**changes))


@EVERY
def test_what_a_strategy_names_it_can_do(name, prediction, schedule):
    check_strategy(name, asked(prediction=prediction, noise_schedule=schedule))
