"""Generators through MLflow's own loader: they say what they ask for, and draw what they draw."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tiny
from mlflow import pyfunc
from mlflow.exceptions import MlflowException

from mammo.errors import ConfigError
from mammo.generators import load_generator
from mammo.steps import train_generator
from mammo.tracking import _write_mlmodel


def packed(folder, generator, mode):
    """Model folders of a tiny generator: as it is saved, and as MLflow gets it."""
    data = tiny.write_scans(folder, channels=1)
    tracked = tiny.run_with(folder / "run", data=data.folder)
    train_generator.run(tracked, **tiny.recipe(generator, mode, epochs=1))
    saved = tracked.folder / "model"
    copy = shutil.copytree(saved, folder / "packed")
    _write_mlmodel(copy, json.loads((saved / "model.json").read_text()), "run")
    return saved, copy


def test_a_generator_that_draws_around_masks_is_served_with_them(tmp_path):
    saved, copy = packed(tmp_path, "ddpm", "mask_to_image")
    served = pyfunc.load_model(str(copy))
    assert served.metadata.get_input_schema().input_names() == ["label", "seed", "view", "mask"]
    mask = np.zeros((tiny.SIDE, tiny.SIDE), np.int64)
    mask[4:8, 2:6] = 1
    asked = {"label": ["benign", "malignant"], "seed": [3, 4], "mask": [mask.tolist()] * 2}
    drawn = served.predict(pd.DataFrame(asked | {"view": ["CC", None]}))
    expected = load_generator(saved, device="cpu").sample(
        ["benign", "malignant"],
        seeds=[3, 4],
        conditions={"view": ["CC", ""]},
        masks=np.stack([mask] * 2)[:, None].astype(np.uint8),
    )
    np.testing.assert_array_equal(drawn, expected)
    with pytest.raises(MlflowException, match="mask"):
        served.predict(pd.DataFrame({"label": ["benign"], "seed": [3]}))


def test_a_generator_is_served_by_label_and_seed_alone(tmp_path):
    saved, copy = packed(tmp_path, "ddpm", "class")
    drawn = pyfunc.load_model(str(copy)).predict(pd.DataFrame({"label": ["benign"], "seed": [5]}))
    expected = load_generator(saved, device="cpu").sample(["benign"], seeds=[5])
    np.testing.assert_array_equal(drawn, expected)


def test_an_autoencoder_is_not_loaded_to_draw(tmp_path):
    _, copy = packed(tmp_path, "autoencoder", "reconstruct")
    with pytest.raises(ConfigError, match="draws no images of its own"):
        pyfunc.load_model(str(copy))
