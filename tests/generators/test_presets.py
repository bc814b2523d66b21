"""Presets: files that the command line takes, complete headers, the settings as published."""

import re

import pytest
import tiny
import tiny_stable
import torch
import yaml

from mammo import cli
from mammo.errors import ConfigError
from mammo.generators import family
from mammo.generators.losses import parse_loss
from mammo.generators.train import train
from mammo.generators.unet import NETWORKS, describe
from mammo.steps import sample, train_generator

FOLDER = cli.PRESETS
FILES = sorted(path for path in FOLDER.glob("*.yaml") if not path.stem.endswith("_classifier"))
SAMPLING = [path for path in FILES if path.stem.endswith("_sample")]
TRAINING = [path for path in FILES if path not in SAMPLING]
each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
trains = pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)


STABLE = ("sd_lora", "controlnet")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A whole Stable Diffusion, tiny, for presets that build on one."""
    return tiny_stable.build(tmp_path_factory.mktemp("pipeline"))


def settings_of(path, **given):
    """What the command line makes of a preset and the settings `given`."""
    options = [f"--{name}={value}" for name, value in given.items()]
    return cli.parse("train_generator", [f"--config={path}", "--data=somewhere", *options])


def based(path, pipeline):
    """What a preset needs beside itself."""
    return {"base": pipeline} if yaml.safe_load(path.read_text())["generator"] in STABLE else {}


@trains
def test_a_preset_is_what_the_command_line_takes_and_the_step_accepts(path, pipeline):
    settings = settings_of(path, **based(path, pipeline))
    train_generator.check(settings)
    written = yaml.safe_load(path.read_text())
    assert {name: settings[name] for name in written} == written
    own = set(family(written["generator"]).SETTINGS)
    assert settings["mode"] in family(written["generator"]).MODES
    assert own & set(written)


@pytest.mark.parametrize("path", SAMPLING, ids=lambda path: path.stem)
def test_a_preset_for_sampling_is_what_the_command_line_takes_and_the_step_accepts(path):
    settings = cli.parse("sample", [f"--config={path}", "--generator=some"])
    sample.check(settings)
    written = yaml.safe_load(path.read_text())
    assert {name: settings[name] for name in written} == written


@pytest.mark.parametrize("name", ["u24", "presets/u24.yaml"])
def test_a_preset_is_found_by_its_name_from_anywhere(name, tmp_path, monkeypatch):
    """A file of that name in the current folder is meant first."""
    monkeypatch.chdir(tmp_path)
    expected = settings_of(FOLDER / "u24.yaml")
    assert settings_of(name) == expected
    assert expected["lr"] == 1e-5
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("lr: 0.5\n")
    assert settings_of(name)["lr"] == 0.5


@pytest.mark.parametrize("name", ["u25", "presets/u25.yaml"])
def test_a_preset_that_there_is_not_is_one_line_with_those_that_are(name):
    with pytest.raises(ConfigError) as refused:
        settings_of(name)
    assert str(refused.value) == (
        f"config {name} is no file here and no preset; give a YAML file of settings, or one of "
        + ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml")))
    )
    with pytest.raises(ConfigError, match=r"config elsewhere/u24.yaml cannot be read: No such"):
        settings_of("elsewhere/u24.yaml")


@each
def test_a_header_says_command_source_cost_and_what_differs(path):
    header = "".join(re.findall(r"^#.*\n", path.read_text().split("\n\n")[0], re.M))
    assert re.match(r"# System [034]'s .*\n(# .*\n)*", header)
    assert re.search(r"\brows? S\d|\(S\d", header)
    entry = "sample" if path in SAMPLING else "train_generator"
    assert f"mammo {entry} --config presets/{path.name} " in header
    assert re.search(r"[Cc]ost", header)
    assert re.search(r"differs|defaults", header)
    for named in re.findall(r"presets/(\w+\.yaml)", header):
        assert (FOLDER / named).is_file()


def test_u24_is_system_0_as_published():
    settings = settings_of(FOLDER / "u24.yaml")
    assert parse_loss(settings["loss"]) == {"mse": 0.7, "ms_ssim": 0.2, "sobel": 0.05}
    assert (settings["label_dropout"], settings["lr"], settings["seed"]) == (0.15, 1e-5, 42)
    assert settings["batch_size"] / settings["accumulate"] == 8
    assert (settings["ema"], settings["patience"], settings["epochs"]) == (0, 5, 50)


def test_medgen_is_system_4_as_published():
    for path in (FOLDER / f"medgen{mode}.yaml" for mode in ("", "_mask", "_dual")):
        settings = settings_of(path)
        assert parse_loss(settings["loss"]) == {"mse": 1.0, "perceptual": 0.001}
        assert (settings["ema"], settings["min_snr_gamma"]) == (0.9999, 5.0)
        assert (settings["lr"], settings["epochs"], settings["batch_size"]) == (1e-4, 500, 16)


def test_busi_sd_is_system_3_as_published(pipeline):
    settings = settings_of(FOLDER / "busi_sd.yaml", base=pipeline)
    rank = settings["lora_rank"], settings["lora_alpha"], settings["lora_dropout"]
    assert rank == (4, 16.0, 0.1)
    assert (settings["lr"], settings["epochs"], settings["batch_size"]) == (1e-4, 5, 2)


@pytest.mark.parametrize(
    ("name", "made", "control", "labels", "millions"),
    [
        # in millions those of MONAI's network with the published arguments: see test_unet.py
        ("u24", 1, 0, (2,), 157.55),
        ("medgen", 1, 1, (2,), 18.50),
    ],
)
def test_the_network_of_a_preset_has_the_size_its_header_tells(
    name, made, control, labels, millions
):
    settings = settings_of(FOLDER / f"{name}.yaml")
    asked = ("channels", "attention", "res_blocks", "patch", "network", "label_input")
    described = describe(
        shape=(256, 256),
        made=made,
        control=control,
        labels=labels,
        head_channels=settings["head_channels"],
        **{setting: settings[setting] for setting in asked},
    )
    with torch.device("meta"):
        network = NETWORKS[described["network"]](described)
    found = sum(weight.numel() for weight in network.parameters()) / 1e6
    assert found == pytest.approx(millions, abs=0.005)
    assert f"{found:.1f} million" in (FOLDER / f"{name}.yaml").read_text()


SMALLER = {  # what makes a preset train in a second, without a change to its method
    "epochs": 1,
    "compile": False,
    "sample_every": 0,
    "device": "cpu",
    "channels": "8,16",
    "attention": 1,
    "head_channels": 8,
    "latent_dim": 8,
}


@pytest.mark.parametrize(
    "path",
    [path for path in TRAINING if path.stem not in ("busi_sd", "busi_controlnet")],
    ids=lambda path: path.stem,
)
def test_a_preset_trains_on_tiny_images(path, tmp_path):
    settings = settings_of(path) | SMALLER
    settings |= {"batch_size": 4 * settings["accumulate"]}
    if "perceptual" in parse_loss(settings["loss"]):  # needs larger images
        settings |= {"loss": "mse=1,sobel=0.001"}
    scans = tiny.write_scans(tmp_path, channels=2 if settings["mode"] == "dual" else 1)
    tracked = tiny.run_with(tmp_path / "run", data=scans.folder)
    trained = train(tracked, settings)
    assert trained.fitted.epochs == 1
    assert tracked.last["val/loss"] > 0 or settings["generator"] == "gan"
