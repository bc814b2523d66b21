"""ControlNet on Stable Diffusion: the mask reaches the loss and the image, and only it trains."""

import json
import shutil
import warnings

import numpy as np
import pytest
import tiny
import tiny_stable
import torch

from mammo.errors import CheckpointError, ConfigError
from mammo.generators import load_generator
from mammo.generators.artist import Asked
from mammo.generators.families import controlnet
from mammo.generators.material import gather
from mammo.generators.stable.base import load
from mammo.generators.stable.control import START
from mammo.models import open_model
from mammo.steps import train_generator

MASK = torch.zeros(1, 1, tiny.SIDE, tiny.SIDE)
MASK[:, :, 4:9, 6:12] = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stable")


@pytest.fixture(scope="module")
def base(folder):
    return tiny_stable.build(folder / "base")


@pytest.fixture(scope="module")
def data(folder):
    return tiny.write_scans(folder / "data")


@pytest.fixture(scope="module")
def tuned(folder, data, base):
    """A model of sd_lora whose adapters are no longer what they were made as."""
    tracked = tiny.run_with(folder / "tuned", data=data.folder, base=base)
    settings = tiny.recipe("sd_lora", "class", epochs=1, lr=0.1, label_dropout=0.0)
    train_generator.run(tracked, **settings)
    return tracked.folder / "model"


@pytest.fixture(scope="module")
def tuned_per_class(folder, data, base):
    tracked = tiny.run_with(folder / "per_class", data=data.folder, base=base)
    settings = tiny.recipe(
        "sd_lora", "class", epochs=1, lr=0.1, adapters="per_class", conditions=""
    )
    train_generator.run(tracked, **settings)
    return tracked.folder / "model"


def recipe(**changes):
    return tiny.recipe("controlnet", "mask_to_image", **{"conditions": "", "epochs": 1, **changes})


def learner_of(folder, data, base, **changes):
    settings = recipe(**{"label_dropout": 0.0, **changes})
    tracked = tiny.run_with(folder / "fresh", data=data.folder, base=base)
    material = gather(data, settings, folder=tracked.folder, inputs=tracked.inputs)
    plan = controlnet.plan(material, settings)
    learner = controlnet.learner(plan, material, settings)
    learner.log = lambda *_, **__: None
    learner._trainer = type("AtStep", (), {"global_step": 3, "strategy": None})()
    return material, learner


def awake(learner):
    """Give the convolutions that start at zero something to say."""
    drawing = torch.Generator().manual_seed(1)
    for weight in learner.network.control.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=drawing)
    return learner


def batch_of(material, rows):
    chosen = material.train[rows]
    return {
        "image": torch.from_numpy(material.data.images(chosen)),
        "mask": torch.from_numpy(material.masks(chosen)),
        "labels": torch.from_numpy(material.labels[chosen]),
        "row": torch.from_numpy(chosen),
    }


def asked(labels, masks, seeds, **changes):
    told = torch.tensor(labels).reshape(len(seeds), -1)
    return Asked(told, seeds, masks * 2 - 1, **{"sampler": "ddim", "steps": 3, **changes})


def test_an_untrained_controlnet_is_the_base_itself(folder, data, base):
    _, learner = learner_of(folder, data, base)
    network = learner.network
    noisy = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    times, labels = torch.tensor([500, 20]), torch.tensor([[0], [1]])
    with torch.no_grad():
        seen = network(noisy, times, labels, MASK.expand(2, -1, -1, -1))
        assert torch.equal(seen, network.base(noisy, times, labels))


def test_trap_t3c_what_the_controlnet_says_reaches_the_loss(folder, data, base):
    """Trap T3.c computed residuals and gave them to nobody: nothing was trained."""
    material, learner = learner_of(folder, data, base)
    batch = batch_of(material, [0, 1, 2])
    before = learner.training_step(batch, 0)
    before.backward()
    gradients = [each.grad for each in learner.network.control.parameters()]
    assert sum(each.abs().sum().item() for each in gradients if each is not None) > 0
    awake(learner)
    after = learner.training_step(batch, 0).item()
    assert after != pytest.approx(before.item(), rel=1e-4)
    moved = {**batch, "mask": batch["mask"].roll(5, 2)}
    assert learner.training_step(moved, 0).item() != pytest.approx(after, rel=1e-4)


