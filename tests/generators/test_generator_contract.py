"""What every generator owes, whatever its family, strategy and mode."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from mammo.data.dataset import Dataset
from mammo.generators.artist import Asked
from mammo.generators.generator import Generator
from mammo.generators.material import gather
from mammo.generators.modes import drawn
from mammo.generators.train import train
from mammo.steps import sample, train_generator


def over(pairs):
    """The test runs over `pairs` of generator and mode; those not quick stand behind the doors."""
    return pytest.mark.parametrize(
        ("generator", "mode"),
        [
            pytest.param(*each, id="-".join(each), marks=() if tiny.is_quick(*each) else DOORS)
            for each in pairs
        ],
    )


DOORS = pytest.mark.doors
ALL = tiny.combinations()
FAMILIES = over(ALL)
DRAWN = over([each for each in ALL if each[1] in drawn()])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder of the datasets and of what some families build on, made when first asked for."""

    class Place:
        folder = tmp_path_factory.mktemp("contract")

        @cache  # noqa: B019  # one object, as long as the module
        def data(self, channels: int):
            return tiny.write_scans(self.folder / str(channels), channels=channels)

        def run(self, name: str, generator: str, mode: str):
            data = self.data(2 if mode == "dual" else 1)
            return tiny.run_with(self.folder / name, data=data.folder, **self.bases(generator))

        @cache  # noqa: B019
        def bases(self, generator: str) -> dict[str, Path]:
            return tiny.bases(generator, self)

        @cache  # noqa: B019
        def trained(self, generator: str, mode: str):
            """A run that has trained two epochs, its result and its settings."""
            tracked = self.run(f"{generator}-{mode}", generator, mode)
            settings = tiny.recipe(generator, mode)
            named = {setting: str(path) for setting, path in self.bases(generator).items()}
            train_generator.check({**settings, **named, "data": str(self.folder)})
            result = train_generator.run(tracked, **settings)
            return tracked, result, settings

    return Place()


def learner_of(place, generator, mode, **changes):
    """Material and an untrained learner whose weights are no special case."""
    settings = tiny.recipe(generator, mode, **changes)
    tracked = place.run(f"fresh-{generator}-{mode}", generator, mode)
    data = place.data(2 if mode == "dual" else 1)
    material = gather(data, settings, folder=tracked.folder, inputs=tracked.inputs)
    chosen = tiny.family_of(generator)
    learner = chosen.learner(chosen.plan(material, settings), material, settings)
    drawing = torch.Generator().manual_seed(1)
    for weight in learner.parameters():  # blocks that start at zero would hide what they see
        weight.data += 0.05 * torch.randn(weight.shape, generator=drawing)
    return material, learner


def batch_of(material, rows=slice(0, 4)):
    loader, _ = material.batches(24, seed=0)
    batch = next(iter(loader))
    order = torch.argsort(batch["row"])
    return {name: value[order][rows] for name, value in batch.items()}


def asked_of(material, seeds):
    rows = material.train[: len(seeds)]
    labels = torch.from_numpy(material.labels[rows])
    return Asked(labels, list(seeds), material.control(rows), steps=3)


@FAMILIES
def test_training_moves_every_parameter_that_should_train_and_no_other(place, generator, mode):
    settings = tiny.recipe(generator, mode, epochs=3)
    tracked = place.run(f"moves-{generator}-{mode}", generator, mode)
    chosen = tiny.family_of(generator)
    before = {}
    make = chosen.learner

    def watched(*arguments):
        learner = make(*arguments)
        before.update({name: each.detach().clone() for name, each in learner.named_parameters()})
        return learner

    chosen.learner = watched
    try:
        learner = train(tracked, settings).learner
    finally:
        chosen.learner = make
    assert chosen.IN_TURN is not learner.automatic_optimization
    moved = {
        name for name, each in learner.named_parameters() if not torch.equal(each, before[name])
    }
    assert moved == {name for name, each in learner.named_parameters() if each.requires_grad}


@FAMILIES
def test_trap_t3c_the_loss_and_the_image_depend_on_all_that_is_told(place, generator, mode):
    """A control, or a label, that reaches nothing trains nothing."""
    material, learner = learner_of(place, generator, mode)
    learner.eval()
    batch = batch_of(material)
    asked = asked_of(material, seeds=[3, 4])

    def loss(given):
        logged = {}
        learner.log = lambda name, value, **_: logged.update({name: float(value)})
        with torch.no_grad():
            learner.validation_step(given, 0)
        return logged["val/loss"]

    reference, image = loss(batch), learner.artist().draw(asked)
    for place_of in range(batch["labels"].shape[1]):
        other, labels = batch["labels"].clone(), asked.labels.clone()
        other[:, place_of] = (other[:, place_of] + 1) % 2
        labels[:, place_of] = (labels[:, place_of] + 1) % 2
        assert loss({**batch, "labels": other}) != reference
        changed = Asked(labels, asked.seeds, asked.control, steps=3)
        assert not torch.equal(learner.artist().draw(changed), image)
    if material.mode.masked and material.mode.channels(1)[1]:
        assert loss({**batch, "mask": 1 - batch["mask"]}) != reference
        changed = Asked(asked.labels, asked.seeds, -asked.control, steps=3)
        assert not torch.equal(learner.artist().draw(changed), image)


