"""The setting `logger` of the two training steps: TensorBoard sees what the run sees."""

import classifier_data
import generator_data
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mammo.driver import defaults
from mammo.errors import ConfigError
from mammo.steps import train_classifier, train_generator


def event_file(tracked):
    """The event files of a run: metrics as in MemoryRun.history, and all that was read."""
    read = EventAccumulator(str(tracked.uploaded["tensorboard"]))
    read.Reload()
    found = {
        (name, each.step): each.value
        for name in read.Tags()["scalars"]
        for each in read.Scalars(name)
    }
    return found, read


def test_s4_14_tensorboard_holds_metrics_rate_and_samples_of_a_generator(tmp_path):
    data = generator_data.write_data(tmp_path)
    tracked = generator_data.run_on(tmp_path / "run", "data", data.folder)
    settings = {**defaults(train_generator), **generator_data.TINY, "data": "data", "epochs": 2}
    settings |= {"logger": "tensorboard", "sample_every": 1}
    train_generator.check(settings)
    train_generator.run(tracked, **settings)
    found, read = event_file(tracked)
    logged = {(name, step): value for name, value, step in tracked.history}
    assert found == pytest.approx(logged, rel=1e-6)
    assert {name for name, _ in found} >= {"val/loss", "train/loss", "lr"}
    images = {(name, each.step) for name in read.Tags()["images"] for each in read.Images(name)}
    assert images == set(tracked.images) != set()


def test_tensorboard_holds_metrics_and_rate_of_a_classifier(tmp_path):
    tracked = classifier_data.tracked(tmp_path / "run", classifier_data.write(tmp_path))
    classifier_data.train(tracked, logger="tensorboard")
    found, _ = event_file(tracked)
    logged = {(name, step): value for name, value, step in tracked.history if step}
    assert found == pytest.approx(logged, rel=1e-6)
    assert {name for name, _ in found} >= {"val/auc", "val/loss", "lr"}


def test_a_logger_without_its_package_is_refused_before_anything_is_opened(monkeypatch):
    monkeypatch.setattr("mammo.loggers.find_spec", lambda name: None)
    for step in (train_generator, train_classifier):
        settings = {**defaults(step), "data": "data", "logger": "wandb"}
        with pytest.raises(ConfigError, match="needs the package wandb"):
            step.check(settings)
