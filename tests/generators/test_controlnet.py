"""ControlNet on our own diffusion: the base stays, the mask gets through, and bases are checked."""

import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from safetensors.torch import load_file

from mammo.data.classes import TASKS
from mammo.data.guards import check_generators
from mammo.errors import ConfigError, DataError
from mammo.generators import family, load_generator
from mammo.generators.artist import Asked
from mammo.generators.asking import Told
from mammo.generators.controlled_unet import build_controlled
from mammo.generators.drawing import Drawer, Recipe
from mammo.generators.material import gather
from mammo.generators.unet import build_unet, describe
from mammo.models import open_model, write_about
from mammo.steps import train_generator

CONTROLNET = family("controlnet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("controlnet")


@pytest.fixture(scope="module")
def data(folder):
    return tiny.write_scans(folder)


def train_base(folder, data, generator="ddpm", mode="class", **changes):
    """Folder of a base that was trained for an epoch."""
    inputs = {"data": data.folder}
    if generator == "ldm":
        inputs["autoencoder"] = tiny.write_autoencoder(folder / "autoencoder")
    tracked = tiny.run_with(folder, **inputs)
    train_generator.run(tracked, **tiny.recipe(generator, mode, epochs=1, **changes))
    return tracked.folder / "model"


@pytest.fixture(scope="module")
def base(folder, data):
    return train_base(folder / "base", data)


def material_of(data, folder, base, **changes):
    settings = tiny.recipe("controlnet", "mask_to_image", **changes)
    tracked = tiny.run_with(folder, data=data.folder, base=base)
    return gather(data, settings, folder=tracked.folder, inputs=tracked.inputs), settings


def untrained(data, folder, base, **changes):
    """Material and an untrained learner on `base`."""
    material, settings = material_of(data, folder, base, **changes)
    plan = CONTROLNET.plan(material, settings)
    return material, CONTROLNET.learner(plan, material, settings)


def trained(data, folder, base, **changes):
    tracked = tiny.run_with(folder, data=data.folder, base=base)
    settings = tiny.recipe("controlnet", "mask_to_image", **{"epochs": 2, **changes})
    train_generator.check({**settings, "base": str(base)})
    train_generator.run(tracked, **settings)
    return tracked


@pytest.fixture(scope="module")
def controlled(folder, data, base):
    return trained(data, folder / "controlled", base)


def asked(control, *, guidance=1.0, labels=2):
    ids = torch.tensor([[0, 0], [1, 0]])[:, :labels]
    return Asked(ids, [3, 4], control, guidance=guidance, steps=3)


def masks(*columns):
    """Two controls, each a bright stripe below a column number."""
    out = -torch.ones(len(columns), 1, tiny.SIDE, tiny.SIDE)
    for each, column in zip(out, columns, strict=True):
        each[..., column : column + 4] = 1
    return out


@pytest.mark.parametrize("label_input", ["embedding", "context"])
@pytest.mark.parametrize("patch", [1, 2])
def test_untrained_it_is_its_base_to_the_bit(label_input, patch):
    described = describe(
        shape=(16, 16),
        made=1,
        control=0,
        labels=(2,) if label_input == "context" else (2, 3),
        channels="8,16",
        attention=1,
        res_blocks=2,
        patch=patch,
        label_input=label_input,
    )
    unet = build_unet(described, seed=0)
    drawing = torch.Generator().manual_seed(1)
    for weight in unet.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=drawing)
    controlled = build_controlled(described, 1, seed=2)
    controlled.start_from(unet.state_dict())
    noisy = torch.randn(2, 1, 16, 16, generator=drawing)
    labels = torch.tensor([[0, 1], [2, 3]])[:, : len(described["labels"])]
    given = (noisy, torch.tensor([7, 900]), labels)
    control = torch.randn(2, 1, 16, 16, generator=drawing)
    assert torch.equal(controlled(*given, control), unet(*given))
    assert torch.equal(controlled.control.conv_in.conv.weight, unet.unet.conv_in.conv.weight)


def test_the_control_reaches_the_output_and_learns_alone(data, tmp_path, base):
    """Trap T3.c: residuals that are computed but not passed on train nothing."""
    _, learner = untrained(data, tmp_path, base)
    network = learner.network
    drawing = torch.Generator().manual_seed(0)
    for weight in network.parameters():  # the last layer of an untrained U-Net is zero
        weight.data += 0.1 * torch.randn(weight.shape, generator=drawing)
    given = torch.randn(2, 1, 16, 16, generator=drawing), torch.tensor([7, 900])
    labels = torch.zeros(2, 2, dtype=torch.long)
    one, other = (network(*given, labels, masks(column, column)) for column in (0, 8))
    assert not torch.equal(one, other)
    one.square().sum().backward()
    reached = {name for name, weight in network.named_parameters() if weight.grad is not None}
    assert reached == {f"control.{name}" for name, _ in network.control.named_parameters()}
    assert all(each.grad.abs().sum() > 0 for each in network.control.parameters())


