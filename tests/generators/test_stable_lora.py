"""LoRA on Stable Diffusion: what of it trains, what it makes of a base, which bases it takes."""

import ast
import json
import re
import shutil
import socket
import sys
import tomllib
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_stable
import torch
from safetensors.torch import load_file

from mammo.errors import CheckpointError, ConfigError
from mammo.generators import load_generator
from mammo.generators.artist import Asked
from mammo.generators.families import stable_diffusion
from mammo.generators.material import gather
from mammo.generators.modes import mode_of
from mammo.generators.stable import base as bases
from mammo.generators.stable.folder import FILES
from mammo.generators.stable.latents import StableLatents
from mammo.generators.stable.lora import Gate, Use
from mammo.models import write_about
from mammo.steps import train_generator

SHAPE = (1, tiny.SIDE, tiny.SIDE)
COMMIT = "0123456789" * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stable")


@pytest.fixture(scope="module")
def base(folder):
    """A tiny pipeline in which every letter is a token, so that it needs no vocabulary."""
    return tiny_stable.build(folder / "base")


@pytest.fixture(scope="module")
def data(folder):
    return tiny.write_scans(folder / "data")


@pytest.fixture
def copy(base, tmp_path):
    return shutil.copytree(base, tmp_path / "copy")


def recipe(**changes):
    return tiny.recipe("sd_lora", "class", **{"conditions": "", "epochs": 1, **changes})


def learner_of(folder, data, base, **changes):
    """Material, an untrained learner, and what stands in the place of Lightning's trainer."""
    settings = recipe(**changes)
    tracked = tiny.run_with(folder / "fresh", data=data.folder, base=base)
    material = gather(data, settings, folder=tracked.folder, inputs=tracked.inputs)
    plan = stable_diffusion.plan(material, settings)
    learner = stable_diffusion.learner(plan, material, settings)
    learner.log = lambda *_, **__: None
    learner._trainer = type("AtStep", (), {"global_step": 3, "strategy": None})()
    return material, learner


def awake(learner):
    """Give the adapters weights that do something: a new one's B is 0."""
    drawing = torch.Generator().manual_seed(1)
    for weight in learner.network.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=drawing)
    return learner


def batch_of(material, rows):
    chosen = material.train[rows]
    return {
        "image": torch.from_numpy(material.data.images(chosen)),
        "labels": torch.from_numpy(material.labels[chosen]),
        "row": torch.from_numpy(chosen),
    }


def pipeline(base, **scheduler):
    """Diffusers' own pipeline with the parts of `base`."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    parts = bases.load(base)
    said = json.loads((base / "scheduler/scheduler_config.json").read_text())
    wanted = {"timestep_spacing": "trailing", "set_alpha_to_one": True}
    made = StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=DDIMScheduler.from_config({**said, **wanted}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def test_trap_t3g_all_that_stable_diffusion_imports_is_declared():
    """System 3's requirements lacked peft: every import is a dependency, or one of a dependency."""
    root = Path(bases.__file__).parents[3]
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {_name(each) for each in declared}
    known = names | {_name(each) for name in names for each in metadata.requires(name) or ()}
    distributions = metadata.packages_distributions()
    for path in [*Path(bases.__file__).parent.glob("*.py"), Path(stable_diffusion.__file__)]:
        for node in ast.walk(ast.parse(path.read_text())):
            named = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            named += [node.module] if isinstance(node, ast.ImportFrom) else []
            for module in {each.partition(".")[0] for each in named}:
                if module not in sys.stdlib_module_names | {"mammo"}:
                    assert {_name(each) for each in distributions[module]} & known, module
    assert {"diffusers", "peft", "transformers", "safetensors"} <= names


