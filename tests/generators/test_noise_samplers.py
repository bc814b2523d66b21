"""Known answers of every sampler: calls of the network, steps by hand and by diffusers."""

import warnings

import diffusers
import pytest
import torch

from mammo.generators.strategies import STRATEGIES, strategy
from mammo.generators.strategies.samplers import SAMPLERS, Path

strategy("ddpm")  # registers them all


def make(name, prediction="v", image_size=64, **changes):
    return strategy(name)(prediction=prediction, image_size=image_size, data_sd=0.5, **changes)


@pytest.mark.parametrize("calls", [1, 2, 5, 12, 31])
@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_trap_t4a_the_network_is_called_as_often_as_asked(name, sampler, calls):
    """Heun's method, of two calls a place but the last, leaves out one that makes no pair."""
    made, seen = make(name), []

    def denoise(noisy, times):
        assert len(set(times.tolist())) == 1
        seen.append(made.noisiness(times)[0].item())
        return torch.zeros_like(noisy)

    noise, generators = torch.ones(2, 1, 2, 2), [torch.Generator().manual_seed(i) for i in (0, 1)]
    made.integrate(denoise, noise, sampler=sampler, steps=calls, generators=generators)
    assert len(seen) == (calls if sampler != "heun" else calls - 1 + calls % 2)
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == pytest.approx(80 / 81 if name == "edm" else 1)  # from pure noise on


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
@pytest.mark.parametrize("side", [64, 256])
def test_steps_of_ddpm_are_all_different_and_1000_are_all(prediction, side):
    made = make("ddpm", prediction, side)
    for count in (1, 2, 10, 250, 999, 1000, 3000):
        steps = made.line(count).tolist()
        assert steps[0] == 999
        assert len(steps) == len(set(steps)) == min(count, 1000)
        assert steps == sorted(steps, reverse=True)
    assert made.line(1000).tolist() == list(range(999, -1, -1))


def followed(scheduler, images, clean, **extra):
    """Where a scheduler of diffusers takes `images` in 20 steps from clean images."""
    with warnings.catch_warnings():
        # diffusers' own conversion of a tensor, which numpy 2 would like spelled otherwise
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy")
        scheduler.set_timesteps(20)
    for step in scheduler.timesteps:
        images = scheduler.step(clean(images, step), step, images, **extra).prev_sample
    return images, scheduler.timesteps


@pytest.mark.parametrize(
    ("sampler", "theirs", "extra"),
    [
        ("ddim", "DDIMScheduler", {"clip_sample": False}),
        ("euler", "DDIMScheduler", {"clip_sample": False}),
        ("dpmpp", "DPMSolverMultistepScheduler", {}),
        ("unipc", "UniPCMultistepScheduler", {}),
        ("dpmpp_sde", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("ddpm", "DDPMScheduler", {"clip_sample": False}),
    ],
)
def test_samplers_walk_as_those_of_diffusers(sampler, theirs, extra):
    made = make("ddpm", "epsilon", schedule="linear")
    scheduler = getattr(diffusers, theirs)(
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type="sample",
        timestep_spacing="trailing",
        **extra,
    )
    noise = torch.randn((1, 2, 3, 3), generator=torch.Generator().manual_seed(0))

    def clean(images, step):
        """No straight line anywhere."""
        return torch.tanh(images * (1 + step / 500)) - images**2 / 9

    drawn = sampler in ("ddpm", "dpmpp_sde")
    drawing = {"generator": torch.Generator().manual_seed(5)} if drawn else {}
    expected, steps = followed(scheduler, noise, clean, **drawing)
    alpha, sigma = made.signal(steps)
    path = Path(steps, (*alpha.tolist(), 1.0), (*sigma.tolist(), 0.0))
    ours = SAMPLERS[sampler](
        lambda images, place: clean(images, steps[place]),
        noise,
        path,
        [torch.Generator().manual_seed(5)],
    )
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=1e-3)


def test_heun_takes_the_steps_of_algorithm_1():
    """From sigma 2 over 1 to 0 with D = x / (1 + sigma^2), from x = 5 (Karras et al. 2022).

    d = (5 - 1) / 2 = 2, the guess 3, d' = 3 - 1.5 = 1.5, so x = 5 - 1.75 = 3.25 and D = 1.625.
    """
    sigmas = (2.0, 1.0, 0.0)
    path = Path(torch.tensor(sigmas[:2]), (1.0, 1.0, 1.0), sigmas)
    end = SAMPLERS["heun"](
        lambda images, place: images / (1 + sigmas[place] ** 2), torch.tensor([5.0]), path, ()
    )
    assert end.item() == 1.625
