"""The whole pipeline as child runs of one parent, from images to a registered classifier."""

import inspect
import logging
import shutil
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mammo.data.sources import ADAPTERS
from mammo.errors import ConfigError, MammoError
from mammo.run import Result, Run
from mammo.settings import one_of

LOG = logging.getLogger("mammo")
NESTED = {
    name: name
    for name in (
        "preprocess",
        "train_generator",
        "sample",
        "mix",
        "train_classifier",
        "evaluate",
        "tune",
        "promote",
    )
}
# What `mix` decides: the training that follows takes the mixed dataset as it is.
OF_THE_MIX = (
    "class_real_percentage",
    "majority_to_minority_ratio",
    "samples_per_class",
    "synthetic_per_class",
    "trim",
    "synthetic_weights",
)
# Settings that `main` itself hands from one step to the next.
WIRED = {
    "preprocess": ("dataset", "source"),
    "train_generator": ("data",),
    "sample": ("generator",),
    "mix": ("real", "synthetic"),
    "train_classifier": ("data", "synthetic", "real_percentage", "mix_mode", *OF_THE_MIX),
    "evaluate": ("model", "baseline", "data", "synthetic"),
    "tune": ("data", "synthetic", "step_settings"),
    "promote": ("model", "data"),
}
# What a profile sets where the command line leaves a step's default alone.
PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "full": {},
    "demo": {
        "preprocess": {"image_size": "64", "patients": 150},
        "train_generator": {"epochs": 60, "lr": 2e-3, "ema": 0.99, "sample_every": 20},
        "sample": {"count": 160, "steps": 20},
        "mix": {"mix_mode": "append", "synthetic_multiplier": 1.0},
        "train_classifier": {"model_name": "resnet10t", "epochs": 12, "batch_size": 16},
        "evaluate": {"bootstrap": 1000},
        "tune": {"n_trials": 4},
        "promote": {"policy": "none"},  # too few patients for any gate; the version says so
    },
}

if TYPE_CHECKING:
    DatasetName = str
    ProfileName = str
else:
    DatasetName = one_of(ADAPTERS)
    ProfileName = one_of(PROFILES)


def check(settings: Mapping[str, Any]) -> None:
    """Refuse what a later step would refuse, before the first one starts."""
    if settings["dataset"] != "phantom" and not settings["source"]:
        raise ConfigError(f"source is empty; give the folder of the {settings['dataset']} release")
    for setting, none in (
        ("preprocess.k_folds", 0),
        ("train_generator.fold", "none"),
        ("mix.fold", "none"),
        ("train_classifier.folds", "none"),
        ("train_classifier.seeds", ""),
    ):
        step, _, name = setting.partition(".")
        given = settings.get(step, {}).get(name, none)
        if given != none:
            raise ConfigError(
                f"{setting} {given!r}: main compares on a hold-out with one seed; "
                "run the steps one by one for folds and seeds"
            )
    for step in NESTED:
        if hasattr(_step(step), "check"):
            try:
                _step(step).check(_complete(step, settings))
            except MammoError as error:
                raise type(error)(f"{step}: {error}") from None


def source_digest(settings: Mapping[str, Any]) -> str:
    """Digest of the files that the steps read beside their inputs."""
    steps = ("preprocess", "tune", "evaluate")
    return ",".join(_step(step).source_digest(_complete(step, settings)) for step in steps)