def _name(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


# ---- what a base is


def test_the_tokenizer_built_from_clips_merges_gives_clips_ids(shared, tmp_path):
    tiny_stable.write_tokenizer(
        tmp_path / "tokenizer", shared / "weights" / "bpe_simple_vocab_16e6.txt.gz"
    )
    tokenizer = bases.tokenizer(tmp_path)
    known = {
        "a photo of a cat": [49406, 320, 1125, 539, 320, 2368, 49407],
        "": [49406, 49407],
    }
    assert {text: tokenizer(text).input_ids for text in known} == known


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_new_lora_draws_what_diffusers_draws_with_the_base(
    folder, data, tmp_path, prediction, guidance
):
    """Prompts, noise, guidance, scale of the latents and grey values, all at once."""
    base = tiny_stable.build(tmp_path / "base", prediction_type=prediction)
    _, learner = learner_of(tmp_path, data, base, prompt="a {class} scan")
    asked = Asked(torch.tensor([[0], [1]]), [5, 6], guidance=guidance, sampler="ddim", steps=4)
    drawn = learner.artist().draw(asked)
    start = learner.strategy.path(4).sigma[0]  # a little noise is missing at the first step
    with warnings.catch_warnings():
        # diffusers' own conversion of a tensor, which numpy 2 would like spelled otherwise
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy")
        expected = pipeline(base)(
            ["a benign scan", "a malignant scan"],
            latents=start * asked.noise(learner.canvas.made, asked.generators()),
            num_inference_steps=4,
            guidance_scale=guidance,
            output_type="latent",
        ).images
    with torch.no_grad():
        images = learner.canvas.finish(expected)
    assert images.std() > 0.01
    torch.testing.assert_close(drawn, images, atol=2e-4, rtol=0)


def test_a_grey_image_is_three_equal_channels_and_comes_back_as_their_mean(base):
    parts = bases.load(base)
    canvas = StableLatents(mode_of("class"), parts, SHAPE)
    image = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    latents = canvas.target({"image": image})
    with torch.no_grad():
        mean = parts.vae.encode((image * 2 - 1).expand(-1, 3, -1, -1)).latent_dist.mean
        decoded = parts.vae.decode(mean).sample
    torch.testing.assert_close(latents, 0.18215 * mean)
    torch.testing.assert_close(
        canvas.finish(latents), ((decoded.mean(1, keepdim=True) + 1) / 2).clamp(0, 1)
    )


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 14, 16), "14 x 16 px do not divide by 4.*image_size=16"), ((2, 16, 16), "2 channels")],
)
def test_images_that_the_base_cannot_take_are_refused(base, shape, message):
    with pytest.raises(ConfigError, match=message):
        StableLatents(mode_of("class"), bases.load(base), shape)


# ---- what trains


def test_only_adapters_train_and_only_they_are_saved(folder, data, base):
    material, learner = learner_of(folder, data, base)
    parts = learner.network._parts
    frozen = {
        f"{name}.{key}": value.clone()
        for name in ("unet", "vae", "text_encoder")
        for key, value in getattr(parts, name).state_dict().items()
        if "lora_" not in key
    }
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    for _ in range(2):  # B is 0 at first, and then A gets no gradient
        learner.training_step(batch_of(material, [0, 1, 2, 3]), 0).backward()
        optimizer.step()
    for name in ("unet", "vae", "text_encoder"):
        for key, value in getattr(parts, name).state_dict().items():
            if "lora_" not in key:
                assert torch.equal(value, frozen[f"{name}.{key}"]), key
                assert getattr(value, "grad", None) is None
    saved = set(learner.weights())
    assert {f"network.{key}" for key in saved} == set(learner.state_dict())
    assert {key.rsplit(".", 2)[1] for key in saved} == {"lora_A", "lora_B"}
    adapted = {key.split(".lora_")[0].rsplit(".", 1)[1] for key in saved}
    assert adapted == {"to_q", "to_k", "to_v", "0"}  # to_out.0
    assert all(each.grad.abs().sum() > 0 for each in learner.parameters())


