"""Features of a frozen backbone are computed once for all runs, and never mistaken for others."""

import multiprocessing
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "steps"))

from classifier_data import tracked, train, write
from safetensors.torch import load_file

from mammo.classifiers.backbone import build
from mammo.classifiers.feature_store import FeatureStore
from mammo.classifiers.features import Features, compute

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data"))


@pytest.fixture
def network():
    return build("test_resnet", shape=(1, 32, 32), classes=2, seed=1).eval()


def asked(store, network, data, rows):
    """What the store gives for `rows`, and the rows that it had computed for that."""
    new = []

    def made(rows):
        new.extend(rows.tolist())
        return compute(network, data, rows, CPU).numpy()

    return store.of(network, data, np.asarray(rows, np.int64), CPU, made), new


def test_a_row_has_the_same_bits_alone_and_among_others(network, data):
    rows = np.arange(40)
    whole = compute(network, data, rows, CPU)
    shuffled = np.random.default_rng(0).permutation(40)[:33]
    assert torch.equal(compute(network, data, shuffled, CPU), whole[shuffled])
    assert torch.equal(compute(network, data, rows[7:8], CPU), whole[7:8])


def test_what_another_run_has_computed_is_not_computed_again(tmp_path, network, data):
    first, new = asked(FeatureStore(tmp_path), network, data, range(10))
    assert new == list(range(10))
    again, new = asked(FeatureStore(tmp_path), network, data, [12, 3, 3, 11, 0])
    assert new == [12, 11]
    np.testing.assert_array_equal(again[[1, 2, 4]], first[[3, 3, 0]])
    np.testing.assert_array_equal(again[0], compute(network, data, np.array([12]), CPU)[0])


def test_another_network_or_another_pixel_is_another_name(tmp_path, network, data):
    store = FeatureStore(tmp_path)
    asked(store, network, data, range(4))
    with torch.no_grad():
        network.head.weight += 1  # no feature depends on it
    assert asked(store, network, data, range(4))[1] == []
    with torch.no_grad():
        next(network.body.parameters()).view(-1)[0] += 1e-3
    assert asked(store, network, data, range(4))[1] == [0, 1, 2, 3]
    other = build("test_resnet", shape=(1, 32, 32), classes=2, seed=2).eval()
    assert asked(store, other, data, range(4))[1] == [0, 1, 2, 3]


def test_a_changed_dataset_keeps_what_it_shares(tmp_path, network, data):
    """The images of a fold are black in it, the other fold's as they were."""
    folds = [
        write(tmp_path / name, folds=2, changed=new) for name, new in (("a", {}), ("b", {1: 0}))
    ]
    store = FeatureStore(tmp_path / "features")
    rows = np.arange(len(folds[0]))
    asked(store, network, folds[0], rows)
    black = np.flatnonzero(folds[1].manifest["fold"].to_numpy() == 1)
    assert asked(store, network, folds[1], rows)[1] == [black[-1]]  # alike, they are one image


def test_what_cannot_be_read_or_kept_is_computed(tmp_path, network, data, caplog):
    place = tmp_path / "features"
    expected, _ = asked(FeatureStore(place), network, data, range(3))
    (path,) = place.rglob("*.npy")
    path.write_bytes(path.read_bytes()[:-5])
    found, new = asked(FeatureStore(place), network, data, range(3))
    assert new == [0, 1, 2] and "cannot be read and is left out" in caplog.text
    np.testing.assert_array_equal(found, expected)
    (tmp_path / "full").write_text("")  # stands for a disk that takes nothing
    found, _ = asked(FeatureStore(tmp_path / "full"), network, data, range(3))
    assert "not kept for other runs" in caplog.text
    np.testing.assert_array_equal(found, expected)


def _take(folder, data, start, told):
    torch.set_num_threads(1)
    network = build("test_resnet", shape=(1, 32, 32), classes=2, seed=1).eval()
    start.wait()
    told.put(len(asked(FeatureStore(folder), network, data, range(30))[1]))


@pytest.mark.doors
def test_of_processes_at_once_one_computes(tmp_path, data):
    context = multiprocessing.get_context("spawn")
    start, told = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_take, args=(tmp_path, data, start, told)) for _ in "abc"]
    for each in processes:
        each.start()
    assert sorted(told.get(timeout=120) for _ in processes) == [0, 0, 30]
    for each in processes:
        each.join()


def test_a_second_training_computes_none_and_learns_the_same(tmp_path, data, caplog):
    import timm

    weights = tmp_path / "resnet.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), weights)
    given = {"finetune": "head", "weights": str(weights), "epochs": 1}
    first, second, elsewhere = (tracked(tmp_path / name, data) for name in "abc")
    second.work = first.work
    with caplog.at_level("INFO", "mammo"):
        train(first, **given, lr=0.02)
        assert "images computed" in caplog.text
        caplog.clear()
        train(second, **given, lr=0.01)
        assert "images computed" not in caplog.text
    train(elsewhere, **given, lr=0.01)
    both = (second, elsewhere)
    one, other = (load_file(each.folder / "model" / "weights.safetensors") for each in both)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_no_feature_of_a_test_image_is_computed(tmp_path, network, data):
    """The first call computes all that a fold may ask for, and that is all but the test split."""
    split = data.manifest["split"].to_numpy()
    train_rows = np.flatnonzero(split == "train")
    Features(data, FeatureStore(tmp_path)).of(network, data, train_rows, CPU)
    closed = np.flatnonzero(split == "test")
    assert len(closed) and asked(FeatureStore(tmp_path), network, data, closed)[1] == list(closed)