@FAMILIES
def test_a_sample_depends_on_its_own_seed_and_asking_alone(place, generator, mode):
    material, learner = learner_of(place, generator, mode)
    asked = asked_of(material, seeds=range(10))
    together = learner.artist().draw(asked)
    for chosen in ([7], [7, 2], [0, 1, 2, 7]):
        alone = learner.artist().draw(asked.at(chosen))
        assert torch.equal(alone[chosen.index(7)], together[7])
    assert not torch.equal(
        learner.artist().draw(
            Asked(
                asked.labels[:1],
                [77],
                None if asked.control is None else asked.control[:1],
                steps=3,
            )
        )[0],
        together[0],
    )


@FAMILIES
def test_a_saved_generator_draws_what_it_drew_when_it_was_trained(place, generator, mode):
    tracked, _, settings = place.trained(generator, mode)
    again = place.run(f"{generator}-{mode}", generator, mode)  # its state is there still
    trained = train(again, settings)
    asked = asked_of(trained.material, seeds=range(3))
    loaded = Generator.load(tracked.folder / "model", device="cpu")
    assert torch.equal(loaded.artist.draw(asked), trained.learner.artist().draw(asked))
    # what is told of it before its network is built
    assert (loaded.shape, loaded.samplers) == (loaded.artist.shape, loaded.artist.samplers)


@FAMILIES
def test_a_run_that_dies_ends_with_the_weights_of_one_that_did_not(place, generator, mode):
    whole, _, settings = place.trained(generator, mode)
    cut = place.run(f"cut-{generator}-{mode}", generator, mode)

    class Died(Exception):
        pass

    def die(values, step=None):
        if step == 2:
            raise Died

    kept, cut.metrics = cut.metrics, die
    with pytest.raises(Died):
        train_generator.run(cut, **settings)
    cut.metrics = kept
    train_generator.run(cut, **settings)
    weights = [each.folder / "model" / "weights.safetensors" for each in (whole, cut)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@FAMILIES
def test_the_model_says_what_it_was_trained_on(place, generator, mode):
    tracked, _, _ = place.trained(generator, mode)
    data = place.data(2 if mode == "dual" else 1)
    model = Generator.load(tracked.folder / "model", device="cpu").model
    train_rows = data.manifest[data.manifest["split"] == "train"]
    assert set(model.training["sha256"]) >= set(train_rows["sha256"])
    assert not set(model.training["sha256"]) & set(
        data.manifest.loc[data.manifest["split"] == "val", "sha256"]
    )
    assert np.all(~model.training["is_synthetic"])


@DRAWN
def test_a_sampled_dataset_holds_what_the_generator_draws(place, generator, mode):
    tracked, _, _ = place.trained(generator, mode)
    loaded = Generator.load(tracked.folder / "model", device="cpu")
    masks = {"masks": place.data(2 if mode == "dual" else 1).folder} if loaded.takes_masks else {}
    drawing = tiny.run_with(
        place.folder / f"drawn-{generator}-{mode}", generator=tracked.folder / "model", **masks
    )
    steps = {"steps": 2} if loaded.samplers else {}
    # hardly trained masks are noise below a half
    any_mask = {"mask_threshold": 0.02, "mask_area": "0,1"} if mode == "mask" else {}
    sample.run(drawing, generator="", counts="malignant=2", on_mismatch="warn", **steps, **any_mask)
    made = Dataset(drawing.uploaded["dataset"])
    frame = made.manifest
    told = {name: frame[name].tolist() for name in loaded.conditions.columns if name != "label"}
    images = loaded.sample(
        frame["label"].tolist(),
        seeds=frame["sample_seed"],
        conditions=told,
        masks=made.masks([0, 1]) if loaded.takes_masks else None,
        **steps,
    )
    expected = (images >= np.float32(0.02)) if mode == "mask" else images
    assert np.array_equal(made.raw([0, 1]), np.rint(expected * np.float32(65535)))
    assert made.masks([0, 1]).any() == (mode in ("mask", "mask_to_image", "dual"))