def test_a_copy_for_averaging_holds_the_adapters_alone(folder, data, base):
    """Lightning averages a deep copy: 4 GB of frozen weights must not be in it."""
    import copy

    _, learner = learner_of(folder, data, base)
    other = copy.deepcopy(learner)
    assert other.network._parts is learner.network._parts
    assert other.canvas._parts is learner.canvas._parts
    pairs = list(zip(other.parameters(), learner.parameters(), strict=True))
    assert pairs
    assert not any(one is two for one, two in pairs)


@pytest.mark.parametrize("rank", [2, 4])
def test_the_scale_of_an_adapter_is_alpha_over_rank(folder, data, base, rank):
    """Hu et al. 2022, section 4.1: W x + alpha / r B A x."""
    _, learner = learner_of(folder, data, base, lora_rank=rank, lora_alpha=6.0)
    weights = awake(learner).weights()
    key = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    layer = learner.network._parts.unet.get_submodule(key)
    seen = torch.randn(1, 3, layer.in_features, generator=torch.Generator().manual_seed(0))
    a, b = (weights[f"unet.{key}.lora_{name}.weight"] for name in "AB")
    assert a.shape == (rank, layer.in_features)
    expected = seen @ layer.base_layer.weight.T + 6.0 / rank * seen @ a.T @ b.T
    torch.testing.assert_close(layer(seen), expected)


def test_diffusers_reads_the_saved_adapters(folder, data, base):
    """Names are those of LoRA files; diffusers takes alpha to be the rank, so it is told."""
    _, learner = learner_of(folder, data, base, lora_rank=4, lora_alpha=8.0)
    awake(learner)
    theirs = pipeline(base)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        theirs.load_lora_weights(dict(learner.weights()), adapter_name="mammo")
    theirs.set_adapters("mammo", 8.0 / 4)
    noisy = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    labels, times = torch.tensor([[1]]), torch.tensor([500])
    told = learner.network.told(labels)
    with torch.no_grad():
        expected = theirs.unet(noisy, times, encoder_hidden_states=told).sample
        torch.testing.assert_close(learner.network(noisy, times, labels), expected)


def test_an_adapter_of_a_class_is_not_touched_by_images_of_another(folder, data, base):
    """Steps on malignant images, other or none, leave the adapter of benign as it would be."""

    def trained(rows):
        material, learner = learner_of(folder, data, base, adapters="per_class", label_dropout=0.0)
        benign = [row for row in range(8) if material.labels[material.train[row], 0] == 0]
        malignant = [row for row in range(16) if material.labels[material.train[row], 0] == 1]
        optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
        chosen = [*benign, *(malignant[row] for row in rows)]
        for _ in range(3):
            optimizer.zero_grad()
            learner.training_step(batch_of(material, chosen), 0).backward()
            optimizer.step()
        return learner.weights()

    one, other = trained([0, 1]), trained([2, 3])
    for key, value in one.items():
        same = torch.equal(value, other[key])
        assert same == key.startswith("class0."), key
    assert any(value.abs().max() > 0 for key, value in one.items() if "lora_B" in key)


def test_an_image_uses_the_adapter_of_its_class_and_untold_none(folder, data, base):
    _, learner = learner_of(folder, data, base, adapters="per_class")
    awake(learner)
    network, unet = learner.network, bases.load(base).unet
    noisy = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    times, labels = torch.tensor([500] * 3), torch.tensor([[0], [1], [2]])
    with torch.no_grad():
        before = network(noisy, times, labels)
        plain = unet(noisy, times, encoder_hidden_states=network.told(labels)).sample
        for name, weight in network.named_parameters():
            if name.startswith("class1."):
                weight.zero_()
        after = network(noisy, times, labels)
    torch.testing.assert_close(before[2], plain[2])
    assert torch.equal(after[0], before[0])
    assert not torch.allclose(before[1], plain[1])
    torch.testing.assert_close(after[1], plain[1])