def test_trap_t3d_it_is_trained_and_sampled_with_the_same_control(folder, data, base):
    """Trap T3.d trained on edges and sampled with masks."""
    material, learner = learner_of(folder, data, base)
    shown = []
    learner.network.control.register_forward_pre_hook(
        lambda _, given, named: shown.append(named["controlnet_cond"]), with_kwargs=True
    )
    batch = batch_of(material, [0])
    learner.training_step(batch, 0)
    generator_control = material.control(material.train[[0]])
    learner.artist().draw(Asked(batch["labels"], [1], generator_control, steps=1))
    in_training, in_sampling = shown[0], shown[1][:1]
    assert torch.equal(in_training, in_sampling)
    assert torch.equal(in_training, batch["mask"].expand(-1, 3, -1, -1))
    assert set(in_training.unique().tolist()) == {0.0, 1.0}


def test_s3_6_only_the_controlnet_is_trained_beside_the_tuned_base(folder, data, tuned):
    material, learner = learner_of(folder, data, tuned)
    parts = learner.network.base._parts
    frozen = {key: value.clone() for key, value in parts.unet.state_dict().items()}
    awake(learner)
    before = {name: each.detach().clone() for name, each in learner.named_parameters()}
    optimizer = torch.optim.SGD(
        [each for each in learner.parameters() if each.requires_grad], lr=0.1
    )
    learner.training_step(batch_of(material, [0, 1, 2, 3]), 0).backward()
    optimizer.step()
    moved = {
        name for name, each in learner.named_parameters() if not torch.equal(each, before[name])
    }
    control = {f"network.control.{name}" for name, _ in learner.network.control.named_parameters()}
    assert moved == control
    assert all(torch.equal(value, frozen[key]) for key, value in parts.unet.state_dict().items())


def test_the_controlnet_starts_as_the_tuned_way_down(folder, data, base, tuned):
    _, learner = learner_of(folder, data, tuned)
    weights, plain = open_model(tuned).weights(), load(base).unet.state_dict()
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"
    a, b = (weights[f"unet.{path}.lora_{name}.weight"] for name in "AB")
    assert b.abs().max() > 1e-3
    mine = learner.network.control.get_parameter(f"{path}.weight")
    torch.testing.assert_close(mine, plain[f"{path}.weight"] + 16 / 4 * b @ a)
    assert torch.equal(learner.network.control.conv_in.weight, plain["conv_in.weight"])


