"""Generators through MLflow's own loader: they say what they ask for, and draw what they draw."""

import inspect
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import servers
import tiny
from mlflow import pyfunc
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from mammo.errors import ConfigError
from mammo.generators import load_generator
from mammo.generators.generator import Generator
from mammo.steps import train_generator
from mammo.tracking.mlmodel import DRAWING, write_mlmodel


def packed(folder, generator, mode):
    """Model folders of a tiny generator: as it is saved, and as MLflow gets it."""
    data = tiny.write_scans(folder, channels=1)
    tracked = tiny.run_with(folder / "run", data=data.folder)
    train_generator.run(tracked, **tiny.recipe(generator, mode, epochs=1))
    saved = tracked.folder / "model"
    copy = shutil.copytree(saved, folder / "packed")
    write_mlmodel(copy, json.loads((saved / "model.json").read_text()), "run")
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


def test_guidance_steps_and_sampler_travel_with_the_request(tmp_path):
    saved, copy = packed(tmp_path, "ddpm", "class")
    served, own = pyfunc.load_model(str(copy)), load_generator(saved, device="cpu")
    rows = pd.DataFrame({"label": ["benign", "malignant"], "seed": [5, 6]})
    asked = {"guidance": 3.0, "steps": 4, "sampler": own.samplers[-1]}
    drawn = served.predict(rows, params=asked)
    expected = own.sample(["benign", "malignant"], seeds=[5, 6], **asked)
    np.testing.assert_array_equal(drawn, expected)
    one_more = served.predict(rows, params={"guidance": 3.0, "steps": 5})
    np.testing.assert_array_equal(
        one_more, own.sample(["benign", "malignant"], seeds=[5, 6], guidance=3.0, steps=5)
    )
    assert not np.array_equal(drawn, one_more)
    with pytest.raises(ConfigError, match="sampler 'fast' is not one of generator ddpm"):
        served.predict(rows, params={"sampler": "fast"})
    with pytest.raises(MlflowException, match="steps"):
        served.predict(rows, params={"steps": "many"})


@pytest.mark.doors
def test_a_served_generator_takes_them_over_the_wire(tmp_path):
    saved, copy = packed(tmp_path, "ddpm", "class")
    own = load_generator(saved, device="cpu")
    asked = {"guidance": 2.5, "steps": 3, "sampler": own.samplers[-1]}
    records = [{"label": "benign", "seed": 5}, {"label": "malignant", "seed": 6}]
    with servers.serving(copy, tmp_path / "log") as url:
        drawn = servers.ask(url, {"dataframe_records": records, "params": asked})
        plain = servers.ask(url, {"dataframe_records": records})
    labels = ["benign", "malignant"]
    np.testing.assert_allclose(drawn, own.sample(labels, seeds=[5, 6], **asked), atol=1e-4)
    np.testing.assert_allclose(plain, own.sample(labels, seeds=[5, 6]), atol=1e-4)
    assert np.abs(np.subtract(drawn, plain)).max() > 0.01


def test_what_a_request_may_set_has_the_defaults_of_drawing():
    parameters = inspect.signature(Generator.sample).parameters
    assert {name: parameters[name].default for name in DRAWING} == DRAWING


@pytest.mark.parametrize(
    ("generator", "mode", "names"),
    [
        ("ddpm", "class", list(DRAWING)),
        ("ddpm", "mask_to_image", list(DRAWING)),
        ("gan", "class", []),  # one call draws: there is nothing to set
    ],
)
def test_the_example_in_the_model_is_one_that_it_draws(generator, mode, names, tmp_path):
    saved, copy = packed(tmp_path, generator, mode)
    model = Model.load(str(copy))
    params = model.signature.params
    assert [each.name for each in params or []] == names
    drawn = pyfunc.load_model(str(copy)).predict(
        model.load_input_example(str(copy)), params=model.load_input_example_params(str(copy))
    )
    assert drawn.shape == (1, *load_generator(saved, device="cpu").shape)
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_an_autoencoder_is_not_loaded_to_draw(tmp_path):
    _, copy = packed(tmp_path, "autoencoder", "reconstruct")
    with pytest.raises(ConfigError, match="draws no images of its own"):
        pyfunc.load_model(str(copy))
