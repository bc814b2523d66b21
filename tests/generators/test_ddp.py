"""Several processes train as one: same batch, same numbers, and they live and end together."""

from functools import cache, partial, wraps

import pandas as pd
import pytest
import tiny
import torch

from mammo.data.dataset import Dataset
from mammo.errors import ConfigError
from mammo.generators import family
from mammo.generators.material import gather
from mammo.generators.train import train
from mammo.run import SilentRun
from mammo.training import fit, read_checkpoint
from mammo.training.processes import together


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Runs of tiny generators, a folder each."""

    class Place:
        folder = tmp_path_factory.mktemp("ddp")

        @cache  # noqa: B019  # one object, as long as the module
        def data(self, channels):
            return tiny.write_scans(self.folder / str(channels), channels=channels)

        @cache  # noqa: B019
        def bases(self, generator):
            return tiny.bases(generator, self)

        def run(self, name, generator="ddpm", mode="class", **settings):
            """Train in `name`, on from where it was; returns run and Trained."""
            data = self.data(2 if mode == "dual" else 1)
            bases = self.bases(generator)
            tracked = tiny.run_with(self.folder / name, data=data.folder, **bases)
            given = {setting: str(path) for setting, path in bases.items()}
            return tracked, train(tracked, tiny.recipe(generator, mode, **given, **settings))

    return Place()


def assert_same_training(one, other):
    """Weights, averaged weights and mean gradients of two trainings agree to rounding.

    Adam divides a gradient by its own size, so that rounding in a gradient near 0 moves a weight
    by more than rounding. What it keeps of the gradients themselves is nearer; a gradient summed
    and not averaged would show there alone.
    """
    one, other = (read_checkpoint(each.fitted.last) for each in (one, other))
    for key in ("state_dict", "current_model_state"):
        assert one[key].keys() == other[key].keys()
        assert distance(one[key].values(), other[key].values()) < 1e-4
    assert distance(mean_gradients(one), mean_gradients(other)) < 1e-5


def distance(one, other):
    """Of two lists of tensors, as a share of the length of the first."""
    one, other = (torch.cat([each.flatten().double() for each in many]) for many in (one, other))
    return float((one - other).norm() / one.norm())


def mean_gradients(checkpoint):
    state = checkpoint["optimizer_states"][0]["state"]
    return [state[number]["exp_avg"] for number in sorted(state)]


@pytest.mark.doors
def test_two_processes_are_one_with_the_same_global_batch(place):
    _, alone = place.run("one")
    tracked, both = place.run("two", devices=2)
    assert_same_training(alone, both)
    assert both.fitted.images_seen == alone.fitted.images_seen == 36
    assert both.fitted.best_score == pytest.approx(alone.fitted.best_score, rel=1e-5)
    steps = [step for name, _, step in tracked.history if name == "val/loss"]
    assert steps == [1, 2]  # one process logs


@pytest.mark.doors
def test_a_run_of_one_process_goes_on_with_two(place):
    _, whole = place.run("whole", lr_schedule="constant")
    place.run("grown", lr_schedule="constant", epochs=1)
    tracked, grown = place.run("grown", lr_schedule="constant", devices=2)
    assert_same_training(whole, grown)
    assert [step for name, _, step in tracked.history if name == "val/loss"] == [2]


@pytest.mark.doors
def test_parts_and_processes_together_make_the_same_batch(place):
    _, alone = place.run("whole-batch")
    _, both = place.run("thirds", devices=2, accumulate=3)
    assert_same_training(alone, both)


@pytest.mark.doors
def test_three_processes_judge_four_images_as_one_does(place):
    """Shares of 2, 1 and 1: the mean of their means is another, and so is a count cut to 1."""
    one, _ = place.run("judged-by-one", epochs=1)
    many, _ = place.run("judged-by-three", epochs=1, devices=3)
    assert many.last["val/loss"] == pytest.approx(one.last["val/loss"], rel=1e-4)
    tables = [each.tables["loss_by_noise"] for each in (many, one)]
    assert tables[1]["images"].sum() == 4
    pd.testing.assert_frame_equal(*tables, rtol=1e-4)


def test_a_batch_that_cannot_be_shared_is_one_line(place):
    with pytest.raises(ConfigError, match=r"batch of 6 images .* 2 devices times accumulate 2"):
        place.run("uneven", devices=2, accumulate=2)


def replicas(place, generator, mode):
    """The trained parameters of both processes that training has moved, by rank."""
    data = place.data(2 if mode == "dual" else 1).folder
    tracked = tiny.run_with(
        place.folder / f"replicas-{generator}-{mode}", data=data, **place.bases(generator)
    )
    given = {setting: str(path) for setting, path in place.bases(generator).items()}
    settings = tiny.recipe(generator, mode, **given, epochs=1, ema=0.0)
    material = gather(Dataset(data), settings, folder=tracked.folder, inputs=tracked.inputs)
    chosen = tiny.family_of(generator)
    plan = chosen.plan(material, settings)
    chosen.learner(plan, material, settings)  # what it keeps in the folder is there now
    work = partial(member, tracked.folder, tracked.inputs, plan, settings)
    with together(2, work) as team:
        work(team)
    judged = [torch.load(tracked.folder / f"{rank}-judged.pt") for rank in range(2)]
    assert judged == [material.val[0::2].tolist(), material.val[1::2].tolist()]
    return [torch.load(tracked.folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def member(folder, inputs, plan, settings, team):
    """Train in this process of the team, and write down what it has moved."""
    data = Dataset(inputs["data"][0].path)
    material = gather(data, settings, folder=folder, inputs=inputs)
    learner = family(settings["generator"]).learner(plan, material, settings)
    before = {name: each.detach().clone() for name, each in learner.named_parameters()}
    moved = {}

    def keep():
        now = {name: each.detach().clone() for name, each in learner.named_parameters()}
        moved.update({name: now[name] for name in now if not torch.equal(now[name], before[name])})

    learner.on_train_end = keep  # before the weights of the best epoch replace them
    train, val = material.batches(settings["batch_size"], settings["seed"])
    judged, judge = [], learner.validation_step

    @wraps(judge)  # Lightning looks at its arguments
    def noted(batch, index):
        judged.extend(batch["row"].tolist())
        return judge(batch, index)

    learner.validation_step = noted
    fit(
        learner,
        train=train,
        val=val,
        tracked=SilentRun("run", folder, folder, inputs),
        epochs=1,
        seed=0,
        monitor="val/loss",
        mode="min",
        device="cpu",
        gradient_clip=1.0,
        team=team,
    )
    torch.save(moved, folder / f"{team.rank}.pt")
    torch.save(judged, folder / f"{team.rank}-judged.pt")


def combinations():
    """Every generator once, and every mode of one of them."""
    return [
        (generator, mode)
        for generator, mode in tiny.combinations()
        if generator == "ddpm" or mode == tiny.family_of(generator).MODES[0]
    ]


@pytest.mark.doors
@pytest.mark.parametrize(("generator", "mode"), combinations())
def test_the_replicas_of_every_generator_stay_equal(place, generator, mode):
    one, other = replicas(place, generator, mode)
    assert one.keys() == other.keys() != set()
    for name in one:
        assert torch.equal(one[name], other[name]), name