def test_an_untrained_control_draws_what_the_base_draws(data, tmp_path, base):
    _, learner = untrained(data, tmp_path, base)
    drawn = learner.artist().draw(asked(masks(0, 8), guidance=2.0))
    model = open_model(base, "generator")
    alone = family("ddpm").artist(model, torch.device("cpu"))
    assert torch.equal(drawn, alone.draw(asked(None, guidance=2.0)))


def test_training_leaves_the_base_as_it_was_and_saves_it_too(base, controlled, tmp_path):
    before = load_file(base / "weights.safetensors")
    model = open_model(controlled.folder / "model", "generator")
    after = model.weights()
    kept = {name: each for name, each in after.items() if name.startswith("base.")}
    assert kept.keys() == {f"base.{name}" for name in before}
    assert all(torch.equal(each, before[name.removeprefix("base.")]) for name, each in kept.items())
    zero = [name for name in after if "controlnet_mid_block" in name]
    assert zero
    assert all(after[name].abs().sum() > 0 for name in zero)  # and what began at zero has moved


def test_a_model_draws_without_its_base(data, tmp_path, base):
    copy = shutil.copytree(base, tmp_path / "base" / "model")
    tracked = trained(data, tmp_path / "run", copy)
    shutil.rmtree(copy)
    generator = load_generator(tracked.folder / "model", device="cpu")
    drawing = np.zeros((2, 1, 16, 16), np.uint8)
    drawing[..., 4:8] = 1
    told = {"view": ["CC", "MLO"]}
    images = generator.sample(
        ["benign", "malignant"], seeds=[1, 2], masks=drawing, steps=3, conditions=told
    )
    assert images.shape == (2, 1, 16, 16)
    with pytest.raises(ConfigError, match=r"masks: .* are needed"):
        generator.sample(["benign"], seeds=[1], steps=3)


def test_guidance_exaggerates_what_the_mask_changes(controlled):
    """The clean image is untold + g (told - untold): 0 ignores the mask, 1 follows it."""
    model = open_model(controlled.folder / "model", "generator")
    artist = CONTROLNET.artist(model, torch.device("cpu"))
    drawing = torch.Generator().manual_seed(0)
    for weight in artist.network.control.parameters():  # two epochs are no training
        weight.data += 0.1 * torch.randn(weight.shape, generator=drawing)

    def draw(control, guidance):
        return artist.draw(asked(control, guidance=guidance))

    assert torch.equal(draw(masks(0, 0), 0.0), draw(masks(8, 8), 0.0))
    assert not torch.equal(draw(masks(0, 0), 1.0), draw(masks(8, 8), 1.0))
    assert not torch.equal(draw(masks(0, 0), 3.0), draw(masks(0, 0), 1.0))


def test_a_base_that_is_told_nothing_is_guided_by_the_mask_alone(data, tmp_path):
    base = train_base(tmp_path / "base", data, mode="unconditional")
    tracked = trained(data, tmp_path / "run", base, conditions="")
    generator = load_generator(tracked.folder / "model", device="cpu")
    assert generator.conditions.columns == ()
    drawing = torch.Generator().manual_seed(0)
    for weight in generator.artist.network.control.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=drawing)
    one = generator.artist.draw(asked(masks(0, 8), labels=0))
    more = generator.artist.draw(asked(masks(0, 8), labels=0, guidance=3.0))
    assert not torch.equal(one, more)


@pytest.mark.doors
def test_a_base_of_latents_is_controlled_by_the_mask_at_their_size(data, tmp_path):
    base = train_base(tmp_path / "base", data, "ldm", strategy="rflow")
    tracked = trained(data, tmp_path / "run", base, augment="flip")
    shutil.rmtree(base)
    generator = load_generator(tracked.folder / "model", device="cpu")
    assert generator.samplers == family("rflow").samplers({"plan": {"strategy": "rflow"}})
    drawing = torch.Generator().manual_seed(0)
    for weight in generator.artist.network.control.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=drawing)
    one, other = (generator.artist.draw(asked(masks(at, at))) for at in (0, 8))
    assert one.shape == (2, 1, 16, 16)
    assert not torch.equal(one, other)