def test_what_dropout_drops_is_a_function_of_the_row(folder, data, base):
    material, learner = learner_of(folder, data, base, lora_dropout=0.5, label_dropout=0.0)
    awake(learner)
    losses = {}
    for rows in ([0], [1], [0, 1], [1, 0]):
        torch.manual_seed(len(losses))
        losses[tuple(rows)] = learner.training_step(batch_of(material, rows), 0).item()
    mean = (losses[0,] + losses[1,]) / 2
    assert losses[0, 1] == pytest.approx(mean, rel=1e-5)
    assert losses[1, 0] == pytest.approx(mean, rel=1e-5)
    _, without = learner_of(folder, data, base, lora_dropout=0.0, label_dropout=0.0)
    other = awake(without).training_step(batch_of(material, [0]), 0).item()
    assert other != pytest.approx(losses[0,], rel=1e-4)


def test_dropout_keeps_the_share_and_the_mean():
    drawing = [torch.Generator().manual_seed(seed) for seed in range(2)]
    seen = Gate(Use(drawing=drawing), 0, 0.25)(torch.ones(2, 100, 100))
    assert (seen == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert seen.max().item() == pytest.approx(1 / 0.75)


def test_an_embedding_first_read_for_a_sample_serves_training(folder, data, base):
    material, learner = learner_of(folder, data, base)
    learner.artist().draw(Asked(torch.tensor([[0], [1]]), [1, 2], steps=1))
    learner.training_step(batch_of(material, [0, 1, 2, 3]), 0).backward()


def test_a_loss_of_images_reaches_the_adapters_through_the_decoder(folder, data, base):
    found = {}
    for loss in ("mse", "mse=1,sobel=1"):
        material, learner = learner_of(folder, data, base, loss=loss, label_dropout=0.0)
        awake(learner).training_step(batch_of(material, [0, 1]), 0).backward()
        found[loss] = torch.cat([each.grad.flatten() for each in learner.parameters()])
    assert not torch.allclose(*found.values())
    assert all(each.isfinite().all() for each in found.values())


# ---- through the steps


class NoNetwork:
    """Refuses connections, and remembers to what."""

    def __init__(self):
        self.tried = []

    def __call__(self, itself, address):
        self.tried.append(address)
        raise OSError("no network")


@pytest.fixture(scope="module")
def offline(folder, data, base):
    """The model of a training with no network, and what was tried to reach."""
    refused = NoNetwork()
    tracked = tiny.run_with(folder / "trained", data=data.folder, base=base)
    settings = recipe(sample_every=1, ema=0.9, base=str(base))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *given: refused(*given))
        train_generator.check(settings)
        train_generator.run(tracked, **settings)
    return tracked.folder / "model", refused.tried


@pytest.fixture(scope="module")
def trained(offline):
    return offline[0]


def test_trap_t3h_all_of_it_works_from_a_folder_with_no_network(offline, monkeypatch):
    model, tried = offline
    refused = NoNetwork()
    monkeypatch.setattr(socket.socket, "connect", lambda *given: refused(*given))
    generator = load_generator(model, device="cpu")
    assert generator.sample(["benign"], seeds=[1], steps=2).shape == (1, *SHAPE)
    assert not tried
    assert not refused.tried


def test_the_model_is_small_and_holds_nothing_of_the_base(trained, base):
    held = set(load_file(trained / "weights.safetensors"))
    assert held
    assert all("lora_" in key for key in held)
    said = json.loads((trained / "model.json").read_text())["plan"]["base"]
    assert said["name"] == str(base)
    assert set(FILES) == set(said["files"])


def test_diffusers_opens_the_saved_file_at_the_strength_it_was_trained_with(trained, base):
    """The header says alpha, 16 at rank 4; diffusers alone would take it to be the rank."""
    theirs = pipeline(base)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        theirs.load_lora_weights(trained, weight_name="weights.safetensors", adapter_name="mammo")
    saved = load_file(trained / "weights.safetensors")
    layers = {
        path: layer for path, layer in theirs.unet.named_modules() if hasattr(layer, "lora_A")
    }
    assert len(layers) == len(saved) / 2
    for path, layer in layers.items():
        a, b = (saved[f"unet.{path}.lora_{each}.weight"] for each in "AB")
        assert b.abs().max() > 0
        torch.testing.assert_close(layer.get_delta_weight("mammo"), 16 / 4 * b @ a)


