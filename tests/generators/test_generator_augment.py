"""Changes of training images: what does not move stays, mask follows image, draws by row alone."""

import inspect
import math

import numpy as np
import pytest
import torch

from mammo.errors import ConfigError
from mammo.generators.augment import (
    GAMMA,
    SHEAR,
    SHIFT,
    TURN_DEGREES,
    ZOOM,
    Augmentation,
    Changes,
    _matrices,
    augmented,
    drawn,
    move,
    warn_of_sides,
)
from mammo.steps import train_generator
from mammo.training.fitting import quiet

HOWS = ["flip", "geometric", "all"]
ROWS = torch.arange(400)


def blobs(count, height=48, width=32):
    """An ellipse left of the middle, 1 inside: image and mask of it."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = ((y - 0.55 * height) / (0.25 * height)) ** 2 + ((x - 0.45 * width) / 7) ** 2 < 1
    return inside.float().expand(count, 1, height, width)


def changes(count=1, *, mirrored=False, gamma=1.0, **moves):
    zero = torch.zeros(count)
    names = ("turn", "shear_x", "shear_y", "shift_x", "shift_y", "zoom")
    return Changes(
        torch.full((count,), mirrored),
        _matrices(*(zero + moves.get(name, 0.0) for name in names)),
        torch.full((count,), gamma),
    )


def test_moves_of_0_leave_the_image():
    images = torch.rand(2, 2, 12, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(move(images, changes(2)), images, atol=1e-5, rtol=0)


def test_mirroring_is_exact_and_twice_is_none():
    images = torch.rand(1, 1, 6, 9, generator=torch.Generator().manual_seed(0))
    flip = Changes(torch.tensor([True]), None, torch.ones(1))
    assert torch.equal(move(images, flip), images.flip(3))
    assert torch.equal(move(move(images, flip), flip), images)


def test_a_shift_is_of_the_side_and_leaves_air_behind():
    """A side of 40 px and a shift of 5 %: what is seen comes from 2 px further along x."""
    images = torch.arange(1.0, 41).expand(1, 1, 4, 40) / 40
    moved = move(images, changes(shift_x=1.0))
    torch.testing.assert_close(moved[..., :38], images[..., 2:], atol=1e-4, rtol=0)
    assert moved[..., 38:].max() == 0


def test_a_turn_keeps_right_angles_right_where_sides_differ():
    """The far end of a bar of 20 px along y moves sideways by 20 tan(15 degrees)."""
    images = torch.zeros(1, 1, 60, 30)
    images[..., 15] = 1.0
    moved = move(images, changes(turn=1.0))
    columns = torch.arange(30.0)
    at = [(moved[0, 0, row] @ columns / moved[0, 0, row].sum()).item() for row in (20, 40)]
    assert abs(at[1] - at[0]) == pytest.approx(20 * math.tan(math.radians(TURN_DEGREES)), rel=0.02)


def test_a_zoom_scales_areas_by_its_square_and_a_shear_leaves_them():
    images = blobs(1, 128, 128)
    area = images.sum()
    assert move(images, changes(zoom=1.0)).sum() / area == pytest.approx((1 + ZOOM) ** 2, rel=0.01)
    assert move(images, changes(shear_x=1.0)).sum() / area == pytest.approx(1.0, rel=0.01)
    both = move(images, changes(shear_x=1.0, shear_y=1.0)).sum() / area
    assert both == pytest.approx(1 / (1 - SHEAR**2), rel=0.01)


def test_gamma_is_a_power_that_leaves_air_and_white():
    batch = {"image": torch.tensor([0.0, 0.25, 1.0]).view(1, 1, 1, 3)}
    only = Changes(torch.tensor([False]), None, torch.tensor([1.1]))
    assert augmented(batch, only)["image"].flatten().tolist() == pytest.approx([0, 0.25**1.1, 1])


@pytest.mark.parametrize("how", HOWS)
def test_a_mask_stays_binary_and_where_its_lesion_is(how):
    lesion = blobs(len(ROWS))
    made = drawn(how, seed=0, step=3, rows=ROWS)
    out = augmented({"image": lesion, "mask": lesion}, made)
    edge = 0.5 ** made.gamma[:, None, None, None]  # what gamma makes of a half
    image, mask = out["image"] >= edge, out["mask"].bool()
    assert set(out["mask"].unique().tolist()) == {0.0, 1.0}
    dice = 2 * (image & mask).sum((1, 2, 3)) / (image.sum((1, 2, 3)) + mask.sum((1, 2, 3)))
    assert dice.min() >= 0.99
    assert not torch.equal(out["mask"], lesion)


def test_the_ranges_are_system_0_s():
    """Affine within its bounds, half mirrored, a fifth with gamma from 0.9 to 1.1."""
    made = drawn("all", seed=0, step=0, rows=torch.arange(4000))
    assert made.mirrored.float().mean().item() == pytest.approx(0.5, abs=0.03)
    toned = made.gamma[made.gamma != 1]
    assert len(toned) / 4000 == pytest.approx(0.2, abs=0.02)
    assert toned.min().item() == pytest.approx(1 - GAMMA, abs=0.005)
    assert toned.max().item() == pytest.approx(1 + GAMMA, abs=0.005)
    linear, shift = made.matrices[:, :, :2], made.matrices[:, :, 2]
    assert shift.abs().max().item() == pytest.approx(2 * SHIFT, abs=0.001)
    scale = linear.det().sqrt()
    assert 1 / (1 + ZOOM) * math.sqrt(1 - SHEAR**2) <= scale.min()
    assert scale.max() <= 1 / (1 - ZOOM) * math.sqrt(1 + SHEAR**2)
    only_flips = drawn("flip", seed=0, step=0, rows=ROWS)
    assert only_flips.matrices is None
    assert (only_flips.gamma == 1).all()


def test_what_is_drawn_for_a_row_depends_on_seed_step_and_row_alone():
    def of(seed, step, rows):
        return drawn("all", seed=seed, step=step, rows=torch.tensor(rows)).matrices[-1]

    reference = of(1, 2, [7])
    torch.manual_seed(5)
    assert torch.equal(of(1, 2, [3, 9, 7]), reference)
    for other in (of(0, 2, [7]), of(1, 3, [7]), of(1, 2, [8])):
        assert not torch.equal(other, reference)


def test_a_training_step_sees_the_changed_batch_and_validation_the_images_as_they_are():
    """Lightning hands the dict that the callback changed on to the step."""
    from lightning.pytorch import LightningModule, Trainer

    seen = {"train": [], "val": []}

    class Looks(LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def training_step(self, batch, index):
            seen["train"].append(batch)
            return (self.weight * batch["image"].mean()).sum()

        def validation_step(self, batch, index):
            seen["val"].append(batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    given = {"image": blobs(4), "mask": blobs(4), "row": torch.arange(4)}
    loader = torch.utils.data.DataLoader([0, 1], collate_fn=lambda _: dict(given))
    with quiet():
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Augmentation("all", seed=4)],
        )
        trainer.fit(Looks(), loader, loader)
    for step in (0, 1):
        expected = augmented(given, drawn("all", seed=4, step=step, rows=given["row"]))
        assert torch.equal(seen["train"][step]["image"], expected["image"])
        assert torch.equal(seen["train"][step]["mask"], expected["mask"])
    assert all(torch.equal(batch["image"], given["image"]) for batch in seen["val"])


@pytest.mark.parametrize("lying", ["left", "right", "anywhere"])
def test_images_that_all_lie_to_one_side_are_told_of(lying, caplog):
    class Data:
        def images(self, rows):
            images = np.tile(np.linspace(1, 0, 8), (len(rows), 1, 4, 1))
            mirrored = {"left": rows < 0, "right": rows >= 0, "anywhere": rows % 2 == 0}[lying]
            return np.where(mirrored[:, None, None, None], images[..., ::-1], images)

    warn_of_sides(Data(), np.arange(40))
    told = [f"augment mirrors images of which 100 % lie to the {lying}"] * (lying != "anywhere")
    assert [record.message.partition(":")[0] for record in caplog.records] == told


@pytest.mark.parametrize("how", HOWS)
def test_breasts_whose_side_is_told_are_not_mirrored(how):
    defaults = inspect.signature(train_generator.run).parameters
    settings = {name: each.default for name, each in defaults.items()}
    told = settings | {"augment": how, "conditions": "view,laterality"}
    with pytest.raises(ConfigError, match=f"augment '{how}' mirrors left and right breasts"):
        train_generator.check(told)
    train_generator.check(settings | {"augment": how, "conditions": "view"})