def test_rows_and_conditions_of_the_base_are_carried(data, tmp_path, base):
    other = altered(base, tmp_path / "base", training={"group_id": "elsewhere", "sha256": "f" * 64})
    material, settings = material_of(data, tmp_path / "run", other, conditions="")
    CONTROLNET.plan(material, settings)
    assert "elsewhere" in set(material.training()["group_id"])
    assert material.conditions.columns == ("label", "view")


def test_patients_of_a_base_keep_the_salt_they_were_hashed_with(data, tmp_path, base):
    """Else a guard would say that patients were compared, where only pixels can be."""
    elsewhere = altered(base, tmp_path / "base", salt="mint")
    tracked = trained(data, tmp_path / "run", elsewhere, epochs=1)
    generator = load_generator(tracked.folder / "model", device="cpu")
    recipe = Recipe(steps=2, sampler="unipc")
    seen = Drawer(generator, recipe, Told.by(generator.model.about, {}), None).seen([])
    own = data.manifest[data.manifest["split"] == "train"]
    for salt in ("mint", "pepper"):
        assert set(seen.loc[seen["salt"] == salt, "sha256"]) == set(own["sha256"])
    fresh = data.manifest[data.manifest["split"] == "val"]
    checked = check_generators([generator.model.run_id], seen, fresh, salt="pepper", name="scans")
    assert (checked.by_patient, checked.by_pixels) == ([], [generator.model.run_id])


def altered(base, folder, *, training=None, **about):
    """A copy of the model `base` that says other things of itself."""
    shutil.copytree(base, folder)
    said = json.loads((folder / "model.json").read_text()) | about
    if training:
        rows = pd.read_parquet(folder / "training.parquet")
        rows = pd.concat([rows, rows.iloc[:1].assign(**training)])
        rows.to_parquet(folder / "training.parquet", index=False)
    said["files"] = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in said["files"]
    }
    write_about(folder, said)
    return folder


def test_a_base_that_saw_a_validation_patient_is_refused(data, tmp_path, base):
    held_out = data.manifest[data.manifest["split"] == "val"].iloc[0]
    seen = {"group_id": held_out["group_id"], "sha256": "f" * 64}
    other = altered(base, tmp_path / "base", training=seen)
    material, settings = material_of(data, tmp_path / "run", other)
    with pytest.raises(DataError, match="was trained on 1 of the 2 held-out patients"):
        CONTROLNET.plan(material, settings)


def test_a_base_of_other_classes_is_refused_by_name(tmp_path, base):
    scans = tiny.write_scans(tmp_path / "scans")
    settings = tiny.recipe("controlnet", "mask_to_image")
    tracked = tiny.run_with(tmp_path / "run", data=scans.folder, base=base)
    scans.classes = TASKS["malignancy4"]
    material = gather(scans, settings, folder=tracked.folder, inputs=tracked.inputs)
    with pytest.raises(ConfigError, match=r"has classes benign, malignant, dataset scans has"):
        CONTROLNET.plan(material, settings)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"shape": [1, 32, 32]}, r"images of 1 x 32 x 32 .*dataset scans are 1 x 16 x 16"),
        ({"shape": [2, 16, 16]}, r"images of 2 x 16 x 16 .*dataset scans are 1 x 16 x 16"),
        ({"mode": "mask"}, r"is a generator ddpm of mode mask; controlnet builds on"),
        ({"generator": "vae"}, r"is a generator vae of mode class; controlnet builds on"),
    ],
)
def test_a_base_that_does_not_fit_is_refused(data, tmp_path, base, about, message):
    other = altered(base, tmp_path / "base", **about)
    material, settings = material_of(data, tmp_path / "run", other)
    with pytest.raises(ConfigError, match=message):
        CONTROLNET.plan(material, settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditions": "density"}, r"conditions 'density' are not those of base .*label, view"),
        ({"strategy": "rflow"}, r"strategy 'rflow' is not that of base .*strategy=ddpm"),
        ({"prediction": "x0"}, r"prediction 'x0' is not that of base .*prediction=v"),
        ({"prompt": "a {class} mammogram"}, r"prompt .* not with one that was trained here"),
    ],
)
def test_settings_that_are_not_the_base_s_are_refused(data, tmp_path, base, changes, message):
    material, settings = material_of(data, tmp_path / "run", base)
    with pytest.raises(ConfigError, match=message):
        CONTROLNET.plan(material, settings | changes)


def test_without_a_base_one_is_asked_for():
    with pytest.raises(ConfigError, match=r"generator controlnet needs base="):
        train_generator.check(tiny.recipe("controlnet", "mask_to_image"))