def test_a_lora_for_another_base_is_refused_before_the_weights_are_read(
    trained, copy, base, monkeypatch
):
    other = tiny_stable.build(copy.parent / "other", seed=1)
    monkeypatch.setattr(bases, "load", lambda folder: pytest.fail("it was loaded"))
    path = trained / "model.json"
    said = json.loads(path.read_text())
    said["plan"]["base"]["name"] = str(other)
    model = shutil.copytree(trained, copy.parent / "model")
    write_about(model, said)
    with pytest.raises(CheckpointError) as refused:
        load_generator(model, device="cpu").sample(["benign"], seeds=[3])
    message = str(refused.value)
    assert f"{other} is another than the model was trained on: text_encoder/model.safet" in message
    assert "set MAMMO_SD_BASE=<folder of that base>" in message
    assert "\n" not in message


def test_a_base_that_was_moved_is_found_by_the_variable(trained, copy, monkeypatch):
    model = shutil.copytree(trained, copy.parent / "model")
    path = model / "model.json"
    said = json.loads(path.read_text())
    said["plan"]["base"]["name"] = str(copy.parent / "nowhere")
    write_about(model, said)
    with pytest.raises(CheckpointError, match=r"nowhere is gone.*set MAMMO_SD_BASE="):
        load_generator(model, device="cpu").sample(["benign"], seeds=[3])
    monkeypatch.setenv("MAMMO_SD_BASE", str(copy))
    here = load_generator(model, device="cpu").sample(["benign"], seeds=[3], steps=2)
    monkeypatch.delenv("MAMMO_SD_BASE")
    assert np.array_equal(
        here, load_generator(trained, device="cpu").sample(["benign"], seeds=[3], steps=2)
    )


@pytest.mark.parametrize("name", FILES)
def test_a_base_without_a_file_is_refused_by_its_name(copy, name):
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        train_generator.check(recipe(base=str(copy)))


def test_weights_that_can_run_code_are_named_as_such(copy):
    path = copy / "unet/diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(CheckpointError, match=r"safetensors is missing.*a .bin can run code"):
        train_generator.check(recipe(base=str(copy)))


@pytest.mark.parametrize("kept", [0, 4, 5000, -1])
@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "text_encoder/model"])
def test_an_interrupted_download_is_refused_by_its_name(copy, part, kept):
    path = copy / f"{part}.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=f"{part}.safetensors is cut short") as refused:
        train_generator.check(recipe(base=str(copy)))
    assert "\n" not in str(refused.value)


def test_a_config_cut_short_is_refused_by_its_name(copy):
    (copy / "vae/config.json").write_text('{"latent_channels": 4')
    with pytest.raises(CheckpointError, match=r"vae/config.json is corrupt"):
        train_generator.check(recipe(base=str(copy)))


def test_the_tokenizer_may_be_one_file_as_newer_libraries_save_it(copy, base):
    bases.tokenizer(base).save_pretrained(copy / "tokenizer")
    for name in ("vocab.json", "merges.txt"):
        (copy / "tokenizer" / name).unlink(missing_ok=True)
    assert (copy / "tokenizer/tokenizer.json").is_file()
    train_generator.check(recipe(base=str(copy)))
    words = "a benign scan"
    assert bases.tokenizer(copy)(words).input_ids == bases.tokenizer(base)(words).input_ids


def test_what_is_no_pipeline_is_refused_as_a_base(trained, copy):
    path = copy / "unet/diffusion_pytorch_model.safetensors"
    with pytest.raises(ConfigError, match=r"model.safetensors is a file; give a folder"):
        train_generator.check(recipe(base=str(path)))
    with pytest.raises(ConfigError, match="is a model that was trained here"):
        train_generator.check(recipe(base=str(trained)))
    with pytest.raises(CheckpointError, match=r"unet/config.json is missing"):
        train_generator.check(recipe(base=str(copy / "vae")))


