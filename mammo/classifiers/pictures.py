"""Pictures of a training run: its curves and a batch as the network sees it."""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mammo.classifiers.changing import Changing
from mammo.classifiers.material import Material
from mammo.seeds import derive

GRID = (4, 8)  # rows and columns of the preview


def draw_curves(history: list[dict[str, float]]) -> Any:
    """Losses, and areas under curves, over the epochs."""
    epochs = range(1, len(history) + 1)
    panels = {
        "loss": ["train/loss", "val/loss"],
        "area under the curve, validation": ["val/auc", "val/auc_image", "val/pr_auc"],
    }
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for name in names:
            axes.plot(epochs, [each.get(name, np.nan) for each in history], ".-", label=name)
        axes.set(xlabel="epoch", title=title)
        axes.legend()
    return figure


def preview(material: Material, change: Changing, seed: int) -> NDArray[np.uint8]:
    """A grid (H, W) of training images, drawn by class in turn, after augmentation."""
    labels = material.data.label_ids()[material.train]
    rng = np.random.default_rng(derive(seed, "preview"))
    shuffled = rng.permutation(len(labels))
    # place of an image within its class: sorting by it goes round the classes
    place = np.empty(len(labels), int)
    for each in np.unique(labels):
        mine = shuffled[labels[shuffled] == each]
        place[mine] = np.arange(len(mine))
    chosen = np.lexsort([labels, place])[: GRID[0] * GRID[1]]
    images = torch.from_numpy(material.data.images(material.train[chosen]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "preview"))
        changed = change(images, torch.from_numpy(labels[chosen]))[0][:, 0].numpy()
    count, height, width = changed.shape
    cells = np.zeros((GRID[0] * GRID[1], height, width), np.float32)
    cells[:count] = changed
    grid = cells.reshape(*GRID, height, width).transpose(0, 2, 1, 3)
    grid = grid.reshape(GRID[0] * height, GRID[1] * width)[: -(-count // GRID[1]) * height]
    return np.round(grid.clip(0, 1) * 255).astype(np.uint8)