def run(
    tracked: Run,
    *,
    dataset: DatasetName = "phantom",
    source: str = "",
    profile: ProfileName = "demo",
    seed: int = 0,
    device: str = "auto",
    step_settings: Mapping[str, Mapping[str, Any]],
) -> Result:
    """Run every step, from preprocess to promote, as child runs of one parent.

    Args:
        dataset: name of the data set's adapter; phantom makes its own images.
        source: folder of the release on disk.
        profile: small settings for a demonstration, or each step's own defaults.
        seed: seed of every step that has none of its own.
        device: of every step that has none of its own: auto, cpu, cuda or cuda:<number>.
    """

    def chosen(step: str) -> dict[str, Any]:
        return _chosen(step, {**step_settings, "profile": profile})

    def launch(step: str, name: str = "", **wired: Any) -> Result:
        given = {"seed": seed, "device": device} | chosen(step) | wired
        LOG.info("main: %s", name or step)
        result = tracked.launch(step, given, name=name)
        found = {f"{name or step}/{key}": value for key, value in result.metrics.items()}
        tracked.metrics(found if step == "train_classifier" else {})
        return result

    data = launch("preprocess", dataset=dataset, source=source).outputs["dataset"]
    generator = launch("train_generator", data=data).outputs["model"]
    synthetic = launch("sample", generator=generator).outputs["dataset"]
    mixed = launch("mix", real=data, synthetic=synthetic).outputs["dataset"]
    real_only = launch("train_classifier", "real_only", data=data)
    with_synthetic = launch("train_classifier", "real_and_synthetic", data=mixed)
    launch("tune", data=data, synthetic=synthetic, train_classifier=chosen("train_classifier"))
    evaluation = launch(
        "evaluate",
        model=with_synthetic.outputs["model"],
        baseline=real_only.outputs["model"],
        data=data,
        synthetic=synthetic,
    )
    # the winner is chosen on validation patients; the test patients only judge it
    winner = max((real_only, with_synthetic), key=lambda each: each.metrics["best/val/auc"])
    if winner is real_only:
        launch("evaluate", "evaluate_real_only", model=winner.outputs["model"], data=data)
    tracked.metrics(evaluation.metrics)
    promoted = launch("promote", model=winner.outputs["model"], data=data)
    return _present(tracked, evaluation, promoted)


def _differing(step: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in `given` that are not the step's defaults."""
    known = inspect.signature(_step(step).run).parameters
    return {name: value for name, value in given.items() if value != known[name].default}


def _complete(step: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a step as it will be launched; the references that come are "given"."""
    module = _step(step)
    known = inspect.signature(module.run).parameters
    complete = {name: each.default for name, each in known.items()}
    complete |= _chosen(step, settings)
    wired = set(getattr(module, "INPUTS", {})) & set(WIRED[step])
    complete |= dict.fromkeys(wired, "given")
    complete |= {name: settings[name] for name in ("dataset", "source") if name in known}
    nested = getattr(module, "NESTED", {})
    return complete | {name: _complete(other, settings) for name, other in nested.items()}


def _chosen(step: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The profile's settings, outranked by those given that differ from the default."""
    profile = PROFILES[settings["profile"]].get(step, {})
    return profile | _differing(step, settings.get(step, {}))


def _step(step: str) -> ModuleType:
    return import_module(f"mammo.steps.{step}")


def _present(tracked: Run, evaluation: Result, promoted: Result) -> Result:
    """Keep report and picture on the parent, show the headline on the terminal."""
    place = tracked.work / "results" / tracked.id
    place.mkdir(parents=True, exist_ok=True)
    run_uri = evaluation.outputs["report"].rpartition("/")[0]
    for artifact in ("report.html", "figures/fidelity_grid.png"):
        name = artifact.replace("figures/fidelity_grid", "preview")
        fetched = tracked.fetch(f"{run_uri}/{artifact}")
        shutil.copyfile(fetched, place / name)
        tracked.artifacts(place / name)
    LOG.info("\n%s", headline(evaluation.metrics))
    LOG.info("\nreal above, synthetic below:  %s", place / "preview.png")
    LOG.info("report:                       %s", place / "report.html")
    LOG.info("registered:                   %s", promoted.outputs["model"])
    LOG.info("open the runs:                %s", tracked.ui())
    outputs = {"report": tracked.uri("report.html"), **promoted.outputs}
    return Result(outputs, evaluation.metrics)


def headline(metrics: Mapping[str, float]) -> str:
    """The numbers a reader looks for first, one a line, as a table in plain text."""

    def ranged(name: str) -> str:
        low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
        return f"{metrics[name]:6.3f}   95 % interval {low:.3f} to {high:.3f}"

    baseline = metrics["test/auc"] - metrics["delta/auc"]
    lines = [f"{'test patients':34}{metrics['test/patients']:6.0f}"]
    lines += [f"{'AUC, real images only':34}{baseline:6.3f}"]
    lines += [f"{'AUC, with synthetic images':34}{ranged('test/auc')}"]
    lines += [f"{'difference':34}{ranged('delta/auc')}"]
    for name in sorted(metrics):
        if name.startswith("fidelity/") and name.endswith("/kid"):
            extractor = name.split("/")[1]
            stand_in = ", a stand-in" if extractor.startswith("random") else ""
            floor = f"{metrics[f'{name}_floor']:.1e} between real and real ({extractor}{stand_in})"
            lines += [f"{'KID, synthetic to real':34}{metrics[name]:.1e}   {floor}"]
    return "\n".join(lines)