def test_a_pipeline_of_another_kind_is_refused(copy):
    path = copy / "unet/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "in_channels": 9}))
    with pytest.raises(ConfigError, match=r"no text-to-image Stable Diffusion 1 or 2.*9 channels"):
        train_generator.check(recipe(base=str(copy)))


@pytest.mark.parametrize("name", ["", "someone/model", "someone/model@fp16"])
def test_a_hub_that_cannot_be_reached_says_in_one_line_what_to_bring(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError) as refused:
        train_generator.check(recipe(base=name))
    assert str(refused.value) == (
        f"base '{name or bases.HUB}' is not in the local cache and the hub cannot be reached "
        "(LocalEntryNotFoundError); give base=<folder>, a copy of it on this machine with unet, "
        "vae, text_encoder, tokenizer, scheduler"
    )


def test_a_proxy_or_a_hub_that_refuses_is_one_line_too(monkeypatch):
    """What the hub's library lets through of the library below it; the hub has answered, or not."""
    from huggingface_hub import errors

    class Refused(errors.HTTPError):
        pass

    class Unknown(errors.HfHubHTTPError):
        def __init__(self):
            Exception.__init__(self, "404\nnot found\nrequest id")

    for error, what in (
        (Refused("403 Forbidden\nby the proxy"), "the hub cannot be reached (Refused); give base="),
        (Unknown(), "the hub does not give it (Unknown); give base=<folder>, a copy"),
    ):

        def fails(*args, error=error, local_files_only=False, **kwargs):
            raise FileNotFoundError if local_files_only else error

        monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
        with pytest.raises(ConfigError) as refused:
            train_generator.check(recipe(base="someone/model"))
        assert what in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.fixture
def cached(copy, tmp_path, monkeypatch):
    """The base as the hub's library keeps it in its cache, of repository someone/model."""
    from huggingface_hub import constants

    repository = tmp_path / "cache" / "models--someone--model"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    copy.rename(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return snapshot


def test_a_base_in_the_hubs_cache_is_found_by_its_name_and_pinned_to_its_commit(cached):
    train_generator.check(recipe(base="someone/model"))
    said = bases.describe("someone/model", bases.find("someone/model"))
    assert said["revision"] == COMMIT
    assert bases.recover(said) == cached
    (cached.parent.parent / "refs" / "main").write_text("f" * 40)  # the hub has moved on
    assert bases.recover(said) == cached
    with pytest.raises(CheckpointError, match="or set MAMMO_SD_BASE=<that folder>"):
        bases.recover({**said, "revision": "e" * 40})


def test_a_download_into_the_hubs_cache_that_was_interrupted_names_the_file(cached):
    (cached / "unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"unet/diffusion_pytorch_model.safetensors is missing"
    ):
        bases.find("someone/model")


def test_what_the_unet_predicts_is_the_bases_affair(folder, data, base):
    _, learner = learner_of(folder, data, base, prediction="epsilon")
    assert learner.strategy.prediction == "epsilon"
    with pytest.raises(ConfigError, match=r"prediction 'x0' is not that of base .* epsilon"):
        learner_of(folder, data, base, prediction="x0")


def test_a_prompt_that_the_text_encoder_would_cut_off_is_refused(folder, data, base):
    with pytest.raises(ConfigError, match=r"has 22\d tokens, of which the text encoder reads 200"):
        learner_of(folder, data, base, prompt="{class} " + "x" * 211)


def test_adapters_per_class_need_classes():
    with pytest.raises(ConfigError, match="'per_class' do not go with mode unconditional"):
        train_generator.check(
            tiny.recipe("sd_lora", "unconditional", adapters="per_class", base="here")
        )
