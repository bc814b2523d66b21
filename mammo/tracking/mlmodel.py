"""The MLmodel file beside a saved model: its loader, its signature and an example."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

# Settings that a served generator takes with a request, with the defaults of Generator.sample
DRAWING: dict[str, Any] = {"guidance": 1.0, "steps": 30, "sampler": "auto"}


def write_mlmodel(folder: Path, about: Mapping[str, Any], run_id: str) -> None:
    """Describe a saved model to MLflow: loader, signature and an example of what it is asked."""
    from mlflow.models import Model
    from mlflow.models.utils import _save_example

    signature, example = (_scores if about["kind"] == "classifier" else _draws)(about)
    model = Model(artifact_path="model", run_id=run_id, signature=signature)
    with warnings.catch_warnings():  # MLflow's own: on the first import of its pyfunc, of pandas 3
        warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType")
        warnings.filterwarnings("ignore", "Operation with range is deprecated")
        import mlflow.pyfunc

        _save_example(model, example, str(folder))
    mlflow.pyfunc.add_to_model(model, loader_module="mammo.serving", data=".")
    model.save(str(folder / "MLmodel"))


def _scores(about: Mapping[str, Any]) -> tuple["ModelSignature", Any]:
    """What a classifier takes and gives, and an image to ask of: black, for it shows nobody."""
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    image = TensorSpec(np.dtype(np.float32), (-1, *about["shape"]), "images")
    scores = TensorSpec(np.dtype(np.float32), (-1, len(about["classes"]["names"])), "scores")
    # of a model that looks at several images at once: which of them belong together
    sets = ParamSchema([ParamSpec("sets", "long", [], shape=(-1,))])
    signature = ModelSignature(
        inputs=Schema([image]),
        outputs=Schema([scores]),
        params=sets if about.get("views", "none") != "none" else None,
    )
    return signature, {"images": np.zeros((1, *about["shape"]), np.float32)}


def _draws(about: Mapping[str, Any]) -> tuple["ModelSignature", Any]:
    """What a generator takes and gives, and a wish; only one that diffuses has settings."""
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import Array

    asks = about.get("asks", {"conditions": [], "mask": False, "makes": about["shape"]})
    wish = [ColSpec("string", "label"), ColSpec("long", "seed")]
    wish += [ColSpec("string", name, required=False) for name in asks["conditions"]]
    example: dict[str, Any] = {"label": [about["classes"]["names"][0]], "seed": [0]}
    if asks["mask"]:  # rows of pixels, 0 outside
        wish.append(ColSpec(Array(Array(DataType.long)), "mask"))
        mask = np.zeros(about["shape"][1:], int)
        mask[len(mask) // 4 : len(mask) // 2, len(mask[0]) // 4 : len(mask[0]) // 2] = 1
        example["mask"] = [mask.tolist()]
    made = TensorSpec(np.dtype(np.float32), (-1, *asks["makes"]), "images")
    defaults = {name: DRAWING[name] for name in DRAWING if asks.get("samplers")}
    kinds = {float: "double", int: "long", str: "string"}
    params = [ParamSpec(name, kinds[type(each)], each) for name, each in defaults.items()]
    signature = ModelSignature(
        inputs=Schema(wish),
        outputs=Schema([made]),
        params=ParamSchema(params) if params else None,
    )
    frame = pd.DataFrame(example)
    return signature, (frame, defaults) if defaults else frame