def test_a_base_with_an_adapter_per_class_keeps_them_apart(folder, data, tuned_per_class):
    _, learner = learner_of(folder, data, tuned_per_class)
    kept = open_model(tuned_per_class).weights()
    for key, value in kept.items():
        assert torch.equal(learner.weights()[f"base.{key}"], value)
    one, other = (
        learner.artist().draw(asked([0], MASK, [3])),
        learner.artist().draw(asked([1], MASK, [3])),
    )
    assert not torch.equal(one, other)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_it_draws_what_diffusers_draws_with_the_same_controlnet(folder, data, base, guidance):
    from diffusers import DDIMScheduler, StableDiffusionControlNetPipeline

    _, learner = learner_of(folder, data, base, prompt="a {class} scan")
    parts = load(base)
    said = json.loads((base / "scheduler/scheduler_config.json").read_text())
    wanted = {"timestep_spacing": "trailing", "set_alpha_to_one": True}
    pipeline = StableDiffusionControlNetPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        controlnet=awake(learner).network.control,
        scheduler=DDIMScheduler.from_config({**said, **wanted}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    wish = asked([1], MASK, [5], guidance=guidance)
    start = learner.strategy.path(3).sigma[0]
    given = MASK.expand(-1, 3, -1, -1)
    if guidance != 1:  # theirs shows the mask to both halves, ours hides it where nothing is told
        given = torch.cat([torch.full_like(given, 0.5), given])
        pipeline.prepare_image = lambda *_, **__: given
    with warnings.catch_warnings():
        # diffusers' own conversion of a tensor, which numpy 2 would like spelled otherwise
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy")
        latents = pipeline(
            ["a malignant scan"],
            image=MASK.expand(-1, 3, -1, -1),
            latents=start * wish.noise(learner.canvas.made, wish.generators()),
            num_inference_steps=3,
            guidance_scale=guidance,
            output_type="latent",
        ).images
    with torch.no_grad():
        expected = learner.canvas.finish(latents)
    torch.testing.assert_close(learner.artist().draw(wish), expected, atol=2e-4, rtol=0)


# ---- through the steps


@pytest.fixture(scope="module")
def trained(folder, data, tuned):
    tracked = tiny.run_with(folder / "trained", data=data.folder, base=tuned)
    settings = recipe(base=str(tuned), epochs=2, sample_every=1, lr=0.01)
    train_generator.check(settings)
    train_generator.run(tracked, **settings)
    return tracked.folder / "model"


def test_s3_6_a_trained_controlnet_draws_around_masks(trained, data):
    generator = load_generator(trained, device="cpu")
    masks = np.zeros((3, 1, tiny.SIDE, tiny.SIDE), np.uint8)
    masks[1, :, 2:9, 2:9] = masks[2, :, 9:, 9:] = 255
    labels = ["benign"] * 3
    images = generator.sample(labels, seeds=[4] * 3, masks=masks, steps=3)
    assert len({image.tobytes() for image in images}) == 3
    again = load_generator(trained, device="cpu").sample(
        labels[:1], seeds=[4], masks=masks[1:2], steps=3
    )
    assert np.array_equal(again[0], images[1])


def test_the_model_carries_what_the_base_was_trained_on(trained, tuned):
    seen, before = open_model(trained).training, open_model(tuned).training
    assert set(before["sha256"]) <= set(seen["sha256"])
    held = open_model(trained).weights()
    kept = open_model(tuned).weights()
    assert {key for key in held if not key.startswith("control.")} == {
        f"base.{key}" for key in kept
    }
    assert all(torch.equal(held[f"base.{key}"], value) for key, value in kept.items())


@pytest.mark.doors
def test_a_run_that_dies_ends_with_the_weights_of_one_that_did_not(folder, data, tuned, trained):
    class Died(Exception):
        pass

    cut = tiny.run_with(folder / "cut", data=data.folder, base=tuned)
    kept = cut.metrics

    def die(values, step=None):
        if step == 2:
            raise Died

    cut.metrics = die
    settings = recipe(base=str(tuned), epochs=2, sample_every=1, lr=0.01)
    with pytest.raises(Died):
        train_generator.run(cut, **settings)
    cut.metrics = kept
    train_generator.run(cut, **settings)
    weights = [each / "weights.safetensors" for each in (trained, cut.folder / "model")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_s3_6_it_may_start_from_a_pretrained_one(folder, data, base, tmp_path):
    _, learner = learner_of(folder, data, base)
    awake(learner).network.control.save_pretrained(tmp_path / "pretrained")
    _, again = learner_of(folder, data, base, control_weights=str(tmp_path / "pretrained"))
    mine, theirs = (each.network.control.state_dict() for each in (again, learner))
    assert all(torch.equal(mine[key], value) for key, value in theirs.items())
    path = tmp_path / "pretrained" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cross_attention_dim": 768}))
    with pytest.raises(ConfigError, match=r"cross_attention_dim 768, the base has 32"):
        learner_of(folder, data, base, control_weights=str(tmp_path / "pretrained"))


@pytest.mark.parametrize("name", START)
def test_a_pretrained_one_without_a_file_is_refused_by_its_name(base, tmp_path, name):
    for each in START:
        source = base / "unet" / each
        shutil.copy(source, tmp_path / each)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=f"control_weights .*{name} is missing"):
        train_generator.check(recipe(base=str(base), control_weights=str(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "lllyasviel/nothing"}, "base 'lllyasviel/nothing' is not in the local cache"),
        (
            {"control_weights": "lllyasviel/control_v11p_sd15_seg"},
            "control_weights 'lllyasviel/control_v11p_sd15_seg' is not in the local cache",
        ),
        ({"strategy": "rflow"}, "strategy 'rflow' is not that of Stable Diffusion"),
        ({"prompt": "{class} {age}"}, "{age} should be one of"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_opened(base, changes, message):
    with pytest.raises(ConfigError) as refused:
        train_generator.check(recipe(**{"base": str(base), **changes}))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "{class}"}, r"prompt '\{class\}' is not that of base .*, which goes on"),
        (
            {"conditions": "view"},
            r"conditions 'view' are not those of base .*, which is told label",
        ),
    ],
)
def test_a_tuned_base_goes_on_as_it_was_told(folder, data, tuned_per_class, changes, message):
    with pytest.raises(ConfigError, match=message):
        learner_of(folder, data, tuned_per_class, **changes)


def test_a_tuned_base_takes_images_of_another_size(folder, tuned, tmp_path, monkeypatch):
    """System 3 tunes at 256 px and controls at 512."""
    monkeypatch.setattr(tiny, "SIDE", 24)
    larger = tiny.write_scans(tmp_path / "larger")
    material, learner = learner_of(tmp_path, larger, tuned)
    mask = torch.zeros(1, 1, 24, 24)
    assert learner.artist().draw(asked([[0, 1]], mask, [1])).shape == (1, 1, 24, 24)
    assert len(material.training()) == 20 + 20  # pixels of both sizes, patients of the same ids
    assert set(material.training()["group_id"]) == set(open_model(tuned).training["group_id"])
